"""What a model must bring to be trained here. A user's own `entrypoint: package.module:make_task` returns one.

`make_task(settings: trainers.config.Settings) -> Task` is called once on every rank, after the fork and before the
model is on its device. It must do the same on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn

from trainers.config import Settings
from trainers.data.loader import Batch, Splits

if TYPE_CHECKING:
    from trainers.engine import Engine

Model = Callable[..., torch.Tensor]
"""The model as the engine wraps it: call it, do not look inside."""


class Judged(Protocol):
    """A model, its data, and how it is judged: what every task brings."""

    splits: Splits
    judged_by: str  # the metric of the best checkpoint, e.g. val_loss
    judged_mode: Literal["min", "max"]
    notes: Mapping[str, Any]  # plain values kept in every checkpoint: what a user of the weights needs to know

    def model(self) -> nn.Module:
        """A new model with random weights: called once, after the generators are seeded."""
        ...

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        """One value a sample [batch] for each metric, e.g. loss, accuracy. They are averaged over all examples and
        reported as val_loss, test_loss and so on."""
        ...


@runtime_checkable
class Task(Judged, Protocol):
    """What most are: one model, one loss, and the loop takes the steps."""

    def loss(self, model: Model, batch: Batch) -> torch.Tensor:
        """The mean loss of the batch, a scalar."""
        ...


@runtime_checkable
class SteppingTask(Judged, Protocol):
    """One that takes the optimizer step itself: it trains several models, or parameters that no engine holds."""

    def helpers(self) -> Mapping[str, Callable[[], nn.Module]]:
        """Makers of further models that only training needs, by name: lower-case letters. Each gets an engine of its own,
        set up and sealed like the model's, with the same optimizer and schedule."""
        ...

    def step(self, engine: Engine, helpers: Mapping[str, Engine], batches: Iterable[Batch]) -> torch.Tensor:
        """One optimizer step of every engine over this rank's micro-batches, `backward` and `step` once in each; the mean
        loss to report, a scalar."""
        ...


AnyTask = Task | SteppingTask


@runtime_checkable
class Collects(Protocol):
    """Beside the above: a task that makes the examples of each epoch itself, with the model as it is by then."""

    def collect(self, model: Model, epoch: int) -> Mapping[str, float]:
        """Collective. Called before the first step of every epoch, and again where a resumed run goes on within one. The
        length of `splits.train` stays. Returns metrics that are reported at the end of the epoch, the same on every rank."""
        ...


@runtime_checkable
class KeepsState(Protocol):
    """Beside the above: a task with state on each rank that no engine holds. It is sealed and restored with them."""

    def state(self) -> Mapping[str, Any]:
        """This rank's: tensors and plain values."""
        ...

    def load_state(self, parts: Iterable[tuple[int, Mapping[str, Any]]], world_size: int) -> None:
        """Take up what `state` returned. `parts`: the rank that kept it, and what it kept, this rank's alone when the world
        size is still the same, else those of all `world_size` ranks of then, one after another."""
        ...


@runtime_checkable
class Predicts(Protocol):
    """Beside the above: a task whose predictions are classes, and whose batches hold the true ones as `targets` [batch]. How
    often it predicts which, and how often rightly, is kept with the model version, where the profile of its data is."""

    splits: Splits
    classes: Sequence[str]  # by number, in the words of the data; empty: they are called by their numbers

    def predict(self, model: Model, batch: Batch) -> torch.Tensor:
        """Probabilities [batch, classes]."""
        ...


MakeTask = Callable[[Settings], AnyTask]
