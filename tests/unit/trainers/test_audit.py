"""What the history in a checkpoint's cursor says of the samples that its weights have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainers.contract import Manifest
from trainers.data import audit
from trainers.data.audit import Epoch
from trainers.data.history import History
from trainers.data.sampler import Sampler

SAMPLER = Sampler(size=50, global_batch=12, seed=5)


def cursor(*spans: tuple[int, int], samples: int | None = None) -> dict[str, Any]:
    """After incarnations that consumed from and to these positions."""
    history = [
        {"attempt": 1, "incarnation": number, "world_size": 2, "start": start, "stop": stop}
        for number, (start, stop) in enumerate(spans, 1)
    ]
    consumed = spans[-1][1] if samples is None else samples
    return {**SAMPLER.cursor(consumed), "history": history}


def manifest(found: dict[str, Any], step: int) -> Manifest:
    return Manifest("run", 1, 1, step, 0, 2, {}, found, (), {}, False, {}, "2026-01-01T00:00:00+00:00")


def seal(root: Path, found: dict[str, Any], step: int) -> None:
    directory = root / "attempt-0001" / "incarnation-0001" / f"step-{step:012d}"
    directory.mkdir(parents=True)
    (directory / "manifest.json").write_text(manifest(found, step).to_json())


def test_a_resumed_history_goes_on_from_the_seal_and_forgets_what_was_lost_with_the_crash() -> None:
    first = History(1, 1, world_size=4)
    sealed = {**SAMPLER.cursor(36), "history": first.until(36)}  # it went on to 60 before it died
    second = History(1, 2, world_size=2).resumed(sealed)
    assert [(each["incarnation"], each["world_size"], each["start"], each["stop"]) for each in second.until(108)] == [
        (1, 4, 0, 36),
        (2, 2, 36, 108),
    ]
    assert second.until(36) == first.until(36)  # a seal before its first step


def test_a_run_with_restarts_saw_every_sample_of_each_ended_epoch_once() -> None:
    result = audit.audit(cursor((0, 36), (36, 60), (60, 108)))
    assert result.samples == 108
    assert result.epochs == (Epoch(0, 50, 0, 0), Epoch(1, 50, 0, 0))
    assert result.unfinished == Epoch(2, 8, 0, 0)
    assert result.problems == ()


def test_samples_that_were_skipped_or_repeated_are_named() -> None:
    result = audit.audit(cursor((0, 36), (38, 60), (58, 108)))
    missing, repeated = SAMPLER.stream(36, 2).tolist(), SAMPLER.stream(58, 2).tolist()
    assert result.epochs[0] == Epoch(0, 48, 0, 2, missing_ids=tuple(missing))
    assert result.epochs[1] == Epoch(1, 48, 2, 0, repeated_ids=tuple(repeated))
    assert not result.epochs[0].exactly_once
    assert result.problems == (
        f"epoch 0: 2 samples never seen: {missing[0]}, {missing[1]}",
        f"epoch 1: 2 samples seen more than once: {repeated[0]}, {repeated[1]}",
    )


def test_a_cursor_that_is_ahead_of_the_history_tells_the_samples_that_nobody_saw() -> None:
    result = audit.audit(cursor((0, 36), samples=48))
    assert result.unfinished is not None
    assert result.unfinished.missing == 12


def test_an_audit_of_a_billion_samples_counts_exactly_and_names_the_first() -> None:
    sampler = Sampler(10**9, 1000, 0)
    spans = [{"attempt": 1, "incarnation": 1, "world_size": 8, "start": 0, "stop": 10**9 - 10**6}]
    result = audit.audit({**sampler.cursor(10**9), "history": spans})
    assert (result.epochs[0].missing, len(result.epochs[0].missing_ids)) == (10**6, audit.LISTED)


@pytest.mark.parametrize("broken", [{"order": 1}, {"history": None}, {"history": [{"start": 0}]}])
def test_a_cursor_that_cannot_be_audited_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"order 1|no history"):
        audit.audit({**cursor((0, 36)), **broken})


def test_the_command_audits_every_seal_and_ends_with_1_on_a_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seal(tmp_path, cursor((0, 36)), 3)
    seal(tmp_path, cursor((0, 36), (36, 60)), 5)
    assert audit.main([str(tmp_path)]) == 0
    assert "1 of 1 ended epochs saw every sample once" in capsys.readouterr().out
    seal(tmp_path, cursor((0, 36), (48, 60)), 6)
    assert audit.main([str(tmp_path)]) == 1
    assert "epoch 0: 12 samples never seen" in capsys.readouterr().out


def test_a_root_without_seals_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([str(tmp_path)]) == 1
    assert "no sealed checkpoint" in capsys.readouterr().out
