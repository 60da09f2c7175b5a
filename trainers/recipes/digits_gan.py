"""A conditional GAN that draws handwritten digits like scikit-learn's, or any small grey images in a .npz file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from trainers.config import Settings, section
from trainers.data.loader import Splits, Tensors
from trainers.data.sampler import Indices
from trainers.data.sources import Labelled, read_labelled, split_indices
from trainers.errors import BadConfig
from trainers.models.gan import Discriminator, Generator
from trainers.tasks.adversarial import Adversarial


@dataclass(frozen=True)
class Model:
    """`model:` of the run file."""

    width: int = 256  # of the layers of both networks
    noise: int = 32  # numbers that the generator starts from
    flatness: float = 0.1  # weight of the discriminator's squared slope


def digits_gan(settings: Settings) -> Adversarial:
    """Raises BadConfig when the source holds no grey images within 0 and 1."""
    model = section(Model, settings.model, "model")
    examples = read_labelled(settings.data.source)
    if examples.inputs.ndim != 3 or examples.inputs.min() < 0 or examples.inputs.max() > 1:
        shape = examples.inputs.shape
        expected = f"x must be grey images [n, height, width] within 0 and 1, not {shape}"
        raise BadConfig("data.source", settings.data.source, expected)
    height, width_px = examples.inputs.shape[1:]
    classes = int(examples.targets.max()) + 1
    sizes = {"classes": classes, "height": height, "width_px": width_px, "width": model.width}
    return Adversarial(
        splits=Splits(*(_part(examples, part) for part in split_indices(len(examples.targets), settings.data.split))),
        generator=partial(Generator, noise=model.noise, **sizes),
        discriminator=partial(Discriminator, **sizes),
        noise=model.noise,
        flatness=model.flatness,
        notes={"noise": model.noise, **sizes},
    )


def _part(examples: Labelled, part: Indices) -> Tensors:
    images = torch.from_numpy(2 * examples.inputs[part] - 1)
    return Tensors(
        {"images": images, "classes": torch.from_numpy(examples.targets[part]), "ids": torch.from_numpy(part)}
    )
