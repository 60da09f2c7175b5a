"""What a rank holds, by part, from the model's shape and the layout: DeepSpeed 0.19's book-keeping, written down.

The peak is reckoned: gradients as they stand at the end of a backward pass, and beside them either the activations with
DeepSpeed's communication buckets or what its step needs, whichever is more. Rajbhandari et al. 2020 (arXiv 1910.02054)
name the parts; where DeepSpeed holds more than they say (a second copy of fp32 parameters, small ones that ZeRO 3 never
divides, parameters that it keeps gathered), so does this. Every size is in bytes unless it is named elements.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from trainers.layout import Layout
from trainers.shapes import Layer, ModelShape

GIB = 2**30
_FP32 = 4
_ELEMENT = {"fp32": 4, "bf16": 2, "fp16": 2}
_STATES = {"adam": 2, "adamw": 2, "lion": 1, "muon": 1, "sgd": 1}
"""Values of fp32 that an optimizer keeps of each parameter; Muon's of matrices, which are nearly all."""

_RUNTIME = {"cpu": 224 * 2**20, "gpu": 1024 * 2**20}
"""Of a rank before it holds a model: its share of the interpreter with torch and DeepSpeed, as a fork of a zygote (222 MiB
were measured of one alone, 160 with two); a CUDA context and NCCL's buffers."""

_ALLREDUCE_ELEMENTS = 500_000_000  # DeepSpeed's bucket where nothing is divided


@dataclass(frozen=True)
class Setting:
    """What an estimate depends on beside shape and layout."""

    micro_batch: int
    accumulation: int = 1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    optimizer: str = "adamw"
    momentum: float = 0.9  # of sgd: without it nothing is kept
    activation_checkpointing: bool = False
    device: Literal["cpu", "gpu"] = "cpu"
    zero: Mapping[str, Any] = field(default_factory=dict)  # DeepSpeed's keys under zero_optimization

    @property
    def states(self) -> int:
        """fp32 values that the optimizer keeps of each parameter."""
        return 0 if self.optimizer == "sgd" and not self.momentum else _STATES[self.optimizer]

    @property
    def element(self) -> int:
        """Bytes of one value of the arithmetic."""
        return _ELEMENT[self.precision]

    def zero_key(self, name: str, default: int) -> int:
        """Keys of stage 3 are known by two names."""
        value = self.zero.get(f"stage3_{name}", self.zero.get(name))
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else default

    @property
    def persistence_threshold(self) -> int:
        """Elements up to which ZeRO 3 keeps a parameter whole."""
        return self.zero_key("param_persistence_threshold", 100_000)

    def offloads(self, what: Literal["offload_optimizer", "offload_param"]) -> str:
        """To cpu or nvme; "none"."""
        section = self.zero.get(what)
        if isinstance(section, Mapping):
            return str(section.get("device") or "none")
        legacy = {"offload_optimizer": "cpu_offload", "offload_param": "cpu_offload_param"}[what]
        return "cpu" if self.zero.get(legacy) is True else "none"


