"""A typed view of `Launch.config`: what the run file's sections mean to a rank, checked before anything is loaded."""

from __future__ import annotations

import collections.abc
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from trainers.contract import Launch
from trainers.errors import BadConfig
from trainers.layout import DEGREES, BatchPlan, Degrees, share_batch

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """What every value of a column must be."""

    type: Literal["number", "integer", "string", "boolean", "time"] | None = None
    min: float | None = None
    max: float | None = None
    values: tuple[Any, ...] | None = None  # all that are allowed
    nulls: float | None = None  # largest share of missing values; None: what `clean.nulls` says


@dataclass(frozen=True)
class Checks:
    """What the whole table must hold to."""

    rows: int = 1  # at least
    duplicates: float = 1.0  # largest share of rows that repeat an earlier one
    balance: float = 0.0  # smallest share of the rarest class


@dataclass(frozen=True)
class Clean:
    """What becomes of values that cannot be trained on. `refuse` stops the run with the rows."""

    nulls: Literal["refuse", "drop", "mean", "median", "zero"] = "refuse"  # NaN is a null; text is filled as a category
    infinite: Literal["refuse", "drop", "missing"] = "refuse"
    duplicates: Literal["keep", "drop"] = "keep"
    outliers: Literal["keep", "clip"] = "keep"  # to three interquartile ranges around the middle half
    corrupt: Literal["refuse", "drop"] = "refuse"  # images that cannot be decoded


@dataclass(frozen=True)
class Tokenize:
    """Text to numbers: 0 fills up, 1 is what training never saw, and the vocabulary is training's most frequent."""

    length: int  # tokens of every row; what is longer is cut
    unit: Literal["character", "word", "byte"] = "character"
    vocabulary: int = 30_000


@dataclass(frozen=True)
class Augment:
    """Random variants of images, in training only."""

    flip: bool = False  # left to right, every other time
    shift: int = 0  # pixels, at most, each way
    noise: float = 0.0  # standard deviation, on prepared values


@dataclass(frozen=True)
class Steps:
    """From values to what a model takes, in this order."""

    resize: tuple[int, int] | None = None  # height and width of images
    normalize: Literal["standard", "range", "none"] = (
        "standard"  # by the training part: mean 0 and deviation 1, or 0 to 1
    )
    tokenize: Tokenize | None = None
    augment: Augment | None = None


@dataclass(frozen=True)
class SplitBy:
    """What decides the part that a row falls to: one column, in one of three ways."""

    stratify: str | None = None  # every part has the same shares of its values
    group: str | None = None  # rows with one value stay together
    time: str | None = None  # training is the oldest, test the newest


