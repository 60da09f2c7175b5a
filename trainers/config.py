"""A typed view of `Launch.config`: what the run file's sections mean to a rank, checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from trainers.contract import Launch
from trainers.errors import BadConfig

T = TypeVar("T")


@dataclass(frozen=True)
class Data:
    """Where the examples come from."""

    source: str  # sklearn://digits, text://pydoc_topics, or the path of a text or .npz file
    split: tuple[float, float, float] = (0.70, 0.15, 0.15)  # training, validation, test; they add up to 1


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a factor over optimizer steps."""

    type: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = 0  # updates before the peak: the first of n gets 1/(n+1) of it, the last n/(n+1)
    final_ratio: float = 0.0  # of the peak, at the last update


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when `metric` has not improved for `patience` epochs, or has reached `target`."""

    metric: str
    patience: int | None = None
    mode: Literal["min", "max"] = "min"
    target: float | None = None


@dataclass(frozen=True)
class Train:
    """How the model is trained."""

    global_batch: int  # samples of one optimizer step, over all ranks
    epochs: int | None = None
    steps: int | None = None
    micro_batch: int | None = None  # most samples of one forward pass on one rank; the rest is accumulated
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9  # of sgd
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None  # largest norm of the whole gradient
    precision: Literal["fp32", "bf16"] | None = None  # None: bf16 on a GPU, fp32 on a CPU
    seed: int = 0
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True)
class Parallelism:
    """How the model is spread over the ranks. Only ZeRO data parallelism so far."""

    zero: int = 0
    tensor: int = 1
    pipeline: int = 1
    sequence: int = 1
    expert: int = 1


@dataclass(frozen=True)
class CheckpointEvery:
    """When to seal a checkpoint, beside the best epoch and the end of the run."""

    every: float | None = None  # seconds
    every_steps: int | None = None
    keep: int = 3


@dataclass(frozen=True)
class Settings:
    """Everything of the run file that a rank acts on."""

    data: Data
    train: Train
    model: Mapping[str, Any] = field(default_factory=dict)
    parallelism: Parallelism = field(default_factory=Parallelism)
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointEvery = field(default_factory=CheckpointEvery)


@dataclass(frozen=True)
class BatchPlan:
    """global_batch = micro_batch x accumulation x world_size."""

    global_batch: int
    micro_batch: int
    accumulation: int
    world_size: int


def read_settings(launch: Launch) -> Settings:
    """Raises BadConfig with the path in the run file of the first thing that cannot work."""
    raw = dict(launch.config)
    raw["train"] = {"seed": launch.seed, **(raw.get("train") or {})}
    settings = section(Settings, {name: value for name, value in raw.items() if value is not None}, "")
    _check_train(settings.train)
    _check_rest(settings)
    return settings


def plan_batch(train: Train, world_size: int) -> BatchPlan:
    """How `world_size` ranks share the global batch.

    `micro_batch` is an upper bound, so that a run keeps its global batch when it gets more or fewer ranks: the largest
    divisor of a rank's share within the bound is taken. Raises BadConfig when the ranks cannot share the batch evenly.
    """
    if train.global_batch % world_size:
        raise BadConfig(
            "train.global_batch", train.global_batch, f"must be a multiple of the number of ranks, here {world_size}"
        )
    share = train.global_batch // world_size
    bound = min(train.micro_batch or share, share)
    micro_batch = next(size for size in range(bound, 0, -1) if share % size == 0)
    return BatchPlan(train.global_batch, micro_batch, share // micro_batch, world_size)


def section(cls: type[T], raw: Any, path: str) -> T:
    """Build the dataclass `cls` from a mapping; raises BadConfig on unknown or missing keys and on wrong types."""
    if not isinstance(raw, Mapping):
        raise BadConfig(path or "config", raw, "must be a mapping")
    fields = {each.name: each for each in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in raw:
        if name not in fields:
            raise BadConfig(_join(path, name), raw[name], f"unknown key; known: {', '.join(fields)}")
    for name, each in fields.items():
        optional = each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
        if name not in raw and not optional:
            raise BadConfig(_join(path, name), None, "is required")
    hints = typing.get_type_hints(cls)
    return cls(**{name: _convert(value, hints[name], _join(path, name)) for name, value in raw.items()})


def _convert(value: Any, hint: Any, path: str) -> Any:
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):  # which of them `Literal[...] | None` makes depends on the version
        if value is None:
            return None
        return _convert(value, next(each for each in options if each is not type(None)), path)
    if origin is Literal:
        if value not in options:
            raise BadConfig(path, value, f"must be one of {', '.join(map(str, options))}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(options):
            raise BadConfig(path, value, f"must be a list of {len(options)} numbers")
        return tuple(_convert(each, inner, path) for each, inner in zip(value, options, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return section(hint, value, path)
    return _convert_plain(value, hint, path)


def _convert_plain(value: Any, hint: Any, path: str) -> Any:
    plain = typing.get_origin(hint) or hint
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        raise BadConfig(path, value, f"must be a {plain.__name__.lower()}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadConfig(path, value, "must be a finite number")
    return value


def _check_train(train: Train) -> None:
    at_least_one = {
        "global_batch": train.global_batch,
        "epochs": train.epochs,
        "steps": train.steps,
        "micro_batch": train.micro_batch,
    }
    for name, count in at_least_one.items():
        if count is not None and count < 1:
            raise BadConfig(f"train.{name}", count, "must be at least 1")
    if train.epochs is None and train.steps is None:
        raise BadConfig("train", {"epochs": None, "steps": None}, "needs epochs, steps or both")
    if train.lr <= 0:
        raise BadConfig("train.lr", train.lr, "must be above 0")
    if train.clip is not None and train.clip <= 0:
        raise BadConfig("train.clip", train.clip, "must be above 0; leave it out to clip nothing")
    if train.schedule.warmup_steps < 0:
        raise BadConfig("train.schedule.warmup_steps", train.schedule.warmup_steps, "must be 0 or more")
    if not 0 <= train.schedule.final_ratio <= 1:
        raise BadConfig("train.schedule.final_ratio", train.schedule.final_ratio, "must be within 0 and 1")
    if train.early_stopping is not None:
        _check_early_stopping(train.early_stopping)


def _check_early_stopping(stopping: EarlyStopping) -> None:
    if stopping.patience is None and stopping.target is None:
        raise BadConfig("train.early_stopping", {"patience": None, "target": None}, "needs patience, target or both")
    if stopping.patience is not None and stopping.patience < 1:
        raise BadConfig("train.early_stopping.patience", stopping.patience, "must be at least 1")


def _check_rest(settings: Settings) -> None:
    split = settings.data.split
    if min(split) < 0 or split[0] == 0 or not math.isclose(sum(split), 1.0, abs_tol=1e-6):
        raise BadConfig("data.split", list(split), "must be three shares that add up to 1, the first above 0")
    if settings.parallelism.zero not in (0, 1, 2, 3):
        raise BadConfig("parallelism.zero", settings.parallelism.zero, "must be 0, 1, 2 or 3")
    for name in ("tensor", "pipeline", "sequence", "expert"):
        if (degree := getattr(settings.parallelism, name)) != 1:
            raise BadConfig(f"parallelism.{name}", degree, "must be 1: only ZeRO data parallelism works so far")
    if settings.checkpoint.keep < 1:
        raise BadConfig("checkpoint.keep", settings.checkpoint.keep, "must be at least 1")


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
