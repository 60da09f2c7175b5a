"""What would somebody like next: a softmax over sampled items in training, the rank in the whole catalogue in judgement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trainers.data.loader import Batch, Splits
from trainers.data.sampler import mix
from trainers.distributed import joined
from trainers.engine import Engine
from trainers.models.sharded_table import ShardedTable
from trainers.tasks.task import Model

_NEGATIVES = 0x0DD5  # what random numbers are for
_TOP = 10


@dataclass
class Recommendation:
    """Batches hold what `trainers.data.ratings.Histories.take` gives.

    The items' rows live in a table that is spread over the ranks and has an optimizer of its own, which learns at a multiple
    of the dense part's rate. `train.optimizer`, `clip` and `weight_decay` are the dense part's.
    """

    splits: Splits
    dense: Callable[[], nn.Module]  # see `trainers.models.recommender.Recommender`
    kinds: torch.Tensor  # float32 [items, genres]
    width: int
    negatives: int  # items drawn in each step, to tell those that were rated from
    table_lr_factor: float  # times the dense part's learning rate
    seed: int
    notes: Mapping[str, Any] = field(default_factory=dict)
    judged_by: str = "val_ndcg_at_10"
    judged_mode: Literal["min", "max"] = "max"

    def model(self) -> nn.Module:
        here = joined()
        self._kinds = self.kinds.to(here.device)
        self._table = ShardedTable(len(self.kinds), self.width + 1, seed=self.seed, scale=self.width**-0.5, here=here)
        return self.dense()

    def helpers(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {}

    def step(self, engine: Engine, helpers: Mapping[str, Engine], batches: Iterable[Batch]) -> torch.Tensor:
        losses = []
        lr, others = self.table_lr_factor * engine.get_lr()[0], self._drawn(engine.global_steps)
        for batch in batches:
            loss = self._sampled_loss(engine, batch, others)
            engine.backward(loss)
            engine.step()
            losses.append(loss.detach())
        self._table.update(lr)
        return torch.stack(losses).mean()

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        """`ndcg_at_10` of the item among all that its user had not rated: 1 / log2(1 + rank), 0 beyond rank 10."""
        scores = self._scores(model, batch, torch.arange(len(self.kinds), device=self._kinds.device))
        wanted, scores = scores[:, :1], scores[:, 1:]
        seen = torch.zeros(len(scores), scores.shape[1] + 1, dtype=torch.bool, device=scores.device)
        seen.scatter_(1, batch["seen"] + 1, True)  # column 0 takes what is not there
        scores = scores.masked_fill(seen[:, 1:], -torch.inf).scatter(1, batch["items"].unsqueeze(1), wanted)
        rank = (~(scores < wanted)).sum(dim=1)  # of equals the last; what is no number is above
        gain = torch.where(rank <= _TOP, 1 / torch.log2(1 + rank.double()), 0.0)
        return {"loss": functional.cross_entropy(scores, batch["items"], reduction="none"), "ndcg_at_10": gain}

    def state(self) -> Mapping[str, Any]:
        return {"items": self._table.state()}

    def load_state(self, parts: Iterable[tuple[int, Mapping[str, Any]]], world_size: int) -> None:
        self._table.load_state(((rank, part["items"]) for rank, part in parts), world_size)

    def _drawn(self, step: int) -> torch.Tensor:
        """Items int64 [at most `negatives`] to tell those of this step from: sorted, and the same on every rank."""
        numbers = mix(self.seed ^ _NEGATIVES, step * self.negatives + np.arange(self.negatives, dtype=np.uint64))
        return torch.from_numpy(np.unique(numbers % np.uint64(len(self.kinds))).astype(np.int64)).to(self._kinds.device)

    def _sampled_loss(self, model: Model, batch: Batch, others: torch.Tensor) -> torch.Tensor:
        scores = self._scores(model, batch, others)
        rated = torch.cat([batch["items"].unsqueeze(1), batch["history"]], dim=1)
        place = torch.searchsorted(others, rated).clamp(max=len(others) - 1)
        no_alternative = torch.zeros_like(scores, dtype=torch.bool)  # nobody is asked again for what they rated
        no_alternative.scatter_(1, torch.where(others[place] == rated, place + 1, 0), True)
        no_alternative[:, 0] = False
        targets = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        return functional.cross_entropy(scores.masked_fill(no_alternative, -torch.inf), targets)

    def _scores(self, model: Model, batch: Batch, others: torch.Tensor) -> torch.Tensor:
        """[batch, 1 + others]: of the batch's own items, and of `others`."""
        own, history = batch["items"], batch["history"].clamp(min=0)
        ids = torch.cat([own, others, history.flatten()])
        parts = [len(own), len(others), history.numel()]
        dtype = batch["liked"].dtype  # what the engine computes in; the table keeps float32
        rows = torch.split(self._table.lookup(ids).to(dtype), parts)
        kinds = torch.split(self._kinds[ids].to(dtype), parts)
        wanted, rest, _ = zip(rows, kinds, strict=True)
        before = tuple(each[2].view(*history.shape, -1) for each in (rows, kinds))
        return model(wanted, rest, before, batch["liked"], batch["history"] >= 0, batch["keys"]).float()
