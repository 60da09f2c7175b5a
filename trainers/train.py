"""The life of a rank. A zygote calls `run_rank` after its fork; `python -m trainers.train` is the same under torchrun,
or alone with no launcher at all:

    python -m trainers.train --recipe digits_cnn --set parallelism.zero=2
    torchrun --nproc-per-node 2 -m trainers.train --recipe text_transformer --set train.steps=200
    EVERTRAIN_LAUNCH=launch.json torchrun --nproc-per-node 2 -m trainers.train
"""

from __future__ import annotations

import importlib
import os
import sys

from trainers import script
from trainers.beside import Beside
from trainers.checkpoint import Checkpoints
from trainers.command import read_command
from trainers.config import Settings, plan_batch, read_settings
from trainers.contract import Done, ExitCode, Launch, Restored
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.distributed import join, leave, seed_generators
from trainers.engine import build_engine, precision_of
from trainers.errors import BadConfig, account
from trainers.evaluation import evaluate
from trainers.exchange import Exchange
from trainers.loop import Loop
from trainers.progress import Progress, open_progress
from trainers.recipes import MAKERS
from trainers.stopping import StopRequest
from trainers.tasks.task import AnyTask, KeepsState, SteppingTask, Task


def main(launch: Launch, progress: Progress, stop: StopRequest) -> None:
    """One rank, from nothing to a result. Raises what `trainers.errors.account` can tell."""
    progress.phase("starting")
    settings = read_settings(launch)
    task = make_task(launch, settings)
    world = join(launch.threads)

    plan = plan_batch(settings.train, world.size)
    sampler = Sampler(len(task.splits.train), plan.global_batch, settings.train.seed)
    loader = Loader(plan, world.rank, world.device, precision_of(settings.train, world.device))
    total_steps = count_steps(settings, sampler)
    engine = build_engine(task.model, settings, plan, world, total_steps)
    makers = task.helpers() if isinstance(task, SteppingTask) else {}
    helpers = {name: build_engine(make, settings, plan, world, total_steps) for name, make in makers.items()}
    seed_generators(settings.train.seed, world.rank)

    progress.phase("restoring")
    checkpoints = Checkpoints(
        launch,
        rank=world.rank,
        world_size=world.size,
        keep=settings.checkpoint.keep,
        alive=progress.alive,
        beside=Beside(helpers, task if isinstance(task, KeepsState) else None),
    )
    state = checkpoints.restore(engine)
    if world.rank == 0:
        progress.send(Restored(state.step, state.checkpoint, state.skipped))

    loop = Loop(
        engine=engine,
        helpers=helpers,
        task=task,
        settings=settings,
        loader=loader,
        sampler=sampler,
        checkpoints=checkpoints,
        progress=progress,
        rank=world.rank,
        total_steps=total_steps,
        furthest_step=launch.furthest_step,
        stop_asked=stop.asked,
    )
    loop.resume(state)
    with stop.held():
        loop.run()

    progress.phase("evaluating")
    chosen, note = take_best(loop, checkpoints, Exchange(world.rank, world.size))
    tested = evaluate(engine, task, loader, task.splits.test, "test_", progress.alive)
    if world.rank == 0:
        metrics = {**loop.metrics, **tested}
        progress.send(Done(loop.step, metrics, chosen, stopped_early=loop.judgement.stop_reason, note=note))


def take_best(loop: Loop, checkpoints: Checkpoints, exchange: Exchange) -> tuple[str | None, str | None]:
    """Put the best epoch's weights into the engine. Returns the checkpoint that they are of, and what to say of it.

    A best seal that was damaged since cannot come back: the last weights, which are sealed too, are the result then.
    """
    judgement = loop.judgement
    best, last = exchange.decided(lambda: (judgement.best_checkpoint, loop.sealed_checkpoint))  # only rank 0 knows
    if best is None or judgement.best_step == loop.step:
        return best, None
    problem = checkpoints.load_weights(loop.engine, best)
    if problem is None:
        return best, None
    return last, f"the best checkpoint {best} is damaged ({problem}): tested and kept are the last weights, {last}"


def make_task(launch: Launch, settings: Settings) -> AnyTask:
    """The recipe's task, or the user's own. Raises BadConfig when there is none of that name."""
    if launch.kind == "recipe":
        if launch.target not in MAKERS:
            raise BadConfig("recipe", launch.target, f"must be one of {', '.join(MAKERS)}")
        return MAKERS[launch.target](settings)
    module_name, _, function_name = launch.target.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise BadConfig(
            "entrypoint", launch.target, f"no module {error.name} in {launch.code_dir or os.getcwd()}"
        ) from error
    except AttributeError as error:
        raise BadConfig("entrypoint", launch.target, f"module {module_name} has no {function_name!r}") from error
    task = make(settings)
    if not isinstance(task, (Task, SteppingTask)):
        raise BadConfig("entrypoint", launch.target, "must return a trainers.tasks.task.Task: see trainers/README.md")
    return task


def count_steps(settings: Settings, sampler: Sampler) -> int:
    """Where the run ends: at `train.steps` or after `train.epochs`, whichever comes first."""
    epochs, steps = settings.train.epochs, settings.train.steps
    by_epochs = epochs * sampler.steps_per_epoch if epochs is not None else None
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


def enter_code(code_dir: str) -> None:
    """The user's code becomes the working directory and heads the module search path."""
    try:
        os.chdir(code_dir)
    except OSError as error:
        raise BadConfig("code", code_dir, f"cannot enter: {error}") from error
    sys.path.insert(0, code_dir)


if __name__ == "__main__":
    launch, every_step = read_command(sys.argv[1:])
    status = run_rank(launch, every_step=every_step)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # torch's threads can hang an interpreter that shuts down after a peer was lost
