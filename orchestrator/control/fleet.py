"""The agents that are attached now: what each should make true, and what each says.

Lives on the event loop; everything that touches the store runs in a thread. One session a cluster: the newest agent wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from orchestrator import spec
from orchestrator.control.best_trial import with_its_facts
from orchestrator.control.board import LOOK_AHEAD, Board
from orchestrator.control.clusters import Clusters, NewerAgent
from orchestrator.control.runs import RunRecords
from orchestrator.core import lifecycle, money
from orchestrator.core.money import NO_PRICES, Prices
from orchestrator.core.observations import Observation, Progress
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import Reason, ReasonCode, Run
from orchestrator.core.scheduling.admission import Admit
from orchestrator.core.scheduling.demand import FOR_ROOM, Workers, demand
from orchestrator.core.scheduling.fit import GangShape, Node
from orchestrator.errors import InvalidSpec, NotFound
from orchestrator.ports import Clock, Store, Wakeups
from orchestrator.spec import RunSpec
from orchestrator.spec.quantities import Cost

log = logging.getLogger(__name__)

DESIRED_EVERY_S = 5.0  # the whole desired state again, whether or not somebody woke us
ALIVE_FOR_S = 15.0  # how long a word of progress counts as a sign of life
SPECS_KEPT = 1000  # run files that need not be understood again with the next order

Heard = Callable[[Run, Observation], None]


class Fleet:
    def __init__(
        self,
        *,
        store: Store,
        records: RunRecords,
        board: Board,
        clusters: Clusters,
        wakeups: Wakeups,
        clock: Clock,
        storage: str,
        prices: Prices = NO_PRICES,
        heard: Heard | None = None,
        progressed: Callable[[Progress], None] | None = None,
        driver_token: Callable[[Run], str] = lambda run: "",
        told_ranks: int = 0,
    ) -> None:
        """`driver_token` answers what a sweep's driver speaks to the server with. `told_ranks`: so many of each gang are told
        of one by one.
        """
        self.store, self.records, self.board, self.clusters = store, records, board, clusters
        self.wakeups, self.clock, self.storage = wakeups, clock, storage
        self.prices = prices
        self.heard, self.progressed = heard, progressed
        self.driver_token, self.told_ranks = driver_token, told_ranks
        self._sessions: dict[str, Session] = {}
        self._progress: dict[str, tuple[Progress, int]] = {}
        self._specs: dict[str, RunSpec] = {}
        self._parsing = threading.Lock()
        board.when_ended(self._retire)

    async def attach(
        self,
        cluster: str,
        project: str,
        epoch: int,
        ray_version: str,
        living: Sequence[tuple[str, int]],
        *,
        autoscaling: bool = False,
    ) -> Session:
        """The newest agent of a cluster takes over from an older one. Raises NewerAgent, Refused."""
        await asyncio.to_thread(self.clusters.attach, cluster, project, epoch, ray_version, autoscaling=autoscaling)
        old = self._sessions.get(cluster)
        if old is not None and old.epoch > epoch:  # it attached while this one was being recorded
            raise NewerAgent(cluster, old.epoch)
        if old is not None:
            old.supersede(NewerAgent(cluster, epoch))
        session = Session(self, cluster, epoch)
        self._sessions[cluster] = session
        log.info("cluster %s attached, epoch %d, %d living attempts", cluster, epoch, len(living))
        self.wakeups.notify("runs")
        return session

    def connected(self, cluster: str) -> bool:
        return cluster in self._sessions

    def progress(self, run_id: str) -> Progress | None:
        """Where the run's current attempt stood when it was last heard of."""
        kept = self._progress.get(run_id)
        return kept[0] if kept else None

    def liveness(self, run: Run) -> str:
        """alive: heard of lately. unknown: placed, but its agent is away or silent. dead: nothing of it runs."""
        attempt = run.attempt
        if attempt is None:
            return "dead" if run.terminal else "unknown"
        if not self.connected(attempt.cluster):
            return "unknown"
        kept = self._progress.get(run.id)
        if kept is None or kept[0].attempt != attempt.number:
            return "unknown"
        return "alive" if self.clock.monotonic_ns() - kept[1] <= ALIVE_FOR_S * 1e9 else "unknown"

    def take_progress(self, progress: Progress) -> None:
        """Of an attempt that lives; a late word would be kept for ever."""
        if not self._lives(progress):
            return
        self._progress[progress.run_id] = (progress, self.clock.monotonic_ns())
        if not self._lives(progress):  # its end was written by another thread just before this was kept
            self._retire(progress.run_id)
            return
        self.wakeups.notify(f"run:{progress.run_id}")
        if self.progressed is not None:
            self.progressed(progress)

    def _lives(self, progress: Progress) -> bool:
        holding = self.board.holding(progress.run_id)
        return holding is not None and holding.attempt == progress.attempt

    def forget(self, session: Session) -> None:
        if self._sessions.get(session.cluster) is session:
            del self._sessions[session.cluster]
            log.warning("cluster %s: its agent is away; its attempts go on, their liveness is unknown", session.cluster)
            self.wakeups.notify("runs")

    def _retire(self, run_id: str) -> None:
        """The run has ended: nothing of it is kept in memory."""
        self._progress.pop(run_id, None)

    def orders(self, cluster: str) -> tuple[AttemptOrder, ...]:
        """What the cluster should make true, and what may get ready there. Blocks."""
        ahead = self._orders_ahead(cluster)  # first: what is placed meanwhile is in one of the two
        placed = self._orders_placed(cluster)
        keys = {(each.run_id, each.attempt) for each in placed}
        return (*placed, *(each for each in ahead if (each.run_id, each.attempt) not in keys))

    def _orders_placed(self, cluster: str) -> list[AttemptOrder]:
        found: list[AttemptOrder] = []
        for holding in self.board.holdings(cluster):
            try:
                order = self._order(self.store.run(holding.project, holding.run_id))
            except NotFound:
                continue
            except InvalidSpec as error:
                words = f"the run file cannot be read any more: {error}. Submit it again, corrected"
                self.records.abandon(holding.project, holding.run_id, words, self.clock.now())
                continue
            if order is not None:
                found.append(order)
        return found

    def _orders_ahead(self, cluster: str) -> list[AttemptOrder]:
        found: list[AttemptOrder] = []
        for project, place in self.board.ahead(cluster):
            with contextlib.suppress(NotFound, InvalidSpec):  # whoever places it says so
                order = self._order_ahead(self.store.run(project, place.run_id), place)
                if order is not None:
                    found.append(order)
        return found

    def _order_ahead(self, run: Run, place: Admit) -> AttemptOrder | None:
        """Of the attempt that a queued run will get there; None where it is queued no more, or will not be the first."""
        placed = lifecycle.place(run, place.cluster, place.shares, self.clock.now())
        if run.attempts or isinstance(placed, lifecycle.Ignored):
            return None
        order = self._order(placed.run)
        return order and replace(order, ahead=True)

    def demand(self, cluster: str) -> tuple[Workers, ...]:
        """What the cluster would have to have for all that trains there or waits for room there."""
        held = [each.shape for each in self.board.holdings(cluster)]
        known = next((each for each in self.clusters.all() if each.name == cluster), None)
        if known is None or known.draining:
            return demand(held)
        waiting = [each for each in self.board.queue(LOOK_AHEAD) if known.project in ("*", each.project)]
        return demand([*held, *(each.shape for each in waiting if each.waits_for in FOR_ROOM)])

    def _order(self, run: Run) -> AttemptOrder | None:
        parsed = self._parsed(run)
        secrets = self.store.secrets(run.project, parsed.secrets) if parsed.secrets else {}
        gone = sorted(set(parsed.secrets) - set(secrets))
        if gone and run.attempt is not None and not run.attempt.placed and run.stop is None:
            self._end_without_secrets(run, run.attempt.number, gone)
            return None
        remaining_s, why = self._limit(run, parsed)
        root = (parsed.storage or self.storage).rstrip("/")
        order = lifecycle.order(
            run,
            checkpoint_root=f"{root}/{run.project}/{run.id}/checkpoints",
            budgets=spec.budgets(parsed),
            secrets=secrets,
            remaining_s=remaining_s,
        )
        sealed_before = len(run.attempts) > 1 and bool(self.store.checkpoints(run.id, limit=1))
        token = self.driver_token(run) if run.kind == "sweep" else ""
        return order and replace(
            order,
            deadline_message=why,
            sealed_before=sealed_before,
            driver_token=token,
            told_ranks=self.told_ranks,
        )

    def _parsed(self, run: Run) -> RunSpec:
        """A run's file never changes, and orders are made anew with everything that happens."""
        with self._parsing:
            parsed = self._specs.pop(run.id, None) or spec.load(run.spec)
            self._specs[run.id] = parsed  # the last one asked for is the last one to go
            if len(self._specs) > SPECS_KEPT:
                del self._specs[next(iter(self._specs))]
        return parsed

    def _end_without_secrets(self, run: Run, attempt: int, gone: Sequence[str]) -> None:
        """Ranks that lack a credential fail in ways that name anything but the secret. A gang that was placed has it."""
        which = f"secret {gone[0]} is gone" if len(gone) == 1 else f"secrets {', '.join(gone)} are gone"
        words = f"{which}: deleted after the run was submitted. `evertrain secret put {gone[0]}`, then submit it again"
        reason = Reason(ReasonCode.NOT_RETRIABLE, words)

        def think(now: Run) -> lifecycle.Transition | lifecycle.Ignored:
            if now.attempt is None or now.attempt.number != attempt or now.attempt.placed:
                return lifecycle.Ignored("it has been placed, or has ended, meanwhile")
            return lifecycle.abandon(now, reason, self.clock.now())

        self.records.change(run.project, run.id, think)

    def _limit(self, run: Run, parsed: RunSpec) -> tuple[float | None, str]:
        """How long the attempt may go on, of its start or of now, and what it is told at the end of that."""
        limits: list[tuple[float, str]] = []
        if parsed.max_duration is not None:
            passed_s, _ = self.board.passed_s(run.id)
            limits.append((max(0.0, parsed.max_duration - passed_s), "max_duration has passed"))
        if parsed.max_cost is not None:
            limits.append(self._affordable(run, spec.gang_shape(parsed), parsed.max_cost))
        return min(limits, default=(None, ""))

    def _affordable(self, run: Run, shape: GangShape, limit: Cost) -> tuple[float, str]:
        if (why := money.cannot_hold(shape, limit.currency, self.prices)) is not None:  # the prices changed since
            return 0.0, f"max_cost cannot be held: {why}"
        used_s = money.paid_s(each.ledger for each in run.attempts)
        if run.attempt is not None:
            _, passed_s = self.board.passed_s(run.id)
            used_s += passed_s * shape.workers
        left_s = money.affordable_s(limit.amount, shape, self.prices, used_s)
        return left_s, f"max_cost of {limit.amount:g} {limit.currency} is used up"


