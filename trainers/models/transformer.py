"""A transformer over token ids, decoder or encoder: pre-norm blocks of rotary attention and a gated feed-forward layer.

Rotary positions: Su et al. 2021 (arXiv 2104.09864). RMSNorm: Zhang and Sennrich 2019 (arXiv 1910.07467). SwiGLU: Shazeer
2020 (arXiv 2002.05202). Weights begin as in GPT-2: what a block adds shrinks with the number of blocks.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from trainers.models.dropout import SampleDropout

Rotation = tuple[torch.Tensor, torch.Tensor]
_BASE = 10_000.0  # of the rotary wavelengths
_STD, _STD_WIDTH = 0.02, 768  # GPT-2's, at its width


def rotation(positions: torch.Tensor, head_width: int) -> Rotation:
    """Cosines and sines float32 [context, head_width / 2] for `positions` [context]."""
    exponents = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions.float().unsqueeze(1) * _BASE**-exponents
    return angles.cos(), angles.sin()


def rotated(x: torch.Tensor, by: Rotation) -> torch.Tensor:
    """`x` [batch, heads, context, head_width], each pair (i, i + head_width / 2) turned by its position's angle."""
    cos, sin = (each.to(x.dtype) for each in by)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def feed_width(width: int) -> int:
    """Of the gated layer: two thirds of four times the width, as the gate costs a third matrix; a multiple of 32."""
    return 32 * math.ceil(8 * width / 3 / 32)


class Attention(nn.Module):
    """Every position looks at all (an encoder's) or at those before it (a decoder's)."""

    def __init__(self, *, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # rows: 3, heads, head_width
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor, turn: Rotation, real: torch.Tensor | None) -> torch.Tensor:
        """`x` [batch, context, width]; `real` bool [batch, context]: False for padding, which nobody looks at."""
        batch, context, width = x.shape
        qkv = self.qkv(x).view(batch, context, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mask = None if real is None else real[:, None, None, :]
        attended = functional.scaled_dot_product_attention(
            rotated(q, turn), rotated(k, turn), v, attn_mask=mask, is_causal=self.causal
        )
        out: torch.Tensor = self.out(attended.transpose(1, 2).reshape(batch, context, width))
        return out


class Feed(nn.Module):
    """SwiGLU."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * feed_width(width), bias=False)  # rows: 2, feed_width
        self.down = nn.Linear(feed_width(width), width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        out: torch.Tensor = self.down(functional.silu(gate) * up)
        return out


class Block(nn.Module):
    """Attention and a feed-forward layer, each beside a residual connection."""

    def __init__(self, *, width: int, heads: int, dropout: float, causal: bool, index: int) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.attention = Attention(width=width, heads=heads, causal=causal)
        self.feed_norm = nn.RMSNorm(width, eps=1e-5)
        self.feed = Feed(width=width)
        self.attention_dropout = SampleDropout(dropout, layer=2 * index + 1)
        self.feed_dropout = SampleDropout(dropout, layer=2 * index + 2)

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, turn: Rotation, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`x` [batch, context, width]; the same shape."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), turn, real), keys)
        out: torch.Tensor = x + self.feed_dropout(self.feed(self.feed_norm(x)), keys)
        return out


class Transformer(nn.Module):
    """Logits over `outputs` at every position: the next token's for a decoder, the default."""

    def __init__(
        self,
        *,
        vocabulary: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float,
        causal: bool = True,
        outputs: int | None = None,  # None: the vocabulary
    ) -> None:
        super().__init__()
        self.head_width = width // heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = SampleDropout(dropout, layer=0)
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, dropout=dropout, causal=causal, index=index) for index in range(layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, outputs or vocabulary, bias=False)
        self._initialize(layers)

    def hidden(self, tokens: torch.Tensor, keys: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Normed states [batch, context, width]. `tokens` int64 [batch, context], `keys` [batch], `real` [batch, context]:
        False for padding."""
        x = self.dropout(self.tokens(tokens), keys)
        turn = rotation(torch.arange(tokens.shape[1], device=tokens.device), self.head_width)
        for block in self.blocks:
            x = block(x, keys, turn, real)
        normed: torch.Tensor = self.norm(x)
        return normed

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Logits [batch, context, outputs]."""
        logits: torch.Tensor = self.head(self.hidden(tokens, keys, real))
        return logits

    def _initialize(self, layers: int) -> None:
        # Narrower layers sum fewer products: with GPT-2's own 0.02 they would start with next to no signal, and learn late.
        std = _STD * math.sqrt(_STD_WIDTH / self.tokens.embedding_dim)
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                ends_a_block = name.endswith(("attention.out.weight", "feed.down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * layers) if ends_a_block else std)
