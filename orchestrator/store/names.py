"""Names are a project's own: over all projects a name may be nobody's in particular."""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.errors import Refused

_SHOWN = 5


def refuse_ambiguous(name: str, projects: Collection[str], what: str = "run") -> None:
    """Raises Refused when runs, or whatever `what` is, of that name are in several projects."""
    if len(projects) < 2:
        return
    known = sorted(projects)
    shown = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    by_id = ", or give the run's id" if what == "run" else ""
    raise Refused(f"several projects have a {what} {name!r} ({shown}): say which by --project{by_id}")
