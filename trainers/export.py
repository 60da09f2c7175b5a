"""`python -m trainers.export CHECKPOINT_DIR --to DIR`: a sealed checkpoint of any layout as two plain files.

    model.safetensors    the whole model's weights, under the names and in the precision that it trained with
    config.json          what they belong to: recipe, its `model:` keys, the task's notes, step, metrics, versions

A model of Hugging Face's leaves as what its `from_pretrained` loads, tokenizer included, and our config as evertrain.json.
Tables whose rows were spread over the ranks stand among the weights, as `tables.NAME` [rows, width].

The checkpoint may lie at any URL that fsspec knows. Every file is held to the manifest first, and nothing is unpickled
but tensors and plain values. One process does it, on the CPU, with the whole model in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from trainers.beside import state_name
from trainers.catalogue import RECIPES
from trainers.checkpoint import file_trouble
from trainers.contract import MANIFEST_NAME, ExitCode, Manifest
from trainers.errors import BadConfig, StorageError, TrainerError
from trainers.models import pretrained, sharded_table
from trainers.models.divided import Split
from trainers.storage import open_storage
from trainers.weights_only import read_file

WEIGHTS_NAME = "model.safetensors"
CONFIG_NAME = "config.json"
CONFIG_BESIDE_NAME = "evertrain.json"  # where config.json is the one that `from_pretrained` reads

Weights = dict[str, torch.Tensor]


def export(checkpoint: str, to: Path) -> Path:
    """Write the two files into `to`, made if missing, and return it; files of those names are replaced.

    Raises StorageError when the checkpoint is damaged, holds more than weights and plain values, or when a file cannot be
    read or written, and BadConfig when it is not sealed, or not of a model.
    """
    with tempfile.TemporaryDirectory(prefix="evertrain-export-") as scratch:
        manifest, directory = _verified(checkpoint, Path(scratch))
        weights = {**whole_weights(manifest, directory), **_tables(manifest, directory)}
        config = json.dumps(_config(checkpoint, manifest), indent=1)
        foreign = manifest.extra.get("notes", {}).get("transformers")
        try:
            to.mkdir(parents=True, exist_ok=True)
            if foreign is None:
                _replace(to / WEIGHTS_NAME, lambda path: save_file(weights, path, metadata={"format": "pt"}))
            else:
                pretrained.save_pretrained(weights, foreign, str(to))
            name = CONFIG_NAME if foreign is None else CONFIG_BESIDE_NAME
            _replace(to / name, lambda path: path.write_text(config))
            for each in to.glob("*.safetensors"):  # safetensors makes files that nobody else may read
                each.chmod((to / name).stat().st_mode)
        except OSError as error:
            raise StorageError(f"cannot write to {to}: {error.strerror or error}") from error
        except SafetensorError as error:  # its own word for a full disk
            raise StorageError(f"cannot write to {to}: {error}") from error
    return to


def sealed_weights(checkpoint: str) -> Weights:
    """The whole model of a sealed checkpoint, of which only the files that hold it are read and verified.

    Raises StorageError and BadConfig, as `export` does.
    """
    with tempfile.TemporaryDirectory(prefix="evertrain-weights-") as scratch:
        manifest, directory = _verified(checkpoint, Path(scratch), _holds_weights)
        return whole_weights(manifest, directory)


def sealed_notes(checkpoint: str) -> Mapping[str, Any]:
    """What its task noted in a sealed checkpoint. Raises StorageError and BadConfig, as `export` does."""
    with tempfile.TemporaryDirectory(prefix="evertrain-notes-") as scratch:
        manifest, _ = _verified(checkpoint, Path(scratch), lambda *_: False)
    notes: Mapping[str, Any] = manifest.extra.get("notes", {})
    return notes


def _holds_weights(name: str, manifest: Manifest) -> bool:
    return "model" in name or (manifest.layout["zero"] == 3 and name.endswith("_optim_states.pt"))


def whole_weights(manifest: Manifest, directory: Path) -> Weights:
    """The weights by name, each whole, from the files of a verified checkpoint; the averaged ones where it has them, for
    those are what was judged. Raises StorageError and BadConfig."""
    names = [each.path for each in manifest.files]
    slices = [_slice(names, rank, manifest, directory) for rank in range(manifest.layout["tensor"])]
    splits = {end: Split(**each) for end, each in manifest.extra.get("recipe", {}).get("splits", {}).items()}
    whole = {name: _joined(name, [each[name] for each in slices], splits) for name in slices[0]}
    if not whole:
        raise BadConfig("checkpoint", str(directory), "holds no weights that are known here")
    return whole


def _joined(name: str, parts: list[torch.Tensor], splits: Mapping[str, Split]) -> torch.Tensor:
    split = next((each for end, each in splits.items() if name.endswith(end)), None)
    return parts[0].contiguous() if split is None or len(parts) == 1 else split.whole(parts)


def _slice(names: list[str], tensor_rank: int, manifest: Manifest, directory: Path) -> Weights:
    """All that one tensor rank's peers along the other axes hold: of stages, of experts, of ZeRO's parts."""
    stages = manifest.layout["pipeline"]
    layers = [each for each in names if re.fullmatch(rf"layer_\d+-model_{tensor_rank:02d}-model_states\.pt", each)]
    if layers:
        return dict(_all_of(directory, layers))
    if manifest.layout["zero"] == 3:
        return _from_zero_3(names, f"{tensor_rank:02d}", directory)
    kept: Weights = {}
    for stage in range(stages):
        model_rank = f"{stage * manifest.layout['tensor'] + tensor_rank:02d}"
        expert = rf"layer_\d+_expert_\d+_mp_rank_{model_rank}_model_states\.pt"
        kept.update(_judged(_read(directory, f"mp_rank_{model_rank}_model_states.pt")))
        kept.update(_all_of(directory, [each for each in names if re.fullmatch(expert, each)]))
    if stages == 1:
        return kept
    return {name.partition(".")[2]: each for name, each in kept.items()}  # with experts, stages number their layers


def _tables(manifest: Manifest, directory: Path) -> Weights:
    """What a task kept on its ranks, rows of tables, each table whole."""
    ranks = [state_name(rank) for rank in range(manifest.world_size)]
    if not {each.path for each in manifest.files}.issuperset(ranks):
        return {}
    kept = [_read(directory, each) for each in ranks]
    names = [name for name, part in kept[0].items() if isinstance(part, Mapping) and "rows" in part]
    return {
        f"tables.{name}": sharded_table.whole({rank: each[name] for rank, each in enumerate(kept)}) for name in names
    }


def _judged(states: Mapping[str, Any]) -> Weights:
    weights: Weights = states["module"]
    averaged: Weights = (states.get("ema") or {}).get("weights", {})
    return {**weights, **{name: each.to(weights[name].dtype) for name, each in averaged.items()}}


def _all_of(directory: Path, names: list[str]) -> Iterator[tuple[str, torch.Tensor]]:
    for name in names:
        yield from _read(directory, name).items()


def _from_zero_3(names: list[str], model_rank: str, directory: Path) -> Weights:
    """Every rank holds a piece of every weight, as long as those of the others, the last one filled up: in its model
    states those that are not trained, in its optimizer's states the rest, one behind the other."""
    states = [_read(directory, each) for each in _by_rank(names, f"_mp_rank_{model_rank}_model_states.pt")]
    first = states[0]
    weights: Weights = {name: first["module"][name] for name in first["buffer_names"]}
    for name, shape in (first.get("frozen_param_shapes") or {}).items():
        weights[name] = _whole([each["frozen_param_fragments"][name].flatten() for each in states], shape)
    pieces = [
        torch.cat([group.flatten() for group in _read(directory, each)["optimizer_state_dict"]["fp32_flat_groups"]])
        for each in _by_rank(names, f"_mp_rank_{model_rank}_optim_states.pt")
    ]
    start = 0
    for shapes in first["param_shapes"]:
        for name, shape in shapes.items():
            length = -(-shape.numel() // len(pieces))
            whole = _whole([each[start : start + length] for each in pieces], shape)
            weights[name] = whole.to(first["module"][name].dtype)
            start += length
    return weights


def _whole(pieces: list[torch.Tensor], shape: torch.Size) -> torch.Tensor:
    return torch.cat(pieces)[: shape.numel()].view(shape).clone()


def _by_rank(names: list[str], end: str) -> list[str]:
    """ZeRO's files that end so, in the order of their ranks."""
    found = {
        int(match[1]): each for each in names if (match := re.fullmatch(rf"(?:bf16_)?zero_pp_rank_(\d+){end}", each))
    }
    return [found[rank] for rank in sorted(found)]


def _read(directory: Path, name: str) -> Any:
    return read_file(directory / name, "cpu")


def _verified(
    checkpoint: str, scratch: Path, needed: Callable[[str, Manifest], bool] = lambda *_: True
) -> tuple[Manifest, Path]:
    """The manifest, and the directory where the files lie that it names and that are needed. Raises BadConfig when
    there is no manifest, and StorageError."""
    storage = open_storage(checkpoint, lambda: None)
    text = storage.read_text(MANIFEST_NAME)
    if text is None:
        raise BadConfig("checkpoint", checkpoint, f"is no sealed checkpoint: it has no {MANIFEST_NAME}")
    try:
        manifest = Manifest.from_json(text)
    except ValueError as error:
        raise StorageError(f"the manifest of {checkpoint} cannot be read: {error}") from error
    directory = scratch
    for each in (file for file in manifest.files if needed(file.path, manifest)):
        file = storage.fetch(each.path, scratch)
        if problem := file_trouble(each, file, lambda: None):
            raise StorageError(f"{checkpoint} is damaged: {problem}")
        directory = file.parent if file is not None else directory
    return manifest, directory


def _config(checkpoint: str, manifest: Manifest) -> dict[str, Any]:
    recipe = dict(manifest.extra.get("recipe", {}))
    recipe.pop("splits", None)
    if recipe.get("kind") == "recipe" and recipe["target"] in RECIPES:
        defaults = {name: key.default for name, key in RECIPES[recipe["target"]].model.items()}
        recipe["model"] = {**defaults, **recipe["model"]}
    return {
        **recipe,
        "notes": manifest.extra.get("notes", {}),
        "run_id": manifest.run_id,
        "checkpoint": checkpoint,
        "step": manifest.step,
        "metrics": dict(manifest.metrics),
        "layout": dict(manifest.layout),
        "versions": dict(manifest.versions),
    }


def _replace(target: Path, write: Any) -> None:
    """In one step: who reads sees the old file or the new one."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        write(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def main(arguments: list[str]) -> int:
    """The exit code. What went wrong is told on standard error, in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m trainers.export", description="weights of a sealed checkpoint")
    parser.add_argument("checkpoint", help="its directory, or its URL")
    parser.add_argument("--to", type=Path, required=True, help="directory to write to")
    options = parser.parse_args(arguments)
    try:
        export(options.checkpoint, options.to)
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(options.to)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
