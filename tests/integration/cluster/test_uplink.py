"""The agent's line over a real connection, without Ray."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from orchestrator.cluster import uplink
from orchestrator.cluster.epochs import OlderEpoch
from orchestrator.cluster.gang_messages import Superseded
from orchestrator.cluster.outgoing import Outgoing
from orchestrator.cluster.uplink import Uplink
from orchestrator.core.observations import Observation, Progress, Waiting
from orchestrator.core.runs import Reason, ReasonCode
from orchestrator.errors import Refused
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from tests.integration.cluster.recording_server import TOKEN, RecordingServer

MANY = 3_000
KEY = ("run-1", 1)


@pytest.fixture
def server() -> Iterator[RecordingServer]:
    server = RecordingServer()
    yield server
    server.down()


def observation(seq: int) -> Observation:
    return Observation(*KEY, seq, float(seq), Waiting(Reason(ReasonCode.WAITING_FOR_CAPACITY, f"number {seq}")))


class Teller:
    """Keeps its observations until they are acknowledged, as attendants do."""

    def __init__(self, server: RecordingServer, epoch: int = 1) -> None:
        self.kept: list[Observation] = []
        self.line = Uplink(
            server.address,
            TOKEN,
            ca_cert=None,
            hello=lambda: pb.Hello(cluster="test", epoch=epoch),
            welcomed=lambda: list(self.kept),
            desired=lambda orders: None,
            acknowledged=self._acknowledged,
        )

    def tell(self, seq: int) -> None:
        self.kept.append(observation(seq))
        self.line.observe(self.kept[-1])

    def _acknowledged(self, run_id: str, attempt: int, seq: int) -> None:
        self.kept = [each for each in self.kept if each.seq > seq]


async def until(true: Callable[[], object], timeout_s: float = 60.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(teller: Teller) -> AsyncIterator[None]:
    task = asyncio.create_task(teller.line.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await teller.line.close()


def test_a_backlog_of_any_length_is_told_over_one_connection(server: RecordingServer) -> None:
    async def story() -> None:
        teller = Teller(server)
        for seq in range(1, MANY + 1):
            teller.tell(seq)
        async with running(teller):
            await until(lambda: not teller.kept)

    asyncio.run(story())
    assert [each.seq for each in server.observations[KEY]] == list(range(1, MANY + 1))
    assert len(server.hellos) == 1


def test_an_epoch_that_the_server_finds_too_old_is_told_from_being_superseded(server: RecordingServer) -> None:
    async def told(teller: Teller) -> Refused:
        with pytest.raises(Refused) as refused:
            await teller.line.run()
        await teller.line.close()
        return refused.value

    async def story() -> None:
        newer, older = Teller(server, epoch=20), Teller(server, epoch=10)
        async with running(newer):
            await until(lambda: server.hellos)
            refusal = await told(older)
            assert isinstance(refusal, OlderEpoch)
            assert refusal.known == 20
        first = Teller(server, epoch=21)
        serving = asyncio.create_task(told(first))
        await until(lambda: len(server.hellos) == 2)
        async with running(Teller(server, epoch=22)):
            assert isinstance(await serving, Superseded)

    asyncio.run(story())


def test_a_burst_on_a_living_line_does_not_break_it(server: RecordingServer) -> None:
    async def story() -> None:
        teller = Teller(server)
        async with running(teller):
            await until(lambda: server.hellos)
            for seq in range(1, MANY + 1):
                teller.tell(seq)
            await until(lambda: not teller.kept)

    asyncio.run(story())
    assert [each.seq for each in server.observations[KEY]] == list(range(1, MANY + 1))
    assert len(server.hellos) == 1


def test_nothing_overtakes_the_backlog_of_a_line_that_is_not_welcome_yet(server: RecordingServer) -> None:
    async def story() -> None:
        teller = Teller(server)
        for seq in range(1, 100):
            teller.tell(seq)
        async with running(teller):
            await until(lambda: teller.line.connected)
            teller.tell(100)
            await until(lambda: not teller.kept)

    asyncio.run(story())
    assert [each.seq for each in server.observations[KEY]] == list(range(1, 101))


def test_what_the_wire_cannot_hold_is_left_out_and_the_line_goes_on(
    server: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        teller = Teller(server)
        async with running(teller):
            await until(lambda: teller.line.connected)
            for number, total in enumerate((3_000_000_000, 7), 1):
                teller.line.progress(Progress(f"run-{number}", 1, 1, "training", 1.0, total_epochs=total))
            await until(lambda: server.progress.get(("run-2", 1)))
            teller.tell(1)
            await until(lambda: not teller.kept)

    asyncio.run(story())
    assert len(server.hellos) == 1
    assert ("run-1", 1) not in server.progress
    assert "total_epochs=3000000000" in caplog.text


def test_a_line_that_breaks_from_inside_is_opened_again(
    server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(Outgoing):
        made = 0

        async def messages(self) -> AsyncIterator[pb.AgentMessage]:
            Breaking.made += 1
            broken = Breaking.made == 1
            async for message in super().messages():
                yield message
                if broken:
                    raise RuntimeError("nobody has thought of this")

    monkeypatch.setattr(uplink, "Outgoing", Breaking)

    async def story() -> None:
        teller = Teller(server)
        async with running(teller):
            await until(lambda: Breaking.made == 2)
            teller.tell(1)
            await until(lambda: not teller.kept)

    asyncio.run(story())
    assert Breaking.made == 2, "the second line holds"


def test_a_line_that_is_asked_to_end_ends(server: RecordingServer) -> None:
    async def story() -> bool:
        teller = Teller(server)
        task = asyncio.create_task(teller.line.run())
        await until(lambda: server.hellos)
        task.cancel()
        await asyncio.wait({task}, timeout=10)
        await teller.line.close()
        return task.cancelled()

    assert asyncio.run(story())
