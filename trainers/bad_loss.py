"""Which step, and which samples, a loss that is no number came from.

Ranks agree about four times a second (`trainers.agreement`), so by then more steps have passed. The losses of all of them
stay on the device until they agree that all is well: to keep them costs nothing, to look at each would wait for the device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed

from trainers.data.sampler import Indices, Sampler
from trainers.engine import Engine
from trainers.errors import BadLoss
from trainers.layout import BatchPlan
from trainers.parallel import Place

_IDS_TOLD = 100  # in the message; all of them go to rank 0's log
_ADVICE = "lower train.lr, set train.clip, add warm-up, or look at these samples"


@dataclass(frozen=True)
class _Kept:
    step: int
    consumed: int  # samples before it
    losses: list[torch.Tensor]  # one for each micro-batch of this rank


@dataclass
class RecentLosses:
    """The losses of this rank's micro-batches since the ranks last agreed."""

    _kept: list[_Kept] = field(default_factory=list)

    def add(self, step: int, consumed: int, losses: list[torch.Tensor]) -> None:
        """Of optimizer step `step`, which followed `consumed` samples."""
        self._kept.append(_Kept(step, consumed, losses))

    def clear(self) -> None:
        """All of them were numbers."""
        self._kept.clear()

    def explain(self, sampler: Sampler, plan: BatchPlan, place: Place) -> BadLoss:
        """Collective. The first step whose loss was no number on any rank, and the samples of those micro-batches; where
        every loss was one, it is the last step's gradient that was none."""
        reports = [each for each in place.exchange.all(self._first_bad()) if each is not None]
        if not reports:
            last = self._kept[-1]
            return bad_gradient(
                f"the gradient of step {last.step} was", last.step, sampler.batch(last.consumed), place.rank
            )
        first = min(reports, key=lambda each: int(each["step"]))
        here = self._bad_samples(first, sampler, plan, place)
        samples = sorted({index for each in place.exchange.all(here) for index in each})
        return BadLoss(_words(first["step"], first["loss"], samples, place.rank, plan))

    def _first_bad(self) -> dict[str, Any] | None:
        for kept in self._kept:
            for value in torch.stack(kept.losses).tolist():
                if not math.isfinite(value):
                    return {"step": kept.step, "consumed": kept.consumed, "loss": str(value)}
        return None

    def _bad_samples(self, first: dict[str, Any], sampler: Sampler, plan: BatchPlan, place: Place) -> list[int]:
        losses = next(each.losses for each in self._kept if each.step == first["step"])
        share = plan.global_batch // plan.data
        mine = sampler.batch(first["consumed"])[place.at.data * share : (place.at.data + 1) * share]
        each_of = share // len(losses)
        bad = [index for index, value in enumerate(torch.stack(losses).tolist()) if not math.isfinite(value)]
        return [int(each) for at in bad for each in mine[at * each_of : (at + 1) * each_of]]


def insist_on_finite_weights(engine: Engine, step: int, sampler: Sampler, consumed: int, rank: int) -> None:
    """Collective, before a seal. Raises BadLoss when any rank's weights hold NaN or infinity.

    A gradient may overflow where the loss did not: the weights then tell first, and no checkpoint may keep them.
    """
    bad = torch.zeros((), device=engine.device)
    for values in _own_weights(engine.module):
        bad = torch.maximum(bad, (~torch.isfinite(values.detach().sum(dtype=torch.float64))).to(bad.dtype))
    torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
    if bad.item():
        samples = sampler.batch(consumed - sampler.global_batch)
        raise bad_gradient(f"the weights after the update of step {step} are", step, samples, rank)


def bad_gradient(what: str, step: int, samples: Indices, rank: int) -> BadLoss:
    """The whole batch of a step is told: which of its samples spoilt the sum of the gradients nobody can see."""
    ids = [int(each) for each in samples]
    if rank == 0:
        print(f"samples of step {step}: {ids}", flush=True)
    return BadLoss(f"{what} NaN or infinite, though its loss was a number; sample ids {_listed(ids)}: {_ADVICE}")


def _own_weights(module: torch.nn.Module) -> list[torch.Tensor]:
    """This rank's parameters, with ZeRO 3 its parts of them, and the buffers."""
    parameters = [_part(each) for each in module.parameters()]
    return [each for each in (*parameters, *module.buffers()) if each.is_floating_point() and each.numel()]


def _part(parameter: Any) -> torch.Tensor:
    whole: torch.Tensor = parameter
    if not hasattr(parameter, "ds_tensor"):
        return whole
    part: torch.Tensor = parameter.ds_tensor
    begin = part.numel() * torch.distributed.get_rank(parameter.ds_process_group)
    return part.flatten()[: max(0, parameter.ds_numel - begin)]  # what pads the last part was never written


def _words(step: int, loss: str, samples: list[int], rank: int, plan: BatchPlan) -> str:
    if rank == 0:
        print(f"samples of step {step} whose loss became {loss}: {samples}", flush=True)
    words = f"the loss became {loss} at step {step}, on sample ids {_listed(samples)}: {_ADVICE}"
    if len(samples) == plan.global_batch:
        words += f". It was the whole batch: the update of step {step - 1} may have spoilt the weights"
    return words


def _listed(samples: list[int]) -> str:
    more = f" and {len(samples) - _IDS_TOLD} more (all are in rank 0's log)" if len(samples) > _IDS_TOLD else ""
    return ", ".join(map(str, samples[:_IDS_TOLD])) + more
