"""A layer of experts: every token is computed by the two that its router rates highest.

Sparse experts: Shazeer et al. 2017 (arXiv 1701.06538); two of them per token: Lepikhin et al. 2020 (arXiv 2006.16668).
The router is kept from favouring few experts by a loss of its own (Fedus et al. 2021, arXiv 2101.03961), here over each
sample's tokens and not over the batch's: so it does not depend on how ranks share the batch. No token is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from deepspeed.moe.layer import MoE
from deepspeed.utils import groups
from torch import nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from trainers.models.divided import exchanged

BALANCE_WEIGHT = 0.01  # of the router's own loss, beside the task's
_ACTIVE = 2  # experts of a token


class Experts(MoE):
    """DeepSpeed knows the layer by its base, its attributes and the names of its weights: how the experts' gradients
    are reduced, and that each expert has a file of its own in a checkpoint. What it computes is ours."""

    def __init__(self, *, width: int, experts: int, expert: Callable[[], nn.Module]) -> None:
        nn.Module.__init__(self)  # not the base's: it would build layers of its own
        self.num_experts = experts
        self.router = nn.Linear(width, experts, bias=False)
        self.deepspeed_moe = nn.ModuleDict()  # type: ignore[assignment]  # its names are those that DeepSpeed looks for
        self.balance: torch.Tensor | None = None  # the router's loss of the last forward pass, in training
        self.carried: float | None = None  # its weight in the gradient, in a pipeline: see `carry_balance`
        self._tensor_size = 1
        self._sequence_group: ProcessGroup | None = None
        self._group: ProcessGroup | None = None
        self._hold([expert() for _ in range(experts)], ranks=1)

    def keep_part(self, rank: int, size: int, *, tensor_size: int, sequence_group: ProcessGroup | None) -> None:
        """Leave this rank its share of the experts. `tensor_size`: ranks that share each expert's matrices."""
        share = self.num_experts // size
        self._tensor_size, self._sequence_group = tensor_size, sequence_group
        self._hold(list(self.local)[rank * share : (rank + 1) * share], ranks=size)

    @property
    def local(self) -> nn.ModuleList:
        """The experts that this rank holds."""
        held: nn.ModuleList = self.deepspeed_moe["experts"]["deepspeed_experts"]  # type: ignore[index]
        return held

    def set_deepspeed_parallelism(self, use_data_before_expert_parallel_: bool = False) -> None:
        """DeepSpeed's engine calls this when it takes the model. Collective."""
        if self.expert_group_name not in groups._get_expert_parallel_group_dict():
            if self._tensor_size > 1:
                groups._create_expert_data_and_model_parallel(self.ep_size, mpu=groups.mpu)
            else:
                groups._create_expert_and_data_parallel(self.ep_size)
        if self.ep_size > 1:
            self._group = groups._get_expert_parallel_group(self.expert_group_name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]  # what a dense layer returns, too
        """`x` [batch, context, width]; the same shape."""
        rated = functional.softmax(self.router(x).float(), dim=-1)
        active = min(_ACTIVE, self.num_experts)
        weights, chosen = rated.topk(active, dim=-1)
        if self.training:
            self.balance = self._balance(rated, chosen)
        weights = (weights / weights.sum(dim=-1, keepdim=True)).to(x.dtype)
        slots = chosen.flatten()
        order = slots.argsort(stable=True)
        rows = x.flatten(0, 1)[order // active]
        counts = slots.bincount(minlength=self.num_experts)
        answers = self._computed(rows, counts) if self._group is None else self._computed_elsewhere(rows, counts)
        unsorted = answers[order.argsort()].view(*weights.shape, x.shape[-1])
        out = (unsorted * weights.unsqueeze(-1)).sum(dim=-2)
        if self.carried is None or self.balance is None or not self.training:
            return out
        return _Carrying.apply(out, self.carried * self.balance)  # type: ignore[no-untyped-call, no-any-return]

    def _hold(self, experts: list[nn.Module], *, ranks: int) -> None:
        self.ep_size, self.num_local_experts = ranks, len(experts)
        self.expert_group_name = f"ep_size_{ranks}"
        self.deepspeed_moe.add_module("experts", nn.ModuleDict({"deepspeed_experts": nn.ModuleList(experts)}))
        for parameter in self.local.parameters():
            parameter.allreduce = False  # type: ignore[attr-defined]  # reduced over the ranks with the same experts only
            parameter.group_name = self.expert_group_name  # type: ignore[attr-defined]

    def _balance(self, rated: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """Experts x sum over them of (share of a sample's tokens sent there x mean rating): 1 where all are alike."""
        sent = functional.one_hot(chosen, self.num_experts).float().mean(dim=(1, 2))
        if self._sequence_group is not None:  # ranks see equal parts of the same samples
            torch.distributed.all_reduce(sent, group=self._sequence_group)
            sent /= torch.distributed.get_world_size(self._sequence_group)
        return self.num_experts * (sent * rated.mean(dim=1)).sum(dim=-1).mean()

    def _computed(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """`rows` [n, width], sorted by expert, `counts` [local experts] of them for each."""
        parts = torch.split(rows, counts.tolist())
        return torch.cat([expert(part) for expert, part in zip(self.local, parts, strict=True)])

    def _computed_elsewhere(self, rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """The same, with every row computed by the rank that holds its expert: `counts` [experts]."""
        assert self._group is not None
        wanted = torch.empty_like(counts)  # [ranks, local experts]: how many rows of each rank are for each expert here
        torch.distributed.all_to_all_single(wanted, counts, group=self._group)
        send = counts.view(self.ep_size, -1).sum(dim=1).tolist()
        receive = wanted.view(self.ep_size, -1).sum(dim=1).tolist()
        here = exchanged(rows, send, receive, self._group)
        of_expert = torch.arange(self.num_local_experts, device=rows.device).repeat(self.ep_size)
        order = of_expert.repeat_interleave(wanted).argsort(stable=True)
        computed = self._computed(here[order], wanted.view(self.ep_size, -1).sum(dim=0))
        return exchanged(computed[order.argsort()], receive, send, self._group)


def balance_loss(model: nn.Module) -> torch.Tensor | float:
    """What the routers of a model add to the loss, after a forward pass in training; 0 where there are none of ours."""
    balances = [each.balance for each in model.modules() if isinstance(each, Experts) and each.balance is not None]
    return BALANCE_WEIGHT * torch.stack(balances).mean() if balances else 0.0


def carry_balance(model: nn.Module, weight: float) -> None:
    """Let each router's loss reach its weights beside the task's, `weight` times: where the loss is computed in another
    process, nothing can be added to it. For models without half precision's loss scaling."""
    for each in model.modules():
        if isinstance(each, Experts):
            each.carried = weight


class _Carrying(torch.autograd.Function):
    """The first input, with the second one's gradient beside."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, loss: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(loss)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        (loss,) = ctx.saved_tensors
        return gradients[0], torch.ones_like(loss)