@dataclass(frozen=True)
class Memory:
    """Of the rank that needs most. `host`: what an accelerator's rank offloads to its host."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    runtime: int
    host: int = 0

    @property
    def total(self) -> int:
        """On the device that computes."""
        return self.model_state + self.activations + self.buffers + self.runtime

    @property
    def model_state(self) -> int:
        """Without what the batch and the runtime need."""
        return self.parameters + self.gradients + self.optimizer


def memory_per_rank(shape: ModelShape, layout: Layout, setting: Setting) -> Memory:
    """Of the pipeline stage that needs most."""
    stages = [_Stage(part, layout) for part in _stages(shape, layout.pipeline)]
    return max((_of_stage(stage, shape, layout, setting) for stage in stages), key=lambda memory: memory.total)


class _Stage:
    """The layers of one pipeline stage, as one rank holds them, in elements."""

    def __init__(self, layers: Sequence[tuple[Layer, int]], layout: Layout) -> None:
        self.layers = layers
        self._held = _held(layers, layout)

    @cached_property
    def whole(self) -> int:
        return sum(count * elements for elements, _, count in self._held)

    @cached_property
    def divided(self) -> int:
        """What ZeRO leaves of `whole`."""
        return sum(count * math.ceil(elements / ranks) for elements, ranks, count in self._held)

    @cached_property
    def largest(self) -> int:
        return max((elements for elements, _, _ in self._held), default=0)

    def kept_whole(self, threshold: int) -> int:
        """Of small parameters, which ZeRO 3 holds whole on every rank beside its part of them."""
        return sum(count * each for each, ranks, count in self._held if ranks > 1 and each <= threshold)

    def gathered(self, threshold: int) -> int:
        """Of the others, which ZeRO 3 gathers when they are needed."""
        return sum(count * each for each, ranks, count in self._held if ranks > 1 and each > threshold)


def _held(layers: Sequence[tuple[Layer, int]], layout: Layout) -> list[tuple[int, int, int]]:
    """Elements of each parameter on a rank, the ranks among which ZeRO divides it, and how many such the rank holds."""
    ranks, tensor, expert = layout.zero_ranks, layout.tensor, layout.expert
    held = []
    for layer, count in layers:
        for each in layer.parameters:
            if not each.by:
                held.append((each.elements, ranks, count * each.number))
                continue
            elements = math.ceil(each.elements / (tensor if "tensor" in each.by else 1))
            experts = expert if "expert" in each.by else 1
            held.append((elements, max(1, ranks // experts), count * math.ceil(each.number / experts)))
    return held


def _stages(shape: ModelShape, pipeline: int) -> list[list[tuple[Layer, int]]]:
    """The first, a middle and the last one: blocks are dealt out evenly, what comes before and after them is not."""
    whole = [(layer, layer.count) for layer in shape.layers]
    if pipeline == 1 or not shape.blocks:
        return [whole]
    first = next(index for index, layer in enumerate(shape.layers) if layer.count == shape.blocks)
    last = max(index for index, layer in enumerate(shape.layers) if layer.count == shape.blocks)
    own = [(layer, math.ceil(layer.count / pipeline)) for layer in shape.layers[first : last + 1]]
    return [whole[:first] + own, own, own + whole[last + 1 :]]


def _of_stage(stage: _Stage, shape: ModelShape, layout: Layout, setting: Setting) -> Memory:
    parameters, gradients, optimizer = _model_state(stage, layout, setting)
    activations = _activations(stage, shape, layout, setting)
    backward, step = _buffers(stage, layout, setting)
    buffers = max(backward, step - activations)  # at the step, the activations are gone
    host = 0
    if layout.zero and setting.offloads("offload_optimizer") != "none":
        kept, host = _offloaded_optimizer(stage, layout, setting)
        gradients, optimizer = (0, kept) if layout.zero > 1 else (gradients, kept)
    if layout.zero == 3 and setting.offloads("offload_param") != "none":
        moved = setting.element * stage.divided
        parameters -= moved
        host += moved if setting.offloads("offload_param") == "cpu" else 0
    if setting.device == "cpu":  # its host's memory is its own
        optimizer, host = optimizer + host, 0
    if shape.rows is not None:
        held = math.ceil(shape.rows.number / layout.workers)
        parameters, optimizer = parameters + _FP32 * held * shape.rows.width, optimizer + _FP32 * held
    return Memory(parameters, gradients, optimizer, activations, buffers, _RUNTIME[setting.device], host)


def _model_state(stage: _Stage, layout: Layout, setting: Setting) -> tuple[int, int, int]:
    """Parameters, gradients at the end of a backward pass, and the optimizer with its fp32 copy of the parameters."""
    element, states, whole = setting.element, _FP32 * setting.states, stage.whole
    if not layout.zero:
        copy = 0 if setting.precision == "fp32" else _FP32
        return element * whole, element * whole, (copy + states) * whole
    divided = stage.divided
    optimizer = (_FP32 + states) * divided
    match layout.zero:
        case 1:  # gradients are divided only when all of them are there
            return element * whole, element * whole, optimizer
        case 2:
            windows = 2 if setting.accumulation > 1 else 1  # the sum so far, and what is being added to it
            return element * whole, windows * element * _gradients_of_a_part(stage, layout), optimizer
        case _:
            small = stage.kept_whole(setting.persistence_threshold)
            return element * (divided + small), element * divided, optimizer


_EDGES = 64  # between parts that are looked at


def _gradients_of_a_part(stage: _Stage, layout: Layout) -> int:
    """Elements of the gradients that ZeRO 2 keeps for one rank: of a parameter that reaches beyond the rank's part, all. The
    parts are equal pieces of all parameters in a row; experts are divided among other ranks, and their edges left out."""
    ranks = layout.zero_ranks
    if ranks == 1 or layout.expert > 1:
        return stage.divided
    row = _Row(stage.layers, layout)
    size = math.ceil(row.elements / ranks)
    some = range(0, ranks, math.ceil(ranks / _EDGES))
    return max(row.end_of((part + 1) * size) - row.start_of(part * size) for part in some)


class _Row:
    """Parameters one behind the other, as a rank holds them: where each begins and ends, in elements."""

    def __init__(self, layers: Sequence[tuple[Layer, int]], layout: Layout) -> None:
        self._begins: list[int] = []  # of each kind of layer
        self._ends: list[list[int]] = []  # of the parameters in one of its layers
        self.elements = 0
        for layer, count in layers:
            held = (elements for elements, _, number in _held([(layer, 1)], layout) for _ in range(number))
            if ends := list(itertools.accumulate(held)):
                self._begins.append(self.elements)
                self._ends.append(ends)
                self.elements += count * ends[-1]

    def start_of(self, place: int) -> int:
        """Where the parameter at the place begins."""
        layer, ends, within = self._at(place)
        index = bisect.bisect_right(ends, within)
        return layer + (ends[index - 1] if index else 0)

    def end_of(self, place: int) -> int:
        """Where the parameter before the place ends."""
        layer, ends, within = self._at(place - 1)
        return layer + ends[bisect.bisect_right(ends, within)]

    def _at(self, place: int) -> tuple[int, list[int], int]:
        """Where the layer begins, its parameters' ends, and how far the place is into it."""
        place = min(place, self.elements - 1)  # the last part is filled up
        kind = bisect.bisect_right(self._begins, place) - 1
        ends = self._ends[kind]
        within = (place - self._begins[kind]) % ends[-1]
        return place - within, ends, within


