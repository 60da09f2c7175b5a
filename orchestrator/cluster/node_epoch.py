"""The newest agent that a node has heard of: in a file, so that a keeper or host that starts later knows of it as well.

Without it a host that an older agent starts after its successor has looked around would obey the older one.
"""

from __future__ import annotations

import logging
from pathlib import Path

from orchestrator.cluster.gang_messages import Superseded

log = logging.getLogger(__name__)


class NodeEpoch:
    """One file a node; keepers write it, hosts read it as well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._heard = 0

    @property
    def newest(self) -> int:
        """0 before the first agent."""
        try:
            self._heard = max(self._heard, int(self._path.read_text()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("%s does not tell the node's agent: %s", self._path, error)
        return self._heard

    def insist_on(self, epoch: int, what: str) -> None:
        """Raises Superseded when a newer agent is known, which owns `what` now."""
        if epoch < self.newest:
            raise Superseded(f"agent {epoch} is older than agent {self._heard}, which owns {what} now")

    def remember(self, epoch: int) -> None:
        """A node whose disk is full must be served all the same: then only this process remembers."""
        if epoch <= self.newest:
            return
        self._heard = epoch
        written = self._path.with_suffix(".new")
        try:
            written.write_text(str(epoch))
            written.replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
