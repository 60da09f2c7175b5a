"""Preparing data on one node while no gang is placed: a process of the node's zygote for each attempt that asks.

It costs CPU and no worker. Whoever asks may go away: the process goes on, and the next one to ask joins it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.gang_messages import StartFailed
from orchestrator.cluster.incarnation import RanksSurvive, RunningIncarnation
from orchestrator.cluster.local_dirs import NodeDirs, private_dir, remove_tree
from orchestrator.cluster.rank_env import (
    WITHHELD_PREFIXES,
    Accelerator,
    accelerator_of,
    resources_of,
    run_env,
)
from orchestrator.cluster.rank_output import Redactor, redact_message
from orchestrator.cluster.zygote_client import Exited, RankRefused, RankRequest, ZygoteLost
from orchestrator.core.failure import RankExit, preparation_ended, preparation_not_started
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Failure, NodeShare
from trainers import contract

log = logging.getLogger(__name__)

PROCESS = "trainers.data.ahead:run"
YOUNG_S = 30.0  # an attempt may have begun since the agent made its list
_RANK = 0
_TAIL_LINES = 50

Key = tuple[str, int]  # run, attempt
FindZygote = Callable[[Mapping[str, object], Accelerator], Awaitable[str]]


@dataclass(frozen=True)
class PreparationReport:
    """What a preparation last said. `version` grows with each word; `ended` once there is no more to come."""

    version: int
    doing: contract.Preparing | None
    ended: contract.Prepared | Failure | None


@dataclass(frozen=True)
class RayShare:
    """What of the Ray cluster the run's Ray Data job may use: `trainers.data.ray_job.Share`."""

    node_id: str | None
    cpus: float
    at_once: int

    @classmethod
    def of(cls, order: AttemptOrder, share: NodeShare) -> RayShare | None:
        """As many CPUs as its gang was promised, of all nodes where they share a directory; None where there are none."""
        cpu = float(resources_of(order.spec).get("cpu", 1) or 0)
        everywhere = bool((order.spec.get("data") or {}).get("prepared"))
        ranks = sum(each.ranks for each in order.shares) if everywhere else share.ranks
        if not cpu:
            return None
        each = min(1.0, cpu * ranks)
        return cls(None if everywhere else share.node_id, each, max(1, int(cpu * ranks / each)))


class Preparations:
    """Those of one node. `ray_env` is what a process needs to join the cluster."""

    def __init__(self, dirs: NodeDirs, node_id: str, zygote: FindZygote, ray_env: Mapping[str, str]) -> None:
        self._dirs, self._node_id, self._zygote, self._ray_env = dirs, node_id, zygote, ray_env
        self._running: dict[Key, _Preparation] = {}

    async def report(self, order: AttemptOrder, after: int, timeout_s: float) -> PreparationReport:
        """Begin the attempt's preparation, or join it; waits for a word above `after`."""
        key = (order.run_id, order.attempt)
        if key not in self._running:
            share = next(each for each in order.shares if each.node_id == self._node_id)
            self._running[key] = _Preparation(order, share, self._dirs.attempt(*key), self._zygote, self._ray_env)
        return await self._running[key].report(after, timeout_s)

    async def forget(self, key: Key) -> None:
        """End the attempt's preparation, where there is one. What is prepared stays."""
        preparation = self._running.pop(key, None)
        if preparation is not None:
            await preparation.close()

    async def sweep(self, attempts: Collection[Key]) -> None:
        """End those of attempts that nobody wants any more."""
        youngest_s = time.monotonic() - YOUNG_S
        for key, preparation in list(self._running.items()):
            if key not in attempts and preparation.began_s < youngest_s:
                await self.forget(key)