def _buffers(stage: _Stage, layout: Layout, setting: Setting) -> tuple[int, int]:
    """Beside the activations, and at the optimizer's step."""
    element = setting.element
    if layout.zero == 0:
        reduced = element * min(stage.whole, _ALLREDUCE_ELEMENTS) if layout.zero_ranks > 1 else 0
        fp32_gradients = 0 if setting.precision == "fp32" else _FP32 * stage.whole
        return 0, max(reduced, fp32_gradients)
    bucket = setting.zero_key("reduce_bucket_size", 500_000_000)
    if setting.device == "cpu":  # what nobody writes to costs nothing there
        bucket = min(bucket, stage.whole)
    if layout.zero < 3:
        buckets = 2 if setting.zero.get("overlap_comm") is True else 1
        return buckets * element * bucket, _FP32 * stage.divided
    gathered = stage.gathered(setting.persistence_threshold)
    # Parameters stay gathered that are needed again within so many elements: those of the last layers, forth and back.
    reach = setting.zero_key("max_reuse_distance", 1_000_000_000) // 2
    live = min(gathered, reach + setting.zero_key("prefetch_bucket_size", 50_000_000) + stage.largest)
    return element * (bucket + live), _FP32 * stage.divided + element * bucket


def _offloaded_optimizer(stage: _Stage, layout: Layout, setting: Setting) -> tuple[int, int]:
    """What stays on the device, and what its host holds: nothing of the states where they are on a disk."""
    on_disk = setting.offloads("offload_optimizer") == "nvme"
    copy_and_states = 0 if on_disk else (_FP32 + _FP32 * setting.states) * stage.divided
    gradients = _FP32 * stage.divided
    if layout.zero == 3:
        return 0, copy_and_states + gradients + setting.element * stage.divided
    staging = setting.element * (stage.divided + stage.largest)
    summed = setting.element * stage.divided if layout.zero == 2 and setting.accumulation > 1 else 0
    return setting.element * stage.largest, copy_and_states + gradients + staging + summed


def _activations(stage: _Stage, shape: ModelShape, layout: Layout, setting: Setting) -> int:
    """Of all micro-batches that are under way at once."""
    under_way = min(layout.pipeline, setting.accumulation)
    share = layout.sequence if shape.context is not None else 1
    once = setting.element * sum(layer.saved_once * count for layer, count in stage.layers)
    if setting.activation_checkpointing:
        kept = sum(layer.output * count for layer, count in stage.layers)
        recomputed = max(_saved(layer, layout, setting) for layer, _ in stage.layers)
        per_sample = under_way * setting.element * kept + recomputed
    else:
        per_sample = under_way * sum(_saved(layer, layout, setting) * count for layer, count in stage.layers)
    return math.ceil(setting.micro_batch * per_sample / share + under_way * once)


def _saved(layer: Layer, layout: Layout, setting: Setting) -> float:
    divided = layer.saved_split / layout.tensor + (layer.saved - layer.saved_split)
    return setting.element * divided + _FP32 * layer.saved_fp32
