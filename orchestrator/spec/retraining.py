"""What a run file says of retraining: the policy of its `monitor:` section, and the run file of a retraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from orchestrator.core import recall
from orchestrator.core.cron import parse_cron
from orchestrator.core.prospects import Proof, held_out_share
from orchestrator.core.retraining import Cause, Mode, Policy, QuietHours
from orchestrator.errors import InvalidSpec
from orchestrator.spec import PROOF
from orchestrator.spec.monitor import Monitor, Retrain
from orchestrator.spec.problems import problems_of
from orchestrator.spec.search import without_searches

_CAUSES = {
    "drift": Cause.DRIFT,
    "performance": Cause.PERFORMANCE,
    "alert": Cause.ALERT,
    "cron": Cause.SCHEDULE,
    "rows": Cause.DATA_VOLUME,
}
_SEVERITIES = {"minor": 1, "moderate": 2, "major": 3}
_KEPT_OF_INIT = ("freeze", "groups")  # how weights learn, whatever they began as


def policy_of(settings: Mapping[str, Any]) -> Policy:
    """Of a monitor's settings, as `dump` wrote them. One without `retrain` lets a person retrain, and nothing else. Raises
    InvalidSpec for what this version cannot read.
    """
    retrain = _section(settings).retrain
    if retrain is None:
        return Policy(causes=frozenset())
    by_kind = {each.kind: each for each in retrain.triggers}
    drift, cron, rows = by_kind.get("drift"), by_kind.get("cron"), by_kind.get("rows")
    cost = retrain.budget.cost
    return Policy(
        causes=frozenset(_CAUSES[kind] for kind in by_kind),
        mode=Mode(retrain.mode.replace("-", "_")),
        cooldown_s=retrain.cooldown or 0.0,
        least_severity=_SEVERITIES[drift.drift] if drift is not None and drift.drift is not None else 1,
        least_new_rows=retrain.minimum_rows,
        monthly_runs=retrain.budget.runs,
        monthly_cost=cost.amount if cost is not None else None,
        quiet=tuple(_quiet(each) for each in retrain.quiet_hours),
        schedule=parse_cron(cron.cron) if cron is not None and cron.cron is not None else None,
        volume_rows=rows.rows if rows is not None else None,
        utc_offset_s=retrain.utc_offset * 3600.0,
    )


def alerts_of(settings: Mapping[str, Any]) -> frozenset[str]:
    """Names of the alerts that a monitor retrains for. Raises InvalidSpec."""
    retrain = _section(settings).retrain
    return frozenset(each.alert for each in retrain.triggers if each.alert is not None) if retrain else frozenset()


def newest_rows_of(settings: Mapping[str, Any]) -> int | None:
    """How many rows a retraining learns from at most; None: from all. Raises InvalidSpec."""
    retrain = _section(settings).retrain
    return retrain.newest_rows if retrain is not None else None


def recall_of(settings: Mapping[str, Any]) -> recall.Policy | None:
    """How a monitor lets versions that stand by serve again; None: not at all. Raises InvalidSpec."""
    retrain = _section(settings).retrain
    asked = retrain.recall if retrain is not None else None
    return recall.Policy(asked.versions, asked.rows, asked.confidence) if asked is not None else None


def label_of(document: Mapping[str, Any], profile: Mapping[str, Any]) -> str:
    """The column that the run file, or else its data as they turned out, has as the label; "label" where neither says."""
    named = (document.get("data") or {}).get("label") or (profile.get("label") or {}).get("name")
    return str(named or "label")


def columns_of(profile: Mapping[str, Any]) -> list[str]:
    """The model's columns in its own order, by which their weights know them; none where its profile does not say."""
    return list(profile.get("columns") or (profile.get("sample") or {}).get("columns") or ())


def estimates_number(profile: Mapping[str, Any]) -> bool:
    """Whether the model's label is a number, not a class, by what its profile says of either."""
    return "deviation" in (profile.get("label") or {}) and not profile.get("predictions")


def of_images(profile: Mapping[str, Any]) -> bool:
    """Whether the model learned from images, by what its profile says of them."""
    return bool(profile.get("looks"))


def proof_of(document: Mapping[str, Any], profile: Mapping[str, Any]) -> Proof | None:
    """What a retraining of the run file, as `dump` wrote it, would be proven on against the version of the profile. None
    where the rows are held out by the user's own code. Raises InvalidSpec.
    """
    data, promote = document.get("data") or {}, _section(document.get("monitor") or {}).promote
    share = held_out_share(data.get("split") or (1, 0, 0))
    if not document.get("recipe") or not share:
        return None
    stratified = (data.get("split_by") or {}).get("stratify") is not None
    classes = len((profile.get("label") or {}).get("values") or ())
    own = (profile.get("predictions") or {}).get("rows") if promote.reference_loss is not None else None
    return Proof(promote.minimum, share, max(1, classes) if stratified else 1, own)


def retraining_document(
    document: Mapping[str, Any], settings: Mapping[str, Any], *, source: str, label: str, champion: str
) -> dict[str, Any]:
    """The run file of a retraining: that of the monitored run, as `dump` wrote it, on other data.

    `source`: the snapshot, whose label stands in column `label`. `champion`: NAME@VERSION to begin with, or "". The file's
    own search is left out: it was for the first model, and its result stands in no run file; that of `monitor.retrain` makes
    the retraining a sweep. What splits rows by a column that live traffic does not have (`split_by`) is left to the label or
    to the rows' hashes. Raises InvalidSpec.
    """
    retrain = _section(settings).retrain or Retrain()
    changed = {key: value for key, value in document.items() if key not in ("search", PROOF)}
    if retrain.search is not None:
        changed["search"] = retrain.search.model_dump(mode="json")
    data = dict(document.get("data") or {})
    stratified = (data.get("split_by") or {}).get("stratify")
    changed["data"] = {
        **data,
        "source": source,
        "label": label,
        "split_by": {"stratify": label} if stratified is not None else None,
    }
    if retrain.start == "warm" and champion:
        earlier = document.get("init_from") or {}
        changed["init_from"] = {"model": champion, **{key: earlier[key] for key in _KEPT_OF_INIT if earlier.get(key)}}
    if retrain.priority is not None:
        changed["priority"] = retrain.priority
    return changed


def measuring_document(trial: Mapping[str, Any], *, name: str, checkpoint: str, step: int) -> dict[str, Any]:
    """The run file that measures a trial which was ended early, from its best checkpoint on and not one step further: so that
    it leaves what a whole trial leaves for its version, the profile and the comparison with the champion.
    """
    train = {**(trial.get("train") or {}), "steps": step}
    return {
        **without_searches(trial),
        "name": name,
        "train": train,
        "init_from": {"checkpoint": checkpoint, "resume": True},
    }


def trials_of(settings: Mapping[str, Any]) -> int:
    """Runs that one retraining takes, at most. Raises InvalidSpec."""
    retrain = _section(settings).retrain
    return retrain.search.wanted if retrain is not None and retrain.search is not None else 1


def _section(settings: Mapping[str, Any]) -> Monitor:
    try:
        return Monitor.model_validate(settings)
    except ValidationError as error:
        found = problems_of(error, Monitor, settings)
        raise InvalidSpec([replace(each, path=f"monitor.{each.path}") for each in found]) from None


def _quiet(text: str) -> QuietHours:
    begin, _, end = text.partition("-")
    return QuietHours(_minute(begin), _minute(end))


def _minute(text: str) -> int:
    hour, _, minute = text.partition(":")
    return int(hour) * 60 + int(minute)
