"""Ranks that are looked at live on, and every question has an answer."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cluster import inspecting
from orchestrator.cluster.inspecting import Inspector
from orchestrator.cluster.rank_account import RankAccount
from orchestrator.cluster.rank_output import Redactor
from orchestrator.cluster.stack_dump import CannotLook, read_stack
from orchestrator.core.observations import Inspected
from orchestrator.core.runs import Inspection
from trainers import contract

PATIENCE_S = 60.0
NOBODY = 4_000_000  # above every process id
STACKS = Inspection("q-1", "stacks", (0,), "ada", 1000.0, 60.0)
PROFILE = replace(STACKS, kind="profile", steps=5)
SLEEPS = "import sys, time\ndef waits_for_its_peers():\n print(flush=True)\n time.sleep(600)\nwaits_for_its_peers()"


class Look:
    """One host's inspector, and what it has told."""

    def __init__(self) -> None:
        self.told: list[Inspected] = []
        self.lines: list[tuple[int, int, str]] = []
        self.asked: list[contract.Profile] = []
        self.inspector = Inspector("alpha", Redactor(("peers",)), self._take_lines, self.told.append)
        self.account = RankAccount(0, 0)

    def _take_lines(self, incarnation: int, rank: int) -> Callable[[Sequence[str]], None]:
        return lambda lines: self.lines.extend((incarnation, rank, line) for line in lines)

    def ask(self, request: contract.Profile) -> bool:
        self.asked.append(request)
        return True

    async def answer(self) -> Inspected:
        async with asyncio.timeout(PATIENCE_S):
            while not self.told:
                await asyncio.sleep(0.01)
        (told,) = self.told
        return told


def run(story: Callable[[Look], Coroutine[None, None, None]]) -> None:
    async def live() -> None:
        look = Look()
        try:
            await story(look)
        finally:
            look.inspector.close()

    asyncio.run(live())


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPS], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_stacks_of_a_living_process_are_read_kept_in_its_log_and_redacted(
    sleeper: subprocess.Popen[bytes],
) -> None:
    async def story(look: Look) -> None:
        look.account.pid = sleeper.pid
        look.inspector.begin(STACKS, look.account, 3, look.ask)
        look.inspector.begin(STACKS, look.account, 3, look.ask)
        told = await look.answer()
        assert (told.inspection, told.rank, told.ok) == ("q-1", 0, True)
        assert told.message.startswith("rank 0 on alpha: its stacks, with native frames")
        assert "waits_for_its_***" in told.text
        assert look.lines[0] == (3, 0, "[evertrain] the stacks of rank 0, for ada:")
        assert [line for _, _, line in look.lines[1:]] == told.text.splitlines()

    run(story)
    assert sleeper.poll() is None


def test_a_process_that_nobody_can_read_is_left_alone_and_the_reason_is_told(
    sleeper: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A py-spy that may not look, as where the kernel forbids it."""
    spy = tmp_path / "py-spy"
    spy.write_text("#!/bin/sh\necho 'Permission Denied: try sudo' >&2\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    async def story(look: Look) -> None:
        look.account.pid = sleeper.pid
        look.inspector.begin(STACKS, look.account, 1, look.ask)
        told = await look.answer()
        assert not told.ok
        assert "its stacks cannot be read: py-spy could not read it: Permission Denied" in told.message

    run(story)
    assert sleeper.poll() is None


def test_a_process_that_somebody_has_stopped_is_read_and_stays_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.send_signal(signal.SIGSTOP)

    async def story(look: Look) -> None:
        look.account.pid = sleeper.pid
        look.inspector.begin(STACKS, look.account, 1, look.ask)
        told = await look.answer()
        assert told.ok, told.message
        assert "waits_for_its_***" in told.text

    run(story)
    assert Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_process_that_is_gone_is_told() -> None:
    with pytest.raises(CannotLook, match="py-spy could not read it"):
        asyncio.run(read_stack(NOBODY))


def test_a_rank_that_does_not_live_is_told_at_once() -> None:
    async def story(look: Look) -> None:
        look.inspector.begin(STACKS, look.account, 1, look.ask)
        assert [each.message for each in look.told] == [
            "rank 0 on alpha: does not live now: it has ended, or is about to be started again"
        ]

    run(story)


def test_a_long_text_is_cut_in_the_answer_and_whole_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def frames(pid: int, *options: str) -> str:
        return "\n".join(["frame"] * 50_000)

    monkeypatch.setattr(inspecting, "read_stack", frames)

    async def story(look: Look) -> None:
        look.account.pid = os.getpid()
        look.inspector.begin(STACKS, look.account, 1, look.ask)
        told = await look.answer()
        assert len(told.text) < 66_000
        assert told.text.endswith("the rank's log has all of it]")
        assert len(look.lines) == 50_001

    run(story)


def test_a_profile_is_asked_of_the_rank_and_its_answer_passed_on() -> None:
    async def story(look: Look) -> None:
        look.account.pid = NOBODY
        look.inspector.begin(PROFILE, look.account, 1, look.ask)
        look.inspector.begin(PROFILE, look.account, 1, look.ask)
        (request,) = look.asked
        assert (request.id, request.steps) == ("q-1", 5)
        look.inspector.profiled(0, contract.Profiled("another", "steps 1 to 5"))
        look.inspector.profiled(0, contract.Profiled("q-1", "steps 1 to 5 took 2 s: /t.json", "/t.json", "aten::mm"))
        look.inspector.profiled(0, contract.Profiled("q-1", "again"))
        look.inspector.ended(0)
        message = "rank 0 on alpha: steps 1 to 5 took 2 s: /t.json"
        assert look.told == [Inspected("q-1", 0, True, message, "aten::mm", "/t.json")]

    run(story)


def test_a_rank_that_ends_before_its_profile_is_written_is_told() -> None:
    async def story(look: Look) -> None:
        look.account.pid = NOBODY
        look.inspector.begin(PROFILE, look.account, 1, look.ask)
        look.inspector.ended(1)
        assert look.told == []
        look.inspector.ended(0)
        assert [each.message for each in look.told] == ["rank 0 on alpha: ended before its profile was written"]

    run(story)


def test_a_rank_that_has_not_spoken_yet_cannot_be_asked() -> None:
    async def story(look: Look) -> None:
        look.account.pid = NOBODY
        look.inspector.begin(PROFILE, look.account, 1, lambda request: False)
        assert "has not spoken to its host yet" in look.told[0].message

    run(story)


def test_steps_that_do_not_come_are_told_with_what_the_rank_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "WRITING_S", 0.0)

    async def story(look: Look) -> None:
        look.account.pid = NOBODY
        look.account.hear(contract.Step(step=120, epoch=3, at_ns=1), 1)
        look.account.hear(contract.PhaseChanged("evaluating", 2), 2)
        look.inspector.begin(replace(PROFILE, within_s=0.05), look.account, 1, look.ask)
        told = await look.answer()
        assert not told.ok
        assert told.message.endswith("has not done 5 steps within 0.05 s: after step 120 it is in phase 'evaluating'")

    run(story)
