"""The agent of one Ray cluster: it makes true what the server wants there, and tells the server what is.

    python -m orchestrator.cluster.agent --server HOST:PORT --token-file PATH --cluster NAME --ray-address ADDR

It connects to a Ray that runs already and dials out to the server. Killing it costs nothing: the gangs go on, and the next
agent, whose epoch is higher, finds them by name.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from orchestrator.cluster.actors import NAMESPACE, HostState, call, insist, short
from orchestrator.cluster.attendant import Attendant, Surroundings
from orchestrator.cluster.attending import Attending
from orchestrator.cluster.epochs import OlderEpoch, highest_epoch, next_epoch
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.leftovers import Leftovers
from orchestrator.cluster.local_dirs import default_root
from orchestrator.cluster.log_shipping import LogShipper
from orchestrator.cluster.placing import Placer
from orchestrator.cluster.pool import Pool
from orchestrator.cluster.preparing import Preparer
from orchestrator.cluster.ray_cluster import FoundGang, Gang, RayCluster, Shape
from orchestrator.cluster.search_attendant import SearchAttendant
from orchestrator.cluster.standby import Standby
from orchestrator.cluster.sweeping import CALL_S, Living, Sweeper
from orchestrator.cluster.uplink import Uplink
from orchestrator.core.observations import Observation
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare
from orchestrator.core.scheduling.demand import Workers
from orchestrator.errors import EvertrainError, Refused
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb

log = logging.getLogger(__name__)

INVENTORY_EVERY_S = 5.0
SWEEP_EVERY_S = 60.0
EXIT_SUPERSEDED = 3  # a newer agent serves the cluster: whoever supervises this one should not start it again


class Agent:
    def __init__(self, options: argparse.Namespace, token: str, epoch: int) -> None:
        self._name = options.cluster
        self._epoch = epoch
        self._cluster = RayCluster(options.local_dir)
        self._pool = Pool(self._cluster, options.pool_ttl)
        self._line = Uplink(
            options.server,
            token,
            ca_cert=options.ca_cert,
            hello=self._hello,
            welcomed=self._unacknowledged,
            desired=self._take_orders,
            acknowledged=self._acknowledge,
            demanded=self._take_demand,
        )
        shipper = LogShipper(self._line.stub, self._line.metadata)
        self._around = Surroundings(
            epoch=epoch,
            cluster=self._cluster,
            pool=self._pool,
            preparer=Preparer(self._cluster, self._pool, epoch),
            placer=Placer(self._cluster, self._pool, epoch, self._line.bundle),
            line=self._line,
            shipper=shipper,
            leftovers=Leftovers(self._cluster, shipper, epoch),
        )
        self._standby = Standby(self._pool, self._around.placer, self._starting)
        self._adoptable: dict[tuple[str, int], tuple[FoundGang, tuple[NodeShare, ...]]] = {}
        self._attendants: dict[tuple[str, int], Attending] = {}
        self._server, self._ca_cert = options.server, options.ca_cert
        self._dismissals: set[asyncio.Task[None]] = set()
        self._leaving: set[tuple[str, int]] = set()  # dismissed, and not cleared up yet
        self._unsure: dict[str, FoundGang] = {}  # that do not answer and are not known to be dead
        self._orders: tuple[AttemptOrder, ...] = ()
        self._pool_ttl_s = options.pool_ttl
        self._autoscaling, self._demand = options.autoscaling, tuple[Workers, ...]()
        self._heard_orders = False
        self._suspects: frozenset[tuple[str, int]] = frozenset()  # attempts that may live in a gang that is unsure
        self._sweeper = Sweeper(self._cluster, self._around.leftovers, epoch, self._living)
        self._refused: asyncio.Queue[Superseded] = asyncio.Queue()  # what runs beside the loops has been told

    async def run(self) -> None:
        """Serve until cancelled. Raises Refused when the server or a newer agent wants this one no more."""
        await self._claim_nodes()
        await self._find_living()
        try:
            async with asyncio.TaskGroup() as group:
                for work in (
                    self._line.run(),
                    self._around.shipper.run(),
                    self._keep_claims(),
                    self._keep_inventory(),
                    self._keep_clean(),
                    self._heed_refusals(),
                ):
                    group.create_task(work)
                if self._autoscaling:
                    group.create_task(self._let_nodes_rest())
        except* Refused as refusals:
            raise refusals.exceptions[0] from None
        finally:
            for attendant in self._attendants.values():
                await attendant.leave()
            await self._standby.close()
            await self._line.close()

    # ---- what is there --------------------------------------------------------------------------------------------

    async def _claim_nodes(self) -> None:
        """Tell every node's keeper who the agent is: one that Ray has started again has never heard it. Raises Refused."""
        nodes = await self._cluster.living_node_ids() - self._cluster.resting
        await asyncio.gather(*(self._claim(node_id) for node_id in nodes))

    async def _claim(self, node_id: str) -> None:
        try:
            keeper = await self._cluster.keeper(node_id)
            await call(keeper.claim.remote(self._epoch), CALL_S)
        except (RayError, OSError) as error:  # a TimeoutError is an OSError
            log.warning("the keeper of node %s does not answer: %s", node_id, short(error))
            self._cluster.forget_keeper(node_id)

    async def _find_living(self) -> None:
        """Adopt the gangs that lead an attempt; remove those that idle, or of whose hosts one is dead.

        One that does not answer may live: it is asked on, and its attempt is not judged before it has answered.
        """
        found = await self._cluster.find_gangs()
        asking = {asyncio.create_task(self._judge(each)): each for each in found}
        done, late = await asyncio.wait(asking, timeout=CALL_S) if asking else (set(), set())
        for task in done:
            task.result()
        for task in late:
            log.warning("%s does not answer: what it leads is left alone until it does", asking[task].id)
            self._unsure[asking[task].id] = asking[task]
            self._later(self._when_sure(asking[task], task))

    async def _look_again(self) -> None:
        """An older agent may have placed gangs after we had looked around, until it heard of us: judge those, too.

        One for an attempt that has a gang already is a second one, and goes.
        """
        for found in await self._cluster.find_strange_gangs():
            log.warning("%s was placed by an older agent after this one had begun", found.id)
            self._unsure[found.id] = found
            self._later(self._when_sure(found, asyncio.create_task(self._judge(found))))

    async def _judge(self, found: FoundGang) -> None:
        """Raises Refused."""
        state = await self._state_of(found) if found.whole else None
        if state is None or state.attempt is None or state.placed is None:
            log.info("removing %s: nothing lives in it", found.id)
            await self._cluster.remove(found.group, found.hosts)
        else:
            self._adoptable[state.attempt] = (found, state.placed.shares)

    async def _when_sure(self, found: FoundGang, judging: asyncio.Task[None]) -> None:
        await judging
        log.info("%s has answered, or is dead", found.id)
        del self._unsure[found.id]
        if self._heard_orders:
            self._take_orders(self._orders)

    async def _state_of(self, found: FoundGang) -> HostState | None:
        """None when one of its hosts is dead. Waits for one that cannot be reached. Raises Refused."""
        try:
            states: Sequence[HostState] = await asyncio.gather(*(self._claim_host(host) for host in found.hosts))
        except RayActorError as error:
            log.info("%s: %s", found.id, short(error))
            return None
        return states[0] if states else None

    async def _claim_host(self, host: ActorHandle[Any]) -> HostState:
        state: HostState = await insist(lambda: host.claim.remote(self._epoch))
        return state

    def _hello(self) -> pb.Hello:
        living = [*self._adoptable, *(key for key, each in self._attendants.items() if each.host_names)]
        return pb.Hello(
            cluster=self._name,
            epoch=self._epoch,
            ray_version=ray.__version__,
            living=[pb.LivingAttempt(run_id=run_id, attempt=attempt) for run_id, attempt in living],
            autoscaling=self._autoscaling,
        )

    # ---- what is wanted -------------------------------------------------------------------------------------------

    def _take_orders(self, orders: tuple[AttemptOrder, ...]) -> None:
        """Level-triggered: the whole of what should be. What is missing is begun, what is not wanted ends."""
        self._orders = orders
        wanted = {(order.run_id, order.attempt): order for order in orders if not order.ahead}
        if not self._heard_orders:
            self._suspects = frozenset(wanted)
        for key in [each for each in self._attendants if each not in wanted]:
            self._later(self._dismiss(self._attendants.pop(key)))
        for key, order in wanted.items():
            if key in self._attendants:
                self._attendants[key].update(order)
            elif order.spec.get("search"):
                self._attendants[key] = SearchAttendant(order, self._around, self._server, self._ca_cert)
            elif not self._unsure or key not in self._suspects or key in self._adoptable:
                self._attendants[key] = Attendant(order, self._around, self._adopt(key, order))
        for found, _ in self._adoptable.values():
            log.warning("%s belongs to no attempt that the server wants: removing it", found.id)
            self._later(self._cluster.remove(found.group, found.hosts))
        self._adoptable.clear()
        self._standby.want([order for order in orders if order.ahead], wanted)
        if not self._heard_orders:
            self._heard_orders = True
            self._later(self._clean())

    def _starting(self) -> bool:
        return any(each.starting for each in self._attendants.values())

    def _take_demand(self, workers: tuple[Workers, ...]) -> None:
        self._demand = workers

    def _adopt(self, key: tuple[str, int], order: AttemptOrder) -> Gang | None:
        if key not in self._adoptable:
            return None
        found, shares = self._adoptable.pop(key)
        log.info("adopting %s of %s/%d", found.id, *key)
        return Gang(found.id, Shape.of(order), found.group, found.hosts, shares)

    def _acknowledge(self, run_id: str, attempt: int, seq: int) -> None:
        attendant = self._attendants.get((run_id, attempt))
        if attendant is not None:
            attendant.acknowledge(seq)

    def _unacknowledged(self) -> Iterable[Observation]:
        return [each for attendant in self._attendants.values() for each in attendant.unacknowledged]

    async def _dismiss(self, attendant: Attending) -> None:
        self._leaving.add(attendant.key)
        try:
            await attendant.dismiss()
        finally:
            self._leaving.discard(attendant.key)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(self._reporting(work))
        self._dismissals.add(task)
        task.add_done_callback(self._dismissals.discard)

    async def _reporting(self, work: Any) -> None:
        """Nobody awaits it: a refusal ends the agent all the same, and any other error is a bug that the log shows."""
        try:
            await work
        except Superseded as refusal:
            self._refused.put_nowait(refusal)
        except Exception:
            log.exception("work beside the agent's loops failed")

    async def _heed_refusals(self) -> None:
        raise await self._refused.get()

    # ---- by the clock ---------------------------------------------------------------------------------------------

    async def _keep_claims(self) -> None:
        """Beside the inventory, which must not wait for a keeper that does not answer."""
        while True:
            await asyncio.sleep(INVENTORY_EVERY_S)
            await self._claim_nodes()

    async def _keep_inventory(self) -> None:
        while True:
            if self._autoscaling:
                # Again and again: whoever else asks Ray's autoscaler replaces what was asked before.
                await self._cluster.ask_for(self._demand)
            lent = [Shape.of_ranks(each.order) for each in self._attendants.values() if each.lends]
            self._line.inventory(await self._cluster.nodes(lent))
            await asyncio.sleep(INVENTORY_EVERY_S)

    async def _keep_clean(self) -> None:
        swept_s = time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            await self._pool.expire()
            if self._heard_orders and time.monotonic() - swept_s > SWEEP_EVERY_S:
                swept_s = time.monotonic()
                await self._clean()

    async def _let_nodes_rest(self) -> None:
        """Ray takes no node away on which an actor lives: of nodes that nothing has used for a while the keepers end."""
        unused = frozenset[str]()
        while True:
            await asyncio.sleep(max(1.0, self._pool_ttl_s))
            now = self._unused(await self._cluster.living_node_ids())
            if tired := unused & now:
                await self._clean()
                for node_id in self._unused(tired):
                    log.info("nothing uses node %s: its keeper ends, so that Ray may take the node away", node_id)
                    await self._cluster.let_go(node_id)
            unused = now

    def _unused(self, nodes: Collection[str]) -> frozenset[str]:
        """Those that no attempt and no idle gang is on. None while some attempt may be anywhere."""
        if not self._heard_orders or self._unsure or self._leaving:
            return frozenset()
        placed = {share.node_id for each in self._attendants.values() for share in each.order.shares}
        return frozenset(nodes) - placed - self._pool.nodes - self._cluster.resting

    async def _clean(self) -> None:
        await self._look_again()
        await self._sweeper.sweep()

    def _living(self) -> Living | None:
        if self._unsure:
            return None
        owners = [name for attendant in self._attendants.values() for name in attendant.host_names]
        attempts = (*self._attendants, *self._leaving, *self._standby.keys)
        return Living(attempts, (*owners, *self._pool.host_names))

    async def give_pool_back(self) -> None:
        await self._pool.drain()


