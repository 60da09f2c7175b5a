"""What a model version came from, and that from what."""

from __future__ import annotations

from typing import Any

from orchestrator.core import snapshots
from orchestrator.core.records import Ancestor, ModelVersion
from orchestrator.core.runs import Run
from orchestrator.ports import Store
from orchestrator.spec import PROOF

_MOST = 100


def ancestry(store: Store, version: ModelVersion) -> list[Ancestor]:
    """The version first, then the one whose weights it began with, and so on, at most `_MOST` of them. Blocks."""
    found: list[Ancestor] = []
    following: ModelVersion | None = version
    while following is not None and len(found) < _MOST:
        run = store.run(following.project, following.run_id)
        facts = store.facts(following.project, following.name, following.version)
        found.append(_ancestor(following, run, snapshots.told((facts.get("retraining") or {}).get("data") or {})))
        following = _begun_with(store, run)
    return found


def _ancestor(version: ModelVersion, run: Run, gone: str) -> Ancestor:
    init, data, proof = (_section(run, name) for name in ("init_from", "data", PROOF))
    return Ancestor(
        version=version,
        run=run.name,
        submitted_by=run.submitted_by,
        submitted_at=run.submitted_at,
        data=str(data.get("source") or "") + (f" ({gone})" if gone else ""),
        weights=next((str(init[key]) for key in ("model", "checkpoint", "file") if init.get(key)), ""),
        champion=int(proof.get("champion") or 0),
    )


def _begun_with(store: Store, run: Run) -> ModelVersion | None:
    """An alias may have moved since: the checkpoint is what was begun with."""
    init = _section(run, "init_from")
    if not init.get("model"):
        return None
    name = str(init["model"]).partition("@")[0]
    return next((each for each in store.models(run.project, name) if each.checkpoint == init.get("checkpoint")), None)


def _section(run: Run, name: str) -> dict[str, Any]:
    return dict(run.spec.get(name) or {})
