"""One node's part of a gang: it has ranks forked, listens to them, ships what they print, and ends them.

A host knows nothing of Ray; `host_actor` wraps it. It decides nothing about the gang either: it tells the coordinator what
happened, in order, and does what it is told. All of it runs on one event loop and nothing here blocks that loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from orchestrator.cluster import memory_watch, network
from orchestrator.cluster.bound import Bound
from orchestrator.cluster.fencing import FENCE_S
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
from orchestrator.cluster.incarnation import RanksSurvive, RunningIncarnation
from orchestrator.cluster.local_dirs import NodeDirs, private_dir, remove_tree
from orchestrator.cluster.log_spool import COORDINATOR_RANK
from orchestrator.cluster.rank_env import (
    Accelerator,
    Place,
    accelerator_of,
    launch_of,
    memory_of,
    rank_env,
    whole_cpus_of,
)
from orchestrator.cluster.rank_output import redact_message
from orchestrator.cluster.stack_dump import dump_stack
from orchestrator.cluster.zygote_client import Exited, RankRefused, RankRequest, ZygoteLost
from orchestrator.core.failure import RankExit
from orchestrator.core.ledger import add
from orchestrator.core.records import LogLine
from orchestrator.core.runs import Inspection
from orchestrator.errors import EvertrainError
from trainers import contract

log = logging.getLogger(__name__)

FIRST_INCARNATION = 1


class NodeServices(Protocol):
    """What the node's keeper does for hosts."""

    async def zygote(self, environment: Mapping[str, object], accelerator: Accelerator) -> str:
        """Path of the socket of the zygote for both, started where need be. Raises StartFailed."""
        ...

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        """CPUs of the node for `owner` alone until `release_cpus`; None when so many are not free."""
        ...

    async def release_cpus(self, owner: str) -> None: ...


@dataclass(frozen=True)
class HostIdentity:
    name: str  # the source of its log lines
    host: str  # the node's name, for people
    ip: str


