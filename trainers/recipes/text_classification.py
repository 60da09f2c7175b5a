"""Which label does a text bear? A transformer that reads both ways, or a recurrent network, over its words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import nn

from trainers.config import Settings, section
from trainers.data.checks import check_classes, check_parts
from trainers.data.labelled_text import read_labelled_text
from trainers.data.loader import Splits, Tensors
from trainers.data.passages import words
from trainers.data.sources import split_indices
from trainers.errors import BadConfig
from trainers.models.rnn import Cell, Rnn
from trainers.models.text_classifier import PADDING, TextClassifier
from trainers.models.transformer import Transformer
from trainers.tasks.classification import Classification

UNKNOWN = PADDING + 1  # every word that training saw less than twice; the others follow


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    family: Literal["transformer", "rnn"] = "transformer"
    layers: int = 1
    heads: int = 4  # of the transformer
    cell: Cell = "lstm"  # of the rnn
    width: int = 64
    context: int = 128  # words and signs
    truncate: bool = False  # longer texts lose their end; otherwise they are refused
    dropout: float = 0.2


def text_classification(settings: Settings) -> Classification:
    """Raises BadConfig when texts are longer than the model, or there is nothing to tell apart."""
    model = section(Model, settings.model, "model")
    _check_width(model)
    examples = read_labelled_text(settings.data.source)
    texts = [words(each) for each in examples.texts]
    if not model.truncate:
        _check_lengths(texts, model.context)
    labels, targets = np.unique(np.array(examples.labels), return_inverse=True)
    parts = split_indices(len(targets), settings.data.split)
    check_parts(parts, settings.data)
    check_classes(targets, parts, settings.data)
    times = Counter(word for index in parts[0] for word in texts[index])
    vocabulary = sorted(word for word, seen in times.items() if seen > 1)
    places = {word: place for place, word in enumerate(vocabulary, start=UNKNOWN + 1)}
    tokens = torch.tensor([_tokens(each, places, model.context) for each in texts])
    columns = {"inputs": tokens, "targets": torch.from_numpy(targets.astype(np.int64))}
    return Classification(
        splits=Splits(*(Tensors({name: each[part] for name, each in columns.items()}) for part in parts)),
        build=partial(_build, model, vocabulary=UNKNOWN + 1 + len(vocabulary), classes=len(labels)),
        notes={"labels": labels.tolist(), "words": vocabulary, "first_word": UNKNOWN + 1, "context": model.context},
    )


def _tokens(text: Sequence[str], places: Mapping[str, int], context: int) -> list[int]:
    """Of `context` length: the words' places in the vocabulary, then padding."""
    tokens = [places.get(word, UNKNOWN) for word in text[:context]]
    return tokens + [PADDING] * (context - len(tokens))


def _build(model: Model, *, vocabulary: int, classes: int) -> nn.Module:
    body: nn.Module
    if model.family == "transformer":
        body = Transformer(
            vocabulary=vocabulary,
            layers=model.layers,
            heads=model.heads,
            width=model.width,
            dropout=model.dropout,
            causal=False,
            outputs=classes,
        )
    else:
        body = Rnn(
            vocabulary=vocabulary,
            cell=model.cell,
            layers=model.layers,
            width=model.width,
            dropout=model.dropout,
            both_ways=True,
            outputs=classes,
        )
    return TextClassifier(body)


def _check_width(model: Model) -> None:
    if model.family == "transformer" and model.width % (2 * model.heads):
        raise BadConfig("model.width", model.width, f"must be a multiple of twice model.heads, {2 * model.heads}")
    if model.family == "rnn" and model.width % 2:
        raise BadConfig("model.width", model.width, "must be even: half of it reads forwards, half backwards")


def _check_lengths(texts: Sequence[Sequence[str]], context: int) -> None:
    longest = max(range(len(texts)), key=lambda index: len(texts[index]))
    if (length := len(texts[longest])) > context:
        raise BadConfig(
            "model.context",
            context,
            f"is less than the {length} words of text {longest} (counted from 0): raise it, or set "
            "model.truncate: true to keep the beginning of long texts",
        )