async def serve(options: argparse.Namespace, token: str) -> None:
    """Until SIGTERM. Raises Refused, and Superseded when a newer agent has taken over."""
    highest = await highest_epoch(RayCluster(options.local_dir))
    epoch = next_epoch(highest, time.time_ns())
    try:
        await _serve(options, token, epoch)
    except OlderEpoch as error:
        if await highest_epoch(RayCluster(options.local_dir)) > epoch:
            raise Superseded(str(error)) from None  # somebody has claimed the cluster since we did
        # The server remembers an agent of a Ray that is no more, from before the clock was set back: we are the newer.
        log.warning("%s; nobody else serves this Ray: taking epoch %d", error, error.known + 1)
        await _serve(options, token, error.known + 1)


async def _serve(options: argparse.Namespace, token: str, epoch: int) -> None:
    agent = Agent(options, token, epoch)
    serving = asyncio.create_task(agent.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await agent.give_pool_back()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m orchestrator.cluster.agent", description="attach a Ray cluster")
    parser.add_argument("--server", required=True, help="HOST:PORT of the server")
    parser.add_argument("--token-file", required=True, type=Path, help="file with a token of role `agent`")
    parser.add_argument("--cluster", required=True, help="the cluster's name")
    parser.add_argument("--ray-address", required=True, help="HOST:PORT of a running Ray")
    parser.add_argument("--ca-cert", type=Path, help="certificate authority of the server, for TLS")
    parser.add_argument("--local-dir", default=default_root(), help="directory on every node; keep it short")
    parser.add_argument(
        "--autoscaling", action="store_true", help="Ray's autoscaler is on: ask it for nodes for what waits"
    )
    parser.add_argument("--pool-ttl", type=float, default=60.0, help="seconds that idle hosts are kept")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        token = options.token_file.read_text().strip()
    except OSError as error:
        print(f"agent: --token-file {options.token_file} cannot be read: {error.strerror}", file=sys.stderr)
        return 1
    try:
        ray.init(address=options.ray_address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        print(f"agent: no Ray cluster at {options.ray_address}: {short(error)}", file=sys.stderr)
        return 1
    try:
        asyncio.run(serve(options, token))
    except Superseded as error:
        print(f"agent of cluster {options.cluster}: {error}", file=sys.stderr)
        return EXIT_SUPERSEDED
    except EvertrainError as error:
        print(f"agent of cluster {options.cluster}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
