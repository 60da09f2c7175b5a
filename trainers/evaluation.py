"""A task's metrics over a whole set of examples, the same numbers on every rank."""

from __future__ import annotations

from collections.abc import Callable

import torch

from trainers.data.loader import Examples, Loader
from trainers.engine import Engine
from trainers.parallel import Place
from trainers.tasks.task import Judged


def evaluate(
    place: Place,
    engine: Engine,
    task: Judged,
    loader: Loader,
    examples: Examples,
    prefix: str,
    alive: Callable[[], None],
) -> dict[str, float]:
    """Collective. The mean of each metric over all examples, as `prefix` + its name; nothing for no examples.

    `alive` is called after each batch.
    """
    if len(examples) == 0:
        return {}
    sums: dict[str, torch.Tensor] = {}
    engine.eval()
    with torch.no_grad():
        for batch in loader.evaluation(examples):
            weight = batch["weight"].double()
            for name, values in place.measure(engine, task, batch).items():
                sums[name] = sums.get(name, weight.new_zeros(())) + (values.double() * weight).sum()
            alive()
    engine.train()
    totals = place.summed({name: each.item() for name, each in sums.items()})
    return {prefix + name: total / len(examples) for name, total in totals.items()}
