"""An embedding table whose rows are spread over the ranks: row i lives on rank i mod the number of ranks, nowhere else.

The layout is that of DLRM (Naumov et al. 2019, arXiv 1906.00091) and of TorchRec's row-wise sharding. No engine knows
the table: averaging over the ranks would move every row at every step, so rows travel, by all-to-all, to who asks
for them, and their gradients travel back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed

from trainers.data.sampler import mix
from trainers.distributed import World
from trainers.errors import BadConfig

_EPSILON = 1e-8


@dataclass(frozen=True)
class _Asked:
    """One lookup whose gradient is still to go back."""

    rows: torch.Tensor  # leaf [asked by this rank, width], sorted by owner
    asked: list[int]  # how many of them each rank owns
    wanted: list[int]  # how many rows of this rank each rank asked for
    local: torch.Tensor  # which ones, int64 [sum of wanted]


class ShardedTable:
    """`rows` x `width` numbers in float32, of which this rank holds its share. Every method but `state` is collective.

    First values are uniform within +-`scale`, a hash of seed, row and column: the same at every world size. Updates are
    row-wise AdaGrad (Duchi et al. 2011, with one sum a row as in TorchRec), of the rows that a step asked for alone.
    """

    def __init__(self, rows: int, width: int, *, seed: int, scale: float, here: World) -> None:
        self.rows = rows
        self.width = width
        self.rank, self.world_size = here.rank, here.size
        mine = np.arange(self.rank, rows, self.world_size)
        bits = mix(seed, (mine[:, None] * width + np.arange(width)).astype(np.uint64))
        numbers = (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24)  # [0, 1)
        self.weight = torch.from_numpy((2 * numbers - 1) * np.float32(scale)).to(here.device)
        self.squares = torch.zeros(len(mine), device=here.device)
        self._open: list[_Asked] = []

    def lookup(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows [..., width] for `ids` int64 [...], each from 0 to `rows` - 1. Where gradients are on, `update` is due."""
        unique, inverse = torch.unique(ids, return_inverse=True)
        owner = unique % self.world_size
        order = torch.argsort(owner, stable=True)
        asked = torch.bincount(owner, minlength=self.world_size)
        wanted = self._swap(asked, None, None)
        asked_list, wanted_list = asked.tolist(), wanted.tolist()
        local = self._swap(unique[order] // self.world_size, asked_list, wanted_list)
        rows = self._swap(self.weight[local], wanted_list, asked_list)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._open.append(_Asked(rows, asked_list, wanted_list, local))
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        return rows[place[inverse]]

    def update(self, lr: float) -> None:
        """One step along the gradients of all lookups since the last, the mean over the ranks."""
        locals_, gradients = [], []
        for each in self._open:
            gradient = each.rows.grad if each.rows.grad is not None else torch.zeros_like(each.rows)
            gradients.append(self._swap(gradient, each.asked, each.wanted))
            locals_.append(each.local)
        self._open.clear()
        if not locals_:
            return
        touched, inverse = torch.unique(torch.cat(locals_), return_inverse=True)
        gradient = torch.zeros(len(touched), self.width, device=self.weight.device)
        gradient.index_add_(0, inverse, torch.cat(gradients) / self.world_size)
        self.squares[touched] += gradient.square().mean(dim=1)
        self.weight[touched] -= lr * gradient / (self.squares[touched].sqrt() + _EPSILON).unsqueeze(1)

    def state(self) -> dict[str, Any]:
        return {"rows": self.rows, "width": self.width, "weight": self.weight, "squares": self.squares}

    def load_state(self, parts: Iterable[tuple[int, Mapping[str, Any]]], world_size: int) -> None:
        """`parts`: what ranks of then kept. Raises BadConfig when it was another table."""
        for rank, part in parts:
            if (part["rows"], part["width"]) != (self.rows, self.width):
                then = f"{part['rows']} rows of {part['width']}"
                raise BadConfig("model", f"a table of {self.rows} rows of {self.width}", f"the checkpoint holds {then}")
            ids = torch.arange(rank, self.rows, world_size)
            mine = ids % self.world_size == self.rank
            here = (ids[mine] // self.world_size).to(self.weight.device)
            self.weight[here] = part["weight"][mine].to(self.weight.device)
            self.squares[here] = part["squares"][mine].to(self.weight.device)

    def _swap(self, rows: torch.Tensor, give: list[int] | None, take: list[int] | None) -> torch.Tensor:
        """`give` rows to each rank, and `take` rows from each; one each where they are None."""
        if self.world_size == 1:
            return rows.clone()
        count = sum(take) if take is not None else len(rows)
        taken = rows.new_empty(count, *rows.shape[1:])
        torch.distributed.all_to_all_single(taken, rows.contiguous(), take, give)
        return taken


def whole(parts: Mapping[int, Mapping[str, Any]]) -> torch.Tensor:
    """The table [rows, width] from what every rank kept, by rank: for a model that is to leave the ranks."""
    one = parts[0]
    table = torch.empty(one["rows"], one["width"])
    for rank, part in parts.items():
        table[rank :: len(parts)] = part["weight"]
    return table
