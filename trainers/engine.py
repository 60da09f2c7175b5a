"""DeepSpeed: from our settings to its JSON, and from a model to its engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import nn

from trainers.config import BatchPlan, Parallelism, Schedule, Settings, Train
from trainers.distributed import World
from trainers.errors import BadConfig
from trainers.parallel import Place
from trainers.schedule import learning_rate_factor

Engine = DeepSpeedEngine

_OWNED = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.global_batch and train.micro_batch",
    "optimizer": "train.optimizer",
    "scheduler": "train.schedule",
    "gradient_clipping": "train.clip",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "zero_optimization.stage": "parallelism.zero",
    "tensor_parallel": "parallelism.tensor",
    "sequence_parallel_size": "parallelism.sequence",
    "data_parallel_size": "resources.workers",
    "pipeline": "parallelism.pipeline",
    "expert_parallel": "parallelism.expert",
}


def precision_of(train: Train, device: torch.device) -> torch.dtype:
    """bf16 where there is a GPU and fp32 elsewhere, unless the run file says otherwise."""
    if train.precision is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.bfloat16 if train.precision == "bf16" else torch.float32


def deepspeed_config(settings: Settings, plan: BatchPlan, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration. The run file's `deepspeed:` is merged last; raises BadConfig on keys that we own."""
    _refuse_owned(settings.deepspeed)
    _refuse_for_layout(settings)
    ours: dict[str, Any] = {
        "train_batch_size": plan.global_batch * _times_counted(settings.parallelism),
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
        "gradient_clipping": settings.train.clip or 0.0,
        "bf16": {"enabled": dtype == torch.bfloat16},
        "zero_optimization": _zero(settings.parallelism),
        "pipeline": {
            "pipe_partitioned": False,
            "grad_partitioned": False,
        },  # sent whole, by each tensor rank to its like
        "zero_allow_untested_optimizer": True,  # sgd
        "steps_per_print": 1_000_000_000,  # progress is told by us
        "optimizer": _optimizer(settings.train),
    }
    return _merged(ours, settings.deepspeed)


def build_engine(
    build: Callable[[], nn.Module], settings: Settings, plan: BatchPlan, world: World, place: Place, total_steps: int
) -> Engine:
    """A DeepSpeed engine around this rank's part of a new model, which is the same in every layout. Raises BadConfig."""
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    dtype = precision_of(settings.train, world.device)
    config = deepspeed_config(settings, plan, dtype)
    torch.manual_seed(settings.train.seed)
    model = place.divide(build())
    schedule = partial(_scheduler, schedule=settings.train.schedule, total_steps=total_steps)
    initialize: Any = deepspeed.initialize
    engine: Engine = initialize(
        model=model,
        model_parameters=list(model.parameters()),
        config=config,
        lr_scheduler=schedule,
        mpu=place.mpu,
    )[0]
    return engine


def _times_counted(parallelism: Parallelism) -> int:
    """How often DeepSpeed's pipeline counts a sample: once for each part of it (see `Place.divide`)."""
    return parallelism.sequence if parallelism.pipeline > 1 else 1


def _zero(parallelism: Parallelism) -> dict[str, Any]:
    if parallelism.offload is None:
        return {"stage": parallelism.zero}
    place = {"device": parallelism.offload}
    parts = {"offload_optimizer": place, **({"offload_param": dict(place)} if parallelism.zero == 3 else {})}
    return {"stage": parallelism.zero, **parts}


def _optimizer(train: Train) -> dict[str, Any]:
    common = {"lr": train.lr, "weight_decay": train.weight_decay}
    if train.optimizer == "sgd":
        return {"type": "SGD", "params": {**common, "momentum": train.momentum}}
    # torch's own Adam: DeepSpeed's would be compiled inside the run.
    name = "AdamW" if train.optimizer == "adamw" else "Adam"
    adam = {"betas": list(train.betas), "torch_adam": True, "adam_w_mode": train.optimizer == "adamw"}
    return {"type": name, "params": {**common, **adam}}


def _scheduler(
    optimizer: torch.optim.Optimizer, *, schedule: Schedule, total_steps: int
) -> torch.optim.lr_scheduler.LambdaLR:
    factor = partial(learning_rate_factor, schedule=schedule, total_steps=total_steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _refuse_owned(passed: Mapping[str, Any]) -> None:
    # Its load_universal would unpickle whatever lies in the bucket; its other keys move files.
    if "checkpoint" in passed:
        raise BadConfig(
            "deepspeed.checkpoint",
            passed["checkpoint"],
            "cannot be passed through: checkpoints are written, verified and read by Evertrain alone. Say when to save "
            "and how many to keep in the run file's own checkpoint section",
        )
    for key, where in _OWNED.items():
        head, _, tail = key.partition(".")
        inner = passed.get(head)
        if head in passed and (not tail or (isinstance(inner, Mapping) and tail in inner)):
            value = inner if not tail or not isinstance(inner, Mapping) else inner[tail]
            raise BadConfig(f"deepspeed.{key}", value, f"is set by Evertrain: say it in {where}")


def _refuse_for_layout(settings: Settings) -> None:
    passed = settings.deepspeed.get("zero_optimization")
    if not isinstance(passed, Mapping):
        return
    # ZeRO 3's reduce-scatter averages gradients over sequence ranks, its other way sums them: one to reckon with is enough.
    if passed.get("reduce_scatter") is False and settings.parallelism.zero == 3 and settings.parallelism.sequence > 1:
        path = "deepspeed.zero_optimization.reduce_scatter"
        raise BadConfig(path, False, "must be true with ZeRO 3 where parallelism.sequence is above 1")
    offload = passed.get("offload_optimizer")
    if isinstance(offload, Mapping) and offload.get("device") == "nvme":
        path = "deepspeed.zero_optimization.offload_optimizer.device"
        raise BadConfig(path, "nvme", "must be cpu or none: DeepSpeed's swap files would be in no checkpoint")


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(ours)
    for key, value in theirs.items():
        inner = merged.get(key)
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(inner, value)
        else:
            merged[key] = value
    return merged
