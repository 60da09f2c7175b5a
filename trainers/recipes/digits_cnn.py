"""A small convolutional network on scikit-learn's handwritten digits, or on any images with their classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits, Tensors
from trainers.data.prepare import is_asked_for, prepare
from trainers.data.prepared import Prepared
from trainers.data.sampler import Indices
from trainers.data.sources import DIGITS, Labelled, read_labelled, split_indices
from trainers.errors import BadConfig
from trainers.models.cnn import Cnn
from trainers.tasks.classification import Classification


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    width: int = 32  # channels of the first convolution
    dropout: float = 0.1


def digits_cnn(settings: Settings) -> Classification:
    """Raises BadConfig when the source holds no images."""
    model = section(Model, settings.model, "model")
    if is_asked_for(settings.data) or not settings.data.source.endswith((DIGITS, ".npz")):
        return _on_prepared(prepare(settings.data), settings, model)
    examples = read_labelled(settings.data.source)
    if examples.inputs.ndim not in (3, 4) or min(examples.inputs.shape[-2:]) < 2:
        raise BadConfig(
            "data.source",
            settings.data.source,
            f"x must be images [n, height, width] or [n, channels, height, width], not {examples.inputs.shape}",
        )
    channels = 1 if examples.inputs.ndim == 3 else examples.inputs.shape[1]
    height, width_px = examples.inputs.shape[-2:]
    classes = int(examples.targets.max()) + 1
    parts = split_indices(len(examples.targets), settings.data.split)
    return Classification(
        splits=Splits(*(_images(examples, part, channels) for part in parts)),
        build=partial(
            Cnn,
            channels=channels,
            height=height,
            width_px=width_px,
            classes=classes,
            width=model.width,
            dropout=model.dropout,
        ),
        notes={"classes": classes, "input_shape": [channels, height, width_px]},
    )


def _on_prepared(prepared: Prepared, settings: Settings, model: Model) -> Classification:
    shape = prepared.input_shape
    classes = prepared.fitted.classes
    if len(shape) not in (2, 3) or classes is None:
        got = {"inputs": list(shape), "classes": classes and len(classes)}
        raise BadConfig("data.source", settings.data.source, f"must hold images and their classes, not {got}")
    channels, height, width_px = shape if len(shape) == 3 else (1, *shape)
    return Classification(
        splits=prepared.splits(settings.data.steps.augment if settings.data.steps else None, images=True),
        build=partial(
            Cnn,
            channels=channels,
            height=height,
            width_px=width_px,
            classes=len(classes),
            width=model.width,
            dropout=model.dropout,
        ),
        notes={"classes": len(classes), "input_shape": [channels, height, width_px], **prepared.notes},
    )


def _images(examples: Labelled, part: Indices, channels: int) -> Tensors:
    inputs = torch.from_numpy(examples.inputs[part])
    if inputs.ndim == 3:
        inputs = inputs.unsqueeze(1)
    return Tensors({"inputs": inputs, "targets": torch.from_numpy(examples.targets[part])})
