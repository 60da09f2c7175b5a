"""`launcher: ray_train`: Ray Train places the ranks and starts them; the gang's coordinator leads them as it does ours.

To the coordinator they are one host. An incarnation is one `fit()`, in a driver process of its own (`ray_train_driver`)
whose workers run the same `trainers/train.py`. Ray Train itself restarts nothing: which failure was the cause, and whether
there is another start out of which budget, is judged where it is for every gang. Told more coarsely than of our own ranks:
all output is one source without rank numbers, `start_timeout` counts what Ray Train takes to start as well, how a rank that
said nothing died is not seen, and a stop kills without a last checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.cluster.feed import Feed
from orchestrator.cluster.fencing import FENCE_S
from orchestrator.cluster.gang import limits_of
from orchestrator.cluster.gang_messages import (
    Bind,
    Ended,
    HostEvent,
    HostGone,
    HostSnapshot,
    Said,
    StartFailed,
    StartRanks,
)
from orchestrator.cluster.host import Host
from orchestrator.cluster.inspecting import Inspector
from orchestrator.cluster.rank_account import RankAccount
from orchestrator.cluster.rank_env import accelerator_env, launch_of, memory_of, resources_of, run_env
from orchestrator.cluster.rank_output import LineSplitter, RateLimit, Redactor, redact_message
from orchestrator.cluster.stack_dump import dump_stack
from orchestrator.core.failure import RankExit
from orchestrator.core.ledger import add
from orchestrator.core.runs import Inspection
from trainers import contract

log = logging.getLogger(__name__)

LAUNCHER = "ray_train"
DRIVER = (sys.executable, "-m", "orchestrator.cluster.ray_train_driver")
WIND_DOWN_S = 30.0  # how long Ray Train may take to end after every rank has finished
MISSED_S = 10.0  # within which Ray has ended the workers of a driver that was killed; 1 s was measured
_READ_BYTES = 256 * 1024
_TAIL_LINES = 20
_NO_PORT = 0  # Ray Train serves the rendezvous


@dataclass
class _Fit:
    """One incarnation."""

    start: StartRanks
    process: asyncio.subprocess.Process
    pids: dict[int, int] = field(default_factory=dict)  # by rank, of those that have begun
    hosts: dict[int, str] = field(default_factory=dict)
    local: set[int] = field(default_factory=set)  # ranks on the leader's node
    left: set[int] = field(default_factory=set)  # ranks that have told their end
    late: list[RankExit] = field(default_factory=list)  # of lost peers: told when Ray Train may have named the cause
    vanished: dict[int, str] = field(default_factory=dict)  # rank: what Ray Train says of it
    failed: bool = False  # a rank's end, or its word, explains that Ray Train ended
    stopping: bool = False
    tail: list[str] = field(default_factory=list)
    begun: asyncio.Event = field(default_factory=asyncio.Event)  # all ranks, or it has ended
    watching: asyncio.Task[None] | None = None


class RayTrainRanks:
    """All ranks of an attempt, as a `GangHost`. `leader` is the name of the actor in which it and `host` live."""

    def __init__(self, bind: Bind, host: Host, *, leader: str, gcs_address: str) -> None:
        self._bind, self._host = bind, host
        self._leader, self._gcs_address = leader, gcs_address
        self._share = bind.order.shares[bind.index]
        self._redact = Redactor(tuple(bind.order.secrets.values()))
        now_ns = time.monotonic_ns() - int(bind.started_before_s * 1e9)
        self._accounts = {rank: RankAccount(rank, now_ns) for rank in range(bind.world_size)}
        self._events: Feed[HostEvent] = Feed()
        self._inspector = Inspector(self._share.host, self._redact, self._take_lines, self._events.put)
        self._fit: _Fit | None = None

    @property
    def host(self) -> str:
        return self._share.host

    @property
    def ip(self) -> str:
        return self._share.ip

    @property
    def bundle(self) -> bytes | None:
        return self._bind.bundle

    # ---- for the coordinator --------------------------------------------------------------------------------------

    async def open_store(self, incarnation: int, address: str) -> int:
        return _NO_PORT

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        """Returns once every rank has begun, or one of them failed; a rank that did not begin has 0 for a process id."""
        for account in self._accounts.values():
            account.begin(time.monotonic_ns())
        process = await asyncio.create_subprocess_exec(
            *(*DRIVER, str(os.getpid())),
            env=self._driver_env(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        fit = self._fit = _Fit(start, process)
        fit.watching = asyncio.create_task(self._watch(fit))
        within_s = limits_of(self._bind.order).start_s
        try:
            async with asyncio.timeout(within_s):
                await fit.begun.wait()
        except TimeoutError:
            raise StartFailed(
                f"Ray Train has begun {len(fit.pids)} of {len(self._accounts)} ranks within {within_s:g} s "
                f"(start_timeout){_last_words(fit)}"
            ) from None
        if len(fit.pids) < len(self._accounts) and not fit.failed:
            raise StartFailed(
                f"Ray Train ended with exit code {process.returncode} before every rank had begun{_last_words(fit)}"
            )
        return tuple(fit.pids.get(rank, 0) for rank in self._accounts)

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        self._events.drop_through(after)
        return await self._events.wait_after(after, timeout_s)

    async def snapshot(self) -> HostSnapshot:
        now_ns = time.monotonic_ns()
        return HostSnapshot(
            incarnation=self._fit.start.incarnation if self._fit else 0,
            ranks=tuple(account.view(now_ns) for account in self._accounts.values()),
            ledger=add(account.clock.at(now_ns) for account in self._accounts.values()),
        )

    async def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None:
        """There is no way to signal the ranks: they end with their driver, whatever the signal."""
        if self._fit is None or self._fit.start.incarnation != incarnation:
            return
        self._fit.stopping = self._fit.stopping or stopping
        for account in self._accounts.values():
            if stopping and account.pid is not None:
                account.stop(time.monotonic_ns())
        self.kill()

    async def close_incarnation(self, incarnation: int) -> None:
        """Make certain that no rank of it trains. Raises HostGone when one does."""
        fit = self._fit
        if fit is None or fit.start.incarnation != incarnation:
            return
        assert fit.watching is not None
        if not fit.failed and not fit.stopping and len(fit.left) == len(self._accounts):
            await asyncio.wait({fit.watching}, timeout=WIND_DOWN_S)
        fit.stopping = True
        self.kill()
        await fit.watching
        self._fit = None
        await self._see_gone(fit)

    async def dump(self, rank: int) -> str:
        """The stack of a rank that hangs, where it is on this node. Counts the time since its last sign as hung."""
        account, fit = self._accounts[rank], self._fit
        if account.pid is None or fit is None:
            return ""
        account.declare_hung(time.monotonic_ns())
        if rank not in fit.local:
            return ""
        stack = self._redact(await dump_stack(account.pid))
        self._host.say(fit.start.incarnation, stack)
        return stack

    async def inspect(self, inspection: Inspection) -> None:
        """Read the stacks of those ranks that are on this node."""
        fit = self._fit
        for rank in [each for each in inspection.ranks if each in self._accounts]:
            if fit is not None and rank in fit.pids and rank not in fit.local:
                self._inspector.refuse(inspection, rank, "Ray Train put it on another node, where nobody of ours is")
            else:
                number = fit.start.incarnation if fit is not None else 0
                self._inspector.begin(inspection, self._accounts[rank], number, lambda request: False)

    def kill(self) -> None:
        """End the driver at once; Ray ends the workers of a driver that is gone."""
        if self._fit is not None and self._fit.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._fit.process.pid, signal.SIGKILL)

    # ---- for the workers and the driver ---------------------------------------------------------------------------

    def join(
        self, incarnation: int, rank: int, pid: int, node_id: str, staging_dir: str, socket: str, code_dir: str | None
    ) -> tuple[str, dict[str, str]]:
        """A rank begins; answers its launch document, and the run's environment with its secrets: those are for ranks
        alone, and Ray Train keeps its own settings where everybody can read them. Raises RuntimeError when it must not.
        """
        fit = self._present(incarnation)
        if fit is None or rank in fit.pids:
            raise RuntimeError(
                f"rank {rank} of incarnation {incarnation} must not start: it has been called off, or runs"
            )
        hosts = {share.node_id: share.host for share in self._bind.order.shares}
        fit.pids[rank], fit.hosts[rank] = pid, hosts.get(node_id, node_id)
        if node_id == self._share.node_id:
            fit.local.add(rank)
        self._accounts[rank].begin(time.monotonic_ns())
        self._accounts[rank].pid = pid
        if len(fit.pids) == len(self._accounts):
            fit.begun.set()
        launch = launch_of(self._bind, fit.start, staging_dir=staging_dir, code_dir=code_dir, socket=socket)
        return launch.to_json(), run_env(self._bind.order)

    def said(self, incarnation: int, rank: int, line: bytes) -> None:
        """A message of a rank. Raises ValueError for what is none."""
        if self._present(incarnation) is None:
            return
        message = redact_message(contract.decode(line), self._redact)
        now_ns = time.monotonic_ns()
        if isinstance(message, contract.PhaseChanged):
            message = replace(message, at_ns=now_ns)  # its host's clock is not ours
        if self._accounts[rank].hear(message, now_ns):
            self._events.put(Said(incarnation, rank, message))

    def left(self, incarnation: int, rank: int, code: int) -> None:
        """A rank has lived to its end. A lost peer's end waits for Ray Train's, which may name the rank that was lost."""
        fit = self._present(incarnation)
        if fit is None or rank in fit.left:
            return
        fit.left.add(rank)
        fit.failed = fit.failed or code != 0
        told = self._end(fit, rank, code=code)
        if code == contract.ExitCode.LOST_PEER or (told.report is not None and told.report.secondary):
            fit.late.append(told)
        else:
            self._events.put(Ended(incarnation, told))

    def over_memory(self, incarnation: int, rank: int, evidence: str) -> None:
        """A rank has used more than it may, and is about to end itself for it."""
        fit = self._present(incarnation)
        if fit is not None and rank not in fit.left:
            fit.left.add(rank)
            fit.failed = True
            self._events.put(
                Ended(incarnation, self._end(fit, rank, signal=int(signal.SIGKILL), oom_evidence=evidence))
            )

    def failed(self, incarnation: int, why: Mapping[int, str]) -> None:
        """Ray Train gives up and says why, by rank."""
        fit = self._present(incarnation)
        if fit is not None:
            fit.vanished = {rank: self._redact(words) for rank, words in why.items() if rank in self._accounts}

    def _present(self, incarnation: int) -> _Fit | None:
        """None once it has been called off: what is late changes nothing."""
        fit = self._fit
        return fit if fit is not None and fit.start.incarnation == incarnation and not fit.stopping else None

    # ---- the driver -----------------------------------------------------------------------------------------------

    async def _watch(self, fit: _Fit) -> None:
        """From the driver's job to the end of every rank. Never raises: nobody else would tell their ends."""
        process = fit.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with contextlib.suppress(ConnectionError):  # it has ended already: its exit code says so
                process.stdin.write(json.dumps(self._job(fit.start)).encode() + b"\n")
                await process.stdin.drain()
            await self._read(fit, process.stdout)
        except Exception as error:
            log.exception("following Ray Train's driver failed")
            fit.tail.append(f"following it failed: {type(error).__name__}: {error}")
            self.kill()
        self._driver_ended(fit, await process.wait())

    async def _read(self, fit: _Fit, output: asyncio.StreamReader) -> None:
        """All that it prints: a driver whose output nobody takes would wait for ever."""
        splitter, limit = LineSplitter(self._redact), RateLimit(time.monotonic())
        while data := await output.read(_READ_BYTES):
            self._say(fit, limit.admit(splitter.feed(data), time.monotonic()))
        self._say(fit, [*limit.admit(splitter.rest(), time.monotonic()), *limit.flush()])

    def _take_lines(self, incarnation: int, rank: int) -> Callable[[Sequence[str]], None]:
        return lambda lines: self._host.say(incarnation, "\n".join(lines))

    def _say(self, fit: _Fit, lines: Sequence[str]) -> None:
        fit.tail = [*fit.tail, *lines][-_TAIL_LINES:]
        for line in lines:
            self._host.say(fit.start.incarnation, line)

    def _driver_ended(self, fit: _Fit, code: int) -> None:
        """Tell the end of every rank that has not told it itself: causes first, what only followed after them."""
        fit.failed = fit.failed or bool(fit.vanished)
        exits = []
        for rank in [each for each in self._accounts if each not in fit.left]:
            vanished = fit.vanished.get(rank)
            if vanished is None and not fit.failed and fit.pids:
                vanished = f"Ray Train ended with exit code {code}{_last_words(fit)}"
            if vanished is None or fit.stopping:
                exits.append(self._end(fit, rank, signal=int(signal.SIGKILL), ended_by_us=True))
            else:
                exits.append(self._end(fit, rank, vanished=vanished))
        exits.sort(key=lambda each: each.ended_by_us)
        for each in (*exits, *fit.late):
            self._events.put(Ended(fit.start.incarnation, each))
        fit.begun.set()

    def _end(self, fit: _Fit, rank: int, **how: Any) -> RankExit:
        account = self._accounts[rank]
        account.end(time.monotonic_ns(), stopping=fit.stopping, finished=how.get("code") == 0)
        step = account.step.step if account.step else 0
        return RankExit(rank, fit.hosts.get(rank, self.host), step=step, report=account.failed, **how)

    async def _see_gone(self, fit: _Fit) -> None:
        """Ranks that did not tell their end: here they are seen to go, elsewhere Ray is given the time to end them.

        A driver that ends by itself has had its workers ended before.
        """
        deadline = time.monotonic() + MISSED_S
        trained = {rank: pid for rank, pid in fit.pids.items() if rank not in fit.left}
        here = {rank: pid for rank, pid in trained.items() if rank in fit.local}
        for pid in here.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        away = set(trained) - set(here) if (fit.process.returncode or 0) < 0 else set()
        while time.monotonic() < deadline and (away or any(_lives(pid) for pid in here.values())):
            await asyncio.sleep(0.05)
        survivors = [rank for rank, pid in here.items() if _lives(pid)]
        if survivors:
            who = ", ".join(str(rank) for rank in survivors)
            raise HostGone(self.host, f"rank {who} did not end within {MISSED_S:g} s of SIGKILL", FENCE_S)

    def _driver_env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        kept.update({name: value for name, value in os.environ.items() if name.startswith("RAY_AUTH_")})
        return {**kept, "RAY_ADDRESS": self._gcs_address, "PYTHONUNBUFFERED": "1"}

    def _job(self, start: StartRanks) -> Mapping[str, Any]:
        order = self._bind.order
        resources = resources_of(order.spec)
        return {
            "leader": self._leader,
            "incarnation": start.incarnation,
            "name": f"{order.run_id}-{order.attempt}-{start.incarnation}",
            "storage": f"{order.checkpoint_root.rstrip('/')}/ray_train",
            "workers": self._bind.world_size,
            "resources": {
                "CPU": resources.get("cpu", 1),
                "GPU": resources.get("gpu") or 0,
                "memory": resources.get("memory") or 0,
            },
            "memory_limit": memory_of(order.spec),
            "accelerator": resources.get("accelerator"),
            "placement": "SPREAD" if resources.get("placement") == "spread" else "PACK",
            "bundle": order.bundle is not None,
            "accelerator_env": accelerator_env(order.spec),
        }


def uses_ray_train(spec: Mapping[str, Any]) -> bool:
    return spec.get("launcher") == LAUNCHER


def _last_words(fit: _Fit) -> str:
    return f"; the last that it said: {fit.tail[-1]}" if fit.tail else ""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
