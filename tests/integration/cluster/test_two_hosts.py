"""A gang across two hosts, which are network namespaces, and the loss of one."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orchestrator.core import observations as seen
from orchestrator.core.orders import AdmittedSeals, AttemptOrder
from orchestrator.core.runs import FailureKind
from tests.integration.cluster.conftest import RayNode, Stage
from tests.integration.cluster.network_hosts import NetworkHosts, why_not
from tests.integration.cluster.test_attempts import DIGITS, LONG_DIGITS
from tests.integration.cluster.test_preparing import held, images, preparing, training
from tests.integration.cluster.test_standby import at_gate, held_pids

TWO_NODES = 2
SPREAD = {**LONG_DIGITS, "resources": {"workers": TWO_NODES, "cpu": 1, "placement": "spread"}}
SHORT = {**DIGITS, "resources": SPREAD["resources"]}

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


@pytest.fixture(scope="module")
def hosts() -> Iterator[NetworkHosts]:
    hosts = NetworkHosts(TWO_NODES)
    yield hosts
    hosts.close()


@pytest.fixture(scope="module")
def wide(hosts: NetworkHosts) -> Iterator[Stage]:
    directory = Path(tempfile.mkdtemp(prefix="et-"))
    stage = Stage(directory, hosts)
    yield stage
    stage.close()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def alive() -> Iterator[list[RayNode]]:
    """The second node, if there is one."""
    nodes: list[RayNode] = []
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture
def second(wide: Stage, hosts: NetworkHosts, alive: list[RayNode]) -> Iterator[RayNode]:
    """The one of the test before, unless it was ended there: a new one and its zygote take 15 s."""
    if not alive:
        address = (f"--address={wide.ray.address}", f"--node-ip-address={hosts.addresses[1]}", "--num-cpus=1")
        alive.append(RayNode(wide.directory, *address, prefix=hosts.inside(1)))
    wide.server.wait("both nodes", lambda: len(wide.server.nodes) == TWO_NODES)
    yield alive[0]
    if not alive[0].has_raylet():
        alive.pop().close()
        wide.server.wait(
            "the end of the second node", lambda: len(wide.server.nodes) == 1
        )  # or the next test counts it


def test_data_are_prepared_on_every_node_of_a_gang_and_made_once_where_they_share_a_directory(
    wide: Stage, second: RayNode, tmp_path: Path
) -> None:
    source, out = images(tmp_path), tmp_path / "out"
    with held(source, out):
        key = wide.run({**training(source, out), "resources": SPREAD["resources"]})
        wide.server.wait("a word of both nodes", lambda: len(preparing(wide, key)) == TWO_NODES)
        assert len(wide.ranks()) == TWO_NODES
    assert wide.server.wait_ended(key).outcome == "succeeded"
    ready = {each.partition(",")[0] for each in preparing(wide, key) if "report.html" in each}
    assert ready == {f"the data are ready on {node.host}" for node in wide.server.nodes}
    assert len(list(out.glob("*/manifest.json"))) == 1


def coordinated_by_the_head(stage: Stage, order: AttemptOrder) -> AttemptOrder:
    """Whose first rank is not on the second node, which some test ends."""
    assert sorted(share.ranks for share in order.shares) == [1, 1]
    first = next(index for index, share in enumerate(order.shares) if share.ip == stage.ray.address.split(":")[0])
    return replace(order, shares=(order.shares[first], order.shares[1 - first]))


def ahead(stage: Stage) -> AttemptOrder:
    return replace(coordinated_by_the_head(stage, stage.order(SHORT)), ahead=True)


def test_ranks_that_got_ready_on_two_hosts_train_once_their_attempt_is_placed(wide: Stage, second: RayNode) -> None:
    order = ahead(wide)
    key = wide.server.order(order)
    waiting = held_pids(wide, order)
    assert key not in wide.server.observations, "it holds nothing and has nothing to tell"
    wide.server.order(replace(order, ahead=False))
    started = wide.server.wait_heard(key, seen.IncarnationStarted)
    assert sorted(started.pids) == sorted(waiting)
    ended = wide.server.wait_ended(key)
    assert (ended.outcome, wide.server.wait_heard(key, seen.Placed).pooled) == ("succeeded", True)
    wide.server.wait("lines of both ranks", lambda: {line.rank for line in wide.server.lines.get(key, ())} >= {0, 1})


def test_an_attempt_that_is_wanted_no_more_leaves_no_rank_that_waits_on_either_host(
    wide: Stage, second: RayNode
) -> None:
    order = ahead(wide)
    key = wide.server.order(order)
    held_pids(wide, order)
    wide.server.forget(key)
    wide.server.wait("no rank waits", lambda: not wide.ranks())
    assert key not in wide.server.observations


def test_whoever_needs_one_of_its_hosts_has_it(wide: Stage, second: RayNode) -> None:
    order = ahead(wide)
    key = wide.server.order(order)
    held_pids(wide, order)
    other = wide.run_script("print('mine')", {"resources": {"workers": 1, "cpu": 1}}, shares=(order.shares[1],))
    assert wide.server.wait_ended(other).outcome == "succeeded"
    assert at_gate(wide) == []
    wide.server.order(replace(order, ahead=False))
    assert wide.server.wait_ended(key).outcome == "succeeded"


def test_a_rank_that_dies_on_one_host_while_it_waits_costs_nothing_but_a_start_on_both(
    wide: Stage, second: RayNode
) -> None:
    order = ahead(wide)
    key = wide.server.order(order)
    waiting = held_pids(wide, order)
    os.kill(waiting[0], signal.SIGKILL)
    wide.server.wait("its end", lambda: not psutil.pid_exists(waiting[0]))
    wide.server.order(replace(order, ahead=False))
    ended = wide.server.wait_ended(key)
    assert (ended.outcome, ended.spent.infrastructure) == ("succeeded", 0)
    assert not wide.server.heard(key, seen.IncarnationFailed)


def test_an_attempt_one_of_whose_hosts_dies_while_its_ranks_wait_gets_ready_elsewhere(
    wide: Stage, second: RayNode
) -> None:
    order = ahead(wide)
    key = wide.server.order(order)
    waiting = held_pids(wide, order)
    (host,) = [each for each in wide.host_actors() if each.ppid() == second.raylet().pid]
    host.kill()  # that of a node that has died is no different, and is noticed a quarter of a minute later
    left = replace(order, shares=(replace(order.shares[0], ranks=TWO_NODES),))
    wide.server.order(left)
    wide.server.wait("no rank of the old place", lambda: not any(map(psutil.pid_exists, waiting)))
    again = held_pids(wide, left)
    wide.server.order(replace(left, ahead=False))
    started = wide.server.wait_heard(key, seen.IncarnationStarted)
    assert sorted(started.pids) == sorted(again)
    ended = wide.server.wait_ended(key)
    assert (ended.outcome, ended.spent.infrastructure) == ("succeeded", 0)


def test_a_lost_host_ends_the_attempt_and_the_next_one_goes_on_from_its_checkpoint(
    wide: Stage, second: RayNode
) -> None:
    order = coordinated_by_the_head(wide, wide.order(SPREAD))
    key = wide.server.order(order)
    wide.server.wait_heard(key, seen.CheckpointSealed, 2)
    wide.server.wait("lines of both ranks", lambda: {line.rank for line in wide.server.lines.get(key, ())} >= {0, 1})
    assert {line.rank for line in wide.server.lines[key]} <= {-1, 0, 1}
    second.raylet().kill()
    ended = wide.server.wait_ended(key)
    assert ended.failure is not None
    assert (ended.outcome, ended.failure.kind) == ("lost", FailureKind.HOST_LOST)
    wide.server.forget(key)
    wide.server.wait("the other node is gone", lambda: len(wide.server.nodes) == 1)
    again = wide.order(
        {**SPREAD, "train": {**SPREAD["train"], "epochs": None, "steps": ended.furthest_step + 20}},
        run_id=order.run_id,
        attempt=2,
        checkpoint_root=order.checkpoint_root,
        admitted=(AdmittedSeals(1, 1),),
        furthest_step=ended.furthest_step,
    )
    assert [share.ranks for share in again.shares] == [2]
    next_key = wide.server.order(again)
    assert wide.server.wait_heard(next_key, seen.RanksRestored).step > 0
    assert wide.server.wait_ended(next_key).outcome == "succeeded"


def test_a_host_that_is_cut_off_has_ended_its_ranks_before_another_attempt_may_start(
    wide: Stage, second: RayNode, hosts: NetworkHosts
) -> None:
    order = wide.order(SPREAD)
    key = wide.server.order(order)
    started = wide.server.wait_heard(key, seen.IncarnationStarted)
    wide.server.wait_heard(key, seen.FirstStep)
    hosts.cut(1)
    ended = wide.server.wait_ended(key, timeout_s=150)
    assert ended.outcome == "lost"
    wide.server.wait("no rank lives", lambda: not any(map(psutil.pid_exists, started.pids)), ended.fence_s)
