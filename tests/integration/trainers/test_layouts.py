"""One training in every layout: the same losses, checkpoints that resume, and weights that leave as one file.

Each layout trains once, for all tests together. Parity is what the optimizer made of the gradients: were one of them
scaled or summed wrongly, clipping would show it in the next step's loss.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.integration.trainers.gangs import Gang, again, digits_launch, restored_step, run_gang, text_launch
from trainers.config import read_settings
from trainers.contract import Done, ExitCode, Failed, Launch, Manifest, Sealed
from trainers.export import whole_weights
from trainers.recipes import MAKERS

STEPS = 20
ALONE: dict[str, int] = {}

# By name: the world size, the degrees.
DENSE: dict[str, tuple[int, dict[str, int]]] = {
    "zero 0": (2, {}),
    "zero 1": (2, {"zero": 1}),
    "zero 2": (2, {"zero": 2}),
    "zero 3": (2, {"zero": 3}),
    "tensor": (2, {"tensor": 2}),
    "pipeline": (2, {"pipeline": 2}),
    "sequence": (2, {"sequence": 2}),
    "tensor x data": (4, {"tensor": 2}),
    "pipeline x data": (4, {"pipeline": 2}),
    "sequence x data": (4, {"sequence": 2}),
    "tensor x data, zero 3": (4, {"tensor": 2, "zero": 3}),
    "sequence x data, zero 3": (4, {"sequence": 2, "zero": 3}),
    "sequence x tensor, zero 2": (4, {"tensor": 2, "sequence": 2, "zero": 2}),
    "pipeline x tensor, zero 1": (4, {"pipeline": 2, "tensor": 2, "zero": 1}),
    "pipeline x sequence": (4, {"pipeline": 2, "sequence": 2}),
}
SPARSE: dict[str, tuple[int, dict[str, int]]] = {
    "expert 1": (2, {}),
    "expert 2": (2, {"expert": 2}),
    "expert 2, zero 2": (2, {"expert": 2, "zero": 2}),
    "expert x tensor, zero 1": (4, {"expert": 2, "tensor": 2, "zero": 1}),
    "expert x sequence": (4, {"expert": 2, "sequence": 2}),
    "expert x pipeline": (4, {"expert": 2, "pipeline": 2}),
}
EVERY = {**DENSE, **SPARSE}


@dataclass(frozen=True)
class Trained:
    launch: Launch
    world_size: int
    gang: Gang

    @property
    def newest(self) -> Path:
        return Path(self.gang.of(Sealed)[-1].checkpoint)


Train = Callable[[str], Trained]


def launch_of(root: Path, parallelism: dict[str, Any], **model: Any) -> Launch:
    # DeepSpeed clips by a mean of norms where ranks hold different experts, so no two layouts agree on it.
    clip = None if "experts" in model else 0.5
    train = {"steps": STEPS, "micro_batch": 2, "clip": clip}
    return text_launch(root, model=model, train=train, parallelism=parallelism, checkpoint={"every_steps": STEPS // 2})


def assert_ended_well(gang: Gang) -> None:
    assert set(gang.codes) == {0}, [each for rank in range(len(gang.ranks)) for each in gang.of(Failed, rank)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Train:
    done: dict[str, Trained] = {}

    def train(name: str) -> Trained:
        if name not in done:
            world_size, degrees = EVERY.get(name, (1, ALONE))
            experts = {"experts": 4} if name in SPARSE or name == "alone, sparse" else {}
            launch = launch_of(tmp_path_factory.mktemp("layout") / "run", degrees, **experts)
            done[name] = Trained(launch, world_size, run_gang(launch, world_size=world_size))
            assert_ended_well(done[name].gang)
        return done[name]

    return train


@pytest.mark.parametrize("name", DENSE)
def test_losses_are_those_of_one_process(name: str, trained: Train) -> None:
    alone, divided = trained("alone").gang, trained(name).gang
    assert len(alone.losses()) == STEPS
    assert divided.losses() == pytest.approx(alone.losses(), abs=1e-4)
    assert divided.one(Done).metrics == pytest.approx(alone.one(Done).metrics, abs=1e-4)


@pytest.mark.parametrize("name", SPARSE)
def test_losses_of_divided_experts_are_those_of_one_process(name: str, trained: Train) -> None:
    alone, divided = trained("alone, sparse").gang, trained(name).gang
    assert divided.losses() == pytest.approx(alone.losses(), abs=1e-4)
    assert divided.one(Done).metrics == pytest.approx(alone.one(Done).metrics, abs=1e-4)


@pytest.mark.parametrize("name", EVERY)
def test_the_weights_of_every_layout_leave_whole(name: str, trained: Train) -> None:
    run = trained(name)
    manifest = Manifest.from_json((run.newest / "manifest.json").read_text())
    task = MAKERS["text_transformer"](read_settings(run.launch))
    model = task.model().eval()
    model.load_state_dict(whole_weights(manifest, run.newest), strict=True)
    test = task.splits.test
    batch = {**test.take(np.arange(len(test))), "keys": torch.zeros(len(test), dtype=torch.int64)}
    with torch.no_grad():
        loss = task.measure(model, batch)["loss"].mean().item()
    assert loss == pytest.approx(run.gang.one(Done).metrics["test_loss"], abs=1e-5)


@pytest.mark.parametrize(
    "name",
    ["tensor x data, zero 3", "pipeline x tensor, zero 1", "sequence x data", "expert 2", "expert x tensor, zero 1"],
)
def test_a_layout_resumes_where_it_was_sealed(name: str, trained: Train, tmp_path: Path) -> None:
    run = trained(name)
    root = tmp_path / "checkpoints"
    shutil.copytree(run.launch.checkpoint_root, root)
    shutil.rmtree(root / run.newest.relative_to(run.launch.checkpoint_root))
    launch = again(run.launch, checkpoint_root=str(root), staging_dir=str(tmp_path / "staging"))
    resumed = run_gang(launch, world_size=run.world_size)
    assert_ended_well(resumed)
    assert restored_step(resumed) == STEPS // 2
    expected = {step: loss for step, loss in run.gang.losses().items() if step > STEPS // 2}
    assert resumed.losses() == expected
    assert resumed.one(Done).metrics == run.gang.one(Done).metrics


def test_a_seal_of_another_layout_is_refused_with_the_one_it_was_made_with(trained: Train) -> None:
    run = trained("tensor")
    other = {**run.launch.config, "parallelism": {"pipeline": 2}}
    gang = run_gang(again(replace(run.launch, config=other)))
    assert gang.codes == [ExitCode.BAD_CONFIG] * 2
    message = gang.one(Failed).message
    assert message.startswith("parallelism.tensor: got 1:")
    assert "was made with tensor parallelism of 2" in message


@pytest.mark.parametrize(
    ("world_size", "degrees", "words"),
    [
        (2, {"tensor": 3}, "resources.workers: got 2: must be a multiple of 3"),
        (3, {"sequence": 3}, "parallelism.sequence: got 3: must divide model.context, 16"),
    ],
)
def test_a_layout_that_does_not_divide_is_a_bad_config_on_every_rank(
    world_size: int, degrees: dict[str, int], words: str, tmp_path: Path
) -> None:
    gang = run_gang(launch_of(tmp_path, degrees), world_size=world_size)
    assert gang.codes == [ExitCode.BAD_CONFIG] * world_size
    assert gang.one(Failed).message.startswith(words)


ENTRYPOINT = """
from trainers.recipes.digits_cnn import digits_cnn as make_task
"""


def test_a_model_that_cannot_be_divided_is_a_bad_config(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ENTRYPOINT)
    launch = digits_launch(tmp_path, parallelism={"tensor": 2})
    gang = run_gang(replace(launch, kind="entrypoint", target="mine:make_task", code_dir=str(tmp_path)))
    assert gang.codes == [ExitCode.BAD_CONFIG] * 2
    assert gang.one(Failed).message.startswith("parallelism.tensor: got 2: must be 1: the model has no `divide`")


def test_the_optimizers_state_may_lie_in_the_hosts_memory(trained: Train, tmp_path: Path) -> None:
    gang = run_gang(launch_of(tmp_path, {"zero": 2, "offload": "cpu"}))  # type: ignore[dict-item]
    assert_ended_well(gang)
    assert gang.losses() == pytest.approx(trained("alone").gang.losses(), abs=1e-4)