class _Preparation:
    def __init__(
        self, order: AttemptOrder, share: NodeShare, directory: Path, zygote: FindZygote, ray_env: Mapping[str, str]
    ) -> None:
        self.began_s = time.monotonic()
        self._order, self._share, self._directory = order, share, directory
        self._zygote, self._ray_env = zygote, ray_env
        self._redact = Redactor(tuple(order.secrets.values()))
        self._said = PreparationReport(0, None, None)
        self._failed: contract.Failed | None = None
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._prepared: contract.Prepared | None = None
        self._changed = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def report(self, after: int, timeout_s: float) -> PreparationReport:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._said.version <= after and self._said.ended is None:
                    await self._changed.wait()
        return self._said

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            ended = await self._prepare()
        except StartFailed as error:
            ended = preparation_not_started(self._share.host, str(error), error.final)
        except (ZygoteLost, RankRefused, TimeoutError, OSError) as error:
            ended = preparation_not_started(self._share.host, str(error), False)
        except Exception as error:  # else whoever waits for it would wait for ever
            log.exception("preparing data of %s/%d failed", self._order.run_id, self._order.attempt)
            ended = preparation_not_started(self._share.host, repr(error), False)
        self._say(self._said.doing, ended)

    async def _prepare(self) -> contract.Prepared | Failure:
        spec = self._order.spec
        path = await self._zygote(spec.get("environment") or {}, accelerator_of(spec))
        private_dir(self._directory)
        running = RunningIncarnation(_RANK, self._directory, path)
        ended: asyncio.Future[Exited] = asyncio.get_running_loop().create_future()
        try:
            await running.listen((_RANK,), self._heard)
            output = running.open_output(_RANK, self._redact, self._printed)
            await running.fork([self._request(running, output.write_fd)], ended.set_result)
            running.watch()
            return self._outcome(await ended)
        finally:
            try:
                await running.close()
            except RanksSurvive as error:  # it holds no worker, and its lock on the data until it ends
                log.error("%s: %s", self._share.host, error)
            await asyncio.to_thread(remove_tree, self._directory)

    def _request(self, running: RunningIncarnation, output: int) -> RankRequest:
        order = self._order
        share = RayShare.of(order, self._share) if self._is_of_the_clusters_python else None
        base = {name: value for name, value in os.environ.items() if not name.startswith(WITHHELD_PREFIXES)}
        handed = run_env(order)
        # Of its zygote it takes what is imported, and never a GPU: there may be none for it yet.
        ours = {**self._ray_env, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        return RankRequest(
            rank=_RANK,
            env={**base, **handed, **ours},
            cwd=str(self._directory),
            stdout=output,
            stderr=output,
            call=PROCESS,
            args=(str(running.socket_path), order.spec["data"], share and asdict(share), sorted(handed)),
        )

    @property
    def _is_of_the_clusters_python(self) -> bool:
        """Ray's workers must be of the same Python and packages as a driver."""
        environment: Mapping[str, Any] = self._order.spec.get("environment") or {}
        return not environment.get("python") and not environment.get("requirements")

    def _heard(self, rank: int, message: contract.Message) -> None:
        match redact_message(message, self._redact):
            case contract.Preparing() as doing:
                self._say(doing, None)
            case contract.Prepared() as prepared:
                self._prepared = prepared
            case contract.Failed() as failed:
                self._failed = failed
            case _:
                pass

    def _printed(self, lines: Sequence[str]) -> None:
        self._tail.extend(lines)
        for line in lines:
            log.info("preparing data of %s/%d: %s", self._order.run_id, self._order.attempt, line)

    def _last_words(self, code: int) -> contract.Failed | None:
        """The process's own account, or what it printed where it could give none."""
        if self._failed is not None or not self._tail or not code:
            return self._failed
        return contract.Failed(code, self._tail[-1], traceback="\n".join(self._tail))

    def _outcome(self, exited: Exited) -> contract.Prepared | Failure:
        if exited.status == 0 and self._prepared is not None:
            return self._prepared
        killed_for_memory = exited.signal == signal.SIGKILL and exited.oom_kills
        end = RankExit(
            rank=_RANK,
            host=self._share.host,
            code=exited.status,
            signal=exited.signal,
            report=self._last_words(exited.status or 0),
            vanished="it exited with 0 and told nothing" if exited.status == 0 else None,
            oom_evidence=f"the kernel ended it at {exited.max_rss_bytes / 2**30:.2f} GiB"
            if killed_for_memory
            else None,
            with_zygote=exited.with_zygote,
        )
        return preparation_ended(end)

    def _say(self, doing: contract.Preparing | None, ended: contract.Prepared | Failure | None) -> None:
        self._said = PreparationReport(self._said.version + 1, doing, ended)
        self._changed.set()
        self._changed = asyncio.Event()
