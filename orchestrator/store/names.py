"""What is said where a name or a number is nobody's, or over all projects nobody's in particular."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.errors import Refused

_SHOWN = 5


def refuse_ambiguous(name: str, projects: Collection[str]) -> None:
    """Raises Refused when runs of that name are in several projects."""
    if len(projects) < 2:
        return
    known = sorted(projects)
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    raise Refused(f"several projects have a run {name!r} ({shown}): say which by --project, or give the run's id")


def no_decision(project: str, model: str, number: int) -> NotFound:
    return NotFound(f"no decision {number} on {model!r} in project {project!r}: see `evertrain monitor decisions {model}`")
