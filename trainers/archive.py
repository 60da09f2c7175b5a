"""Rank 0's side of the checkpoints: what there is, who owns it, what is committed, what goes."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Mapping

from trainers.contract import (
    FENCE_NAME,
    MANIFEST_NAME,
    Admitted,
    Choice,
    Launch,
    Listed,
    Manifest,
    attempt_dir,
    choose,
    found,
    incarnation_dir,
    retire,
)
from trainers.errors import Fenced, StorageError
from trainers.storage import Storage

_log = logging.getLogger(__name__)


class Archive:
    """Not collective: one rank calls it. Every method raises StorageError unless it says otherwise.

    `alive` is called for each checkpoint that was looked at or removed.
    """

    def __init__(self, storage: Storage, launch: Launch, keep: int, alive: Callable[[], None]) -> None:
        self._storage = storage
        self._launch = launch
        self._keep = keep
        self._alive = alive
        self._ours = Admitted(launch.attempt, launch.incarnation)
        self._known: dict[str, Listed] = {}

    def open(self) -> None:
        """Take the checkpoints over from older attempts, and see what there is. Raises Fenced, too.

        Raises StorageError when something was sealed and nothing of it is here: a disk that is not mounted lists as
        empty, and to start from nothing would throw the work away.
        """
        self._hold_fence()
        for directory in {name for each in (*self._launch.admitted, self._ours) for name in self._directories(each)}:
            for name in self._storage.names(directory):
                listed = self.find(f"{directory}/{name}")
                if listed is not None:
                    self._known[listed.checkpoint] = listed
        sealed_step = self._launch.sealed_step
        if sealed_step is not None and all(each.unsealed for each in self._known.values()):
            what = f"step {sealed_step} was sealed" if sealed_step else "earlier attempts sealed checkpoints"
            raise StorageError(
                f"{what}, but there is no checkpoint in {self._launch.checkpoint_root} any more: see that the file "
                "system is mounted on this host and that no rule deletes from the bucket. To start from nothing, submit "
                "the run again"
            )

    def _directories(self, admitted: Admitted) -> list[str]:
        if admitted.incarnation:
            return [incarnation_dir(admitted.attempt, admitted.incarnation)]
        whole = attempt_dir(admitted.attempt)
        return [f"{whole}/{name}" for name in self._storage.names(whole)]

    def choose(self, verdicts: Mapping[str, str | None]) -> Choice:
        """The newest that verifies, or the next to be verified."""
        return choose(self._known.values(), verdicts)

    def settle(self, skipped: Mapping[str, str | None]) -> None:
        """What was skipped is no business of retention, and out of the way of our own steps.

        An incarnation finds seals of its own only where it is restarted under its number, as torchrun does.
        """
        for path, listed in list(self._known.items()):
            if skipped.get(path) is not None or (listed.problem is not None and not listed.unsealed):
                del self._known[path]
                if Admitted(listed.attempt, listed.incarnation) == self._ours:
                    self._storage.remove(path, first=MANIFEST_NAME)

    def find(self, path: str) -> Listed | None:
        """What is at `path` now; None when that is not a checkpoint's path."""
        listed = found(path, self._storage.read_text(f"{path}/{MANIFEST_NAME}"))
        self._alive()
        return listed

    def seal(self, path: str, manifest: Manifest, problems: list[str]) -> None:
        """Commit, or undo what every rank has written by now and tell why. Raises Fenced, too."""
        try:
            if problems:
                raise StorageError(f"the checkpoint of step {manifest.step} is not sealed: {'; '.join(problems)}")
            self._hold_fence()
            self._storage.write_text(f"{path}/{MANIFEST_NAME}", manifest.to_json())
        except (StorageError, Fenced):
            with contextlib.suppress(StorageError):
                self._storage.remove(path, first=MANIFEST_NAME)
            raise
        self._known[path] = Listed(path, manifest.attempt, manifest.incarnation, manifest.step, manifest)

    def prune(self) -> None:
        """What retention gives up goes, manifest first. A failure costs space, not the run: nothing is raised."""
        for drop in retire(self._known.values(), keep=self._keep, current=self._ours):
            try:
                self._storage.remove(drop.listed.checkpoint, first=MANIFEST_NAME)
                del self._known[drop.listed.checkpoint]
                self._alive()
            except StorageError as error:
                _log.warning("a checkpoint that was to go (%s) stays: %s", drop.why, error)

    def _hold_fence(self) -> None:
        """Raise the fence to our attempt, unless it is higher already, which raises Fenced."""
        highest = 0
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a fence that nobody can read holds nobody back
            highest = int(json.loads(self._storage.read_text(FENCE_NAME) or "{}")["attempt"])
        if highest > self._launch.attempt:
            raise Fenced(
                f"attempt {highest} owns the checkpoints in {self._launch.checkpoint_root}: "
                f"attempt {self._launch.attempt} neither writes nor resumes any more"
            )
        if highest < self._launch.attempt:
            self._storage.write_text(FENCE_NAME, json.dumps({"attempt": self._launch.attempt}))
