"""What an agent and the server say to one another: attach, observe, ship logs."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.observations import EpochEnded, FirstStep, IncarnationStarted, Observation, Placed, Progress
from orchestrator.core.records import LogLine, Role
from orchestrator.core.runs import NodeShare, Run
from orchestrator.core.scheduling.fit import Node
from orchestrator.protocol.convert import to_proto
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from tests.builders import SHARES
from tests.integration.api.stack import SPEC, Stack

NODE = Node("node-a", "alpha", "10.0.0.1", 4.0, 0.0, 2**33, 4.0, 0.0, 2**33)
_epochs = itertools.count(1)
_names = itertools.count(1)


class Agent:
    """One attached agent, by hand."""

    def __init__(self, stack: Stack, cluster: str, secret: str = "", epoch: int | None = None) -> None:
        stubs: Any = rpc
        self.cluster = cluster
        self._out: queue.SimpleQueue[pb.AgentMessage | None] = queue.SimpleQueue()
        self.answers: list[pb.ServerMessage] = []
        self.error: grpc.StatusCode | None = None
        metadata = (("authorization", f"Bearer {secret or stack.agent}"),)
        self._call = stubs.ClustersStub(stack.channel).Attach(iter(self._out.get, None), metadata=metadata)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        self.epoch = next(_epochs) if epoch is None else epoch
        self.send(hello=pb.Hello(cluster=cluster, epoch=self.epoch, ray_version="2.60.0"))

    def send(self, **what: Any) -> None:
        self._out.put(pb.AgentMessage(**what))

    def observe(self, run: Run, seq: int, what: Any, attempt: int = 1) -> None:
        self.send(observation=to_proto(Observation(run.id, attempt, seq, 1000.0, what), pb.Observation))

    def close(self) -> None:
        self._out.put(None)
        self.ended()

    def ended(self) -> None:
        """Wait until the server has ended the conversation."""
        self._thread.join(20)
        assert not self._thread.is_alive()

    def of(self, kind: str) -> list[Any]:
        return [getattr(each, kind) for each in list(self.answers) if each.WhichOneof("what") == kind]

    def _listen(self) -> None:
        try:
            for answer in self._call:
                self.answers.append(answer)
        except grpc.RpcError as error:
            self.error = error.code()


def until(condition: Callable[[], Any]) -> Any:
    """What `condition` answers once that is true."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("it never came true")


@pytest.fixture
def cluster() -> str:
    return f"cluster-{next(_names)}"


@pytest.fixture
def agent(stack: Stack, cluster: str) -> Iterator[Agent]:
    attached = Agent(stack, cluster)
    until(lambda: attached.of("welcome"))
    yield attached
    attached.close()


def test_an_agent_is_welcomed_and_seen_as_connected(stack: Stack, agent: Agent) -> None:
    agent.send(inventory=pb.Inventory(nodes=[to_proto(NODE, pb.Node)]))
    with stack.client() as client:
        shown = until(
            lambda: next((each for each in client.clusters() if each.name == agent.cluster and each.nodes), None)
        )
    assert (shown.connected, shown.nodes, shown.epoch) == (True, (NODE,), agent.epoch)
    assert agent.of("welcome")[0].server_id == stack.parts.server_id


def test_a_placed_run_is_ordered_with_its_whole_run_file(stack: Stack, agent: Agent) -> None:
    run = stack.place(stack.submit(), agent.cluster)
    orders = until(lambda: [each for desired in agent.of("desired") for each in desired.attempts])
    assert (orders[0].run_id, orders[0].attempt) == (run.id, 1)
    assert orders[0].spec["name"] == "digits"
    stack.end(run)
    until(lambda: agent.of("desired") and not agent.of("desired")[-1].attempts)


def test_a_run_whose_file_no_wire_can_carry_fails_alone_and_can_be_described(stack: Stack, agent: Agent) -> None:
    unreadable = {**spec.dump(spec.parse(SPEC)), "env": {"A": "\ud800"}}
    bad = stack.place(stack.submit(spec=unreadable), agent.cluster)
    good = stack.place(stack.submit(), agent.cluster)
    until(lambda: agent.of("desired") and [each.run_id for each in agent.of("desired")[-1].attempts] == [good.id])
    with stack.client() as client:
        shown = client.get(bad.id)
    assert shown.state == "FAILED"
    assert "env.A: holds" in shown.reason.message
    assert shown.spec == unreadable
    assert agent.error is None
    stack.end(good)


def test_a_run_whose_order_no_wire_can_carry_fails_alone(stack: Stack, agent: Agent) -> None:
    shares = (NodeShare("node-a", "alpha", "\ud800", 2),)
    bad = stack.submit()
    stack.records.change("*", bad.id, lambda run: lifecycle.place(run, agent.cluster, shares, stack.clock.now()))
    good = stack.place(stack.submit(), agent.cluster)
    until(lambda: agent.of("desired") and [each.run_id for each in agent.of("desired")[-1].attempts] == [good.id])
    ended = until(lambda: (found := stack.store.run("*", bad.id)).terminal and found)
    assert "cannot be sent to cluster" in ended.state.reason.message
    assert agent.error is None
    stack.end(good)


