"""What the planner says of DeepSpeed, held to the DeepSpeed that is installed: one process, no training."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.planning.incompatibilities import KEYS, REMOVED, REMOVED_ZERO, RENAMED_ZERO, ZERO_KEYS
from tests.deepspeed_refusals import (
    IGNORANCES,
    REFUSALS,
    REFUSED_BY_THE_RUN_FILE,
    REFUSED_OF_A_LAYOUT,
    SAYS,
    Example,
)
from tests.integration.trainers.gangs import run_function

REFUSED = (*REFUSALS, *REFUSED_OF_A_LAYOUT, *REFUSED_BY_THE_RUN_FILE)
WORKING = [
    *(Example(f"ZeRO {zero}", zero=zero) for zero in range(4)),
    *(Example(f"pipeline, ZeRO {zero}", zero=zero, model="pipeline") for zero in (0, 1)),
    *(Example(f"experts, ZeRO {zero}", zero=zero, model="experts") for zero in (0, 1, 2)),
]


def ask_deepspeed(path: Path) -> None:
    """In a process of its own: write what DeepSpeed makes of every example."""
    from trainers.distributed import join

    join(1)
    examples = (*WORKING, *IGNORANCES, *REFUSED)
    path.write_text(json.dumps([_answer(each) for each in examples]))


def _answer(example: Example) -> dict[str, Any]:
    import deepspeed

    initialize: Any = deepspeed.initialize
    try:
        model = _model(example.model)
        engine = initialize(model=model, model_parameters=list(model.parameters()), config=_config(example))[0]
    except Exception as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    optimizer = engine.optimizer
    return {
        "refused": "",
        "offloads": bool(getattr(optimizer, "cpu_offload", False)),
        "swaps": getattr(optimizer, "optimizer_swapper", None) is not None,
        "offloads parameters": bool(getattr(optimizer, "offload_param", False)),
        "bf16": bool(engine.bfloat16_enabled()),
    }


def _config(example: Example) -> dict[str, Any]:
    passed = dict(example.passed)
    zero = {"stage": example.zero, **passed.pop("zero_optimization", {})}
    ours = {
        "train_batch_size": 4,
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": example.clip or 0.0,
        "bf16": {"enabled": example.precision == "bf16"},
        "zero_allow_untested_optimizer": True,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-3, "torch_adam": True}},
    }
    return {**ours, **passed, "zero_optimization": zero}


def _model(kind: str) -> Any:
    from deepspeed.moe.layer import MoE
    from deepspeed.pipe import PipelineModule
    from torch import nn

    if kind == "pipeline":
        return PipelineModule([nn.Linear(8, 8), nn.Linear(8, 8)], num_stages=1, loss_fn=nn.MSELoss())
    if kind == "experts":
        return nn.Sequential(nn.Linear(8, 8), MoE(8, nn.Linear(8, 8), num_experts=2, ep_size=1))
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, dict[str, Any]]:
    path = tmp_path_factory.mktemp("deepspeed") / "answers.json"
    run_function(ask_deepspeed, 1, path)
    told = json.loads(path.read_text())
    return {_key(each): answer for each, answer in zip((*WORKING, *IGNORANCES, *REFUSED), told, strict=True)}


def _key(example: Example) -> Any:
    return (example.rule, example.zero)


@pytest.mark.parametrize("example", WORKING, ids=lambda each: each.rule)
def test_deepspeed_takes_what_the_rules_leave(example: Example, answers: dict[Any, dict[str, Any]]) -> None:
    assert answers[_key(example)]["refused"] == ""


@pytest.mark.parametrize("example", REFUSED, ids=lambda each: f"{each.rule}, ZeRO {each.zero}")
def test_deepspeed_refuses_what_the_planner_says(example: Example, answers: dict[Any, dict[str, Any]]) -> None:
    assert SAYS[example.rule] in answers[_key(example)]["refused"]


def test_deepspeed_silently_does_without(answers: dict[Any, dict[str, Any]]) -> None:
    plain, parameters, nvme, old_word = (answers[_key(each)] for each in IGNORANCES)
    assert [each["refused"] for each in (plain, parameters, nvme, old_word)] == ["", "", "", ""]
    assert not plain["offloads"]
    assert not parameters["offloads parameters"]
    assert nvme["offloads"]
    assert not nvme["swaps"]
    assert not old_word["bf16"]


class Watched(dict[str, Any]):
    """Notes every key that somebody looks for."""

    def __init__(self, **keys: Any) -> None:
        super().__init__(keys)
        self.looked_for: set[str] = set()

    def get(self, key: Any, default: Any = None) -> Any:
        self.looked_for.add(key)
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.looked_for.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.looked_for.add(str(key))
        return super().__contains__(key)

    def keys(self) -> Any:
        return self  # `key in config.keys()` looks for one, too

    def __copy__(self) -> Watched:
        return self


def test_the_planner_knows_every_key_that_deepspeed_looks_for() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime.config import DeepSpeedConfig

    config = Watched(train_batch_size=2)
    DeepSpeedConfig(config)
    assert config.looked_for == KEYS


def test_the_planner_knows_deepspeeds_words_for_zero() -> None:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.runtime import config
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    fields = DeepSpeedZeroConfig.model_fields
    assert set(fields) | {each.alias for each in fields.values() if each.alias} == ZERO_KEYS
    assert set(config._REMOVED_TOP_LEVEL_CONFIG_KEYS) == set(REMOVED)
    assert set(config._REMOVED_ZERO_CONFIG_KEYS) == set(REMOVED_ZERO)
    old = {name for name, each in fields.items() if (each.json_schema_extra or {}).get("deprecated")}
    assert old == set(RENAMED_ZERO)
