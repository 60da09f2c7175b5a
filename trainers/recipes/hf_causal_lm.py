"""A causal language model of Hugging Face's transformers, new or pretrained, on a text file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits
from trainers.data.sources import read_text, split_points
from trainers.errors import BadConfig
from trainers.models.pretrained import new_model, plain_config, pretrained_model, read_config, read_tokenizer
from trainers.tasks.language_modelling import LanguageModelling, Windows


@dataclass(frozen=True)
class Model:
    """`model:` of the run file. Directories lie on every node."""

    config: str = ""  # directory with a config.json: new weights
    weights: str = ""  # in its place, directory with a config.json and .safetensors: pretrained weights
    tokenizer: str = ""  # directory with a tokenizer.json; empty: the same directory
    context: int = 128  # tokens


def hf_causal_lm(settings: Settings) -> LanguageModelling:
    """The text is cut in three in its own order. Raises BadConfig where model, tokenizer and context do not fit."""
    model = section(Model, settings.model, "model")
    if bool(model.config) == bool(model.weights):
        expected = "name the directory of a config.json in model.config, or of pretrained weights in model.weights"
        raise BadConfig("model", dict(settings.model), expected)
    path, directory = ("model.weights", model.weights) if model.weights else ("model.config", model.config)
    config = read_config(directory, path)
    tokenizer_directory = model.tokenizer or directory
    tokenizer = read_tokenizer(tokenizer_directory, "model.tokenizer" if model.tokenizer else path)
    if len(tokenizer) > config.vocab_size:
        expected = f"must know no more tokens than the model, {config.vocab_size}; it knows {len(tokenizer)}"
        raise BadConfig("model.tokenizer", tokenizer_directory, expected)
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and model.context > longest:
        raise BadConfig("model.context", model.context, f"must be at most {longest}, the model's longest")
    text = read_text(settings.data.source)
    tokens = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    first, second = split_points(len(tokens), settings.data.split)
    parts = (tokens[:first], tokens[first:second], tokens[second:])
    return LanguageModelling(
        splits=Splits(*(Windows(part, model.context) for part in parts)),
        build=partial(pretrained_model, directory, path) if model.weights else partial(new_model, config, path),
        notes={
            "transformers": {"config": plain_config(config), "tokenizer": str(Path(tokenizer_directory).absolute())},
            "context": model.context,
        },
    )
