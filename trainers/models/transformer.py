"""A decoder-only transformer over token ids (pre-norm, learned positions)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from trainers.models.dropout import SampleDropout


class Block(nn.Module):
    """Causal self-attention and a feed-forward layer, each beside a residual connection."""

    def __init__(self, *, width: int, heads: int, dropout: float, index: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.attention_out = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.feed_in = nn.Linear(width, 4 * width)
        self.feed_out = nn.Linear(4 * width, width)
        self.attention_dropout = SampleDropout(dropout, layer=2 * index + 1)
        self.feed_dropout = SampleDropout(dropout, layer=2 * index + 2)

    def forward(self, x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`x` [batch, context, width]; the same shape."""
        batch, context, width = x.shape
        qkv = self.qkv(self.attention_norm(x)).view(batch, context, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        attended = self.attention_out(attended.transpose(1, 2).reshape(batch, context, width))
        x = x + self.attention_dropout(attended, keys)
        fed = self.feed_out(functional.gelu(self.feed_in(self.feed_norm(x))))
        out: torch.Tensor = x + self.feed_dropout(fed, keys)
        return out


class Transformer(nn.Module):
    """Predicts the next token at every position."""

    def __init__(self, *, vocabulary: int, context: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(context, width)
        self.dropout = SampleDropout(dropout, layer=0)
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, dropout=dropout, index=index) for index in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`tokens` int64 [batch, context], `keys` [batch]; logits [batch, context, vocabulary]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.tokens(tokens) + self.positions(places), keys)
        for block in self.blocks:
            x = block(x, keys)
        logits: torch.Tensor = self.head(self.norm(x))
        return logits