@dataclass(frozen=True)
class Data:
    """Where the examples come from, and what is done to them before training."""

    source: str  # sklearn://NAME, text://pydoc_topics, a path or URL of files or folders, with * for many
    split: tuple[float, float, float] = (0.70, 0.15, 0.15)  # training, validation, test; they add up to 1
    split_by: SplitBy | None = None
    label: str | None = None  # the column to be predicted
    features: tuple[str, ...] | None = None  # None: every other column
    columns: Mapping[str, Column] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    clean: Clean = field(default_factory=Clean)
    steps: Steps | None = None
    prepared: str | None = None  # directory of prepared data, which later runs use again


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a factor over optimizer steps."""

    type: Literal["constant", "cosine", "linear", "one_cycle", "plateau"] = "constant"
    warmup_steps: int = 0  # updates before the peak: the first of n gets 1/(n+1) of it, the last n/(n+1)
    final_ratio: float = 0.0  # of the peak, at the last update; of a plateau: the least that it falls to
    factor: float = 0.5  # of a plateau: what the rate is multiplied by
    patience: int = 2  # of a plateau: epochs without improvement until then


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
    micro_batch: int | Literal["auto"] | None = None  # most samples of one forward pass; the rest is accumulated
    optimizer: Literal["adamw", "adam", "sgd", "lion", "muon"] = "adamw"
    lr: float | Literal["auto"] = 1e-3
    weight_decay: float = 0.0
    weight_decay_on: Literal["all", "matrices"] = "all"  # matrices: neither norms nor biases
    momentum: float = 0.9  # of sgd and muon
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Schedule = field(default_factory=Schedule)
    clip: float | None = None  # largest norm of the whole gradient
    precision: Literal["fp32", "bf16", "fp16"] | None = (
        None  # None, where no run file says: bf16 on a GPU, fp32 on a CPU
    )
    loss_scale: float | Literal["dynamic"] = "dynamic"  # of fp16
    label_smoothing: float = 0.0
    ema: float | None = None  # decay of the averaged weights that are evaluated and kept
    activation_checkpointing: bool = False  # recompute each block in the backward pass
    compile: bool = False  # by torch.compile
    seed: int = 0
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True)
class Parallelism(Degrees):
    """How the model is spread over the ranks: what `trainers.layout` reckons with, and where ZeRO keeps its parts."""

    offload: Literal["cpu"] | None = None  # ZeRO 1 to 3: the optimizer's state; ZeRO 3: the weights, too


@dataclass(frozen=True)
class CheckpointEvery:
    """When to seal a checkpoint, beside the best epoch and the end of the run."""

    every: float | None = None  # seconds
    every_steps: int | None = None
    every_epochs: int | None = None
    keep: int = 3


@dataclass(frozen=True)
class Group:
    """Parameters that learn at a rate of their own."""

    match: str  # a pattern of parameter names, as of files: * and ?
    lr_factor: float  # times train.lr


@dataclass(frozen=True)
class InitFrom:
    """Where the first weights come from, and which of them may change. See `trainers.init_from`."""

    model: str | None = None  # NAME@VERSION, which the server has resolved to `checkpoint`
    checkpoint: str | None = None  # URL or path of a sealed checkpoint
    file: str | None = None  # a .safetensors file, or a directory of them
    resume: bool = False  # not the weights alone: all that the checkpoint holds, as if that run went on here
    rename: Mapping[str, str] = field(default_factory=dict)  # beginnings of names there: what they are here
    fresh: tuple[str, ...] = ()  # patterns of tensors that keep their random values
    ignore: tuple[str, ...] = ()  # patterns of tensors there that the model has no place for
    freeze: tuple[str, ...] = ()  # patterns of parameters that do not learn
    groups: tuple[Group, ...] = ()  # the first that matches holds

    @property
    def named(self) -> tuple[str, str]:
        """Where the run file names the source, and how."""
        key = "model" if self.model else "checkpoint" if self.checkpoint else "file"
        return f"init_from.{key}", str(getattr(self, key))


@dataclass(frozen=True)
class Proof:
    """The version that serves, with which the run's result is compared at its end. No run file says so: the server does."""

    champion: int
    checkpoint: str  # its sealed checkpoint


@dataclass(frozen=True)
class Settings:
    """Everything of the run file that a rank acts on."""

    data: Data
    train: Train
    model: Mapping[str, Any] = field(default_factory=dict)
    parallelism: Parallelism = field(default_factory=Parallelism)
    deepspeed: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: CheckpointEvery = field(default_factory=CheckpointEvery)
    init_from: InitFrom | None = None
    proof: Proof | None = None


def read_settings(launch: Launch) -> Settings:
    """Raises BadConfig with the path in the run file of the first thing that cannot work."""
    raw = dict(launch.config)
    raw["train"] = {"seed": launch.seed, **(raw.get("train") or {})}
    settings = section(Settings, {name: value for name, value in raw.items() if value is not None}, "")
    _check_train(settings.train)
    _check_rest(settings)
    return settings


