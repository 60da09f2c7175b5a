"""Log lines from clusters into the log store: whose they are, how many, and when they are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from orchestrator.api.log_gate import LogGate
from orchestrator.api.parts import Parts, parse
from orchestrator.core.records import LogLine
from orchestrator.errors import NotFound, Refused
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

_RUNS_KNOWN = 10_000


class LogIntake:
    """Shared by all streams: a run's rate holds however many sources it has."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        settings = parts.settings
        self._gate = LogGate(
            line_bytes=settings.log_line_bytes,
            rate_bytes_per_s=settings.log_rate_bytes_per_s,
            burst_bytes=settings.log_burst_bytes,
        )
        self._projects: dict[str, str] = {}

    async def keep(self, batch: pb.LogBatch, project: str) -> list[pb.LogAck]:
        """Make a batch durable; one ack for each source in it. Lines of runs that the agent may not speak for are dropped.

        They are acknowledged all the same: sent again they would be no more welcome.
        """
        parts = self._parts
        lines = [parse(each, LogLine) for each in batch.lines]
        mine = [line for line in lines if await self._belongs(line.run_id, project)]
        kept = self._gate.admit(mine, parts.clock.monotonic_ns() / 1e9)
        if kept:
            await parts.blocking(parts.logs.append, kept)
            for run_id in {line.run_id for line in kept}:
                parts.wakeups.notify(f"logs:{run_id}")
        return self._acks(lines)

    def _acks(self, lines: Iterable[LogLine]) -> list[pb.LogAck]:
        last: dict[tuple[str, int, str], int] = {}
        for line in lines:
            key = (line.run_id, line.attempt, line.source)
            last[key] = max(line.seq, last.get(key, 0))
        credit = self._parts.settings.log_credit
        acks = [pb.LogAck(run_id=r, attempt=a, source=s, seq=seq, credit=credit) for (r, a, s), seq in last.items()]
        return acks or [pb.LogAck(credit=credit)]

    async def _belongs(self, run_id: str, project: str) -> bool:
        if run_id not in self._projects:
            try:
                run = await self._parts.blocking(self._parts.store.run, "*", run_id)
            except (NotFound, Refused):  # Refused: a name of several runs, which is no id either
                log.warning("log lines of run %s dropped: there is no such run", run_id)
                return False
            if len(self._projects) >= _RUNS_KNOWN:
                self._projects.clear()
            if run.id == run_id:  # and not a name
                self._projects[run_id] = run.project
        if project in ("*", self._projects.get(run_id)):
            return True
        log.warning("log lines of run %s dropped: it is not of project %s", run_id, project)
        return False