def test_an_observation_is_durable_before_it_is_acknowledged(stack: Stack, agent: Agent) -> None:
    run = stack.place(stack.submit(), agent.cluster)
    agent.observe(run, 1, Placed(SHARES, 0.5))
    agent.observe(run, 2, IncarnationStarted(1, 2))
    agent.observe(run, 3, FirstStep(1, 1))
    until(lambda: any(each.seq == 3 for each in agent.of("ack")))
    kept = stack.store.run("*", run.id)
    assert (kept.state.kind, kept.attempts[0].last_seq) == ("RUNNING", 3)
    assert [each.seq for each in agent.of("ack")] == [1, 2, 3]


def test_a_repeated_observation_is_acknowledged_and_changes_nothing(stack: Stack, agent: Agent) -> None:
    run = stack.place(stack.submit(), agent.cluster)
    for _ in range(2):
        agent.observe(run, 1, Placed(SHARES, 0.5))
    until(lambda: len(agent.of("ack")) == 2)
    assert [event.kind for event in stack.store.events(run.id)].count("hosts_ready") == 1


def test_progress_reaches_the_run(stack: Stack, agent: Agent) -> None:
    run = stack.place(stack.submit(), agent.cluster)
    agent.send(progress=to_proto(Progress(run.id, 1, 1, "training", 1.0, step=9), pb.Progress))
    with stack.client() as client:
        shown = until(lambda: client.get(run.id).progress)
        assert (shown.step, client.get(run.id).liveness) == (9, "alive")


def test_an_agent_speaks_for_its_own_attempts_only(stack: Stack, agent: Agent) -> None:
    elsewhere = stack.place(stack.submit(), "another-cluster")
    agent.observe(elsewhere, 1, Placed(SHARES, 0.5))
    agent.send(progress=to_proto(Progress(elsewhere.id, 1, 1, "training", 1.0, step=9), pb.Progress))
    agent.observe(elsewhere, 2, IncarnationStarted(1, 2))
    until(lambda: len(agent.of("ack")) == 2)  # acknowledged: sent again it would be no more true
    assert stack.store.run("*", elsewhere.id) == elsewhere
    assert stack.parts.fleet.progress(elsewhere.id) is None


def test_an_agent_of_a_project_cannot_touch_the_runs_of_another(stack: Stack, cluster: str) -> None:
    mine = Agent(stack, cluster, stack.token("beta", Role.AGENT))
    until(lambda: mine.of("welcome"))
    foreign = stack.place(stack.submit("alpha"), cluster)
    mine.observe(foreign, 1, Placed(SHARES, 0.5))
    until(lambda: mine.of("ack"))
    assert stack.store.run("*", foreign.id) == foreign
    mine.close()


def test_the_newer_of_two_agents_wins_and_the_older_is_told(stack: Stack, agent: Agent) -> None:
    newer = Agent(stack, agent.cluster)
    until(lambda: newer.of("welcome"))
    told = until(lambda: agent.of("superseded"))
    assert "newer agent" in told[0].message
    assert told[0].epoch == newer.epoch
    assert stack.parts.fleet.connected(agent.cluster)
    newer.close()
    until(lambda: not stack.parts.fleet.connected(agent.cluster))


def test_an_older_agent_is_told_the_epoch_of_the_newer_one_and_not_welcomed(stack: Stack, agent: Agent) -> None:
    older = Agent(stack, agent.cluster, epoch=agent.epoch - 1)
    older.ended()
    assert [answer.WhichOneof("what") for answer in older.answers] == ["superseded"]
    assert (older.answers[0].superseded.epoch, older.error) == (agent.epoch, None)
    assert stack.parts.fleet.connected(agent.cluster)


def test_an_agent_that_goes_leaves_its_runs_unknown(stack: Stack, cluster: str) -> None:
    gone = Agent(stack, cluster)
    until(lambda: gone.of("welcome"))
    run = stack.place(stack.submit(), cluster)
    gone.close()
    until(lambda: not stack.parts.fleet.connected(cluster))
    with stack.client() as client:
        shown = client.get(run.id)
    assert (shown.state, shown.liveness) == ("STARTING", "unknown")


