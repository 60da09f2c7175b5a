"""Which layout: all that work, what each costs and holds, the cheapest that fits, and what else would.

Costs are compared, not foretold: the time of a step on nominal hardware, from what is computed, what is sent, and what the
optimizer reads and writes. Where earlier runs did the same, what a layout took is its cost, and the others' are scaled to it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from orchestrator.planning.incompatibilities import Request, incompatible
from orchestrator.planning.memory import GIB, Memory, Setting, memory_per_rank
from orchestrator.planning.outlook import Measured
from trainers.layout import DEGREES, BatchPlan, Layout, problems, share_batch
from trainers.shapes import ModelShape, Value

_LARGEST_DEGREE = 16  # of tensor, pipeline, sequence and expert parallelism that is tried
_NOMINAL = {"cpu": (2e10, 1e9, 1e10), "gpu": (2e14, 5e10, 2e12)}
"""FLOP/s of a rank, bytes/s between ranks, bytes/s of a rank's memory."""


@dataclass(frozen=True)
class Limit:
    """What a rank may hold, in bytes, and in words why."""

    size: int
    words: str


@dataclass(frozen=True)
class Question:
    """Everything but the layout."""

    recipe: str
    model: Mapping[str, Value]  # what the run file says of it
    shape: ModelShape
    workers: int
    degrees: frozenset[str]  # that the model can be divided by, beside data and ZeRO
    global_batch: int
    micro_batch: int | None
    setting: Setting
    passed: Mapping[str, Any]  # DeepSpeed's own keys
    clip: float | None = None
    limit: Limit | None = None
    measured: Mapping[Layout, Measured] = field(default_factory=dict)  # by earlier runs that did the same
    allowed: Callable[[Layout], bool] = field(default=lambda _: True)  # by the rest of the run file


@dataclass(frozen=True)
class Option:
    """A layout that works, whether it fits or not."""

    layout: Layout
    batch: BatchPlan
    memory: Memory
    cost_s: float
    measured: Measured | None = None

    def fits(self, limit: Limit | None) -> bool:
        return limit is None or self.memory.total <= limit.size

    def __str__(self) -> str:
        return f"{self.layout} ({gib(self.memory.total)} per rank)"


def gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB" if size < 10 * GIB else f"{size / GIB:.1f} GiB"


def option(layout: Layout, question: Question) -> Option | None:
    """None where the layout does not work at all."""
    bf16 = question.setting.precision == "bf16"
    if any(True for _ in problems(layout, layout.workers, question.recipe, question.model, bf16=bf16)):
        return None
    experts = question.shape.experts is not None
    request = Request(question.passed, layout, question.setting.precision, question.clip, experts)
    if any(True for _ in incompatible(request)) or not question.allowed(layout):
        return None
    return reckoned(layout, question)


def reckoned(layout: Layout, question: Question) -> Option | None:
    """What a layout that works costs and holds; None where its ranks cannot share the batch."""
    batch = share_batch(question.global_batch, question.micro_batch, layout.data, layout.pipeline)
    if batch is None:
        return None
    setting = replace(question.setting, micro_batch=batch.micro_batch, accumulation=batch.accumulation)
    memory = memory_per_rank(question.shape, layout, setting)
    return Option(layout, batch, memory, _cost_s(question.shape, layout, setting, batch))


def options(question: Question) -> list[Option]:
    """Every layout that works, the cheapest first."""
    found = [each for layout in _layouts(question) if (each := option(layout, question)) is not None]
    weighed = _weighed(found, question.measured)
    return sorted(weighed, key=lambda each: (each.cost_s, each.memory.total, each.layout.zero))


def _weighed(found: list[Option], measured: Mapping[Layout, Measured]) -> list[Option]:
    """What was measured in place of what was reckoned, and all else in proportion: nominal hardware is nobody's."""
    known = [each for each in found if each.layout in measured]
    if not known:
        return found
    scale = statistics.median(measured[each.layout].step_s / each.cost_s for each in known)
    return [
        replace(each, cost_s=past.step_s, measured=past)
        if (past := measured.get(each.layout)) is not None
        else replace(each, cost_s=each.cost_s * scale)
        for each in found
    ]


def _layouts(question: Question) -> Iterator[Layout]:
    plain = Layout(workers=question.workers)
    layouts = [plain]
    for name in DEGREES:
        if name in question.degrees:
            layouts = [replace(each, **{name: degree}) for each in layouts for degree in _degrees(question.workers)]
    for each in layouts:
        if question.workers % each.ranks_per_sample == 0:
            yield from (replace(each, zero=zero) for zero in range(4))


def _degrees(workers: int) -> list[int]:
    return [each for each in range(1, min(workers, _LARGEST_DEGREE) + 1) if workers % each == 0]


