"""A residual network on scikit-learn's handwritten digits, on MNIST, or on any images with their classes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from trainers.catalogue import RECIPES
from trainers.config import Settings, section
from trainers.data.checks import check_classes, check_finite, check_parts
from trainers.data.loader import Splits, Tensors
from trainers.data.prepare import is_asked_for, prepare
from trainers.data.prepared import Prepared, with_channel
from trainers.data.sampler import Indices
from trainers.data.sources import Labelled, read_labelled, split_indices
from trainers.errors import BadConfig
from trainers.models.cnn import Cnn, Norm
from trainers.tasks.classification import Classification


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    width: int = 16  # channels of the first convolution
    blocks: int = 1  # residual blocks at each of the two resolutions
    norm: Norm = (
        "layer"  # batch: statistics of all ranks' micro-batches together, so losses depend on how many there are
    )
    dropout: float = 0.1


def digits_cnn(settings: Settings) -> Classification:
    """Raises BadConfig when the source holds no images, or nothing to tell apart."""
    model = section(Model, settings.model, "model")
    if RECIPES["digits_cnn"].prepares(settings.data.source, is_asked_for(settings.data)):
        return _on_prepared(prepare(settings.data), settings, model)
    examples = read_labelled(settings.data.source)
    if examples.inputs.ndim not in (3, 4) or min(examples.inputs.shape[-2:]) < 2:
        raise BadConfig(
            "data.source",
            settings.data.source,
            f"x must be images [n, height, width] or [n, channels, height, width], not {examples.inputs.shape}",
        )
    parts = split_indices(len(examples.targets), settings.data.split)
    check_parts(parts, settings.data)
    check_classes(examples.targets, parts, settings.data)
    check_finite(examples.inputs, settings.data)
    channels = 1 if examples.inputs.ndim == 3 else examples.inputs.shape[1]
    classes = int(examples.targets.max()) + 1
    return Classification(
        splits=Splits(*(_images(examples, part) for part in parts)),
        build=partial(
            Cnn,
            channels=channels,
            classes=classes,
            width=model.width,
            blocks=model.blocks,
            norm=model.norm,
            dropout=model.dropout,
        ),
        notes={"classes": classes, "input_shape": [channels, *examples.inputs.shape[-2:]]},
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
            classes=len(classes),
            width=model.width,
            blocks=model.blocks,
            norm=model.norm,
            dropout=model.dropout,
        ),
        notes={"classes": len(classes), "input_shape": [channels, height, width_px], **prepared.notes},
        classes=tuple(map(str, classes)),
        arranged=with_channel,
    )


def _images(examples: Labelled, part: Indices) -> Tensors:
    inputs = torch.from_numpy(examples.inputs[part])
    if inputs.ndim == 3:
        inputs = inputs.unsqueeze(1)
    return Tensors({"inputs": inputs, "targets": torch.from_numpy(examples.targets[part])})
