"""The life of a rank. A zygote calls `run_rank` after its fork; `python -m trainers.train` is the same under torchrun,
or alone with no launcher at all:

    python -m trainers.train --recipe digits_cnn --set parallelism.zero=2
    torchrun --nproc-per-node 2 -m trainers.train --recipe text_transformer --set train.steps=200
    EVERTRAIN_LAUNCH=launch.json torchrun --nproc-per-node 2 -m trainers.train
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from torch import nn

from trainers import script
from trainers.automatic import Automatic
from trainers.beside import Beside
from trainers.checkpoint import Checkpoints, Resume
from trainers.command import read_command
from trainers.config import Settings, plan_batch, read_settings
from trainers.contract import ExitCode, Launch, Restored
from trainers.data.history import History
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.distributed import World, join, leave, seed_generators
from trainers.ema import ema_of
from trainers.engine import build_engine, precision_of
from trainers.errors import BadConfig, Stopped, account
from trainers.evaluation import evaluate
from trainers.layout import problems
from trainers.loop import Loop
from trainers.meaning import insist_on_meaning
from trainers.parallel import Place
from trainers.predictions import finished_profile
from trainers.profiling import Profiling
from trainers.progress import Progress, open_progress
from trainers.proof import compared
from trainers.result import result, take_best
from trainers.stopping import StopRequest
from trainers.target import enter_code, make_task
from trainers.tasks.task import AnyTask, KeepsState, SteppingTask, Task


def main(launch: Launch, progress: Progress, stop: StopRequest) -> None:
    """One rank, from nothing to a result. Raises what `trainers.errors.account` can tell."""
    progress.phase("starting")
    settings = read_settings(launch)
    task = with_label_smoothing(make_task(launch, settings), settings)
    world = join(launch.threads)
    place = take_place(launch, settings, world)
    place.check(task)
    checkpoints = Checkpoints(
        launch,
        rank=world.rank,
        world_size=world.size,
        keep=settings.checkpoint.keep,
        layout=place.layout,
        alive=progress.alive,
    )
    settings, found = settled(launch, settings, task, world, place, checkpoints, progress)

    plan = plan_batch(settings.train, place.data_size, stages=settings.parallelism.pipeline)
    sampler = Sampler(len(task.splits.train), plan.global_batch, settings.train.seed)
    loader = Loader(plan, place.at.data, world.device, precision_of(settings.train, world.device))
    total_steps = count_steps(settings, sampler)
    engine = build_engine(with_meaning(task, settings), settings, plan, world, place, total_steps)
    makers = task.helpers() if isinstance(task, SteppingTask) else {}
    helpers = {name: build_engine(make, settings, plan, world, place, total_steps) for name, make in makers.items()}
    checkpoints.seal_beside(Beside(helpers, task if isinstance(task, KeepsState) else None))
    seed_generators(settings.train.seed, world.rank)
    ema = ema_of(engine, settings)
    if ema is not None:
        checkpoints.accompany(ema)

    begin_to_restore(launch, progress)
    state = restored(settings, engine, checkpoints)
    if world.rank == 0:
        weights = settings.init_from.named[1] if settings.init_from is not None else None
        progress.send(Restored(state.step, state.checkpoint, state.skipped, weights))

    loop = Loop(
        place=place,
        engine=engine,
        helpers=helpers,
        task=task,
        settings=settings,
        loader=loader,
        sampler=sampler,
        checkpoints=checkpoints,
        progress=progress,
        profiling=Profiling(launch, world.rank, progress),
        total_steps=total_steps,
        history=History(launch.attempt, launch.incarnation, world.size),
        furthest_step=launch.furthest_step,
        stop_asked=stop.asked,
        ema=ema,
        found=found,
    )
    loop.resume(state)
    with stop.held():
        loop.run()

    progress.phase("evaluating")
    chosen = take_best(loop, checkpoints, place.exchange)
    with loop.averaged():
        tested = evaluate(place, engine, task, loader, task.splits.test, "test_", progress.alive)
        profile = finished_profile(place, engine, task, loader, progress.alive)
    proof = compared(launch, settings, task, chosen.checkpoint, place.exchange, loader, progress.alive)
    if world.rank == 0:
        progress.send(result(loop, tested, profile, chosen, proof))


def begin_to_restore(launch: Launch, progress: Progress) -> None:
    """Where the run has no slot yet, once it has one: until here nothing of it is written anywhere, nor any step done.

    Raises Stopped where whoever would tell it so is gone.
    """
    if launch.gate is not None:
        with open(launch.gate, "rb", buffering=0) as gate:
            if not gate.read(1):
                raise Stopped("its host went away while the run waited for a slot")
    progress.phase("restoring")


def restored(settings: Settings, engine: DeepSpeedEngine, checkpoints: Checkpoints) -> Resume:
    """The newest good seal of this run, else the one of another run that it goes on from. Raises as `Checkpoints` does."""
    state = checkpoints.restore(engine)
    init = settings.init_from
    if state.checkpoint is None and init is not None and init.resume:
        return replace(checkpoints.take_over(engine, str(init.checkpoint)), skipped=state.skipped)
    return state


def take_place(launch: Launch, settings: Settings, world: World) -> Place:
    """Where this rank stands in the layout. Raises BadConfig when the ranks or the model cannot be divided so."""
    recipe = launch.target if launch.kind == "recipe" else None
    bf16 = precision_of(settings.train, world.device) == torch.bfloat16
    for wrong in problems(settings.parallelism, world.size, recipe, settings.model, bf16=bf16):
        raise BadConfig(*wrong)
    return Place(world.rank, world.size, settings.parallelism)


def settled(
    launch: Launch,
    settings: Settings,
    task: AnyTask,
    world: World,
    place: Place,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Settings, Mapping[str, Any]]:
    """Collective. With numbers for what the run file leaves to be found, and what was found for every checkpoint to keep.

    Raises BadConfig where the task's own way of training excludes what is asked.
    """
    asked = [name for name in ("micro_batch", "lr") if getattr(settings.train, name) == "auto"]
    if not isinstance(task, Task):
        kind = type(task).__name__
        if asked:
            raise BadConfig(
                f"train.{asked[0]}", "auto", f"cannot be tried with {kind}, which takes its own steps: give a number"
            )
        if settings.train.precision == "fp16":
            raise BadConfig("train.precision", "fp16", f"is not for {kind}, which scales no loss: use bf16 or fp32")
        if settings.train.ema is not None and isinstance(task, KeepsState):
            raise BadConfig(
                "train.ema", settings.train.ema, f"does not reach what {kind} keeps beside its model: leave it out"
            )
        return settings, {}
    automatic = Automatic(launch, task, world, place, progress.alive)
    if asked:
        settings = automatic.settle(settings, checkpoints.noted().get("automatic", {}))
    return settings, automatic.found


def with_label_smoothing(task: AnyTask, settings: Settings) -> AnyTask:
    """The task with `train.label_smoothing`. Raises BadConfig when it has none: it must be a field `label_smoothing`."""
    smoothing = settings.train.label_smoothing
    if smoothing:
        if not hasattr(task, "label_smoothing"):
            raise BadConfig("train.label_smoothing", smoothing, f"is not known to {type(task).__name__}: leave it out")
        setattr(task, "label_smoothing", smoothing)  # noqa: B010 - no part of the protocol
    return task


def with_meaning(task: AnyTask, settings: Settings) -> Callable[[], nn.Module]:
    """Builds the task's model, and refuses weights to begin with that mean something else."""

    def build() -> nn.Module:
        model = task.model()
        if settings.init_from is not None:
            insist_on_meaning(model, task.notes, settings.init_from)
        return model

    return build


