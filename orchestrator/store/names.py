"""What is said where a name or a number is nobody's, or over all projects nobody's in particular."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.errors import NotFound, Refused

_SHOWN = 5


def refuse_ambiguous(name: str, projects: Collection[str], what: str = "run") -> None:
    """Raises Refused when runs, or whatever `what` is, of that name are in several projects."""
    if len(projects) < 2:
        return
    known = sorted(projects)
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    by_id = ", or give the run's id" if what == "run" else ""
    raise Refused(f"several projects have a {what} {name!r} ({shown}): say which by --project{by_id}")


def no_decision(project: str, model: str, number: int) -> NotFound:
    return NotFound(
        f"no decision {number} on {model!r} in project {project!r}: see `evertrain monitor decisions {model}`"
    )
