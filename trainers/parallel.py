"""This rank's place in a layout, and all that a layout changes: the model, the batch, a step, what evaluation counts.

| degree   | what ranks share                | the loss of a rank is of       | its weights are           |
|----------|---------------------------------|--------------------------------|---------------------------|
| data     | the global batch                | its samples                    | all (ZeRO cuts them anew) |
| tensor   | each matrix of a block          | the same samples as its peers' | slices                    |
| sequence | each sample's positions         | its positions                  | all                       |
| pipeline | the model's layers              | the same, told by the last one | those of its stage        |
| expert   | the experts of a layer          | its samples                    | all but others' experts   |

DeepSpeed asks a `Place` for its groups as it asks Megatron's `mpu`; its pipeline brings a grid of its own, in the same
order. Without a pipeline a gradient is the mean over data ranks and the sum over sequence ranks, so those scale their losses.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
import torch.distributed
from deepspeed.runtime.pipe.engine import PipelineEngine
from deepspeed.runtime.pipe.module import PipelineModule
from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology
from torch import nn
from torch.distributed import ProcessGroup

from trainers.data.loader import Batch
from trainers.errors import BadConfig
from trainers.exchange import Exchange
from trainers.layout import DEGREES, Coordinates, Degrees, coordinates, expert_rank
from trainers.models.divided import Split
from trainers.models.experts import BALANCE_WEIGHT, Experts, balance_loss, carry_balance
from trainers.tasks.task import Judged, Task


@runtime_checkable
class Divisible(Protocol):
    """A model of which a rank can hold a part. It is built whole, the same on every rank."""

    splits: Mapping[str, Split]

    def divide(self, place: Place) -> None:
        """Leave this rank its part, all stages' layers included. Raises BadConfig."""
        ...

    def stages(self, count: int) -> list[nn.Module]:
        """The layers that a pipeline is cut from. Raises BadConfig."""
        ...


@runtime_checkable
class DivisibleTask(Protocol):
    """A task whose samples can be cut, and whose model's inputs are known without calling it."""

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """What `loss` and `measure` call the model with."""
        ...

    def part(self, batch: Batch, index: int, count: int) -> Batch:
        """One of `count` parts of every sample, each with the targets of its positions."""
        ...