@pytest.mark.parametrize("first", [{"inventory": pb.Inventory()}, {"hello": pb.Hello(epoch=1)}])
def test_who_does_not_say_hello_is_refused(stack: Stack, first: dict[str, Any]) -> None:
    stubs: Any = rpc
    metadata = (("authorization", f"Bearer {stack.agent}"),)
    with pytest.raises(grpc.RpcError) as refused:
        next(stubs.ClustersStub(stack.channel).Attach(iter([pb.AgentMessage(**first)]), metadata=metadata, timeout=20))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_nonsense_ends_the_stream_and_frees_the_cluster(stack: Stack, cluster: str) -> None:
    broken = Agent(stack, cluster)
    until(lambda: broken.of("welcome"))
    broken.send(observation=pb.Observation(run_id="run-x", seq=1))
    until(lambda: broken.error)
    assert broken.error == grpc.StatusCode.INVALID_ARGUMENT
    until(lambda: not stack.parts.fleet.connected(cluster))


def test_a_flood_of_observations_is_kept_whole(stack: Stack, agent: Agent) -> None:
    run = stack.place(stack.submit(), agent.cluster)
    for seq in range(1, 501):
        agent.observe(run, seq, EpochEnded(1, seq, seq))
    until(lambda: any(each.seq == 500 for each in agent.of("ack")))
    assert [event.kind for event in stack.store.events(run.id)].count("epoch") == 500


# ---- logs -----------------------------------------------------------------------------------------------------------


class Shipper:
    def __init__(self, stack: Stack) -> None:
        stubs: Any = rpc
        self._out: queue.SimpleQueue[pb.LogBatch | None] = queue.SimpleQueue()
        metadata = (("authorization", f"Bearer {stack.agent}"),)
        self.acks = stubs.ClustersStub(stack.channel).ShipLogs(iter(self._out.get, None), metadata=metadata)

    def ship(self, *lines: LogLine) -> pb.LogAck:
        self._out.put(pb.LogBatch(lines=[to_proto(line, pb.LogLine) for line in lines]))
        ack: pb.LogAck = next(self.acks)
        return ack

    def close(self) -> None:
        self._out.put(None)
        assert list(self.acks) == []


@pytest.fixture
def shipper(stack: Stack) -> Iterator[Shipper]:
    opened = Shipper(stack)
    yield opened
    opened.close()


def line(run: Run, seq: int, text: str = "", rank: int = 0) -> LogLine:
    return LogLine(run.id, 1, 1, rank, 1000.0 + seq, text or f"line {seq}", "host-a", seq)


def test_lines_are_kept_when_they_are_acknowledged_and_read_by_rank_and_tail(stack: Stack, shipper: Shipper) -> None:
    run = stack.submit()
    ack = shipper.ship(*(line(run, seq, rank=seq % 2) for seq in range(1, 5)))
    assert (ack.run_id, ack.attempt, ack.source, ack.seq) == (run.id, 1, "host-a", 4)
    assert ack.credit == stack.settings.log_credit
    with stack.client() as client:
        assert [each.text for each in client.logs(run.id)] == ["line 1", "line 2", "line 3", "line 4"]
        assert [each.seq for each in client.logs(run.id, rank=1)] == [1, 3]
        assert [each.seq for each in client.logs(run.id, tail=1)] == [4]


def test_lines_sent_again_are_not_kept_twice(stack: Stack, shipper: Shipper) -> None:
    run = stack.submit()
    for _ in range(2):
        assert shipper.ship(line(run, 1), line(run, 2)).seq == 2
    with stack.client() as client:
        assert [each.seq for each in client.logs(run.id)] == [1, 2]


def test_lines_of_an_unknown_run_are_dropped_and_do_not_stop_the_others(stack: Stack, shipper: Shipper) -> None:
    run = stack.submit()
    shipper.ship(LogLine("run-nosuch", 1, 1, 0, 1.0, "x", "host-a", 5))
    assert shipper.ship(line(run, 1)).run_id == run.id


def test_an_empty_batch_gives_its_credit_back(shipper: Shipper) -> None:
    assert shipper.ship().credit > 0


def test_following_goes_on_until_the_run_has_ended_and_its_last_line_came(stack: Stack, shipper: Shipper) -> None:
    run = stack.place(stack.submit())
    shipper.ship(line(run, 1))
    with stack.client() as client:
        lines = client.logs(run.id, follow=True)
        assert next(lines).seq == 1
        shipper.ship(line(run, 2))
        assert next(lines).seq == 2
        stack.end(run)
        shipper.ship(line(run, 3))  # the last words arrive after the news of the end
        assert [each.seq for each in lines] == [3]


def test_following_a_run_that_ended_long_ago_ends_at_once(stack: Stack, shipper: Shipper) -> None:
    run = stack.place(stack.submit())
    shipper.ship(line(run, 1))
    stack.end(run)
    stack.clock.ahead_s += 60
    with stack.client() as client:
        assert [each.seq for each in client.logs(run.id, follow=True)] == [1]


def test_lines_larger_than_a_message_come_in_several(stack: Stack, shipper: Shipper) -> None:
    run = stack.submit()
    for start in range(1, 1001, 100):
        shipper.ship(*(line(run, seq, "é" * 4000) for seq in range(start, start + 100)))
    with stack.client() as client:
        assert len(list(client.logs(run.id))) == 1000
