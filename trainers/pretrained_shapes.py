"""The shape of a causal language model of Hugging Face's, from its config.json alone.

Nothing of transformers is needed: a config names the sizes, and each architecture's parameters are written down here. A test
holds them to the models that transformers builds. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from trainers.shapes import Facts, Keys, Layer, ModelShape, Tensor, Unknown


class _Config:
    """Sizes by name. Raises _Unread where one is not there or is none."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def count(self, name: str, default: int | None = None) -> int:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise _Unread(f"its {name} is {value!r}, no size")
        return value

    def flag(self, name: str, default: bool) -> bool:
        return bool(self.values.get(name, default))


class _Unread(Exception):
    """A config that does not say what is needed."""


@dataclass(frozen=True)
class _Sizes:
    """What all architectures have."""

    width: int
    layers: int
    heads: int
    feed: int
    positions: int  # the longest context
    vocabulary: int
    tied: bool  # the output layer has the embedding's weights


def hf_causal_lm(keys: Keys, facts: Facts) -> ModelShape | Unknown:
    """Of `facts["config"]`, a config.json; `facts["why"]` where there is none to look at."""
    config = facts.get("config")
    if config is None:
        return Unknown(facts.get("why", "its config.json was not looked at"))
    kind = config.get("model_type")
    make = _ARCHITECTURES.get(kind) if isinstance(kind, str) else None
    if make is None:
        known = ", ".join(_ARCHITECTURES)
        return Unknown(f"{kind!r} in its config.json is not among the architectures known here: {known}")
    try:
        return make(_Config(config), int(keys["context"]))
    except _Unread as error:
        return Unknown(f"its config.json cannot be understood: {error}")


def _llama(config: _Config, context: int, kind: str) -> ModelShape:
    """And what is built alike: they differ in where there are biases, and in norms of queries and keys."""
    tied = config.flag("tie_word_embeddings", kind == "gemma")
    sizes = _sizes(config, "intermediate_size", "max_position_embeddings", tied)
    width, feed, heads = sizes.width, sizes.feed, sizes.heads
    head = config.count("head_dim", max(1, width // heads))
    asked, shared = head * heads, head * config.count("num_key_value_heads", heads)
    says_bias = kind in ("llama", "qwen3", "gemma") and config.flag("attention_bias", False)
    inner = _projections(width, (asked, shared, shared), bias=says_bias or kind == "qwen2")
    outer = _projections(asked, (width,), bias=says_bias)
    bias = kind == "llama" and config.flag("mlp_bias", False)
    gated = (*_projections(width, (feed, feed), bias=bias), *_projections(feed, (width,), bias=bias))
    norms = (Tensor(width), Tensor(width), *([Tensor(head)] * 2 if kind == "qwen3" else []))
    # Of a position: what both norms take and make, and both first matrices take; query, key, value and answer, and what
    # norms of the first two keep; gate, its activation, up and their product.
    saved = 6 * width + (4 if kind == "qwen3" else 2) * (asked + shared) + 4 * feed
    block = Layer(
        "block", (*inner, *outer, *gated, *norms), context * saved, output=context * width, count=sizes.layers
    )
    return _language_model(sizes, context, block, embeddings=(), last=(Tensor(width),))


def _gpt2(config: _Config, context: int) -> ModelShape:
    width = config.count("n_embd")
    sizes = _Sizes(
        width,
        layers=config.count("n_layer"),
        heads=config.count("n_head"),
        feed=config.count("n_inner", 4 * width),
        positions=config.count("n_positions"),
        vocabulary=config.count("vocab_size"),
        tied=config.flag("tie_word_embeddings", True),
    )
    inner = (*_projections(width, (3 * width,), bias=True), *_projections(width, (width,), bias=True))
    block = _normed_block(sizes, context, (*inner, *_fed(sizes)), saved=10 * width + 5 * sizes.feed)
    return _language_model(sizes, context, block, (Tensor(sizes.positions * width),), (Tensor(width), Tensor(width)))


def _gpt_neox(config: _Config, context: int) -> ModelShape:
    tied, bias = config.flag("tie_word_embeddings", False), config.flag("attention_bias", True)
    sizes = _sizes(config, "intermediate_size", "max_position_embeddings", tied)
    width = sizes.width
    inner = (*_projections(width, (3 * width,), bias=bias), *_projections(width, (width,), bias=bias))
    block = _normed_block(sizes, context, (*inner, *_fed(sizes)), saved=10 * width + 2 * sizes.feed)
    return _language_model(sizes, context, block, embeddings=(), last=(Tensor(width), Tensor(width)))


def _sizes(config: _Config, feed: str, positions: str, tied: bool) -> _Sizes:
    return _Sizes(
        width=config.count("hidden_size"),
        layers=config.count("num_hidden_layers"),
        heads=config.count("num_attention_heads"),
        feed=config.count(feed),
        positions=config.count(positions),
        vocabulary=config.count("vocab_size"),
        tied=tied,
    )


def _normed_block(sizes: _Sizes, context: int, parameters: tuple[Tensor, ...], *, saved: int) -> Layer:
    """With layer norms and a feed-forward layer that has no gate. `saved`: of a position, as it was measured; what a dropout
    of attention itself keeps on a CPU, and nowhere else, is left out."""
    norms = [Tensor(sizes.width)] * 4
    return Layer("block", (*parameters, *norms), context * saved, output=context * sizes.width, count=sizes.layers)


def _fed(sizes: _Sizes) -> tuple[Tensor, ...]:
    return (*_projections(sizes.width, (sizes.feed,), bias=True), *_projections(sizes.feed, (sizes.width,), bias=True))


def _projections(inputs: int, outputs: tuple[int, ...], *, bias: bool) -> tuple[Tensor, ...]:
    """A matrix for each of the outputs, and its bias."""
    matrices = tuple(Tensor(inputs * each) for each in outputs)
    return (*matrices, *(Tensor(each) for each in outputs)) if bias else matrices


def _language_model(
    sizes: _Sizes, context: int, block: Layer, embeddings: tuple[Tensor, ...], last: tuple[Tensor, ...]
) -> ModelShape:
    """Between an embedding and an output layer over the vocabulary."""
    matrix = Tensor(sizes.vocabulary * sizes.width)
    head = Layer(
        "head",
        last if sizes.tied else (*last, matrix),
        3 * context * sizes.width,
        saved_fp32=context * sizes.vocabulary,
        output=context * sizes.vocabulary,
    )
    tokens = Layer("tokens", (matrix, *embeddings), output=context * sizes.width)
    wrong = ("context", context, f"must be at most {sizes.positions}, the model's longest")
    return ModelShape((tokens, block, head), tokens=context, wrong=(wrong,) if context > sizes.positions else ())


def _alike(kind: str) -> Callable[[_Config, int], ModelShape]:
    return lambda config, context: _llama(config, context, kind)


_ARCHITECTURES: Mapping[str, Callable[[_Config, int], ModelShape]] = {
    **{kind: _alike(kind) for kind in ("llama", "mistral", "qwen2", "qwen3", "gemma")},
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
