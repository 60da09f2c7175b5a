"""The shape of each recipe's model. A test holds them to the parameters of the real models, one by one.

What a layer keeps for the backward pass is counted as autograd keeps it, each storage once. Standard library only.
"""

from __future__ import annotations

import math
from dataclasses import replace

from trainers.shapes import BY_BOTH, BY_TENSOR, Facts, Keys, Layer, ModelShape, Rows, Tensor, feed_width


def _count(keys: Keys, name: str) -> int:
    return int(keys[name])


def _dropped(keys: Keys) -> int:
    """How many masks a dropout keeps."""
    return 1 if float(keys["dropout"]) > 0 else 0


def _pixels(facts: Facts) -> int:
    return int(facts["height"] * facts["width"])


def _linear(inputs: int, outputs: int) -> tuple[Tensor, ...]:
    return (Tensor(inputs * outputs), Tensor(outputs))


def _convolution(inputs: int, outputs: int, kernel: int, bias: bool) -> tuple[Tensor, ...]:
    weight = Tensor(inputs * outputs * kernel * kernel)
    return (weight, Tensor(outputs)) if bias else (weight,)


def digits_cnn(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.cnn.Cnn`."""
    width, blocks, norm = _count(keys, "width"), _count(keys, "blocks"), str(keys["norm"])
    normed = norm != "none"
    pixels, fewer = _pixels(facts), -(-facts["height"] // 2) * -(-facts["width"] // 2)
    plain = _residual("residual", width, width, (pixels, pixels), norm)
    halving = _residual("halving", width, 2 * width, (pixels, fewer), norm)
    wide = _residual("wide residual", 2 * width, 2 * width, (fewer, fewer), norm)
    features = 2 * width * 16  # of the grid's cells
    dropped = 2 * _dropped(keys)
    first = Layer(
        "first",
        _convolution(facts["channels"], width, 3, norm != "batch"),
        facts["channels"] * pixels,
        output=width * pixels,
    )
    last = Layer(
        "head",
        (*_norm(2 * width, normed), *_linear(features, facts["classes"])),
        (1 + normed) * 2 * width * fewer + (1 + dropped) * features,
        saved_fp32=facts["classes"],
        output=facts["classes"],
    )
    repeated = (replace(plain, count=blocks), halving, replace(wide, count=blocks - 1))
    return ModelShape((first, *(each for each in repeated if each.count), last))


def _residual(name: str, inputs: int, outputs: int, pixels: tuple[int, int], norm: str) -> Layer:
    """`trainers.models.cnn.Residual`: its norms and convolutions keep their inputs, its ReLUs what they pass on."""
    (before, after), normed, bias = pixels, norm != "none", norm != "batch"
    shortcut = () if inputs == outputs else _convolution(inputs, outputs, 1, bias)
    parameters = (
        *_norm(inputs, normed),
        *_convolution(inputs, outputs, 3, bias),
        *_norm(outputs, normed),
        *_convolution(outputs, outputs, 3, bias),
        *shortcut,
    )
    kept = (1 + (normed or bool(shortcut))) * inputs * before + (1 + normed) * outputs * after
    return Layer(name, parameters, kept, output=outputs * after)


def _norm(channels: int, normed: bool) -> tuple[Tensor, ...]:
    return (Tensor(channels), Tensor(channels)) if normed else ()


def _feed(width: int, experts: int) -> tuple[Tensor, ...]:
    """A gated layer, or a router and as many of them as there are experts."""
    feed = feed_width(width)
    if not experts:
        return (Tensor(2 * feed * width, BY_TENSOR), Tensor(feed * width, BY_TENSOR))
    matrices = (2 * feed * width, feed * width)
    return (Tensor(width * experts), *(Tensor(each, BY_BOTH, experts) for each in matrices))


def text_transformer(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.transformer.Transformer` as a language model."""
    return _transformer(keys, facts["vocabulary"], facts["vocabulary"], experts=_count(keys, "experts"))


def _transformer(keys: Keys, vocabulary: int, outputs: int, *, experts: int = 0) -> ModelShape:
    width, context, heads = _count(keys, "width"), _count(keys, "context"), _count(keys, "heads")
    dropped = _dropped(keys)
    block = replace(_block(width, context, dropped, experts), count=_count(keys, "layers"))
    wrong = ("width", width, f"must be a multiple of twice model.heads, {2 * heads}")
    return ModelShape(
        (
            Layer("tokens", (Tensor(vocabulary * width),), context * dropped * width, output=context * width),
            block,
            Layer("norm", (Tensor(width),), context * width, output=context * width),
            Layer(
                "head",
                (Tensor(width * outputs),),
                context * width,
                saved_fp32=context * outputs,
                output=context * outputs,
            ),
        ),
        tokens=context,
        blocks=block.count,
        context=context,
        experts=experts or None,
        wrong=(wrong,) if width % (2 * heads) else (),
    )


def _block(width: int, context: int, dropped: int, experts: int) -> Layer:
    feed = feed_width(width)
    # Of a position: the inputs of both norms and of both first matrices; query, key and value as they were multiplied and
    # once more turned; attention's result; gate, up, their activation and their product; the masks of dropout.
    saved = (10 + 2 * dropped) * width + 4 * feed
    # Two experts compute a token: their inputs, gates and answers, sorted by expert and back again.
    if experts:
        saved += (min(2, experts) - 1) * 4 * feed + min(2, experts) * 3 * width
    return Layer(
        "block",
        (
            Tensor(width),
            Tensor(3 * width * width, BY_TENSOR),
            Tensor(width * width, BY_TENSOR),
            Tensor(width),
            *_feed(width, experts),
        ),
        saved=context * saved,
        saved_split=context * (6 * width + (2 if experts > 1 else 1) * 4 * feed),
        output=context * width,
    )


def text_rnn(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.rnn.Rnn` as a language model."""
    return _rnn(keys, facts["vocabulary"], facts["vocabulary"], ways=1)


_CELL_SAVED = {("lstm", 1): 17.7, ("lstm", 2): 24, ("gru", 1): 8, ("gru", 2): 8}
"""By kind and directions: what torch's kernels keep of a position on a CPU, in widths, as measured."""


def _rnn(keys: Keys, vocabulary: int, outputs: int, *, ways: int) -> ModelShape:
    """`ways`: how many directions share the width."""
    width, context, dropped = _count(keys, "width"), _count(keys, "context"), _dropped(keys)
    kind = str(keys["cell"])
    gates, hidden = 4 if kind == "lstm" else 3, width // ways
    one_way = (Tensor(gates * hidden * width), Tensor(gates * hidden * hidden), *[Tensor(gates * hidden)] * 2)
    cell = Layer(
        "cell",
        one_way * ways,
        context * (_CELL_SAVED[kind, ways] + dropped) * width,
        output=context * width,
        count=_count(keys, "layers"),
    )
    head = Layer(
        "head",
        _linear(width, outputs),
        context * width,
        saved_fp32=context * outputs,
        output=context * outputs,
    )
    tokens = Layer("tokens", (Tensor(vocabulary * width),), context * dropped * width, output=context * width)
    return ModelShape((tokens, cell, head), tokens=context)


def text_classification(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.text_classifier.TextClassifier` around either family."""
    vocabulary, classes = facts["words"], facts["classes"]
    if keys["family"] == "transformer":
        return replace(_transformer(keys, vocabulary, classes), blocks=None, context=None)
    width = _count(keys, "width")
    wrong = ("width", width, "must be even: half of it reads forwards, half backwards")
    return replace(_rnn(keys, vocabulary, classes, ways=2), wrong=(wrong,) if width % 2 else ())


def tabular(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.tabular.TabularMlp`."""
    width, embedding, classes = _count(keys, "width"), _count(keys, "embedding"), facts["classes"]
    inputs = facts["numbers"] + embedding * len(facts["categories"])
    layer = Layer(
        "layer",
        (Tensor(width), Tensor(width), *_linear(width, width)),
        (3 + _dropped(keys)) * width,
        output=width,
        count=_count(keys, "layers"),
    )
    return ModelShape(
        (
            Layer("categories", tuple(Tensor(size * embedding) for size in facts["categories"])),
            Layer("first", _linear(inputs, width), inputs, output=width),
            layer,
            Layer("head", (Tensor(width), Tensor(width), *_linear(width, classes)), 2 * width, saved_fp32=classes),
        )
    )


def recommender(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.recommender.Recommender`, and the items' rows in `trainers.models.sharded_table.ShardedTable`."""
    width, hidden, history = _count(keys, "width"), _count(keys, "hidden"), _count(keys, "history")
    items, kinds, negatives = facts["items"], facts["kinds"], _count(keys, "negatives")
    drawn = round(-items * math.expm1(-negatives / items))  # different ones, as is to be expected
    person = Layer(
        "person",
        (Tensor(history), Tensor(1), *_linear(2 * width + 3, hidden), *_linear(hidden, width), Tensor(kinds * width)),
        # Vectors and kinds of what was rated before, with places of 64 bits; what the two matrices take; the masks.
        saved=history * (width + kinds + 4) + kinds + 4 * width + 3 + (2 + _dropped(keys)) * hidden,
        saved_fp32=1.25 * (1 + drawn),  # scores, and which of them count
        saved_once=drawn * (width + kinds + 2),
        output=1 + drawn,
    )
    return ModelShape((person,), tokens=history, rows=Rows(items, width + 1))


def digits_gan(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.gan.Generator` and `Discriminator`."""
    width, noise, classes, pixels = _count(keys, "width"), _count(keys, "noise"), facts["classes"], _pixels(facts)
    layers = _linear(width, width)
    generator = (Tensor(classes * width), *_linear(noise, width), *layers, *_linear(width, pixels))
    discriminator = (Tensor(classes * width), *_linear(pixels, width), *layers, *_linear(width, 1))
    # Most is kept in the discriminator's step: it looks at a real and a made image, and at both a step aside.
    saved = 4 * (pixels + 4 * width)
    return ModelShape(
        (Layer("generator", generator, output=pixels), Layer("discriminator", discriminator, saved, output=4))
    )


def cartpole_ppo(keys: Keys, facts: Facts) -> ModelShape:
    """`trainers.models.actor_critic.ActorCritic`."""
    width, seen, actions = _count(keys, "width"), facts["observations"], facts["actions"]
    first, second = _linear(seen, width), _linear(width, width)
    policy = Layer("policy", (*first, *second, *_linear(width, actions)), 2 * width, saved_fp32=2 * actions)
    value = Layer("value", (*first, *second, *_linear(width, 1)), 2 * width, saved_fp32=1)
    return ModelShape((policy, value))
