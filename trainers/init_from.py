"""`init_from:`: weights that a model begins with, in place of random ones.

They come from a sealed checkpoint, or from safetensors files. They are put into the model before DeepSpeed divides it, so
every ZeRO stage begins with them. Nothing is unpickled. Every tensor of the source must have its place and every tensor of
the model its source, unless the run file says otherwise: half a model loaded in silence is a model nobody trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trainers.config import InitFrom
from trainers.errors import BadConfig
from trainers.export import sealed_weights

Weights = Mapping[str, torch.Tensor]
_TOLD = 6  # problems in one message


def load_first_weights(model: nn.Module, init: InitFrom) -> None:
    """Put the source's tensors into `model`, on this rank.

    Raises BadConfig when there is no such source or a tensor does not fit, with both shapes and what may be said instead;
    StorageError when the source cannot be read.
    """
    source = read_weights(init)
    renamed = {_renamed(name, init.rename): tensor for name, tensor in source.items()}
    into = model.state_dict()
    problems = [
        *_misfits(model, renamed, into, init),
        *_unexpected(renamed, into, init),
        *_missing(renamed, into, init),
    ]
    if problems:
        more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
        raise BadConfig(*init.named, f"does not fit the model: {'; '.join(problems[:_TOLD])}{more}")
    with torch.no_grad():
        for name, tensor in renamed.items():
            if name in into and not _matches(name, init.fresh):
                into[name].copy_(tensor)


def read_weights(init: InitFrom) -> Weights:
    """Tensors by their names at the source; of a seal, whatever its layout, the averaged ones where it has them.

    Raises BadConfig, StorageError.
    """
    if init.checkpoint is not None:
        try:
            return sealed_weights(init.checkpoint)
        except BadConfig as error:
            raise BadConfig(*init.named, f"{error.got} {error.expected}") from error
    files = _safetensors_files(init)
    weights: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            weights.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise BadConfig("init_from.file", str(file), f"cannot be read as safetensors: {error}") from error
    return weights


def _safetensors_files(init: InitFrom) -> list[Path]:
    given = str(init.file)
    path = Path(given.removeprefix("file://")).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise BadConfig("init_from.file", given, f"no *.safetensors file in {path.absolute()}")
        return files
    if not path.is_file():
        where = path.absolute()
        raise BadConfig(
            "init_from.file", given, f"no such file ({where}): put it there on every node, or correct the path"
        )
    if path.suffix != ".safetensors":
        raise BadConfig("init_from.file", given, "must be a .safetensors file: what is pickled may run anything")
    return [path]


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    """The longest beginning that is mapped decides."""
    for old in sorted(rename, key=len, reverse=True):
        if name.startswith(old):
            return rename[old] + name.removeprefix(old)
    return name


def _misfits(model: nn.Module, source: Weights, into: Weights, init: InitFrom) -> Iterator[str]:
    embeddings = {f"{name}.weight" for name, each in model.named_modules() if isinstance(each, nn.Embedding)}
    for name, tensor in source.items():
        if name not in into or _matches(name, init.fresh) or tensor.shape == into[name].shape:
            continue
        theirs, ours = list(tensor.shape), list(into[name].shape)
        if name in embeddings and theirs[1:] == ours[1:]:
            yield (
                f"the vocabulary differs: {name} is {theirs} there and {ours} here: use the tokens that the weights were "
                "trained with, or name it under init_from.fresh"
            )
        else:
            yield f"{name} is {theirs} there and {ours} here"


def _unexpected(source: Weights, into: Weights, init: InitFrom) -> Iterator[str]:
    for name in source:
        if name not in into and not _matches(name, (*init.ignore, *init.fresh)):
            yield f"the model has no {name}: map it by init_from.rename, or name it under init_from.ignore"


def _missing(source: Weights, into: Weights, init: InitFrom) -> Iterator[str]:
    given = {into[name].data_ptr() for name in source if name in into}  # tied weights are given once
    for name, tensor in into.items():
        if name not in source and tensor.data_ptr() not in given and not _matches(name, init.fresh):
            yield f"there is no {name} there: if it shall begin at random, name it under init_from.fresh"


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns)