class Host:
    def __init__(
        self,
        identity: HostIdentity,
        dirs: NodeDirs,
        services: NodeServices,
        *,
        unpack: Callable[[bytes, Path], None],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._identity = identity
        self._dirs = dirs
        self._services = services
        self._unpack = unpack
        self._environ = environ
        self._bound: Bound | None = None
        self._held: Bound | None = None  # whose ranks wait for a slot

    @property
    def bound(self) -> Bind | None:
        return self._bound.bind if self._bound else None

    @property
    def waiting(self) -> Bind | None:
        """Whose ranks wait for a slot here, where all of them live."""
        return self._held.bind if self._held is not None and self._held.lives() else None

    async def bind(self, bind: Bind) -> None:
        """Give the host to an attempt. Raises StartFailed when its code or directories cannot be prepared."""
        assert self._bound is None, "the agent binds only hosts that are free"
        directory = self._dirs.attempt(bind.order.run_id, bind.order.attempt)
        if self._held is not None and self._held.serves(bind):
            await asyncio.to_thread(private_dir, directory)
            self._bound, self._held = self._held, None
            self._bound.enter(bind, directory)
            return
        await self._let_held_go()
        self._bound = await self._new_bound(directory, bind)
        self._bound.keep_lines(directory)

    async def hold(self, bind: Bind, master_addr: str, master_port: int | None) -> int:
        """Fork the ranks of an attempt that has no slot yet: they get ready, and wait before their first step until `start`.

        `master_port` is that of the gang's rendezvous; None: it is served here. Answers it. Raises StartFailed, HostGone;
        then none of them lives. Nothing of it is the attempt's yet, neither time nor files nor lines.
        """
        await self._let_held_go()
        directory = self._dirs.ahead(bind.order.run_id, bind.order.attempt)
        await asyncio.to_thread(remove_tree, directory)  # a host that was killed has left it
        bound = await self._new_bound(directory, bind)
        self._held = bound
        try:
            port = master_port or await self._serve_store(bound, master_addr)
            admitted = (contract.Admitted(bind.order.attempt, FIRST_INCARNATION),)
            bound.start = StartRanks(FIRST_INCARNATION, master_addr, port, admitted, bind.order.furthest_step)
            await self._start(bound, bound.start, bound.make_gate())
        except BaseException:
            await self._let_held_go()
            raise
        return port

    async def _let_held_go(self) -> None:
        """Raises HostGone."""
        held, self._held = self._held, None
        if held is not None:
            await self._clear(held)

    async def _new_bound(self, directory: Path, bind: Bind) -> Bound:
        try:
            code_dir = await asyncio.to_thread(self._prepare, directory, bind)
        except OSError as error:
            raise StartFailed(f"cannot prepare {directory} on {self._identity.host}: {error}") from error
        except EvertrainError as error:
            raise StartFailed(f"cannot unpack the code on {self._identity.host}: {error}", True) from error
        return Bound(bind, directory, code_dir, host=self._identity.host, source=self._identity.name)

    def _prepare(self, directory: Path, bind: Bind) -> Path | None:
        self._dirs.create()
        private_dir(directory)
        if bind.bundle is None or bind.order.bundle is None:
            return None
        code_dir = self._dirs.bundles / bind.order.bundle
        self._unpack(bind.bundle, code_dir)
        private = directory / "code"  # a script may write beside itself: never into the next attempt's copy
        shutil.copytree(code_dir, private, dirs_exist_ok=True)
        return private

    # ---- incarnations ---------------------------------------------------------------------------------------------

    async def start(self, start: StartRanks) -> tuple[int, ...]:
        """Fork this host's ranks, or let those go on that wait, and answer their process ids. May be called again: whoever
        lost the answer must not have a second rank beside each.

        Raises StartFailed; then none of them lives.
        """
        bound = self._need()
        async with bound.starting:
            if bound.start is not None:
                if bound.start == start and start.incarnation > bound.closed_through:
                    return bound.open_gate()
                await self._close_waiting(bound)
            if bound.running is not None and bound.running.number == start.incarnation:
                return bound.pids
            return await self._start(bound, start)

    async def _close_waiting(self, bound: Bound) -> None:
        """The attempt starts otherwise than was thought."""
        bound.start = None
        if bound.running is not None:
            await self._close(bound.running)
            bound.running = None

    async def _start(self, bound: Bound, start: StartRanks, gate: Path | None = None) -> tuple[int, ...]:
        path = await self._zygote(bound)
        if start.incarnation <= bound.closed_through:
            raise StartFailed(f"incarnation {start.incarnation} was called off while it was being started")
        try:
            running = RunningIncarnation(start.incarnation, bound.directory, path)
        except ZygoteLost as error:
            raise StartFailed(f"{self._identity.host} could not start its ranks: {error}") from error
        try:
            await running.listen(bound.accounts, lambda rank, message: self._heard(bound, running, rank, message))
            return await self._fork(bound, running, start, gate)
        except (ZygoteLost, RankRefused, TimeoutError, OSError) as error:
            await self._close(running)
            raise StartFailed(f"{self._identity.host} could not start its ranks: {error}") from error
        except BaseException:
            await self._close(running)
            raise

    async def _close(self, running: RunningIncarnation) -> None:
        """Raises HostGone when ranks live on: this host can be trusted with nothing more."""
        try:
            await running.close()
        except RanksSurvive as error:
            raise HostGone(self._identity.host, str(error), FENCE_S) from error

    async def _fork(
        self, bound: Bound, running: RunningIncarnation, start: StartRanks, gate: Path | None
    ) -> tuple[int, ...]:
        launch = launch_of(
            bound.bind,
            start,
            staging_dir=str(bound.directory / "staging"),
            code_dir=str(bound.code_dir) if bound.code_dir else None,
            socket=str(running.socket_path),
        )
        launch = replace(launch, gate=str(gate) if gate is not None else None)
        launch_path = running.write_launch(launch.to_json())
        cpus = await self._cpus(bound)
        requests = []
        for local_rank, rank in enumerate(bound.bind.ranks):
            output = running.open_output(rank, bound.redact, bound.take_lines(start.incarnation, rank))
            place = Place(
                rank, local_rank, len(bound.bind.ranks), network.interface_of(start.master_addr, self._identity.ip)
            )
            requests.append(
                RankRequest(
                    rank=rank,
                    env=rank_env(self._environ, bound.bind, start, place),
                    cwd=launch.code_dir or str(bound.directory),
                    stdout=output.write_fd,
                    stderr=output.write_fd,
                    launch=str(launch_path),
                    threads=launch.threads,
                    cpus=cpus[local_rank] if cpus else None,
                    seed=launch.seed,
                )
            )
        for account in bound.accounts.values():
            account.begin(time.monotonic_ns())
        forked = await running.fork(requests, lambda exited: self._ended(bound, running, exited))
        for each in forked:
            bound.accounts[each.rank].pid = each.pid
        if start.incarnation <= bound.closed_through:
            raise StartFailed(f"incarnation {start.incarnation} was called off while it was being started")
        bound.running = running
        running.watch()
        running.keep_task(asyncio.create_task(self._hold_to_memory(bound, running)))
        return tuple(each.pid for each in forked)

    async def _zygote(self, bound: Bound) -> str:
        spec = bound.bind.order.spec
        return await self._services.zygote(spec.get("environment") or {}, accelerator_of(spec))

    async def _cpus(self, bound: Bound) -> list[tuple[int, ...]] | None:
        each = whole_cpus_of(bound.bind.order.spec)
        if not each:
            return None
        seized = await self._services.seize_cpus(self._identity.name, each * len(bound.bind.ranks))
        if seized is None:
            return None
        return [seized[at : at + each] for at in range(0, len(seized), each)]

    async def open_store(self, incarnation: int, address: str) -> int:
        """Serve a rendezvous store for that incarnation and answer its port. Raises StartFailed."""
        bound = self._need()
        if bound.start is not None and (bound.start.incarnation, bound.start.master_addr) == (incarnation, address):
            return bound.start.master_port
        return await self._serve_store(bound, address)

    async def _serve_store(self, bound: Bound, address: str) -> int:
        path = await self._zygote(bound)
        try:
            port, lease = await asyncio.to_thread(network.fork_store, path, address, self._environ)
        except (ZygoteLost, RankRefused, TimeoutError, OSError) as error:
            raise StartFailed(f"{self._identity.host} could not serve the rendezvous: {error}") from error
        bound.replace_store(lease)
        return port

    def signal_ranks(self, incarnation: int, number: int, *, stopping: bool) -> None:
        """Signal every rank that lives. `stopping`: on somebody's order, not after a failure."""
        bound = self._need()
        running = bound.running
        if running is None or running.number != incarnation:
            return
        now_ns = time.monotonic_ns()
        for account in bound.accounts.values():
            if account.pid is not None:
                account.ended_by_us = True
                if stopping:
                    account.stop(now_ns)
        bound.stopping = bound.stopping or stopping
        with contextlib.suppress(ZygoteLost):
            running.signal(number)

    async def close_incarnation(self, incarnation: int) -> None:
        """Make certain that no rank of it lives, and take its sockets away. Raises HostGone when one does."""
        bound = self._need()
        bound.closed_through = max(bound.closed_through, incarnation)
        running = bound.running
        if running is None or running.number != incarnation:
            return
        await self._close(running)
        bound.running = None
        now_ns = time.monotonic_ns()
        for account in bound.accounts.values():
            if account.pid is not None:
                account.end(now_ns, stopping=bound.stopping, finished=False)

    async def dump(self, rank: int) -> str:
        """The stack of a rank that hangs, which is also put into its log. Counts the time since its last sign as hung."""
        bound = self._need()
        account = bound.accounts[rank]
        if account.pid is None or bound.running is None:
            return ""
        account.declare_hung(time.monotonic_ns())
        stack = bound.redact(await dump_stack(account.pid))
        bound.take_lines(bound.running.number, rank)(stack.splitlines())
        return stack

    def inspect(self, inspection: Inspection) -> None:
        """Look at those of its ranks that live here. Each is answered by an event, once, however often it is asked."""
        bound = self._need()
        running = bound.running
        for rank in [each for each in inspection.ranks if each in bound.accounts]:
            ask = partial(running.ask, rank) if running else _nobody
            bound.inspector.begin(inspection, bound.accounts[rank], running.number if running else 0, ask)

    # ---- what is to be told ---------------------------------------------------------------------------------------

    async def events(self, after: int, timeout_s: float) -> list[tuple[int, HostEvent]]:
        """Events above `after`; waits for the first. Those up to `after` are forgotten."""
        bound = self._need()
        bound.events.drop_through(after)
        return await bound.events.wait_after(after, timeout_s)

    def snapshot(self) -> HostSnapshot:
        bound = self._need()
        now_ns = time.monotonic_ns()
        return HostSnapshot(
            incarnation=bound.running.number if bound.running else 0,
            ranks=tuple(account.view(now_ns) for account in bound.accounts.values()),
            ledger=add(account.clock.at(now_ns) for account in bound.accounts.values()),
        )

    def say(self, incarnation: int, text: str) -> None:
        """A line of the coordinator's own in the run's log."""
        bound = self._need()
        bound.take_lines(incarnation, COORDINATOR_RANK)([bound.redact(line) for line in text.splitlines()])

    async def log_lines(self, after: int, acknowledged: int, limit: int, timeout_s: float) -> list[LogLine]:
        """Lines above `after`; waits for the first. Those up to `acknowledged` are the server's now."""
        bound = self._need()
        bound.spool.acknowledge(acknowledged)
        lines = bound.spool.after(after, limit)
        if not lines and timeout_s > 0:
            await bound.log_grew(timeout_s)
            lines = bound.spool.after(after, limit)
        return lines

    async def release(self) -> None:
        """Forget the attempt: no process, socket or file of it stays. May be called again. Raises HostGone."""
        await self._let_held_go()
        bound, self._bound = self._bound, None
        if bound is not None:
            await self._clear(bound)
            await asyncio.to_thread(remove_tree, self._dirs.attempt(bound.bind.order.run_id, bound.bind.order.attempt))

    async def _clear(self, bound: Bound) -> None:
        if bound.running is not None:
            await self._close(bound.running)
        bound.close()
        await self._services.release_cpus(self._identity.name)
        await asyncio.to_thread(remove_tree, bound.directory)

    # ---- what happens ---------------------------------------------------------------------------------------------

    def _heard(self, bound: Bound, running: RunningIncarnation, rank: int, message: contract.Message) -> None:
        if bound not in (self._bound, self._held) or rank not in bound.accounts:
            return
        message = redact_message(message, bound.redact)
        if isinstance(message, contract.Profiled):
            bound.inspector.profiled(rank, message)
            return
        if bound.accounts[rank].hear(message, time.monotonic_ns()):
            bound.events.put(Said(running.number, rank, message))

    def _ended(self, bound: Bound, running: RunningIncarnation, exited: Exited) -> None:
        account = bound.accounts[exited.rank]
        account.end(time.monotonic_ns(), stopping=bound.stopping, finished=exited.status == 0)
        memory_watch.remove_shared_memory(exited.pid)
        bound.inspector.ended(exited.rank)
        evidence = account.oom_evidence
        if (
            evidence is None
            and not account.ended_by_us
            and _killed_for_memory(exited, memory_of(bound.bind.order.spec))
        ):
            evidence = f"the kernel's out-of-memory killer ended it at {exited.max_rss_bytes / 2**30:.2f} GiB"
        end = RankExit(
            rank=exited.rank,
            host=self._identity.host,
            code=exited.status,
            signal=exited.signal,
            step=account.step.step if account.step else 0,
            report=account.failed,
            oom_evidence=evidence,
            ended_by_us=account.ended_by_us and evidence is None,
            with_zygote=exited.with_zygote,
        )
        bound.events.put(Ended(running.number, end))

    async def _hold_to_memory(self, bound: Bound, running: RunningIncarnation) -> None:
        """To the memory that each asked for; where they asked for none, to what keeps the node alive."""
        limit_bytes = memory_of(bound.bind.order.spec)
        look = memory_watch.LimitWatch(limit_bytes).over if limit_bytes else memory_watch.over_node
        while True:
            await asyncio.sleep(memory_watch.INTERVAL_S)
            pids = {each.rank: each.pid for each in bound.accounts.values() if each.pid is not None}
            for rank, evidence in (await asyncio.to_thread(look, pids)).items():
                account = bound.accounts[rank]
                if account.pid is None:
                    continue
                account.oom_evidence = evidence
                with contextlib.suppress(ZygoteLost):
                    running.signal(signal.SIGKILL, rank)

    def _need(self) -> Bound:
        if self._bound is None:
            raise StartFailed(f"host {self._identity.name} belongs to no attempt now")
        return self._bound


def _killed_for_memory(exited: Exited, limit_bytes: int) -> bool:
    if exited.signal != signal.SIGKILL or not exited.oom_kills:
        return False
    return memory_watch.explains_kernel_kill(exited.max_rss_bytes, limit_bytes, memory_watch.node_memory())


def _nobody(request: contract.Profile) -> bool:
    return False
