"""Real engines and real files: what is resumed from, what is refused, and what a failed save leaves."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import torch
import xxhash
from moto.server import ThreadedMotoServer

from orchestrator.adapters.checkpoints import list_checkpoints, verify
from orchestrator.errors import NotFound
from tests.integration.small_disk import fill
from tests.integration.trainers.families import six_steps_of_a_gan, six_steps_of_a_recommender
from tests.integration.trainers.gangs import Gang, again, digits_launch, restored_step, run_gang, text_launch
from trainers.contract import MANIFEST_NAME, Admitted, Done, ExitCode, Failed, Launch, Message, Restored, Sealed

OPTIMIZER_OF_1 = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
MODEL = "mp_rank_00_model_states.pt"


def launch_of(root: Path, *, zero: int = 2, steps: int = 4, every_steps: int = 2, keep: int = 3) -> Launch:
    return digits_launch(
        root,
        model={"width": 4},
        train={"steps": steps, "epochs": None},
        parallelism={"zero": zero},
        checkpoint={"every_steps": every_steps, "keep": keep},
    )


@pytest.fixture(scope="module")
def sealed_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks' seals of step 2 and step 4."""
    root = tmp_path_factory.mktemp("sealed")
    assert run_gang(launch_of(root)).codes == [0, 0]
    return root


@pytest.fixture
def launch(sealed_twice: Path, tmp_path: Path) -> Launch:
    """The run's next incarnation, over a copy of its seals that a test may spoil."""
    shutil.copytree(sealed_twice / "checkpoints", tmp_path / "checkpoints")
    return again(launch_of(tmp_path, steps=5))


def seal(launch: Launch, step: int) -> Path:
    (path,) = Path(launch.checkpoint_root).glob(f"*/*/step-{step:012d}")
    return path


def manifest_of(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / MANIFEST_NAME).read_text())
    return manifest


def forge(path: Path, name: str, content: bytes) -> None:
    """Replace a file, and its entry in the manifest: somebody who may write the bucket can."""
    (path / name).write_bytes(content)
    manifest = manifest_of(path)
    for each in manifest["files"]:
        if each["path"] == name:
            each.update(size_bytes=len(content), xxh3=xxhash.xxh3_64_hexdigest(content))
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))


# ---- what is resumed from -------------------------------------------------------------------------------------------


def truncate(path: Path) -> None:
    os.truncate(path / OPTIMIZER_OF_1, 1000)


