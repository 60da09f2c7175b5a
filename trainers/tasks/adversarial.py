"""Make what cannot be told from the real: a generator against a discriminator (Goodfellow et al. 2014, arXiv 1406.2661).

The loss compares a made image with a real one of its class (Jolicoeur-Martineau 2018, arXiv 1807.00734), and the
discriminator is held flat around both, which together keep the generator from collapsing (Huang et al. 2024, arXiv
2501.05441). The slope is measured by a small step in a random direction (Lin et al. 2025, arXiv 2501.08316): no gradient of a
gradient, which ZeRO has no hooks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from trainers.data.loader import Batch, Splits
from trainers.engine import Engine
from trainers.models.noise import normal_noise
from trainers.tasks.task import Model

_FOR_DISCRIMINATOR, _FOR_GENERATOR, _SHAKE, _DRAWS = 11, 12, 13, 14  # layers, to the hash of keys
_STEP = 0.1  # of the measured slope
_DISCRIMINATOR = "discriminator"


@dataclass
class Adversarial:
    """Batches hold `images` [batch, height, width] within -1 and 1, `classes` int64 [batch], and `ids` int64 [batch].

    The model is the generator, forward(noise, classes) -> images; the discriminator helps. Judged by the energy score
    (Gneiting and Raftery 2007) of what is generated for each real image's class: the mean distance to the real image,
    less half that between two generated ones. It is least where both come from one distribution; a generator that makes the
    same image always, or images of no digit, has more.
    """

    splits: Splits
    generator: Callable[[], nn.Module]
    discriminator: Callable[[], nn.Module]  # forward(images, classes) -> scores [batch]
    noise: int  # numbers the generator starts from
    flatness: float  # weight of the discriminator's squared slope
    draws: int = 8  # generated pairs for each real image, in `measure`
    notes: Mapping[str, Any] = field(default_factory=dict)
    judged_by: str = "val_energy"
    judged_mode: Literal["min", "max"] = "min"

    def model(self) -> nn.Module:
        return self.generator()

    def helpers(self) -> Mapping[str, Callable[[], nn.Module]]:
        return {_DISCRIMINATOR: self.discriminator}

    def step(self, engine: Engine, helpers: Mapping[str, Engine], batches: Iterable[Batch]) -> torch.Tensor:
        """The discriminator's step, then the generator's; the sum of their losses."""
        kept = list(batches)
        discriminator = helpers[_DISCRIMINATOR]
        total = torch.zeros((), device=kept[0]["keys"].device)
        for batch in kept:
            total += _stepped(discriminator, self._loss_of_discriminator(engine, discriminator, batch))
        # The generator's gradient passes through the discriminator and must leave nothing there.
        discriminator.module.requires_grad_(False)
        for batch in kept:
            total += _stepped(engine, self._loss_of_generator(engine, discriminator, batch))
        discriminator.module.requires_grad_(True)
        return total / len(kept)

    def measure(self, model: Model, batch: Batch) -> Mapping[str, torch.Tensor]:
        real = batch["images"].float()
        to_real, between = torch.zeros(len(real), device=real.device), torch.zeros(len(real), device=real.device)
        for draw in range(self.draws):
            one, other = (
                model(self._noise(batch["ids"], _DRAWS + 2 * draw + each, real), batch["classes"]).float()
                for each in (0, 1)
            )
            to_real += (_distance(one, real) + _distance(other, real)) / 2
            between += _distance(one, other)
        return {"energy": (to_real - between / 2) / self.draws}

    def _loss_of_discriminator(self, generator: Engine, discriminator: Engine, batch: Batch) -> torch.Tensor:
        real, classes, keys = batch["images"], batch["classes"], batch["keys"]
        with torch.no_grad():
            made = generator(self._noise(keys, _FOR_DISCRIMINATOR, real), classes)
        shake = _STEP * normal_noise(keys, _SHAKE, real[0].numel()).view(real.shape).to(real.dtype)
        images = torch.cat([real, made, real + shake, made + shake])
        real_score, made_score, *shaken = discriminator(images, classes.repeat(4)).float().chunk(4)
        slope = (real_score - shaken[0]).square() + (made_score - shaken[1]).square()
        losses: torch.Tensor = functional.softplus(made_score - real_score) + self.flatness * slope / _STEP**2
        return losses.mean()

    def _loss_of_generator(self, generator: Engine, discriminator: Engine, batch: Batch) -> torch.Tensor:
        made = generator(self._noise(batch["keys"], _FOR_GENERATOR, batch["images"]), batch["classes"])
        # Not by its engine, which takes the gradient that comes by for the beginning of its own backward pass.
        scores = discriminator.module(torch.cat([batch["images"], made]), batch["classes"].repeat(2)).float()
        real_score, made_score = scores.chunk(2)
        return functional.softplus(real_score - made_score).mean()

    def _noise(self, keys: torch.Tensor, layer: int, like: torch.Tensor) -> torch.Tensor:
        return normal_noise(keys, layer, self.noise).to(like.dtype)


def _stepped(engine: Engine, loss: torch.Tensor) -> torch.Tensor:
    engine.backward(loss)
    engine.step()
    return loss.detach()


def _distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Euclidean, [batch]."""
    distance: torch.Tensor = torch.linalg.vector_norm((one - other).flatten(1), dim=1)
    return distance
