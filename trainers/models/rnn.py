"""A recurrent network over token ids: LSTM (Hochreiter and Schmidhuber 1997) or GRU (Cho et al. 2014, arXiv 1406.1078)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from trainers.models.dropout import SampleDropout

Cell = Literal["lstm", "gru"]


class Rnn(nn.Module):
    """Logits over `outputs` at every position: the next token's when it reads one way, the default."""

    def __init__(
        self,
        *,
        vocabulary: int,
        cell: Cell,
        layers: int,
        width: int,
        dropout: float,
        both_ways: bool = False,  # each state then knows the whole sequence: two halves of the width, one a direction
        outputs: int | None = None,  # None: the vocabulary
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        hidden = width // 2 if both_ways else width
        # One module a layer: torch's own dropout between layers would draw from the process, not from the sample.
        self.layers = nn.ModuleList(
            kind(width, hidden, batch_first=True, bidirectional=both_ways) for _ in range(layers)
        )
        self.dropouts = nn.ModuleList(SampleDropout(dropout, layer=index) for index in range(layers + 1))
        self.head = nn.Linear(width, outputs or vocabulary)
        if cell == "lstm":
            self._remember_at_first()

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [batch, context, outputs]. `tokens` int64 [batch, context], `keys` [batch], `real` bool [batch, context]:
        False for padding, which comes last and is never read."""
        lengths = None if real is None else real.sum(dim=1).cpu()
        x = self.dropouts[0](self.tokens(tokens), keys)
        for layer, dropout in zip(self.layers, self.dropouts[1:], strict=True):
            x = dropout(_states(layer, x, lengths), keys)
        logits: torch.Tensor = self.head(x)
        return logits

    def _remember_at_first(self) -> None:
        """Forget gates begin open: Jozefowicz et al. 2015."""
        for name, parameter in self.layers.named_parameters():
            if ".bias_ih" in name:  # rows: input, forget, cell, output
                _, forget, _, _ = parameter.data.chunk(4)
                forget.fill_(1.0)


def _states(layer: nn.Module, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """The layer's output at every position [batch, context, width]; zero at padding."""
    if lengths is None:
        states: torch.Tensor = layer(x)[0]
        return states
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    padded, _ = pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])
    return padded
