"""What a seal holds beside the model's engine: the engines of its helpers, and what a task itself keeps on each rank.

discriminator.mp_rank_00_model_states.pt ...   a helper's files, under its name
rank-00000.state.pt                            what the task keeps on one rank
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deepspeed.runtime.engine import DeepSpeedEngine

from trainers.tasks.task import KeepsState
from trainers.weights_only import WeightsOnlyEngine, read_file

STATE_SUFFIX = ".state.pt"


@dataclass(frozen=True)
class Beside:
    """`helpers` by name. `keeper`: the task, where it keeps state of its own. Nothing of both by default."""

    helpers: Mapping[str, DeepSpeedEngine] = field(default_factory=dict)
    keeper: KeepsState | None = None

    def save(self, directory: Path, rank: int, writer: WeightsOnlyEngine) -> None:
        """Collective. Put this rank's files into `directory`, and what was written, or went wrong, onto `writer`'s account.

        Every helper's `checkpoint_engine` is a WeightsOnlyEngine by now.
        """
        for name, helper in self.helpers.items():
            mine: Any = helper.checkpoint_engine
            apart = directory.parent / name  # DeepSpeed calls the files of all engines alike
            mine.begin()
            mine.makedirs(str(apart / directory.name), exist_ok=True)
            helper.save_checkpoint(str(apart), tag=directory.name, save_latest=False)
            for each in mine.written:
                os.replace(apart / directory.name / each.path, directory / f"{name}.{each.path}")
                writer.written.append(replace(each, path=f"{name}.{each.path}"))
            writer.problem = writer.problem or mine.problem
        if self.keeper is not None:
            writer.save(dict(self.keeper.state()), str(directory / state_name(rank)))

    def load(self, directory: Path, scratch: Path, *, rank: int, world_size: int, then: int, restart: bool) -> None:
        """Collective. Take up what lies in `directory`, made by `then` ranks; `scratch` holds links for a moment."""
        for name, helper in self.helpers.items():
            apart = scratch / name
            (apart / directory.name).mkdir(parents=True)
            for file in directory.glob(f"{name}.*"):
                (apart / directory.name / file.name.removeprefix(f"{name}.")).symlink_to(file.absolute())
            helper.load_checkpoint(str(apart), tag=directory.name, load_lr_scheduler_states=restart)
        shutil.rmtree(scratch, ignore_errors=True)
        if self.keeper is not None:
            self.keeper.load_state(_parts(directory, [rank] if then == world_size else range(then)), then)


def _parts(directory: Path, ranks: Iterable[int]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for rank in ranks:
        yield rank, read_file(directory / state_name(rank), "cpu")


def state_name(rank: int) -> str:
    return f"rank-{rank:05d}{STATE_SUFFIX}"