class Session:
    """One attached agent."""

    def __init__(self, fleet: Fleet, cluster: str, epoch: int) -> None:
        self._fleet, self.cluster, self.epoch = fleet, cluster, epoch
        self.superseded: NewerAgent | None = None
        self._closed = asyncio.Event()

    async def inventory(self, nodes: tuple[Node, ...]) -> None:
        """Also the agent's heartbeat."""
        changed = await asyncio.to_thread(self._fleet.clusters.inventory, self.cluster, nodes)
        log.debug("cluster %s has %d nodes", changed.name, len(changed.nodes))
        self._fleet.wakeups.notify("runs")

    async def observe(self, observations: Sequence[Observation]) -> None:
        """Durable when it returns. What may not change anything is logged with its reason, and is done with as well."""
        await asyncio.to_thread(self._observe, observations)

    def progress(self, progress: Progress) -> None:
        self._fleet.take_progress(progress)

    async def desired(self) -> AsyncIterator[tuple[AttemptOrder, ...]]:
        """The whole desired state: at once, on every change, and every few seconds. Ends when superseded or closed."""
        last: tuple[AttemptOrder, ...] | None = None
        async for _ in self._fleet.wakeups.wait("runs", DESIRED_EVERY_S):
            if self._closed.is_set():
                return
            orders = await asyncio.to_thread(self._fleet.orders, self.cluster)
            if (news := _timeless(orders)) != last:
                last = news
                yield orders

    async def demand(self) -> AsyncIterator[tuple[Workers, ...]]:
        """The whole demand: at once, and on every change. Ends when superseded or closed."""
        last: tuple[Workers, ...] | None = None
        async for _ in self._fleet.wakeups.wait("runs", DESIRED_EVERY_S):
            if self._closed.is_set():
                return
            if (now := self._fleet.demand(self.cluster)) != last:
                last = now
                yield now

    async def give_up(self, order: AttemptOrder, why: str) -> None:
        """End a run whose order the wire cannot carry. The other orders go on."""
        words = f"the order of attempt {order.attempt} cannot be sent to cluster {self.cluster}: {why}"
        fleet = self._fleet
        await asyncio.to_thread(fleet.records.abandon, order.project, order.run_id, words, fleet.clock.now())

    def supersede(self, by: NewerAgent) -> None:
        self.superseded = by
        self._closed.set()
        self._fleet.wakeups.notify("runs")

    async def close(self) -> None:
        self._closed.set()
        self._fleet.forget(self)

    def _observe(self, observations: Sequence[Observation]) -> None:
        for observation in observations:
            try:
                self._apply(observation)
            except NotFound:
                log.warning("cluster %s speaks of run %s, which is not known", self.cluster, observation.run_id)

    def _apply(self, observation: Observation) -> None:
        fleet = self._fleet
        observation = with_its_facts(fleet.store, observation)
        observation = lifecycle.with_last_account(observation, fleet.progress(observation.run_id))
        applied = False

        def think(run: Run) -> lifecycle.Transition | lifecycle.Ignored:
            nonlocal applied
            thought = lifecycle.observe(
                run, observation, budgets=spec.budgets(spec.load(run.spec)), now=fleet.clock.now()
            )
            applied = isinstance(thought, lifecycle.Transition)
            if isinstance(thought, lifecycle.Ignored):
                log.info("run %s: %s ignored: %s", run.id, observation.what.kind, thought.why)
            return thought

        run = fleet.records.change("*", observation.run_id, think)
        if applied and fleet.heard is not None:
            fleet.heard(run, observation)


def _timeless(orders: tuple[AttemptOrder, ...]) -> tuple[AttemptOrder, ...]:
    """The orders without their order, and what changes by itself as time goes on."""
    return tuple(replace(each, remaining_s=None) for each in sorted(orders, key=lambda each: each.run_id))
