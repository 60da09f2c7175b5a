"""`init_from:`: weights that a model begins with, in place of random ones.

They come from a sealed checkpoint, or from safetensors files. They are put into the model before DeepSpeed divides it, so
every ZeRO stage begins with them. Nothing is unpickled. Every tensor of the source must have its place and every tensor of
the model its source, unless the run file says otherwise: half a model loaded in silence is a model nobody trained.
"""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from trainers.config import InitFrom
from trainers.contract import MANIFEST_NAME, Manifest, file_problem
from trainers.errors import BadConfig, StorageError
from trainers.storage import Storage, digest, open_storage
from trainers.weights_only import read_file, stranger_in

Weights = Mapping[str, torch.Tensor]
MODEL_FILE = "mp_rank_00_model_states.pt"  # DeepSpeed's name for the whole model, where one rank holds it
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
        raise BadConfig(*_said(init), f"does not fit the model: {'; '.join(problems[:_TOLD])}{more}")
    with torch.no_grad():
        for name, tensor in renamed.items():
            if name in into and not _matches(name, init.fresh):
                into[name].copy_(tensor)


def read_weights(init: InitFrom) -> Weights:
    """Tensors by their names at the source. Raises BadConfig, StorageError."""
    if init.checkpoint is not None:
        return _sealed(init.checkpoint, init)
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


def _sealed(checkpoint: str, init: InitFrom) -> Weights:
    """The whole model in a seal, verified; its averaged weights where it has them."""
    root, _, name = checkpoint.rstrip("/").rpartition("/")
    storage = open_storage(root, lambda: None)
    text = storage.read_text(f"{name}/{MANIFEST_NAME}")
    if text is None:
        raise BadConfig(*_said(init), f"is no sealed checkpoint: {checkpoint} has no manifest")
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        raise BadConfig(*_said(init), f"its manifest cannot be read: {error}") from error
    _insist_on_whole(manifest, init)
    with tempfile.TemporaryDirectory(prefix="evertrain-init-") as directory:
        state = read_file(_verified(storage, name, manifest, Path(directory)), "cpu")
    weights: dict[str, torch.Tensor] = dict(state["module"])
    averaged: Mapping[str, Any] = state.get("ema") or {}
    return {**weights, **averaged.get("weights", {})}


def _insist_on_whole(manifest: Manifest, init: InitFrom) -> None:
    layout = manifest.layout
    divided = [f"{name} {layout[name]}" for name in ("tensor", "pipeline", "expert") if layout.get(name, 1) > 1]
    if layout["zero"] == 3:
        divided.append("zero 3")
    if divided:
        raise BadConfig(
            *_said(init),
            f"was made with {', '.join(divided)}, so its weights lie in pieces: export it, and name the exported "
            "safetensors file as init_from.file",
        )


def _verified(storage: Storage, name: str, manifest: Manifest, directory: Path) -> Path:
    """A local copy of the model's file. Raises StorageError when it is not what was sealed."""
    expected = next((each for each in manifest.files if each.path == MODEL_FILE), None)
    if expected is None:
        raise StorageError(f"{storage.url(name)} holds no {MODEL_FILE}")
    file = storage.fetch(posixpath.join(name, MODEL_FILE), directory)
    found = (file.stat().st_size, digest(file, lambda: None)) if file is not None else (None, None)
    problem = file_problem(expected, *found) or (stranger_in(file) if file is not None else None)
    if problem is not None or file is None:
        raise StorageError(f"{storage.url(name)} is damaged: {problem}")
    return file


def _said(init: InitFrom) -> tuple[str, str]:
    """Where the run file names the source, and how."""
    key = "model" if init.model else "checkpoint" if init.checkpoint else "file"
    return f"init_from.{key}", str(getattr(init, key))


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