def count_steps(settings: Settings, sampler: Sampler) -> int:
    """Where the run ends: at `train.steps` or after `train.epochs`, whichever comes first."""
    epochs, steps = settings.train.epochs, settings.train.steps
    by_epochs = sampler.steps_of(epochs) if epochs is not None else None
    return min(each for each in (by_epochs, steps) if each is not None)


def run_rank(launch: Launch, *, every_step: bool = False) -> int:
    """Live one rank's life in this process, whose environment is torchrun's; returns its exit code and never raises."""
    stop = StopRequest()
    progress = open_progress(launch, int(os.environ.get("RANK", "0")), every_step=every_step, hold=stop.held)
    try:
        stop.listen()
        with stop.immediate():
            code = live(launch, progress, stop)
    except BaseException as error:  # the contract: every end is told
        failed = account(error, progress.step)
        progress.send(failed)
        code = failed.code
    progress.close()
    return code


def live(launch: Launch, progress: Progress, stop: StopRequest) -> int:
    """The recipe's, the user's own, or the script's life; its exit code."""
    if launch.code_dir is not None:
        enter_code(launch.code_dir)
    if launch.kind == "script":
        return script.run(launch, progress)
    main(launch, progress, stop)
    progress.phase("stopping")
    leave()
    return ExitCode.OK


if __name__ == "__main__":
    launch, every_step = read_command(sys.argv[1:])
    status = run_rank(launch, every_step=every_step)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # torch's threads can hang an interpreter that shuts down after a peer was lost
