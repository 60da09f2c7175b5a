"""What the run file may say to a rank, and what it is told when it cannot work."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from trainers.config import EarlyStopping, Schedule, Settings, Train, plan_batch, read_settings
from trainers.contract import Launch
from trainers.engine import deepspeed_config, precision_of
from trainers.errors import BadConfig
from trainers.layout import BatchPlan

GOOD: dict[str, Any] = {
    "data": {"source": "sklearn://digits", "split": [0.7, 0.15, 0.15]},
    "train": {"global_batch": 128, "epochs": 20, "steps": None, "lr": 1, "early_stopping": None},
    "parallelism": {"zero": 2, "tensor": 1},
    "deepspeed": {},
    "checkpoint": {"every": 60.0, "keep": 3},
}


def launch(config: dict[str, Any], seed: int = 0) -> Launch:
    return Launch("run-1", "one", 1, 1, "recipe", "digits_cnn", config, "/c", "/s", seed=seed)


def changed(path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(GOOD)
    *sections, name = path.split(".")
    inner = config
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[name] = value
    return config


def test_settings_hold_what_the_run_file_says() -> None:
    config = changed("train.early_stopping", {"metric": "val_loss", "mode": "min", "patience": 5})
    config["train"]["schedule"] = {"type": "cosine", "warmup_steps": 10}
    settings = read_settings(launch(config))
    assert settings.train.lr == 1.0
    assert settings.train.early_stopping == EarlyStopping("val_loss", 5, "min")
    assert settings.train.schedule == Schedule("cosine", 10)
    assert settings.data.split == (0.7, 0.15, 0.15)
    assert settings.parallelism.zero == 2


def test_the_seed_of_the_launch_holds_unless_the_run_file_names_one() -> None:
    assert read_settings(launch(GOOD, seed=7)).train.seed == 7
    assert read_settings(launch(changed("train.seed", 8), seed=7)).train.seed == 8


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("train.lr", "fast"),
        ("train.lr", -1.0),
        ("train.lr", float("nan")),
        ("train.lr", True),
        ("train.epochs", 0),
        ("train.epochs", 1.5),
        ("train.optimizer", "adagrad"),
        ("train.learning_rate", 0.1),
        ("train.clip", 0.0),
        ("train.precision", "fp8"),
        ("train.schedule.type", "wavy"),
        ("train.schedule.final_ratio", 2.0),
        ("train.schedule.warmup_steps", -1),
        ("data.split", [0.7, 0.3]),
        ("data.split", [0.7, 0.7, 0.7]),
        ("parallelism.zero", 4),
        ("parallelism.tensor", 0),
        ("parallelism.offload", "disk"),
        ("checkpoint.keep", 0),
        ("model", [1]),
    ],
)
def test_what_cannot_work_is_refused_with_its_path(path: str, value: Any) -> None:
    with pytest.raises(BadConfig) as refused:
        read_settings(launch(changed(path, value)))
    assert refused.value.path == path
    assert repr(value) in str(refused.value) or "split" in path


def test_a_missing_value_is_named() -> None:
    config = copy.deepcopy(GOOD)
    del config["train"]["global_batch"]
    with pytest.raises(BadConfig, match=r"^train\.global_batch: got None: is required"):
        read_settings(launch(config))


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(BadConfig, match="needs epochs, steps or both"):
        read_settings(launch(changed("train.epochs", None)))


@pytest.mark.parametrize(
    ("micro_batch", "world_size", "plan"),
    [
        (None, 1, BatchPlan(128, 128, 1, 1)),
        (None, 4, BatchPlan(128, 32, 1, 4)),
        (16, 2, BatchPlan(128, 16, 4, 2)),
        (16, 32, BatchPlan(128, 4, 1, 32)),  # more ranks than the micro-batch was thought for
        (24, 2, BatchPlan(128, 16, 4, 2)),  # the largest divisor within the bound
    ],
)
def test_ranks_share_the_global_batch(micro_batch: int | None, world_size: int, plan: BatchPlan) -> None:
    assert plan_batch(Train(global_batch=128, micro_batch=micro_batch), world_size) == plan
    assert plan.micro_batch * plan.accumulation * plan.data == plan.global_batch


def test_a_pipeline_gets_a_micro_batch_for_each_stage() -> None:
    assert plan_batch(Train(global_batch=128), 2, stages=4) == BatchPlan(128, 16, 4, 2)
    assert plan_batch(Train(global_batch=128, micro_batch=64), 2, stages=4) == BatchPlan(128, 64, 1, 2)


def test_ranks_that_cannot_share_the_batch_evenly_are_refused() -> None:
    with pytest.raises(BadConfig, match=r"train\.global_batch: got 128: must be a multiple of the number of ranks"):
        plan_batch(Train(global_batch=128), 3)


def settings(deepspeed: dict[str, Any], **train: Any) -> Settings:
    config = changed("deepspeed", deepspeed)
    config["train"].update(train)
    return read_settings(launch(config))


def test_deepspeed_gets_our_settings_and_its_own_keys() -> None:
    passed = {"zero_optimization": {"overlap_comm": False}, "wall_clock_breakdown": True}
    config = deepspeed_config(settings(passed, clip=0.5), BatchPlan(128, 16, 4, 2), torch.bfloat16)
    assert config["train_batch_size"] == 128
    assert config["train_micro_batch_size_per_gpu"] == 16
    assert config["gradient_accumulation_steps"] == 4
    assert config["gradient_clipping"] == 0.5
    assert config["bf16"] == {"enabled": True}
    assert config["zero_optimization"] == {"stage": 2, "overlap_comm": False}
    assert config["wall_clock_breakdown"] is True
    assert config["optimizer"]["params"]["torch_adam"] is True


@pytest.mark.parametrize(
    ("passed", "path", "instead"),
    [
        ({"train_batch_size": 4}, "deepspeed.train_batch_size", "train.global_batch"),
        ({"zero_optimization": {"stage": 3}}, "deepspeed.zero_optimization.stage", "parallelism.zero"),
        ({"bf16": {"enabled": True}}, "deepspeed.bf16", "train.precision"),
        ({"optimizer": {"type": "Lamb"}}, "deepspeed.optimizer", "train.optimizer"),
        ({"checkpoint": {"load_universal": True}}, "deepspeed.checkpoint", "the run file's own checkpoint section"),
        ({"checkpoint": {"use_node_local_storage": True}}, "deepspeed.checkpoint", "by Evertrain alone"),
    ],
)
def test_keys_that_evertrain_sets_are_refused(passed: dict[str, Any], path: str, instead: str) -> None:
    with pytest.raises(BadConfig) as refused:
        deepspeed_config(settings(passed), BatchPlan(128, 128, 1, 1), torch.float32)
    assert refused.value.path == path
    assert instead in str(refused.value)


@pytest.mark.parametrize(
    ("parallelism", "zero", "path"),
    [
        ({"zero": 2}, {"offload_optimizer": {"device": "nvme"}}, "zero_optimization.offload_optimizer.device"),
        ({"zero": 3, "sequence": 2}, {"reduce_scatter": False}, "zero_optimization.reduce_scatter"),
    ],
)
def test_what_a_layout_could_not_seal_or_sum_is_refused(
    parallelism: dict[str, int], zero: dict[str, Any], path: str
) -> None:
    config = changed("deepspeed", {"zero_optimization": zero})
    config["parallelism"] = parallelism
    with pytest.raises(BadConfig) as refused:
        deepspeed_config(read_settings(launch(config)), BatchPlan(128, 128, 1, 1), torch.float32)
    assert refused.value.path == f"deepspeed.{path}"


def test_offload_and_divided_sequences_reach_deepspeeds_configuration() -> None:
    config = changed("parallelism", {"zero": 1, "pipeline": 2, "sequence": 2, "offload": "cpu"})
    made = deepspeed_config(read_settings(launch(config)), BatchPlan(128, 16, 8, 1), torch.float32)
    assert made["zero_optimization"] == {"stage": 1, "offload_optimizer": {"device": "cpu"}}
    assert made["train_batch_size"] == 2 * 128  # its grid counts both halves of a sample


def test_precision_follows_the_device_unless_said() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert precision_of(Train(global_batch=1), cpu) is torch.float32
    assert precision_of(Train(global_batch=1), gpu) is torch.bfloat16
    assert precision_of(Train(global_batch=1, precision="fp32"), gpu) is torch.float32
    assert precision_of(Train(global_batch=1, precision="bf16"), cpu) is torch.bfloat16
