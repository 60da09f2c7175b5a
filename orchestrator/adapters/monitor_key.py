"""What a monitor's observations are kept under."""

from __future__ import annotations

import re

from orchestrator.errors import Refused

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def monitor_key(project: str, model: str) -> tuple[str, str]:
    """Both as they are, once they are found to be names: they become directories. Raises Refused."""
    for what, name in (("project", project), ("model", model)):
        if not _NAME.fullmatch(name):
            raise Refused(f"{name[:80]!r} is not the name of a {what}")
    return project, model
