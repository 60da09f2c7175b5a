"""The pure part of checkpoints: what a directory is, which is resumed from, which are deleted."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.contract import (
    Admitted,
    Listed,
    Manifest,
    ManifestFile,
    choose,
    file_problem,
    found,
    incarnation_dir,
    retire,
    step_dir,
)

NOW = Admitted(1, 2)


def manifest(step: int, *, attempt: int = 1, incarnation: int = 1, best: bool = False, **changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "run_id": "run-a",
        "attempt": attempt,
        "incarnation": incarnation,
        "step": step,
        "epoch": 0,
        "world_size": 1,
        "layout": {"zero": 0},
        "cursor": {},
        "files": (ManifestFile("a.pt", 3, "0" * 16),),
        "metrics": {},
        "best": best,
        "versions": {},
        "created": "2026-01-01T00:00:00+00:00",
        **changes,
    }
    return Manifest(**values)


def path(step: int, attempt: int = 1, incarnation: int = 1) -> str:
    return f"{incarnation_dir(attempt, incarnation)}/{step_dir(step)}"


def sealed(step: int, *, attempt: int = 1, incarnation: int = 1, best: bool = False) -> Listed:
    text = manifest(step, attempt=attempt, incarnation=incarnation, best=best).to_json()
    listed = found(path(step, attempt, incarnation), text)
    assert listed is not None
    return listed


def unsealed(step: int, *, incarnation: int = 1) -> Listed:
    listed = found(path(step, 1, incarnation), None)
    assert listed is not None
    return listed


# ---- what a directory is --------------------------------------------------------------------------------------------


def test_a_seal_is_known_by_its_path_and_its_manifest() -> None:
    listed = found(f"s3://bucket/run/{path(7, 2, 3)}", manifest(7, attempt=2, incarnation=3).to_json())
    assert listed is not None
    assert (listed.attempt, listed.incarnation, listed.step, listed.problem) == (2, 3, 7, None)
    assert listed.manifest == manifest(7, attempt=2, incarnation=3)


@pytest.mark.parametrize("name", ["fence.json", "attempt-0001", "attempt-0001/incarnation-0001", "attempt-1/x/step-3"])
def test_other_paths_are_no_checkpoints(name: str) -> None:
    assert found(name, None) is None


def test_a_save_that_never_ended_is_told_from_one_that_is_damaged() -> None:
    assert unsealed(7).unsealed
    damaged = found(path(7), '{"format": 1')
    assert damaged is not None
    assert not damaged.unsealed
    assert damaged.problem is not None
    assert "its manifest cannot be read" in damaged.problem


def test_a_manifest_in_anothers_place_is_not_believed() -> None:
    listed = found(path(8), manifest(7).to_json())
    assert listed is not None
    assert listed.manifest is None
    assert listed.problem == "its manifest is another one's: attempt, incarnation and step are (1, 1, 7)"


@pytest.mark.parametrize("name", ["../a.pt", "/etc/passwd", "sub/a.pt", "..", "", "manifest.json"])
def test_a_manifest_cannot_name_files_elsewhere(name: str) -> None:
    text = json.dumps(dataclasses.asdict(manifest(7, files=(ManifestFile(name, 3, "0" * 16),))))
    with pytest.raises(ValueError, match="plain files only"):
        Manifest.from_json(text)


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', '{"format": 1, "files": [1]}', '{"format": 1}', "{}"])
def test_any_other_json_is_not_a_manifest(text: str) -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(text)


def test_a_manifest_of_a_later_format_names_both_formats() -> None:
    with pytest.raises(ValueError, match="manifest format 2, this version reads 1"):
        Manifest.from_json(manifest(7, format=2).to_json())


@pytest.mark.parametrize(
    ("size_bytes", "xxh3", "problem"),
    [
        (None, None, "a.pt is missing"),
        (2, None, "a.pt has 2 bytes where 3 were sealed"),
        (3, "f" * 16, f"a.pt is corrupted: its xxh3 is {'f' * 16}, {'0' * 16} was sealed"),
        (3, None, None),
        (3, "0" * 16, None),
    ],
)
def test_a_file_is_judged_by_presence_then_size_then_checksum(
    size_bytes: int | None, xxh3: str | None, problem: str | None
) -> None:
    assert file_problem(ManifestFile("a.pt", 3, "0" * 16), size_bytes, xxh3) == problem


# ---- which is resumed from ------------------------------------------------------------------------------------------


def chosen(listed: list[Listed], broken: Mapping[str, str]) -> tuple[int | None, list[tuple[str, str]], int]:
    """The step taken, what was skipped and why, and how many had to be verified."""
    verdicts: dict[str, str | None] = {}
    while (choice := choose(listed, verdicts)).undecided is not None:
        verdicts[choice.undecided.checkpoint] = broken.get(choice.undecided.checkpoint)
    step = None if choice.taken is None else choice.taken.step
    return step, [(each.checkpoint, each.why) for each in choice.skipped], len(verdicts)


def test_the_newest_that_verifies_is_taken_and_no_older_one_is_read() -> None:
    listed = [sealed(1), sealed(4), sealed(3), sealed(2)]
    assert chosen(listed, {path(4): "a.pt is missing"}) == (3, [(path(4), "a.pt is missing")], 2)


def test_unsealed_ones_are_skipped_without_being_read() -> None:
    assert chosen([sealed(1), unsealed(2)], {}) == (1, [(path(2), "it has no manifest: its save never ended")], 1)


def test_of_two_seals_of_one_step_the_later_incarnations_is_newer() -> None:
    assert choose([sealed(5, incarnation=2), sealed(5)], {}).undecided == sealed(5, incarnation=2)
    assert choose([sealed(5, incarnation=9), sealed(5, attempt=2)], {}).undecided == sealed(5, attempt=2)


def test_with_nothing_that_verifies_nothing_is_taken_and_every_reason_told() -> None:
    assert chosen([sealed(1), sealed(2)], {path(1): "x", path(2): "y"}) == (None, [(path(2), "y"), (path(1), "x")], 2)
    assert chosen([], {}) == (None, [], 0)


# ---- which are deleted ----------------------------------------------------------------------------------------------


def test_the_last_ones_and_the_best_are_kept() -> None:
    listed = [sealed(step, best=step in (2, 3)) for step in range(1, 8)]
    drops = retire(listed, keep=2, current=NOW)
    assert [each.listed.step for each in drops] == [5, 4, 2, 1]  # 3 is the best so far, 2 was once
    assert {each.why for each in drops} == {"older than the last 2 and not the best"}


def test_remains_of_interrupted_saves_go_but_not_the_save_that_may_be_under_way() -> None:
    listed = [
        unsealed(9, incarnation=1),
        unsealed(3, incarnation=2),
        sealed(5, incarnation=2),
        unsealed(6, incarnation=2),
    ]
    drops = retire(listed, keep=3, current=NOW)
    assert {(each.listed.step, each.why) for each in drops} == {
        (9, "its save never ended"),
        (3, "its save never ended"),
    }


def test_a_seal_that_cannot_be_read_is_left_for_people() -> None:
    damaged = found(path(1), "nonsense")
    assert damaged is not None
    assert retire([damaged, sealed(5), sealed(6)], keep=1, current=NOW)[0].listed.step == 5
    assert damaged not in [each.listed for each in retire([damaged, sealed(5), sealed(6)], keep=1, current=NOW)]


def any_seal(step: int, incarnation: int, best: bool) -> Listed:
    return sealed(step, incarnation=incarnation, best=best)


SEALS = st.lists(
    st.builds(any_seal, st.integers(1, 50), st.integers(1, 3), st.booleans()), unique_by=lambda each: each.checkpoint
)


@given(SEALS, st.integers(1, 5))
def test_retention_never_touches_the_newest_or_the_best_and_is_done_in_one_go(listed: list[Listed], keep: int) -> None:
    dropped = {each.listed.checkpoint for each in retire(listed, keep=keep, current=NOW)}
    left = [each for each in listed if each.checkpoint not in dropped]
    newest_first = sorted(listed, key=lambda each: each.order, reverse=True)
    best = next((each for each in newest_first if each.manifest and each.manifest.best), None)
    assert {each.checkpoint for each in newest_first[:keep]} <= {each.checkpoint for each in left}
    assert best is None or best in left
    assert len(left) <= keep + 1
    assert retire(left, keep=keep, current=NOW) == ()
