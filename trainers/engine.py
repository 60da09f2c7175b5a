"""DeepSpeed: from our settings to its JSON, and from a model to its engine."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import deepspeed
import torch
from deepspeed.accelerator.real_accelerator import get_accelerator
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import nn

from trainers.config import Parallelism, Schedule, Settings, Train
from trainers.distributed import World
from trainers.errors import BadConfig
from trainers.init_from import load_first_weights
from trainers.layout import BatchPlan
from trainers.optimizers import client_optimizer, deepspeed_optimizer, freeze, parameter_groups
from trainers.parallel import Place
from trainers.recomputation import recompute_blocks
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
    """bf16 where there is a GPU and fp32 elsewhere, unless the run file says otherwise.

    Raises BadConfig for fp16 where DeepSpeed has no fast arithmetic for it: most CPUs.
    """
    if train.precision is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if train.precision == "fp16" and not _computes_fp16():
        raise BadConfig("train.precision", "fp16", f"this {device.type} has no arithmetic for it: use bf16 or fp32")
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[train.precision]


def deepspeed_config(settings: Settings, plan: BatchPlan, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration. The run file's `deepspeed:` is merged last; raises BadConfig on keys that we own."""
    _refuse_owned(settings.deepspeed)
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
        "fp16": _fp16(settings.train, dtype),
        "zero_allow_untested_optimizer": True,  # sgd
        "steps_per_print": 1_000_000_000,  # progress is told by us
    }
    optimizer = deepspeed_optimizer(settings.train)
    if optimizer is not None:
        ours["optimizer"] = optimizer
    if settings.train.optimizer == "muon":  # it needs whole gradients
        ours["zero_optimization"]["reduce_scatter"] = False
    config = _merged(ours, settings.deepspeed)
    _refuse_for_layout(settings.parallelism, config["zero_optimization"])
    return config


def build_engine(
    build: Callable[[], nn.Module], settings: Settings, plan: BatchPlan, world: World, place: Place, total_steps: int
) -> Engine:
    """A DeepSpeed engine around this rank's part of a new model, which is the same in every layout.

    Raises BadConfig, and StorageError when the weights that it begins with cannot be read.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    dtype = precision_of(settings.train, world.device)
    config = deepspeed_config(settings, plan, dtype)
    torch.manual_seed(settings.train.seed)
    model = build()
    prepare_model(model, settings)
    model = place.divide(model)
    schedule = partial(_scheduler, schedule=settings.train.schedule, total_steps=total_steps)
    initialize: Any = deepspeed.initialize
    engine: Engine = initialize(
        model=model,
        model_parameters=parameter_groups(model, settings.train, settings.init_from),
        optimizer=client_optimizer(model, settings.train),
        config=config,
        lr_scheduler=schedule,
        mpu=place.mpu,
    )[0]
    if world.size == 1 and settings.parallelism.zero == 0:  # it would copy all gradients together, and back
        engine.enable_backward_allreduce = False
    if settings.train.compile:
        _compile(engine, world.device)
    return engine


def prepare_model(model: nn.Module, settings: Settings) -> None:
    """Before any layout divides it: first weights, what is frozen, what is recomputed. Raises BadConfig, StorageError."""
    if settings.init_from is not None:
        if not settings.init_from.resume:
            load_first_weights(model, settings.init_from)
        freeze(model, settings.init_from.freeze)
    if settings.train.activation_checkpointing:
        recompute_blocks(model)


def _compile(engine: Engine, device: torch.device) -> None:
    """Takes effect, and time, at the first forward pass of each shape."""
    if device.type == "cpu":  # its kernels are few, and a pool of compiling processes would outlive a killed rank
        inductor: Any = importlib.import_module("torch._inductor.config")
        inductor.compile_threads = 1
    accelerator: Any = get_accelerator  # untyped
    engine.compile(backend=accelerator().get_compile_backend())


def _computes_fp16() -> bool:
    accelerator: Any = get_accelerator  # untyped
    return bool(accelerator().is_fp16_supported())


def _fp16(train: Train, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed takes a loss scale of 0 for a dynamic one."""
    scale = train.loss_scale if isinstance(train.loss_scale, float) else 0
    return {"enabled": dtype == torch.float16, "loss_scale": scale}


def _times_counted(parallelism: Parallelism) -> int:
    """How often DeepSpeed's pipeline counts a sample: once for each part of it (see `Place.divide`)."""
    return parallelism.sequence if parallelism.pipeline > 1 else 1


def _zero(parallelism: Parallelism) -> dict[str, Any]:
    if parallelism.offload is None:
        return {"stage": parallelism.zero}
    place = {"device": parallelism.offload}
    parts = {"offload_optimizer": place, **({"offload_param": dict(place)} if parallelism.zero == 3 else {})}
    return {"stage": parallelism.zero, **parts}


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


def _refuse_for_layout(parallelism: Parallelism, zero: Mapping[str, Any]) -> None:
    # ZeRO 3's reduce-scatter averages gradients over sequence ranks, its other way sums them: one to reckon with is enough.
    if zero.get("reduce_scatter") is False and parallelism.zero == 3 and parallelism.sequence > 1:
        path = "deepspeed.zero_optimization.reduce_scatter"
        raise BadConfig(path, False, "must be true with ZeRO 3 where parallelism.sequence is above 1")
    offload = zero.get("offload_optimizer")
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