def choose(question: Question) -> tuple[Option | None, str]:
    """The cheapest layout that fits, and why; None, and why not."""
    found = options(question)
    if not found:
        return None, f"no layout of {question.workers} workers divides this model and its batch"
    fitting = [each for each in found if each.fits(question.limit)]
    if not fitting:
        return None, _none_fits(found, question)
    best = fitting[0]
    basis = _basis(best, found)
    if question.limit is None:
        return (
            best,
            f"{best}: the cheapest step of {len(found)} layouts, {basis}; nothing says how much a rank may hold",
        )
    among = (
        "the only layout that fits"
        if len(fitting) == 1
        else f"the cheapest step of {len(fitting)} layouts that fit, {basis}"
    )
    why = f"{best}: {among}, as {question.limit.words}"
    if best is not found[0]:
        why += f"; {found[0]} would be cheaper, but does not fit"
    return best, why


def _basis(best: Option, found: list[Option]) -> str:
    """Where the costs are from."""
    if best.measured is not None:
        return f"by the {best.cost_s:.3g} s that it took in {', '.join(best.measured.runs)}"
    runs = [run for each in found if each.measured is not None for run in each.measured.runs]
    if runs:
        return f"by costs reckoned in proportion to what other layouts took in {', '.join(runs)}"
    return "by nominal costs, as no earlier run did the same on as many workers"


def would_fit(now: Option, question: Question) -> str:
    """What else would fit, in half a sentence: one change where one is enough."""
    others = [each for each in options(question) if each.fits(question.limit)]
    changes = [(words, each) for each in others if (words := _one_change(now.layout, each.layout))]
    nearest: dict[str, tuple[str, Option]] = {}
    for words, each in sorted(changes, key=lambda change: change[1].cost_s):
        nearest.setdefault(words.split()[0], (words, each))
    parts = [f"{words} would, at {gib(each.memory.total)} per rank" for words, each in nearest.values()]
    smaller = _smaller_batch(now, question)
    if smaller is not None:
        parts.append(f"train.micro_batch {smaller[0]} would, at {gib(smaller[1])}")
    if not parts and others:
        parts = [f"{others[0].layout} would, at {gib(others[0].memory.total)} per rank"]
    return "; ".join(parts) or _none_fits(options(question), question)


def _one_change(now: Layout, other: Layout) -> str:
    changed = [name for name in ("zero", *DEGREES) if getattr(now, name) != getattr(other, name)]
    if len(changed) != 1 or (changed[0] == "zero" and other.zero < now.zero):
        return ""
    return f"ZeRO {other.zero}" if changed[0] == "zero" else f"{changed[0]} {getattr(other, changed[0])}"


def _smaller_batch(now: Option, question: Question) -> tuple[int, int] | None:
    """The largest micro-batch below the present one with which the same layout fits, and what it takes."""
    size = now.batch.micro_batch
    while size > 1:
        size //= 2
        smaller = option(now.layout, replace(question, micro_batch=size))
        if smaller is not None and smaller.fits(question.limit):
            return smaller.batch.micro_batch, smaller.memory.total
    return None


def _none_fits(found: list[Option], question: Question) -> str:
    least = min(found, key=lambda each: each.memory.total, default=None)
    smallest = f": the smallest is {least}" if least is not None else ""
    return f"no layout of {question.workers} workers fits{smallest}; more workers or more memory would help"


# ---- cost -----------------------------------------------------------------------------------------------------------


def _cost_s(shape: ModelShape, layout: Layout, setting: Setting, batch: BatchPlan) -> float:
    flops_s, link_bytes_s, memory_bytes_s = _NOMINAL[setting.device]
    passes = 8 if setting.activation_checkpointing else 6  # FLOPs of a parameter and token, forth and back
    compute_s = passes * shape.elements * shape.tokens * batch.global_batch / layout.workers / flops_s
    idle_s = compute_s * (layout.pipeline - 1) / batch.accumulation  # the pipeline fills and drains
    sent = _model_bytes(shape, layout, setting, batch) + _activation_bytes(shape, layout, setting, batch)
    updated = shape.elements / (layout.tensor * layout.pipeline) / (layout.zero_ranks if layout.zero else 1)
    touched = 4 * updated * (3 + 2 * setting.states)  # gradient read; parameter and states read and written
    return compute_s + idle_s + sent / link_bytes_s + touched / memory_bytes_s


def _model_bytes(shape: ModelShape, layout: Layout, setting: Setting, batch: BatchPlan) -> float:
    """Gradients and parameters that a rank sends in one step. Ring collectives: Rajbhandari et al. 2020, section 7."""
    ranks = layout.zero_ranks
    volume = setting.element * shape.elements / (layout.tensor * layout.pipeline) * (ranks - 1) / ranks
    passes = {0: 2, 1: 2, 2: batch.accumulation + 1, 3: 3 * batch.accumulation}
    return passes[layout.zero] * volume


def _activation_bytes(shape: ModelShape, layout: Layout, setting: Setting, batch: BatchPlan) -> float:
    """What layers of one model hand around between the ranks that share it."""
    handed = sum(layer.output * layer.count for layer in shape.layers if layer.count == shape.blocks)
    volume = setting.element * handed * batch.micro_batch * batch.accumulation / (layout.sequence * layout.pipeline)
    tensor = 8 * (layout.tensor - 1) / layout.tensor  # two all-reduces forth and two back
    sequence = 8 * (layout.sequence - 1) / layout.sequence  # four all-to-alls forth and four back
    expert = 4 * (layout.expert - 1) / layout.expert
    return volume * (tensor + sequence + expert)
