"""What is trained on what, and how: the sections that reach the ranks."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.spec.data import Share
from orchestrator.spec.problems import without_credentials
from orchestrator.spec.quantities import Duration
from orchestrator.spec.section import LARGEST_COUNT, Count, Number, Section, Whole, of_numbers

DEFAULT_CHECKPOINT_EVERY_S = 60.0
_MODEL = re.compile(r"[a-z0-9][-a-z0-9]{0,62}@[a-z0-9][a-z0-9_-]{0,62}")

Decay = Annotated[Number, Field(ge=0, lt=1)]


def _or_word(word: str, *, whole: bool = False) -> BeforeValidator:
    """A number above 0, or `word`: told in one sentence, where a union would tell of each kind by itself."""

    def check(value: Any) -> Any:
        if value is None or value == word:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"must be {word} or a number, without quotes")
        if not 0 < value < math.inf:
            raise ValueError(f"must be {word} or a finite number greater than 0")
        if whole and (value != int(value) or value > LARGEST_COUNT):
            raise ValueError(f"must be {word} or a whole number of at most {LARGEST_COUNT}")
        return value

    return BeforeValidator(check)


class Schedule(Section):
    """How the learning rate moves: up over `warmup_steps`, then by `type` down to lr times `final_ratio`.

    `plateau` multiplies it by `factor` when the judging metric has not improved for `patience` epochs.
    """

    type: Annotated[
        Literal["constant", "cosine", "linear", "one_cycle", "plateau"], Field(description="Shape after the warm-up.")
    ] = "constant"
    warmup_steps: Annotated[
        Count, Field(ge=0, description="Optimizer steps of warm-up; one_cycle rises for 30 % of the run without it.")
    ] = 0
    final_ratio: Annotated[Share, Field(description="Last learning rate over `lr`; of a plateau, the least.")] = 0.0
    factor: Annotated[Number, Field(gt=0, lt=1, description="Of a plateau: what the rate is multiplied by.")] = 0.5
    patience: Annotated[Count, Field(ge=1, description="Of a plateau: epochs without improvement until then.")] = 2


class EarlyStopping(Section):
    """Ends the run when `metric` has not improved for `patience` epochs, or has reached `target`."""

    metric: Annotated[str, Field(min_length=1, description="A metric reported at the end of an epoch.")]
    mode: Annotated[Literal["min", "max"], Field(description="Which way is better; by default from the name.")]
    patience: Annotated[Count | None, Field(ge=1, description="Epochs without improvement.")] = None
    target: Annotated[Number | None, Field(description="A value of `metric` that is good enough.")] = None

    @model_validator(mode="before")
    @classmethod
    def _infer_mode(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "mode" not in raw:
            higher_is_better = str(raw.get("metric", "")).endswith(
                ("accuracy", "auc", "f1", "reward", "return", "ndcg_at_10")
            )
            return {**raw, "mode": "max" if higher_is_better else "min"}
        return raw

    @model_validator(mode="after")
    def _ends_somehow(self) -> EarlyStopping:
        if self.patience is None and self.target is None:
            raise ValueError("needs patience, target or both")
        return self


class Train(Section):
    """Optimization. The run ends after `epochs` or `steps`, whichever comes first."""

    epochs: Annotated[Count | None, Field(ge=1, description="Passes over the training data.")] = None
    steps: Annotated[Count | None, Field(ge=1, description="Optimizer steps.")] = None
    global_batch: Annotated[Count, Field(ge=1, description="Samples of one optimizer step, over all workers.")] = 32
    micro_batch: Annotated[
        Annotated[Count, Field(ge=1)] | Literal["auto"] | None,
        _or_word("auto", whole=True),
        Field(
            description="Samples of one forward pass of one worker; auto: the most that fit. The rest is accumulated."
        ),
    ] = None
    optimizer: Annotated[
        Literal["adamw", "adam", "sgd", "lion", "muon"],
        Field(description="The optimizer. muon is for hidden matrices, the rest is left to adamw."),
    ] = "adamw"
    lr: Annotated[
        Annotated[Number, Field(gt=0)] | Literal["auto"],
        _or_word("auto"),
        Field(description="Learning rate; auto: found by a range test."),
    ] = 1e-3
    weight_decay: Annotated[Number, Field(ge=0, description="Weight decay.")] = 0.0
    weight_decay_on: Annotated[
        Literal["all", "matrices"], Field(description="What decays; matrices: neither norms nor biases.")
    ] = "all"
    momentum: Annotated[Decay, Field(description="Momentum of sgd and muon.")] = 0.9
    betas: Annotated[
        tuple[Decay, Decay], of_numbers(2, "beta1 and beta2"), Field(description="Decay rates of adam, adamw and lion.")
    ] = (0.9, 0.999)
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = Schedule()
    clip: Annotated[Number | None, Field(gt=0, description="Largest gradient norm.")] = None
    precision: Annotated[
        Literal["fp32", "bf16", "fp16"], Field(description="Arithmetic of the forward and backward pass.")
    ] = "fp32"
    loss_scale: Annotated[
        Annotated[Number, Field(gt=0)] | Literal["dynamic"],
        _or_word("dynamic"),
        Field(description="Of fp16: what keeps small gradients above zero."),
    ] = "dynamic"
    label_smoothing: Annotated[Decay, Field(description="Share of every target that is spread over all classes.")] = 0.0
    ema: Annotated[
        Number | None, Field(gt=0, lt=1, description="Decay of averaged weights, which are evaluated and kept.")
    ] = None
    activation_checkpointing: Annotated[
        bool, Field(strict=True, description="Compute blocks again in the backward pass, to save memory.")
    ] = False
    compile: Annotated[bool, Field(strict=True, description="Compile the model by torch.compile.")] = False
    seed: Annotated[Whole, Field(ge=0, lt=2**32, description="Of initialization, data order and dropout.")] = 0
    early_stopping: Annotated[EarlyStopping | None, Field(description="When to stop before the end.")] = None


Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class Group(Section):
    """Parameters that learn at a rate of their own."""

    match: Annotated[Pattern, Field(description="Names of parameters, as a pattern: encoder.*")]
    lr_factor: Annotated[Number, Field(gt=0, description="Times train.lr.")]


class InitFrom(Section):
    """The weights that a model begins with, from one of `model`, `file` and `checkpoint`, and which of them may change."""

    model: Annotated[str | None, Field(description="A registered model: NAME@VERSION, or NAME@ALIAS.")] = None
    file: Annotated[
        str | None, Field(min_length=1, description="A .safetensors file, or a directory of them, on the nodes.")
    ] = None
    checkpoint: Annotated[
        str | None,
        Field(min_length=1, description="URL or path of a sealed checkpoint; the server fills it in for `model`."),
        AfterValidator(lambda url: url if url is None else without_credentials("init_from.checkpoint", url)),
    ] = None
    resume: Annotated[
        bool, Field(strict=True, description="Go on where the checkpoint is, optimizer and all, at this file's rates.")
    ] = False
    rename: Annotated[
        dict[str, str], Field(description="Beginnings of names there: what they are here.", default_factory=dict)
    ]
    fresh: Annotated[tuple[Pattern, ...], Field(description="Tensors that begin at random, such as head.*")] = ()
    ignore: Annotated[tuple[Pattern, ...], Field(description="Tensors there that the model has no place for.")] = ()
    freeze: Annotated[tuple[Pattern, ...], Field(description="Parameters that do not learn.")] = ()
    groups: Annotated[
        tuple[Group, ...], Field(description="Learning rates of their own; the first that matches holds.")
    ] = ()

    @model_validator(mode="after")
    def _one_source(self) -> InitFrom:
        given = [key for key in ("model", "file", "checkpoint") if getattr(self, key) is not None]
        if len(given) != 1 and given != ["model", "checkpoint"]:  # the latter is what a stored run says
            raise ValueError(
                f"must name exactly one of model, file and checkpoint, names {' and '.join(given) or 'none'}"
            )
        if self.model is not None and not _MODEL.fullmatch(self.model):
            raise ValueError(f"model {self.model!r} must be a name and a version or alias, such as digits-cnn@3")
        unused = [name for name in ("file", "rename", "fresh", "ignore") if getattr(self, name)]
        if self.resume and unused:
            raise ValueError(f"resume goes on exactly where a checkpoint is: leave {unused[0]} out")
        return self


class Checkpoint(Section):
    """When checkpoints are sealed, besides the end of the run, and how many are kept besides the best."""

    every: Annotated[
        Duration | None, Field(description="Time between checkpoints; 60s unless `every_steps` is given.")
    ] = None
    every_steps: Annotated[Count | None, Field(ge=1, description="Optimizer steps between checkpoints.")] = None
    every_epochs: Annotated[Count | None, Field(ge=1, description="Epochs between checkpoints, at their ends.")] = None
    keep: Annotated[Whole, Field(ge=1, le=10_000, description="Newest checkpoints that are kept.")] = 3

    @model_validator(mode="before")
    @classmethod
    def _by_time_unless_by_steps(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "every" not in raw and raw.get("every_steps") is None:
            return {**raw, "every": DEFAULT_CHECKPOINT_EVERY_S}
        return raw
