"""What is trained on what, and how: the sections that reach the ranks."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from orchestrator.spec.problems import without_credentials
from orchestrator.spec.quantities import Duration
from orchestrator.spec.section import Count, Number, Section, Whole, of_numbers

DEFAULT_CHECKPOINT_EVERY_S = 60.0

Share = Annotated[Number, Field(ge=0, le=1)]
Decay = Annotated[Number, Field(ge=0, lt=1)]


def _whole_of_one(split: tuple[float, float, float]) -> tuple[float, float, float]:
    if not math.isclose(sum(split), 1.0, abs_tol=1e-6):
        raise ValueError(f"must add up to 1 (training, validation, test), adds up to {sum(split):g}")
    if split[0] <= 0:
        raise ValueError("must leave something to train on: its first part is above 0")
    return split


class Data(Section):
    """Where the samples come from. `source` defaults to the recipe's own data; an entrypoint may do without."""

    source: Annotated[
        str,
        AfterValidator(partial(without_credentials, "data.source")),
        Field(description="sklearn://digits, text://pydoc_topics, file://PATH or a path."),
    ] = ""
    split: Annotated[
        tuple[Share, Share, Share],
        of_numbers(3, "the parts for training, validation and test"),
        AfterValidator(_whole_of_one),
        Field(description="Parts for training, validation and test."),
    ] = (0.70, 0.15, 0.15)


class Schedule(Section):
    """How the learning rate moves: up over `warmup_steps`, then by `type` down to lr times `final_ratio`."""

    type: Annotated[Literal["constant", "cosine", "linear"], Field(description="Shape after the warm-up.")] = "constant"
    warmup_steps: Annotated[Count, Field(ge=0, description="Optimizer steps of linear warm-up.")] = 0
    final_ratio: Annotated[Share, Field(description="Last learning rate over `lr`.")] = 0.0


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
        Count | None, Field(ge=1, description="Samples of one forward pass of one worker; the rest is accumulated.")
    ] = None
    optimizer: Annotated[Literal["adamw", "adam", "sgd"], Field(description="The optimizer.")] = "adamw"
    lr: Annotated[Number, Field(gt=0, description="Learning rate.")] = 1e-3
    weight_decay: Annotated[Number, Field(ge=0, description="Weight decay.")] = 0.0
    momentum: Annotated[Decay, Field(description="Momentum of sgd.")] = 0.9
    betas: Annotated[
        tuple[Decay, Decay], of_numbers(2, "beta1 and beta2"), Field(description="Decay rates of adam and adamw.")
    ] = (0.9, 0.999)
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = Schedule()
    clip: Annotated[Number | None, Field(gt=0, description="Largest gradient norm.")] = None
    precision: Annotated[Literal["fp32", "bf16"], Field(description="Arithmetic of the forward pass.")] = "fp32"
    seed: Annotated[Whole, Field(ge=0, lt=2**32, description="Of initialization, data order and dropout.")] = 0
    early_stopping: Annotated[EarlyStopping | None, Field(description="When to stop before the end.")] = None


class Checkpoint(Section):
    """When checkpoints are sealed, besides the end of the run, and how many are kept besides the best."""

    every: Annotated[
        Duration | None, Field(description="Time between checkpoints; 60s unless `every_steps` is given.")
    ] = None
    every_steps: Annotated[Count | None, Field(ge=1, description="Optimizer steps between checkpoints.")] = None
    keep: Annotated[Whole, Field(ge=1, le=10_000, description="Newest checkpoints that are kept.")] = 3

    @model_validator(mode="before")
    @classmethod
    def _by_time_unless_by_steps(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and "every" not in raw and raw.get("every_steps") is None:
            return {**raw, "every": DEFAULT_CHECKPOINT_EVERY_S}
        return raw
