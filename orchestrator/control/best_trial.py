"""What the best trial of a sweep left for its model version goes to the sweep's, which is the one that is registered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.core.observations import AttemptEnded, Observation
from orchestrator.core.runs import Succeeded
from orchestrator.errors import NotFound
from orchestrator.ports import Store

PAGE = 1000


def with_its_facts(store: Store, observation: Observation) -> Observation:
    """The end of a sweep with the facts of the trial that it names as its best; everything else as it is. What the trial's
    end proves, it proves of the weights of that end: a population's best may be those of an earlier generation.
    """
    what = observation.what
    named = what.facts.get("sweep") if isinstance(what, AttemptEnded) else None
    if not isinstance(what, AttemptEnded) or not isinstance(named, Mapping):
        return observation
    checkpoint = what.result.checkpoint if what.result is not None else None
    kept = _facts(store, str(named.get("run")), of=observation.run_id, checkpoint=checkpoint)
    return replace(observation, what=replace(what, facts={**kept, **what.facts}))


def _facts(store: Store, run_id: str, *, of: str, checkpoint: str | None) -> dict[str, Any]:
    try:
        run = store.run("*", run_id)
    except NotFound:
        return {}
    if run.lineage is None or run.lineage.sweep != of:
        return {}
    found: dict[str, Any] = {}
    after = 0
    while events := store.events(run.id, after=after, limit=PAGE):
        after = events[-1].seq
        for each in events:
            found |= each.data if each.kind == "facts" else {}
    if not isinstance(run.state, Succeeded) or run.state.result.checkpoint != checkpoint:
        found.pop("proof", None)
    return found
