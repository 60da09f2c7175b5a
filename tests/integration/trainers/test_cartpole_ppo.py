"""PPO on CartPole: both ranks play, and learn from what both have seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.trainers.gangs import LONG_PATIENCE_S, Gang, again, digits_launch, restored_step, run_gang
from trainers.contract import Done, EpochEnded, ExitCode, Failed, Launch, Message, Step

pytest.importorskip("gymnasium")
SMALL = {"environments": 8, "horizon": 16, "passes": 2, "episodes": 4}


def cartpole_launch(root: Path, *, train: dict[str, Any], **config: Any) -> Launch:
    sections = {"model": {}, "parallelism": {"zero": 0}, **config}
    launch = digits_launch(root, data={"source": "gymnasium://CartPole-v1"}, train=train, **sections)
    return replace(launch, target="cartpole_ppo")


def two_epochs(root: Path, **config: Any) -> Launch:
    """Eight steps each."""
    return cartpole_launch(root, train={"epochs": 2, "global_batch": 32, "lr": 1e-3}, model=SMALL, **config)


def test_the_pole_stays_up_for_475_steps_and_more(tmp_path: Path) -> None:
    stopping = {"metric": "val_return", "mode": "max", "target": 490.0}
    train = {
        "epochs": 80,
        "global_batch": 512,
        "optimizer": "adam",
        "lr": 3e-3,
        "clip": 0.5,
        "early_stopping": stopping,
    }
    gang = run_gang(cartpole_launch(tmp_path, train=train), patience_s=LONG_PATIENCE_S)
    done = gang.one(Done)
    assert done.stopped_early is not None
    assert done.stopped_early.startswith("val_return has reached")
    assert gang.of(EpochEnded)[0].metrics["val_return"] < 475
    assert done.metrics["test_return"] >= 475


def test_what_is_played_and_learned_does_not_depend_on_the_world_size(tmp_path: Path) -> None:
    gangs = [run_gang(two_epochs(tmp_path / str(size)), world_size=size) for size in (1, 2)]
    one, two = ([each.metrics for each in gang.of(EpochEnded)] for gang in gangs)
    assert [each["mean_return"] for each in two] == [each["mean_return"] for each in one]
    assert gangs[1].losses() == pytest.approx(gangs[0].losses(), rel=1e-4)


def test_a_resumed_run_plays_on_with_new_episodes(tmp_path: Path) -> None:
    def kill(gang: Gang, rank: int, message: Message) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 11:
            gang.kill(1)

    launch = two_epochs(tmp_path, checkpoint={"every_steps": 5})
    run_gang(launch, watch=kill)
    second = run_gang(again(launch))
    assert restored_step(second) == 10
    assert list(second.losses()) == [11, 12, 13, 14, 15, 16]
    assert [each.epoch for each in second.of(EpochEnded)] == [1]
    assert second.one(Done).metrics["mean_return"] > 0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"data": {"source": "gymnasium://Cartpole-v9"}},
            "data.source: got 'gymnasium://Cartpole-v9': gymnasium cannot",
        ),
        ({"data": {"source": "gymnasium://Pendulum-v1"}}, "numbered actions"),
        (
            {"model": {"environments": 7}},
            "model.environments: got 7: must be a multiple of the number of ranks, here 2",
        ),
        (
            {"parallelism": {"zero": 3}},
            "parallelism.zero: got 3: must be at most 2: the ranks' episodes differ in length",
        ),
    ],
)
def test_what_cannot_be_played_is_a_bad_config(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    launch = two_epochs(tmp_path)
    gang = run_gang(replace(launch, config={**launch.config, **config}))
    assert gang.codes == [ExitCode.BAD_CONFIG, ExitCode.BAD_CONFIG]
    assert words in gang.one(Failed).message