@dataclass
class Place:
    """One rank of a world. Its making is collective where a degree is above 1."""

    rank: int
    world_size: int
    degrees: Degrees
    at: Coordinates = field(init=False)
    exchange: Exchange = field(init=False)
    tensor_group: ProcessGroup | None = None  # of the ranks that hold the slices of one matrix
    sequence_group: ProcessGroup | None = None  # of those that hold the parts of one sample
    mpu: Groups | None = None  # what DeepSpeed is told; None for data parallelism alone

    def __post_init__(self) -> None:
        self.at = coordinates(self.rank, self.degrees, self.world_size)
        self.exchange = Exchange(self.rank, self.world_size)
        if self.degrees.tensor * self.degrees.sequence > 1:
            groups = Groups(self)
            self.tensor_group = groups.tensor if self.degrees.tensor > 1 else None
            self.sequence_group = groups.sequence if self.degrees.sequence > 1 else None
            self.mpu = groups if self.degrees.pipeline == 1 else None

    @property
    def data_size(self) -> int:
        """Parts into which the global batch is cut."""
        return self.degrees.data_size(self.world_size)

    @property
    def expert_rank(self) -> int:
        return expert_rank(self.rank, self.degrees)

    @property
    def layout(self) -> dict[str, int]:
        """What a checkpoint's manifest says, beside the ZeRO stage."""
        return {"data": self.data_size, **{name: getattr(self.degrees, name) for name in DEGREES}}

    def check(self, task: Judged) -> None:
        """Raises BadConfig when the task's samples cannot be divided as the layout says."""
        for name in ("pipeline", "sequence"):
            degree = getattr(self.degrees, name)
            if degree > 1 and not isinstance(task, DivisibleTask):
                raise BadConfig(f"parallelism.{name}", degree, "must be 1: the task has no `inputs` and `part`")

    def divide(self, model: nn.Module) -> nn.Module:
        """This rank's part of a whole model. Collective. Raises BadConfig when it cannot be divided so."""
        above = [name for name in DEGREES if getattr(self.degrees, name) > 1]
        if not above:
            return model
        if not isinstance(model, Divisible):
            got = getattr(self.degrees, above[0])
            raise BadConfig(f"parallelism.{above[0]}", got, "must be 1: the model has no `divide` and `stages`")
        model.divide(self)
        return self._piped(model) if self.degrees.pipeline > 1 else model

    def _piped(self, model: Divisible) -> nn.Module:
        layers = model.stages(self.degrees.pipeline)
        middle = type(layers[len(layers) // 2]).__name__
        # Its grid has no axis for sequences: to it, ranks with other parts of a sample are ranks with other samples.
        replicas = self.data_size * self.degrees.sequence
        topology = PipeModelDataParallelTopology(self.degrees.pipeline, self.degrees.tensor, replicas)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its layers
            piped: Any = PipelineModule(layers, topology=topology, partition_method=f"type:{middle}")
        piped.splits = model.splits
        piped.routers = sum(isinstance(each, Experts) for layer in layers for each in layer.modules())  # of all stages
        for parameter in piped.parameters():
            # In the gradient's norm DeepSpeed counts others on the first rank of all stages only.
            parameter.model_parallel = getattr(parameter, "model_parallel", False) or self.at.tensor == 0
        module: nn.Module = piped
        return module

    def train_step(self, engine: Any, task: Task, batches: Iterator[Batch]) -> list[torch.Tensor]:
        """One optimizer step; this rank's loss of each micro-batch, or in a pipeline the mean loss alone.

        The mean of them over all ranks is the step's loss.
        """
        if isinstance(engine, PipelineEngine):
            return [self._piped_step(engine, task, batches)]
        losses = []
        for batch in batches:
            loss = task.loss(engine, self._mine(task, batch))
            engine.backward(self._scaled(engine, loss))
            engine.step()
            losses.append(loss.detach())
        return losses

    def measure(self, engine: Any, task: Judged, batch: Batch) -> Mapping[str, torch.Tensor]:
        """`task.measure` of this rank's part of the batch; nothing where another stage's rank has it."""
        if not isinstance(engine, PipelineEngine):
            return task.measure(engine, self._mine(task, batch))
        assert isinstance(task, DivisibleTask)
        engine.total_loss = None  # it would add what the last stage returns to the last step's loss
        batch = self._mine(task, batch)
        outputs = engine.eval_batch(
            iter([(task.inputs(batch), batch)]), compute_loss=False, reduce_output=None, num_micro_batches=1
        )
        return task.measure(lambda *_: outputs[0], batch) if engine.is_last_stage() else {}

    def summed(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Collective: of each metric the sum over all samples, from the ranks' own; every sample counts once."""
        everywhere = self.exchange.all(dict(sums))
        names: dict[str, float] = next((each for each in everywhere if each), {})
        copies = self.degrees.tensor * self.degrees.sequence
        return {name: sum(each.get(name, 0.0) for each in everywhere) / copies for name in names}

    def _mine(self, task: Judged, batch: Batch) -> Batch:
        if self.degrees.sequence == 1:
            return batch
        assert isinstance(task, DivisibleTask)
        return task.part(batch, self.at.sequence, self.degrees.sequence)

    def _scaled(self, engine: Any, loss: torch.Tensor) -> torch.Tensor:
        """What to go backward from: routers add theirs, and DeepSpeed sums over sequence ranks what we average.

        ZeRO 3 averages, too: its reduce-scatter knows nothing of sequences.
        """
        if engine.has_moe_layers:
            loss = loss + balance_loss(engine.module)
        if self.degrees.sequence == 1 or engine.zero_optimization_stage() == 3:
            return loss
        return loss / self.degrees.sequence

    def _piped_step(self, engine: Any, task: Task, batches: Iterator[Batch]) -> torch.Tensor:
        assert isinstance(task, DivisibleTask)
        inputs = task.inputs
        if routers := engine.module.routers:
            if engine.fp16_enabled():
                raise BadConfig("train.precision", "fp16", "must be bf16 or fp32 for a pipeline with experts")
            carry_balance(engine.module, BALANCE_WEIGHT / routers / engine.gradient_accumulation_steps())
        engine.module.loss_fn = lambda outputs, batch: task.loss(lambda *_: outputs, batch)
        mine = (self._mine(task, batch) for batch in batches)
        loss: torch.Tensor = engine.train_batch((inputs(batch), batch) for batch in mine)
        return loss


class Groups:
    """The process groups of a layout, under the names by which DeepSpeed asks for them. Collective."""

    def __init__(self, place: Place) -> None:
        self._degrees = place.degrees
        self._at = place.at
        self._data_size = place.data_size
        everyone = [coordinates(rank, place.degrees, place.world_size) for rank in range(place.world_size)]
        self.tensor = _group(place.rank, everyone, lambda at: (at.stage, at.data, at.sequence))
        self.sequence = _group(place.rank, everyone, lambda at: (at.stage, at.data, at.tensor))
        self.data = _group(place.rank, everyone, lambda at: (at.stage, at.sequence, at.tensor))
        self.sequence_data = _group(place.rank, everyone, lambda at: (at.stage, at.tensor))

    def get_model_parallel_rank(self) -> int:
        return self._at.tensor

    def get_model_parallel_world_size(self) -> int:
        return self._degrees.tensor

    def get_model_parallel_group(self) -> ProcessGroup:
        return self.tensor

    def get_tensor_model_parallel_rank(self) -> int:
        return self._at.tensor

    def get_tensor_model_parallel_world_size(self) -> int:
        return self._degrees.tensor

    def get_tensor_model_parallel_group(self) -> ProcessGroup:
        return self.tensor

    def get_data_parallel_rank(self) -> int:
        return self._at.data

    def get_data_parallel_world_size(self) -> int:
        return self._data_size

    def get_data_parallel_group(self) -> ProcessGroup:
        # ZeRO 3 cuts weights over this group and reduces their gradients over it: it must hold the sequence ranks, too.
        return self.sequence_data if self._degrees.zero == 3 else self.data

    def get_sequence_parallel_rank(self) -> int:
        return self._at.sequence

    def get_sequence_parallel_world_size(self) -> int:
        return self._degrees.sequence

    def get_sequence_parallel_group(self) -> ProcessGroup:
        return self.sequence

    def get_sequence_data_parallel_rank(self) -> int:
        return self._at.data * self._degrees.sequence + self._at.sequence

    def get_sequence_data_parallel_world_size(self) -> int:
        return self._data_size * self._degrees.sequence

    def get_sequence_data_parallel_group(self) -> ProcessGroup:
        return self.sequence_data


def _group(rank: int, everyone: list[Coordinates], alike: Callable[[Coordinates], object]) -> ProcessGroup:
    """The group of the ranks that are like this one. All ranks make all groups, in the same order."""
    mine: ProcessGroup | None = None
    for likeness in sorted({alike(at) for at in everyone}):  # type: ignore[type-var]
        ranks = [each for each, at in enumerate(everyone) if alike(at) == likeness]
        group = torch.distributed.new_group(ranks)
        if rank in ranks:
            mine = group
    assert mine is not None
    return mine
