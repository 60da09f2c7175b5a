"""What programs may rely on. A change here is a change of the API: say so in the changelog."""

from __future__ import annotations

import inspect

import orchestrator
from orchestrator import Client, Observer

PUBLIC = {
    "close": "()",
    "submit": "(run, *, overrides, idempotency_key, project)",
    "submit_batch": "(runs, *, idempotency_keys, project)",
    "plan": "(run, *, overrides, project)",
    "get": "(run, *, project)",
    "sweep": "(sweep, *, project)",
    "sweeps": "(*, project)",
    "stop_sweep": "(sweep, *, reason, project)",
    "list": "(*, states, name_prefix, queue, kind, sweep, without_trials, project, page_size)",
    "watch": "(run, *, after_event, project)",
    "wait": "(run, *, project)",
    "cancel": "(run, *, reason, project)",
    "pause": "(run, *, reason, project)",
    "resume": "(run, *, project)",
    "stacks": "(run, *, ranks, project)",
    "profile": "(run, *, ranks, steps, within_s, project)",
    "logs": "(run, *, rank, attempt, since_at, tail, follow, project)",
    "events": "(run, *, after, project)",
    "checkpoints": "(run, *, project)",
    "models": "(name, *, project)",
    "model": "(name, version, *, project)",
    "set_alias": "(name, version, alias, *, project)",
    "facts": "(name, version, *, project)",
    "put_fact": "(name, version, fact, value, *, project)",
    "monitors": "(*, project)",
    "monitor": "(model, *, project)",
    "judgements": "(model, *, project)",
    "pause_monitor": "(model, *, reason, project)",
    "resume_monitor": "(model, *, project)",
    "promote": "(name, version, *, alias, reason, anyway, project)",
    "roll_back": "(name, reason, *, alias, expected, project)",
    "alias_history": "(name, *, alias, project)",
    "compare": "(name, challenger, champion, *, project)",
    "lineage": "(name, version, *, project)",
    "observe": "(model, columns, *, source, seq, version, project)",
    "decisions": "(model, *, project)",
    "retrain": "(model, *, reason, idempotency_key, project)",
    "approve": "(model, number, *, project)",
    "reject": "(model, number, *, reason, project)",
    "clusters": "(*, project)",
    "drain": "(cluster, *, evict, undo)",
    "tokens": "(*, project)",
    "create_token": "(name, role, *, project, expires_s)",
    "revoke_token": "(token_id, *, project)",
    "secrets": "(*, project)",
    "put_secret": "(name, value, *, project)",
    "delete_secret": "(name, *, project)",
}


def shape(function: object) -> str:
    parameters = list(inspect.signature(function).parameters.values())  # type: ignore[arg-type]
    names = []
    for each in parameters[1:]:
        if each.kind is each.KEYWORD_ONLY and "*" not in names:
            names.append("*")
        names.append(each.name)
    return f"({', '.join(names)})"


OBSERVER = {
    "record": "(features, *, prediction, confidence, label, request, at)",
    "record_many": "(features, *, predictions, confidences, labels, requests, at)",
    "label": "(request, label)",
    "flush": "(timeout_s)",
    "close": "(timeout_s)",
}


def test_the_package_exports_the_client_and_the_observer_only() -> None:
    assert orchestrator.__all__ == ["Client", "Observer"]


def test_the_client_has_these_methods_with_these_parameters() -> None:
    methods = {name: value for name, value in vars(Client).items() if not name.startswith("_")}
    assert {name: shape(value) for name, value in methods.items()} == PUBLIC


def test_the_observer_has_these_methods_with_these_parameters() -> None:
    methods = {name: value for name, value in vars(Observer).items() if not name.startswith("_") and callable(value)}
    assert {name: shape(value) for name, value in methods.items()} == OBSERVER
    assert all(each.__doc__ for each in methods.values())


def test_every_public_method_says_what_it_does_or_says_it_by_name() -> None:
    plain = {"close", "clusters", "tokens", "revoke_token", "put_secret", "delete_secret"}
    assert {name for name in PUBLIC if not getattr(Client, name).__doc__} <= plain
