"""Causal language models of Hugging Face's transformers, from local directories alone, and back into one.

transformers takes seconds to import, so only ranks that need it do, when they need it. Nothing is fetched, no code of a
model's directory is run, and weights are safetensors, which hold no code.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainers.errors import BadConfig

_INSIDE = "causal_lm."  # of `CausalLm`, before the names that transformers gives to weights


class CausalLm(nn.Module):
    """A causal language model of transformers, called as this package's own."""

    def __init__(self, causal_lm: Any) -> None:
        super().__init__()
        self.causal_lm = causal_lm

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        """`tokens` int64 [batch, context]; logits [batch, context, vocabulary]. Its dropout, where its config has any,
        draws from torch's generator, so on the micro-batch."""
        logits: torch.Tensor = self.causal_lm(input_ids=tokens, use_cache=False).logits
        return logits


def read_config(directory: str, path: str) -> Any:
    """The config in `directory`, which `path` of the run file names. Raises BadConfig."""
    _insist_on_file(directory, "config.json", path)
    return _read(lambda: _transformers(path).AutoConfig.from_pretrained(directory, **_LOCAL), directory, path)


def read_tokenizer(directory: str, path: str) -> Any:
    """Raises BadConfig."""
    _insist_on_file(directory, "tokenizer.json", path)
    return _read(lambda: _transformers(path).AutoTokenizer.from_pretrained(directory, **_LOCAL), directory, path)


def new_model(config: Any, path: str) -> CausalLm:
    """Random weights, float32. Raises BadConfig when the architecture is no causal language model."""
    make = _transformers(path).AutoModelForCausalLM.from_config
    return CausalLm(_read(lambda: make(config, dtype=torch.float32, trust_remote_code=False), config.model_type, path))


def pretrained_model(directory: str, path: str) -> CausalLm:
    """The weights in `directory`, float32. Raises BadConfig."""
    if not any(Path(directory).glob("*.safetensors")):
        raise BadConfig(
            path, directory, "must hold weights as .safetensors; pickled ones can run code and are not read"
        )
    make = _transformers(path).AutoModelForCausalLM.from_pretrained
    return CausalLm(
        _read(lambda: make(directory, dtype=torch.float32, use_safetensors=True, **_LOCAL), directory, path)
    )


def save_pretrained(weights: Mapping[str, torch.Tensor], notes: Mapping[str, Any], directory: str) -> None:
    """Write what `from_pretrained` loads: config, weights and tokenizer. `weights` are a sealed checkpoint's, by their
    names in `CausalLm`, and `notes` what its recipe noted under `transformers`. Raises RuntimeError when the one does not
    fit the other, and BadConfig when the tokenizer is gone."""
    transformers = _transformers("model.config")
    kind = dict(notes["config"])
    config = transformers.AutoConfig.for_model(kind.pop("model_type"), **kind)
    model = new_model(config, "model.config").causal_lm
    model.load_state_dict({name.removeprefix(_INSIDE): each for name, each in weights.items()})
    model.save_pretrained(directory)
    read_tokenizer(notes["tokenizer"], "model.tokenizer").save_pretrained(directory)


def plain_config(config: Any) -> dict[str, Any]:
    """A config as values that JSON can hold."""
    plain: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return plain


_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def _transformers(path: str) -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise BadConfig(path, None, "transformers is not installed on this node: install evertrain[hf]")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # it would ask the hub for what a directory lacks
    import transformers

    return transformers


def _insist_on_file(directory: str, name: str, path: str) -> None:
    if not Path(directory, name).is_file():
        where = Path(directory, name).absolute()
        raise BadConfig(path, directory, f"must be a directory on every node that holds {name}; there is no {where}")


def _read(read: Any, what: str, path: str) -> Any:
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadConfig(path, what, f"transformers cannot load it without running its code: {reason}") from error
