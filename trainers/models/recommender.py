"""What would somebody like next, from what they rated before: the dense part around the embedding rows.

Rows of a table and an MLP over dense features meet in dot products, as in DLRM (Naumov et al. 2019, arXiv 1906.00091).
The MLP stands before the product, not after it, so that one matrix product ranks a whole catalogue (Covington et al.
2016, "Deep Neural Networks for YouTube Recommendations").
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from trainers.models.dropout import SampleDropout

Items = tuple[torch.Tensor, torch.Tensor]
"""Their rows [..., width + 1], and their genres [..., genres]."""

_FEATURES = 3  # see `_dense`


class Recommender(nn.Module):
    """Scores of items for a person, both given by rows. What a row holds: `width` numbers and, last, the item's bias."""

    def __init__(self, *, width: int, hidden: int, history: int, kinds: int, dropout: float) -> None:
        super().__init__()
        self.recency = nn.Parameter(torch.linspace(-1.0, 1.0, history))
        self.fondness = nn.Parameter(torch.zeros(1))  # how much more a better score counts
        self.person = nn.Linear(2 * width + _FEATURES, hidden)
        self.dropout = SampleDropout(dropout, layer=0)
        self.wish = nn.Linear(hidden, width)
        self.kinds = nn.Linear(kinds, width, bias=False)

    def forward(
        self,
        wanted: Items,
        others: Items,
        history: Items,
        liked: torch.Tensor,
        known: torch.Tensor,
        keys: torch.Tensor,
    ) -> torch.Tensor:
        """Scores [batch, 1 + items]: of the one `wanted` [batch, ...] by each person, and of all the `others` [items, ...].

        A person gave the scores `liked` [batch, history] to `history` [batch, history, ...], the latest last, where it is
        `known` [batch, history].
        """
        before = self._vectors(history)
        weights = self.recency + self.fondness * liked
        weights = torch.softmax(weights.masked_fill(~known, -1e4), dim=1) * known
        pooled = (weights.unsqueeze(-1) * before).sum(dim=1)
        last = before[:, -1] * known[:, -1:]
        person = functional.relu(self.person(torch.cat([pooled, last, _dense(liked, known)], dim=1)))
        wish = pooled + self.wish(self.dropout(person, keys))
        own = (self._vectors(wanted) * wish).sum(dim=1) + wanted[0][:, -1]
        scores = wish @ self._vectors(others).T + others[0][:, -1]
        return torch.cat([own.unsqueeze(1), scores], dim=1)

    def _vectors(self, items: Items) -> torch.Tensor:
        rows, kinds = items
        vectors: torch.Tensor = rows[..., :-1] + self.kinds(kinds)
        return vectors


def _dense(liked: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """[batch, 3]: how much is known, the mean score and the last one."""
    count = known.sum(dim=1)
    mean = liked.sum(dim=1) / count.clamp(min=1)
    return torch.stack([count / known.shape[1], mean, liked[:, -1]], dim=1).to(liked.dtype)
