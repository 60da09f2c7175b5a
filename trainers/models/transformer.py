"""A transformer over token ids, decoder or encoder: pre-norm blocks of rotary attention and a gated feed-forward layer.

Rotary positions: Su et al. 2021 (arXiv 2104.09864). RMSNorm: Zhang and Sennrich 2019 (arXiv 1910.07467). SwiGLU: Shazeer
2020 (arXiv 2002.05202). Weights begin as in GPT-2: what a block adds shrinks with the number of blocks.

The whole model is built first, the same in every layout, and `divide` leaves a rank its own part of it. Sequences are
divided as in Ulysses (Jacobs et al. 2023, arXiv 2309.14509): for attention alone, ranks swap positions for heads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.nn import functional

from trainers.errors import BadConfig
from trainers.models.divided import Split, copied, keep_part, summed
from trainers.models.dropout import SampleDropout
from trainers.models.experts import Experts
from trainers.models.linear import Linear, LinearPair
from trainers.models.rms_norm import RMSNorm
from trainers.shapes import feed_width

if TYPE_CHECKING:
    from trainers.parallel import Place

Rotation = tuple[torch.Tensor, torch.Tensor]
_BASE = 10_000.0  # of the rotary wavelengths
_STD, _STD_WIDTH = 0.02, 768  # GPT-2's, at its width

SPLITS: Mapping[str, Split] = {
    "attention.qkv.weight": Split(dim=0, blocks=3),
    "attention.out.weight": Split(dim=1),
    "gate_up.weight": Split(dim=0, blocks=2),
    "down.weight": Split(dim=1),
}
"""The weights of which every tensor rank holds a slice, by the ends of their names."""


def rotation(positions: torch.Tensor, head_width: int) -> Rotation:
    """Cosines and sines float32 [context, head_width] for `positions` [context], the first half of the sines negative."""
    exponents = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    angles = positions.float().unsqueeze(1) * _BASE**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotated(x: torch.Tensor, by: Rotation) -> torch.Tensor:
    """`x` [batch, context, heads, head_width], each pair (i, i + head_width / 2) turned by its position's angle."""
    cos, sin = (each.to(x.dtype).unsqueeze(1) for each in by)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class Attention(nn.Module):
    """Every position looks at all (an encoder's) or at those before it (a decoder's)."""

    def __init__(self, *, width: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.heads = heads  # on this rank
        self.head_width = width // heads
        self.causal = causal
        self.qkv = Linear(width, 3 * width)  # rows: 3, heads, head_width
        self.out = Linear(width, width)
        self._tensor_group: ProcessGroup | None = None
        self._swapping: Any = None

    def divide(self, place: Place) -> None:
        """Leave this rank its heads, and prepare to swap positions for heads. Raises BadConfig."""
        tensor, sequence = place.degrees.tensor, place.degrees.sequence
        _must_divide("tensor", tensor, "the number of heads", self.heads)
        _must_divide("sequence", sequence, "the number of heads of a rank", self.heads // tensor)
        if tensor > 1:
            self.heads //= tensor
            self._tensor_group = place.tensor_group
            keep_part(self.qkv, SPLITS["attention.qkv.weight"], place.at.tensor, tensor)
            keep_part(self.out, SPLITS["attention.out.weight"], place.at.tensor, tensor)
        if sequence > 1:
            from deepspeed.sequence import layer  # brings a compiler's parts along

            swapping: Any = layer.DistributedAttention
            self._swapping = swapping(self._attend, place.sequence_group, scatter_idx=2, gather_idx=1)

    def forward(self, x: torch.Tensor, turn: Rotation, real: torch.Tensor | None) -> torch.Tensor:
        """`x` [batch, context, width]; `real` bool [batch, context]: False for padding, which nobody looks at."""
        batch, context, _ = x.shape
        qkv = self.qkv(copied(x, self._tensor_group)).view(batch, context, 3, self.heads, self.head_width)
        q, k, v = qkv.unbind(dim=2)
        q, k = rotated(q, turn), rotated(k, turn)
        if self._swapping is None:
            attended = self._attend(q, k, v, real)
        elif real is None:
            attended = self._swapping(q, k, v, 0)
        else:
            size = torch.distributed.get_world_size(self._swapping.spg)
            raise BadConfig("parallelism.sequence", size, "must be 1 where samples are padded")
        out: torch.Tensor = self.out(attended.reshape(batch, context, -1))
        return summed(out, self._tensor_group)

    def weights(self, x: torch.Tensor, turn: Rotation, real: torch.Tensor | None = None) -> torch.Tensor:
        """How much each position looks at each other, [batch, heads, context, context]; rows add up to 1. For a model
        that is not divided; arguments are those of `forward`, which never makes these numbers."""
        batch, context, _ = x.shape
        q, k, _ = self.qkv(x).view(batch, context, 3, self.heads, self.head_width).unbind(dim=2)
        q, k = (rotated(each, turn).transpose(1, 2) for each in (q, k))
        hidden = torch.ones(context, context, dtype=torch.bool, device=x.device).triu(1) & self.causal
        if real is not None:
            hidden = hidden | ~real[:, None, None, :]
        scores = q @ k.transpose(2, 3) * self.head_width**-0.5
        looked: torch.Tensor = scores.masked_fill(hidden, -math.inf).softmax(dim=-1)
        return looked

    def _attend(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """All of them [batch, context, heads, head_width], as is what is returned."""
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        mask = None if real is None else real[:, None, None, :]
        attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return attended.transpose(1, 2)


class Feed(nn.Module):
    """SwiGLU."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gate_up = LinearPair(width, feed_width(width))
        self.down = Linear(feed_width(width), width)
        self._tensor_group: ProcessGroup | None = None

    def divide(self, place: Place) -> None:
        """Leave this rank its slice of the inner width. Raises BadConfig."""
        tensor = place.degrees.tensor
        _must_divide("tensor", tensor, "the feed-forward width", self.down.in_features)
        if tensor > 1:
            self._tensor_group = place.tensor_group
            keep_part(self.gate_up, SPLITS["gate_up.weight"], place.at.tensor, tensor)
            keep_part(self.down, SPLITS["down.weight"], place.at.tensor, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate, up = self.gate_up(copied(x, self._tensor_group))
        out: torch.Tensor = self.down(functional.silu(gate) * up)
        return summed(out, self._tensor_group)


class Block(nn.Module):
    """Attention and a feed-forward layer, each beside a residual connection."""

    def __init__(self, *, width: int, heads: int, dropout: float, causal: bool, index: int, experts: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(width)
        self.attention = Attention(width=width, heads=heads, causal=causal)
        self.feed_norm = RMSNorm(width)
        feed = partial(Feed, width=width)
        self.feed = Experts(width=width, experts=experts, expert=feed) if experts else feed()
        self.attention_dropout = SampleDropout(dropout, layer=2 * index + 1)
        self.feed_dropout = SampleDropout(dropout, layer=2 * index + 2)

    def divide(self, place: Place) -> None:
        """Leave this rank its part. Raises BadConfig."""
        self.attention.divide(place)
        for each in self.feed.modules():
            if isinstance(each, Feed):
                each.divide(place)
        if isinstance(self.feed, Experts):
            _must_divide("expert", place.degrees.expert, "the number of experts", self.feed.num_experts)
            tensor, group = place.degrees.tensor, place.sequence_group
            self.feed.keep_part(place.expert_rank, place.degrees.expert, tensor_size=tensor, sequence_group=group)
        self.attention_dropout.part = self.feed_dropout.part = place.at.sequence

    def forward(
        self, x: torch.Tensor, keys: torch.Tensor, turn: Rotation, real: torch.Tensor | None = None
    ) -> torch.Tensor:
        """`x` [batch, context, width]; the same shape."""
        x = x + self.attention_dropout(self.attention(self.attention_norm(x), turn, real), keys)
        out: torch.Tensor = x + self.feed_dropout(self.feed(self.feed_norm(x)), keys)
        return out


class Transformer(nn.Module):
    """Logits over `outputs` at every position: the next token's for a decoder, the default."""

    splits: ClassVar[Mapping[str, Split]] = SPLITS

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
        experts: int = 0,  # in the feed-forward layers; 0: a single one, dense
    ) -> None:
        super().__init__()
        self.head_width = width // heads
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = SampleDropout(dropout, layer=0)
        self.blocks = nn.ModuleList(
            Block(width=width, heads=heads, dropout=dropout, causal=causal, index=index, experts=experts)
            for index in range(layers)
        )
        self.norm = RMSNorm(width)
        self.head = Linear(width, outputs or vocabulary)
        self._part = 0  # of every sequence, on this rank
        self._initialize(layers)

    def divide(self, place: Place) -> None:
        """Leave this rank its heads, its slices of the feed-forward layers, its experts, its part of every sequence.

        Raises BadConfig when a degree does not divide what it should. Pipeline stages: see `stages`.
        """
        if place.degrees.expert > 1 and not any(isinstance(each, Experts) for each in self.modules()):
            raise BadConfig("parallelism.expert", place.degrees.expert, "must be 1: the model has no experts")
        for each in list(self.modules()):
            if isinstance(each, Block):
                each.divide(place)
        self.dropout.part = self._part = place.at.sequence

    def stages(self, count: int) -> list[nn.Module]:
        """The layers that a pipeline of `count` stages is cut from: each takes what the one before returned, the first
        what `forward` takes, the last returns logits. Their weights keep their names. Raises BadConfig."""
        _must_divide("pipeline", count, "the number of layers", len(self.blocks))
        middle = [_Middle(block, str(index), self) for index, block in enumerate(self.blocks)]
        return [_First(self), *middle, _Last(self)]

    def hidden(self, tokens: torch.Tensor, keys: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """Normed states [batch, context, width]. `tokens` int64 [batch, context], `keys` [batch], `real` [batch, context]:
        False for padding. Where sequences are divided, all of these are this rank's part of them."""
        x = self.dropout(self.tokens(tokens), keys)
        turn = _rotation_of(tokens, self.head_width, self._part)
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
                ends_a_block = name.endswith(("attention.out.weight", "down.weight"))
                nn.init.normal_(parameter, std=std / math.sqrt(2 * layers) if ends_a_block else std)


class _First(nn.Module):
    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.tokens, self.dropout = model.tokens, model.dropout

    def forward(self, inputs: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, keys = inputs
        return self.dropout(self.tokens(tokens), keys), keys


class _Middle(nn.Module):
    def __init__(self, block: nn.Module, name: str, model: Transformer) -> None:
        super().__init__()
        self.blocks = nn.ModuleDict({name: block})
        self._name, self._head_width, self._part = name, model.head_width, model._part

    def forward(self, state: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        x, keys = state
        return self.blocks[self._name](x, keys, _rotation_of(x, self._head_width, self._part)), keys


class _Last(nn.Module):
    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.norm, self.head = model.norm, model.head

    def forward(self, state: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.norm(state[0]))
        return logits


def _rotation_of(x: torch.Tensor, head_width: int, part: int) -> Rotation:
    """For `x` [batch, context, ...], the given part of a longer context."""
    context = x.shape[1]
    return rotation(torch.arange(part * context, (part + 1) * context, device=x.device), head_width)


def _must_divide(name: str, degree: int, what: str, size: int) -> None:
    if size % degree:
        raise BadConfig(f"parallelism.{name}", degree, f"must divide {what}, {size}")