def plan_batch(train: Train, data: int, stages: int = 1) -> BatchPlan:
    """How `data` data-parallel ranks of a pipeline of `stages` share the global batch. `micro_batch: auto`, before it was
    found, is no bound. Raises BadConfig when the ranks cannot share the batch evenly."""
    asked = train.micro_batch if isinstance(train.micro_batch, int) else None
    plan = share_batch(train.global_batch, asked, data, stages)
    if plan is None:
        words = f"must be a multiple of the number of ranks that share it, here {data}"
        raise BadConfig("train.global_batch", train.global_batch, words)
    return plan


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
        return _convert_union(value, [each for each in options if each is not type(None)], path)
    if origin is Literal:
        if value not in options:
            raise BadConfig(path, value, f"must be one of {', '.join(map(str, options))}")
        return value
    if origin is tuple and options[-1] is Ellipsis:
        if not isinstance(value, (list, tuple)):
            raise BadConfig(path, value, "must be a list")
        return tuple(_convert(inner, options[0], f"{path}[{index}]") for index, inner in enumerate(value))
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(options):
            raise BadConfig(path, value, f"must be a list of {len(options)} numbers")
        return tuple(_convert(each, inner, path) for each, inner in zip(value, options, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return section(hint, value, path)
    if hint is Any:
        return value
    if origin is collections.abc.Mapping and isinstance(value, Mapping):
        return {str(name): _convert(each, options[1], _join(path, str(name))) for name, each in value.items()}
    return _convert_plain(value, hint, path)


def _convert_union(value: Any, options: list[Any], path: str) -> Any:
    """A kind of value, or one of a few words, or None."""
    if value is None:
        return None
    words = [word for each in options if typing.get_origin(each) is Literal for word in typing.get_args(each)]
    kinds = [each for each in options if typing.get_origin(each) is not Literal]
    if not kinds or (isinstance(value, str) and value in words):
        return _convert(value, options[-1], path)
    if words and isinstance(value, str):
        raise BadConfig(path, value, f"must be a number or {' or '.join(words)}")
    return _convert(value, kinds[0], path)


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
        "schedule.patience": train.schedule.patience,
    }
    for name, count in at_least_one.items():
        if isinstance(count, int) and count < 1:
            raise BadConfig(f"train.{name}", count, "must be at least 1")
    if train.epochs is None and train.steps is None:
        raise BadConfig("train", {"epochs": None, "steps": None}, "needs epochs, steps or both")
    if isinstance(train.lr, float) and train.lr <= 0:
        raise BadConfig("train.lr", train.lr, "must be above 0, or auto")
    if train.clip is not None and train.clip <= 0:
        raise BadConfig("train.clip", train.clip, "must be above 0; leave it out to clip nothing")
    if train.schedule.warmup_steps < 0:
        raise BadConfig("train.schedule.warmup_steps", train.schedule.warmup_steps, "must be 0 or more")
    if not 0 <= train.schedule.final_ratio <= 1:
        raise BadConfig("train.schedule.final_ratio", train.schedule.final_ratio, "must be within 0 and 1")
    if train.early_stopping is not None:
        _check_early_stopping(train.early_stopping)
    _check_options(train)


def _check_options(train: Train) -> None:
    if not 0 < train.schedule.factor < 1:
        raise BadConfig("train.schedule.factor", train.schedule.factor, "must be between 0 and 1")
    if not 0 <= train.label_smoothing < 1:
        raise BadConfig("train.label_smoothing", train.label_smoothing, "must be at least 0 and less than 1")
    if train.ema is not None and not 0 < train.ema < 1:
        raise BadConfig("train.ema", train.ema, "must be between 0 and 1, such as 0.999")
    if isinstance(train.loss_scale, float):
        if train.precision != "fp16":
            raise BadConfig("train.loss_scale", train.loss_scale, "is for train.precision fp16: leave it out")
        if train.loss_scale <= 0:
            raise BadConfig("train.loss_scale", train.loss_scale, "must be above 0, or dynamic")


def _check_init_from(init: InitFrom) -> None:
    places = {"checkpoint": init.checkpoint, "file": init.file}
    given = [name for name, place in places.items() if place]
    if init.model is not None and not init.checkpoint:
        raise BadConfig("init_from.model", init.model, "is known to the server only: name init_from.checkpoint or file")
    if len(given) != 1:
        raise BadConfig(
            "init_from", " and ".join(given) or "no source", "give exactly one of model, checkpoint and file"
        )
    unused = [name for name in ("file", "rename", "fresh", "ignore") if getattr(init, name)]
    if init.resume and unused:
        raise BadConfig("init_from.resume", True, f"goes on exactly where a checkpoint is: leave {unused[0]} out")
    for old, new in init.rename.items():
        if not isinstance(new, str):
            raise BadConfig(f"init_from.rename.{old}", new, "must be the beginning of a name")
    for index, group in enumerate(init.groups):
        if group.lr_factor <= 0:
            raise BadConfig(
                f"init_from.groups[{index}].lr_factor",
                group.lr_factor,
                "must be above 0: init_from.freeze stops learning",
            )


def check_data(data: Data) -> None:
    """Raises BadConfig on shares and counts that cannot work."""
    split = data.split
    if min(split) < 0 or split[0] == 0 or not math.isclose(sum(split), 1.0, abs_tol=1e-6):
        raise BadConfig("data.split", list(split), "must be three shares that add up to 1, the first above 0")
    chosen = (
        [way for way, column in dataclasses.asdict(data.split_by).items() if column] if data.split_by else ["random"]
    )
    if len(chosen) != 1:
        raise BadConfig("data.split_by", chosen, "must name one column, under stratify, group or time")
    for name, share in (("checks.duplicates", data.checks.duplicates), ("checks.balance", data.checks.balance)):
        if not 0 <= share <= 1:
            raise BadConfig(f"data.{name}", share, "must be a share within 0 and 1")
    if (steps := data.steps) is not None:
        if steps.resize is not None and min(steps.resize) < 1:
            raise BadConfig("data.steps.resize", list(steps.resize), "must be a height and a width of at least 1")
        if steps.tokenize is not None and min(steps.tokenize.length, steps.tokenize.vocabulary - 2) < 1:
            raise BadConfig(
                "data.steps.tokenize",
                dataclasses.asdict(steps.tokenize),
                "needs a length of at least 1 and a vocabulary of at least 3",
            )


def _check_early_stopping(stopping: EarlyStopping) -> None:
    if stopping.patience is None and stopping.target is None:
        raise BadConfig("train.early_stopping", {"patience": None, "target": None}, "needs patience, target or both")
    if stopping.patience is not None and stopping.patience < 1:
        raise BadConfig("train.early_stopping.patience", stopping.patience, "must be at least 1")


def _check_rest(settings: Settings) -> None:
    check_data(settings.data)
    if settings.parallelism.zero not in (0, 1, 2, 3):
        raise BadConfig("parallelism.zero", settings.parallelism.zero, "must be 0, 1, 2 or 3")
    for name in DEGREES:
        if (degree := getattr(settings.parallelism, name)) < 1:
            raise BadConfig(f"parallelism.{name}", degree, "must be at least 1")
    if settings.parallelism.offload is not None and settings.parallelism.zero == 0:
        raise BadConfig("parallelism.offload", settings.parallelism.offload, "needs parallelism.zero of at least 1")
    if settings.checkpoint.keep < 1:
        raise BadConfig("checkpoint.keep", settings.checkpoint.keep, "must be at least 1")
    if settings.train.precision == "fp16" and settings.parallelism.zero == 0:
        why = "needs parallelism.zero of at least 1: without ZeRO, DeepSpeed unscales gradients that it never scaled"
        raise BadConfig("train.precision", "fp16", why)
    sliced = [each for each in ("tensor", "pipeline", "expert") if getattr(settings.parallelism, each) > 1]
    if settings.train.optimizer == "muon" and sliced:
        raise BadConfig("train.optimizer", "muon", f"needs whole matrices: parallelism.{sliced[0]} must be 1")
    if settings.init_from is not None:
        _check_init_from(settings.init_from)
        if settings.init_from.groups and settings.parallelism.pipeline > 1:
            why = "cannot tell the layers of pipeline stages: parallelism.pipeline must be 1"
            raise BadConfig("init_from.groups", [each.match for each in settings.init_from.groups], why)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
