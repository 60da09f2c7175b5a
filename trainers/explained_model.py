"""A sealed checkpoint brought back to life beside data that suit it: what an explanation looks at."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from trainers.config import read_settings
from trainers.contract import Launch
from trainers.errors import BadConfig
from trainers.export import CONFIG_BESIDE_NAME, CONFIG_NAME, WEIGHTS_NAME, export, sealed_weights
from trainers.target import enter_code, make_task
from trainers.tasks.classification import Classification
from trainers.tasks.language_modelling import LanguageModelling, Windows
from trainers.tasks.task import AnyTask, KeepsState, Task

_SOURCE = "data.source"
_OF_THE_DATA = ("prepared", "profile")  # notes that say what a model was trained on, and nothing of its terms


@dataclass(frozen=True)
class ExplainedModel:
    """The model with the checkpoint's weights, at rest on the CPU, and its task on the given data."""

    model: nn.Module
    task: Task
    config: Mapping[str, Any]  # what `trainers.export` writes
    source: str


@dataclass(frozen=True)
class SealedModel:
    """The same of any task whose model is whole in the checkpoint's weights."""

    model: nn.Module
    task: AnyTask
    config: Mapping[str, Any]
    source: str


def load(checkpoint: str, source: str | None, code: str | None) -> ExplainedModel:
    """`source` None: the data that it was trained on. `code`: the directory of an entrypoint's code.

    Raises StorageError for a damaged checkpoint and BadConfig where data, code or weights do not suit it.
    """
    found = revived(checkpoint, source, code)
    if not isinstance(found.task, Task) or "transformers" in found.task.notes:
        raise BadConfig("checkpoint", checkpoint, f"is of {found.config.get('target')}, which is not explained yet")
    return ExplainedModel(found.model, found.task, found.config, found.source)


def revived(checkpoint: str, source: str | None, code: str | None) -> SealedModel:
    """As `load`."""
    with tempfile.TemporaryDirectory(prefix="evertrain-explain-") as scratch:
        export(checkpoint, Path(scratch))
        beside = Path(scratch, CONFIG_BESIDE_NAME)
        config = json.loads((beside if beside.exists() else Path(scratch, CONFIG_NAME)).read_text())
        # Hugging Face's own names are those of its library: ours are in the checkpoint.
        weights = sealed_weights(checkpoint) if beside.exists() else load_file(Path(scratch, WEIGHTS_NAME))
    data = _data(config, source)
    task = _suited(_task(config, data, code), config["notes"], data["source"])
    model = task.model().float().eval()
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        differences = "; ".join(each.strip() for each in str(error).splitlines()[1:4])
        raise BadConfig(_SOURCE, data["source"], f"makes another model than the checkpoint's: {differences}") from error
    return SealedModel(model, task, config, data["source"])


def _data(config: Mapping[str, Any], source: str | None) -> dict[str, Any]:
    """The run's own `data:` section, so that its split holds, with the given source in place of its own."""
    own = dict(config.get("data") or {})
    if source is not None:
        own["source"] = source if "://" in source else os.path.abspath(source)
    if "source" not in own:
        raise BadConfig(_SOURCE, None, "must be given: the checkpoint does not say what it was trained on")
    return own


def _task(config: Mapping[str, Any], data: Mapping[str, Any], code: str | None) -> AnyTask:
    kind, target = config.get("kind"), config.get("target", "")
    if kind not in ("recipe", "entrypoint"):
        raise BadConfig("checkpoint", config["checkpoint"], f"is of a {kind or 'script'}: only recipes and entrypoints say "
                        "what their model is")  # fmt: skip
    if kind == "entrypoint" and code is None:
        raise BadConfig(
            "code", None, f"a checkpoint holds no code: give --code DIR, the directory that {target} is found in"
        )
    if code is not None:
        enter_code(code)
    sections = {"data": data, "model": config["model"], "train": {"global_batch": 1, "steps": 1}}
    launch = Launch(
        run_id=config["run_id"],
        run_name="explain",
        attempt=1,
        incarnation=1,
        kind=kind,
        target=target,
        config=sections,
        checkpoint_root="",
        staging_dir="",
        code_dir=code,
    )
    task = make_task(launch, read_settings(launch))
    if isinstance(task, KeepsState):
        raise BadConfig("checkpoint", config["checkpoint"], f"is of {target}, which is not explained yet")
    return task


def _suited(task: AnyTask, notes: Mapping[str, Any], source: str) -> AnyTask:
    """The task with its data in the model's terms. Raises BadConfig where they are not to be had in them.

    Data may hold fewer classes than the model knows, and a text fewer characters: both are told apart as the model
    learned them. What else the task notes must be as it was.
    """
    found = json.loads(json.dumps(dict(task.notes)))
    if isinstance(task, LanguageModelling) and isinstance(notes.get("vocabulary"), str):
        task = _with_vocabulary(task, found.pop("vocabulary", ""), notes["vocabulary"], source)
    if isinstance(task, Classification) and isinstance(notes.get("classes"), int):
        task = _with_classes(task, found.pop("classes", 0), notes["classes"], source)
    for name, value in found.items():
        if name not in _OF_THE_DATA and name in notes and notes[name] != value:
            raise BadConfig(
                _SOURCE,
                source,
                f"does not suit the model: {name} is {_short(value)}, the model's {_short(notes[name])}",
            )
    return task


def _with_vocabulary(task: LanguageModelling, found: str, known: str, source: str) -> LanguageModelling:
    if found == known:
        return task
    if strange := [each for each in found if each not in known]:
        some = ", ".join(map(repr, strange[:8]))
        raise BadConfig(_SOURCE, source, f"holds {len(strange)} characters that the model does not know: {some}")
    places = torch.tensor([known.index(each) for each in found])
    splits = {
        name: replace(part, tokens=places[part.tokens])
        for name, part in vars(task.splits).items()
        if isinstance(part, Windows)
    }
    build: Any = task.build
    return replace(task, splits=replace(task.splits, **splits), build=partial(build, vocabulary=len(known)))


def _with_classes(task: Classification, found: int, known: int, source: str) -> Classification:
    if found == known:
        return task
    if found > known:
        raise BadConfig(_SOURCE, source, f"holds class {found - 1}, where the model knows 0 to {known - 1}")
    build: Any = task.build
    return replace(task, build=partial(build, classes=known))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