def flip_a_bit(path: Path) -> None:
    content = bytearray((path / OPTIMIZER_OF_1).read_bytes())
    content[len(content) // 2] ^= 1
    (path / OPTIMIZER_OF_1).write_bytes(content)


def lose_a_shard(path: Path) -> None:
    (path / MODEL).unlink()


def lose_random_state(path: Path) -> None:
    (path / "rank-00001.rng.pt").unlink()


def lose_the_manifest(path: Path) -> None:
    (path / MANIFEST_NAME).unlink()


def garble_the_manifest(path: Path) -> None:
    (path / MANIFEST_NAME).write_text((path / MANIFEST_NAME).read_text()[:100])


def point_elsewhere(path: Path) -> None:
    manifest = manifest_of(path)
    manifest["files"][0]["path"] = "../../../../etc/passwd"
    (path / MANIFEST_NAME).write_text(json.dumps(manifest))


SPOILT: list[tuple[Callable[[Path], None], str]] = [
    (truncate, f"{OPTIMIZER_OF_1} has 1000 bytes where"),
    (flip_a_bit, f"{OPTIMIZER_OF_1} is corrupted: its xxh3 is"),
    (lose_a_shard, f"{MODEL} is missing"),
    (lose_random_state, "rank-00001.rng.pt is missing"),
    (lose_the_manifest, "its save never ended"),
    (garble_the_manifest, "its manifest cannot be read"),
    (point_elsewhere, "a manifest names plain files only"),
]


@pytest.mark.parametrize(("spoil", "why"), SPOILT, ids=[spoil.__name__ for spoil, _ in SPOILT])
def test_a_spoilt_checkpoint_is_skipped_with_the_reason(
    spoil: Callable[[Path], None], why: str, launch: Launch
) -> None:
    spoil(seal(launch, 4))
    report = verify(str(seal(launch, 4)))
    assert not report.ok
    assert why in report.problems[0]
    gang = run_gang(launch)
    restored = gang.one(Restored)
    assert (restored.step, restored.checkpoint) == (2, str(seal(launch, 2)))
    assert [each.checkpoint for each in restored.skipped] == [str(seal(launch, 2).with_name(f"step-{4:012d}"))]
    assert why in restored.skipped[0].why
    assert gang.codes == [0, 0]


class Intruder:
    """Unpickled carelessly, it leaves a mark."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self._mark}",))


@pytest.mark.parametrize("name", [OPTIMIZER_OF_1, "rank-00001.rng.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(name: str, zipped: bool, launch: Launch, tmp_path: Path) -> None:
    mark, carrier = tmp_path / "mark", tmp_path / "carrier.pt"
    torch.save({"state": Intruder(mark)}, carrier, _use_new_zipfile_serialization=zipped)
    forge(seal(launch, 4), name, carrier.read_bytes())
    assert verify(str(seal(launch, 4))).ok  # its checksums are right: only reading it tells
    gang = run_gang(launch)
    assert not mark.exists()
    assert restored_step(gang) == 2
    (skipped,) = gang.one(Restored).skipped
    assert skipped.why.startswith(f"{name} is")


def test_a_bare_pickle_is_refused(launch: Launch, tmp_path: Path) -> None:
    forge(seal(launch, 4), MODEL, pickle.dumps(Intruder(tmp_path / "mark")))
    assert restored_step(run_gang(launch)) == 2
    assert not (tmp_path / "mark").exists()


def test_with_every_checkpoint_spoilt_the_run_starts_afresh_and_tells_each_reason(launch: Launch) -> None:
    truncate(seal(launch, 4))
    lose_a_shard(seal(launch, 2))
    restored = run_gang(launch).one(Restored)
    assert (restored.step, restored.checkpoint) == (0, None)
    assert [each.why.split()[0] for each in restored.skipped] == [OPTIMIZER_OF_1, MODEL]


def test_seals_of_incarnations_that_are_not_admitted_are_not_seen(launch: Launch) -> None:
    restored = run_gang(replace(launch, admitted=())).one(Restored)
    assert restored == Restored(step=0, checkpoint=None)


def test_a_spoilt_seal_gives_way_when_its_own_incarnation_comes_by_again(launch: Launch) -> None:
    """Else its manifest would vouch for the new files while they are written, one after the other."""
    same = replace(launch, incarnation=1)
    spoilt = seal(same, 4)
    flip_a_bit(spoilt)
    left: list[bool] = []

    def look(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, Restored):
            left.append((spoilt / MANIFEST_NAME).exists())

    gang = run_gang(replace(same, config=launch_of(Path(), steps=3).config), watch=look)
    assert restored_step(gang) == 2
    assert left == [False]


def test_another_world_size_is_refused_with_the_one_it_was_made_at(launch: Launch) -> None:
    gang = run_gang(launch, world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    message = gang.one(Failed).message
    assert message.startswith("resources.workers: got 1:")
    assert "was made by 2 ranks with ZeRO 2" in message
    assert verify(str(seal(launch, 4))).ok


def test_another_zero_stage_is_refused_with_the_one_it_was_made_with(launch: Launch) -> None:
    other = replace(launch, config={**launch.config, "parallelism": {"zero": 1}})
    gang = run_gang(other)
    assert gang.codes == [ExitCode.BAD_CONFIG] * 2
    assert "was made with ZeRO 2" in gang.one(Failed).message


def test_without_zero_another_world_size_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    first = launch_of(tmp_path, zero=0)
    assert run_gang(first, world_size=1).codes == [0]
    second = replace(again(first), config=launch_of(tmp_path, zero=0, steps=8).config)
    gang = run_gang(second, world_size=2)
    assert gang.codes == [0, 0]
    assert restored_step(gang) == 4
    whole = run_gang(launch_of(tmp_path / "whole", zero=0, steps=8), world_size=1)
    assert gang.losses() == pytest.approx({step: loss for step, loss in whole.losses().items() if step > 4}, rel=1e-5)


def test_the_best_weights_come_back_at_the_end(tmp_path: Path) -> None:
    """The first epoch is declared the best; its test loss is what a run that ended there has."""
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 1}
    train = {"epochs": 20, "early_stopping": stopping}
    gang = run_gang(digits_launch(tmp_path / "long", model={"width": 4}, train=train, parallelism={"zero": 3}))
    done = gang.one(Done)
    short = digits_launch(tmp_path / "short", model={"width": 4}, train={"epochs": 1}, parallelism={"zero": 3})
    expected = run_gang(short).one(Done)
    best = gang.of(Sealed)[0]
    assert done.checkpoint == best.checkpoint
    assert done.metrics.items() >= best.metrics.items()  # what was measured of these weights, not of the last
    assert done.step > expected.step
    assert done.metrics["test_loss"] == pytest.approx(expected.metrics["test_loss"], rel=1e-12)


def test_a_best_checkpoint_that_was_damaged_gives_way_to_the_last_weights(tmp_path: Path) -> None:
    """A restart would find it damaged again, and the training is done: the run must not fail for it."""

    def spoil_the_best(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, Sealed) and message.best:
            truncate(Path(message.checkpoint))

    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 9}
    train = {"epochs": 3, "early_stopping": stopping}
    gang = run_gang(digits_launch(tmp_path / "spoilt", model={"width": 4}, train=train), watch=spoil_the_best)
    assert gang.codes == [0, 0], gang.of(Failed)
    done, (best, last) = gang.one(Done), gang.of(Sealed)
    assert best.best
    assert done.checkpoint == last.checkpoint
    assert done.note is not None
    assert f"{best.checkpoint} is damaged ({OPTIMIZER_OF_1} has 1000 bytes" in done.note
    plain = run_gang(digits_launch(tmp_path / "plain", model={"width": 4}, train={"epochs": 3})).one(Done)
    assert (plain.step, plain.note) == (done.step, None)
    assert done.metrics["test_loss"] == pytest.approx(plain.metrics["test_loss"], rel=1e-12)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_the_last_and_the_best_are_left_and_nothing_else(launch: Launch, tmp_path: Path) -> None:
    lose_the_manifest(seal(launch, 2))
    stopping = {"metric": "val_accuracy", "mode": "min", "patience": 9}
    train = {**launch.config["train"], "steps": 30, "early_stopping": stopping}
    config = {**launch.config, "train": train, "checkpoint": {"every_steps": 3, "keep": 2}}
    gang = run_gang(replace(launch, config=config))
    best = [each for each in gang.of(Sealed) if each.best][-1].step
    assert all(each.stall_s > each.seconds > 0 for each in gang.of(Sealed)), "training waits for the pruning, too"
    left = list_checkpoints(launch.checkpoint_root)
    assert [each.step for each in left] == [30, 27, best]
    assert all(verify(each.checkpoint).ok for each in left)
    assert sorted(each.name for each in tmp_path.glob("staging/*")) == []


# ---- who may write --------------------------------------------------------------------------------------------------


def test_an_older_attempt_ends_when_it_finds_a_newer_ones_fence(launch: Launch) -> None:
    newer = replace(launch, attempt=2, incarnation=1, admitted=(Admitted(1),))
    assert restored_step(run_gang(newer)) == 4
    gang = run_gang(launch)
    assert gang.codes == [ExitCode.FENCED] * 2
    assert "attempt 2 owns the checkpoints" in gang.one(Failed).message


def test_an_attempt_that_is_overtaken_while_it_runs_seals_and_deletes_nothing_more(launch: Launch) -> None:
    def overtake(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, Restored):
            Path(launch.checkpoint_root, "fence.json").write_text('{"attempt": 2}')

    config = {**launch.config, "checkpoint": {"every_steps": 100, "keep": 1}}
    gang = run_gang(replace(launch, config=config), watch=overtake)
    assert gang.codes == [ExitCode.FENCED] * 2
    assert [each.step for each in list_checkpoints(launch.checkpoint_root)] == [4, 2]


# ---- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("full", "leave_bytes"), [("checkpoint_root", 40_000), ("staging_dir", 0)])
def test_a_full_disk_ends_every_rank_and_spares_the_earlier_seals(
    full: str, leave_bytes: int, small_disk: Path, tmp_path: Path
) -> None:
    def fill_disk(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, Sealed) and message.step == 2:
            fill(small_disk, leave_bytes=leave_bytes)

    plain = launch_of(tmp_path / "plain", steps=400, every_steps=2)
    launch = dataclasses.replace(plain, **{full: str(small_disk / "run")})  # type: ignore[arg-type]
    gang = run_gang(launch, watch=fill_disk)
    assert gang.codes == [ExitCode.STORAGE] * 2
    for rank in (0, 1):
        assert "No space left on device" in gang.one(Failed, rank).message
    left = list_checkpoints(launch.checkpoint_root)
    assert [each.step for each in left] == [each.step for each in gang.of(Sealed)][: -len(left) - 1 : -1]
    assert all(verify(each.checkpoint).ok for each in left)
    (small_disk / "ballast").unlink()
    assert restored_step(run_gang(replace(again(launch), config=launch_of(tmp_path, steps=1).config))) == left[0].step


# ---- object stores --------------------------------------------------------------------------------------------------


def s3() -> Any:
    return boto3.client("s3")  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def bucket() -> Iterator[dict[str, str]]:
    """A bucket called `runs`, as the environment that leads there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        s3().create_bucket(Bucket="runs")
        yield env
    server.stop()


def test_a_bucket_holds_seals_as_a_disk_does(bucket: dict[str, str], tmp_path: Path) -> None:
    plain = launch_of(tmp_path, steps=6, every_steps=2, keep=2)
    launch = replace(plain, checkpoint_root="s3://runs/a-run")
    first = run_gang(launch, env=bucket)
    assert first.codes == [0, 0], first.one(Failed).message
    assert [each.step for each in list_checkpoints("s3://runs/a-run")] == [6, 4]
    newest = first.of(Sealed)[-1].checkpoint
    assert newest == "s3://runs/a-run/attempt-0001/incarnation-0001/step-000000000006"
    assert verify(newest).ok

    key = newest.removeprefix("s3://runs/") + "/" + OPTIMIZER_OF_1
    s3().put_object(Bucket="runs", Key=key, Body=b"short")
    assert verify(newest).problems[0].startswith(f"{OPTIMIZER_OF_1} has 5 bytes where")
    second = run_gang(again(launch), env=bucket)
    assert second.codes == [0, 0]
    restored = second.one(Restored)
    assert (restored.step, [each.checkpoint for each in restored.skipped]) == (4, [newest])
    assert {step: loss for step, loss in first.losses().items() if step > 4} == second.losses()
    assert list((tmp_path / "staging").iterdir()) == []


@pytest.mark.parametrize("parallelism", [{"pipeline": 2}, {"tensor": 2, "zero": 3}])
def test_every_rank_finds_in_a_bucket_what_its_peers_wrote(
    parallelism: dict[str, int], bucket: dict[str, str], tmp_path: Path
) -> None:
    plain = text_launch(tmp_path, model={}, train={"steps": 4}, parallelism=parallelism, checkpoint={"every_steps": 2})
    launch = replace(plain, checkpoint_root=f"s3://runs/{'-'.join(parallelism)}")
    first = run_gang(launch, env=bucket)
    assert first.codes == [0, 0], first.one(Failed).message
    newest = first.of(Sealed)[-1].checkpoint
    s3().delete_object(Bucket="runs", Key=newest.removeprefix("s3://runs/") + "/" + MANIFEST_NAME)
    second = run_gang(again(launch), env=bucket)
    assert second.codes == [0, 0], second.one(Failed).message
    assert restored_step(second) == 2
    assert second.losses() == {step: loss for step, loss in first.losses().items() if step > 2}


@pytest.mark.parametrize(("six_steps", "ranks_after"), [(six_steps_of_a_gan, 2), (six_steps_of_a_recommender, 1)])
def test_helpers_and_what_a_task_keeps_come_back_from_a_bucket(
    six_steps: Callable[[Path], Launch], ranks_after: int, bucket: dict[str, str], tmp_path: Path
) -> None:
    whole = run_gang(six_steps(tmp_path / "whole"))
    launch = replace(six_steps(tmp_path / "cut"), checkpoint_root=f"s3://runs/{six_steps.__name__}")
    four = {**launch.config, "train": {**launch.config["train"], "steps": 4}}
    first = run_gang(replace(launch, config=four), env=bucket)
    assert first.codes == [0, 0], first.one(Failed).message
    second = run_gang(again(launch), world_size=ranks_after, env=bucket)
    assert second.one(Restored).step == 4
    assert second.losses() == pytest.approx({step: whole.losses()[step] for step in (5, 6)}, rel=1e-5)
    assert list((tmp_path / "cut" / "staging").iterdir()) == []


def test_a_bucket_that_is_gone_ends_every_rank_with_its_name(bucket: dict[str, str], tmp_path: Path) -> None:
    launch = replace(launch_of(tmp_path), checkpoint_root="s3://no-such-bucket/a-run")
    gang = run_gang(launch, env=bucket)
    assert gang.codes == [ExitCode.STORAGE] * 2
    assert "s3://no-such-bucket/a-run" in gang.one(Failed).message


def test_nothing_at_a_place_is_not_an_empty_checkpoint(tmp_path: Path) -> None:
    assert list_checkpoints(str(tmp_path / "nothing")) == []
    with pytest.raises(NotFound, match="no checkpoint at"):
        verify(str(tmp_path / "nothing"))
