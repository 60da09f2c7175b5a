"""One worker as its host knows it: where its time goes, what it said last, how it ended. No I/O; times are passed in."""

from __future__ import annotations

from orchestrator.cluster.gang_messages import RankView
from orchestrator.core.ledger import TimeClass, WorkerClock
from trainers import contract


class RankAccount:
    """Lives as long as the attempt; `begin` is a new incarnation. Times are this host's monotonic clock in ns."""

    def __init__(self, rank: int, since_ns: int) -> None:
        self.rank = rank
        self.clock = WorkerClock(TimeClass.STARTING, since_ns)
        self.pid: int | None = None
        self.ended_by_us = False
        self.oom_evidence: str | None = None
        self.failed: contract.Failed | None = None
        self.step: contract.Step | None = None
        self._greeted = False
        self._phase: contract.Phase = "starting"
        self._last_sign_ns = since_ns
        self._stepping = False

    def enter(self, since_ns: int, now_ns: int) -> None:
        """The attempt has a slot: the time before `since_ns`, in which its rank got ready, was nobody's."""
        self.clock = WorkerClock(TimeClass.STARTING, since_ns)
        self._last_sign_ns = now_ns

    def begin(self, now_ns: int) -> None:
        """Before the fork: a rank may have spoken and failed before its host knows its process id."""
        self.clock = self.clock.switch(TimeClass.STARTING, now_ns)
        self.pid, self.ended_by_us, self.oom_evidence, self.failed, self.step = None, False, None, None, None
        self._greeted, self._stepping, self._phase, self._last_sign_ns = False, False, "starting", now_ns

    def hear(self, message: contract.Message, now_ns: int) -> bool:
        """Take a message; True when the coordinator must hear it, and not only see it in the snapshot."""
        self._last_sign_ns = now_ns
        match message:
            case contract.Hello():
                self._greeted = True
            case contract.PhaseChanged(phase=phase, at_ns=at_ns) if phase != self._phase:  # else only a sign of life
                self._phase = phase
                self.clock = self.clock.switch(TimeClass(phase), min(at_ns, now_ns))
            case contract.Step():
                first, self.step, self._stepping = not self._stepping, message, True
                return first
            case contract.Failed():
                self.failed = message
            case _:
                pass
        return not isinstance(message, contract.PhaseChanged)

    def end(self, now_ns: int, *, stopping: bool, finished: bool) -> None:
        """The process is gone. Until another one lives, the worker waits for the next start, the end, or its peers."""
        left = TimeClass.STOPPING if stopping else TimeClass.IDLE if finished else TimeClass.STARTING
        self.clock = self.clock.switch(left, now_ns)
        self.pid = None

    def stop(self, now_ns: int) -> None:
        """Somebody ordered the end: from now on the time goes into stopping, unless the rank says otherwise."""
        self.clock = self.clock.switch(TimeClass.STOPPING, now_ns)

    def declare_hung(self, now_ns: int) -> None:
        self.clock = self.clock.declare_hung(self._last_sign_ns, now_ns)

    def view(self, now_ns: int) -> RankView:
        return RankView(
            rank=self.rank,
            alive=self.pid is not None,
            greeted=self._greeted,
            phase=self._phase,
            silent_s=max(0, now_ns - self._last_sign_ns) / 1e9,
            stepping=self._stepping,
            step=self.step,
        )
