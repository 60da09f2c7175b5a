"""An existing torch or DeepSpeed script, run unchanged in a rank.

The script finds torchrun's environment, its arguments, its own directory as the working directory, and in
EVERTRAIN_CHECKPOINT_DIR a directory that every incarnation of the run shares. Its steps are read from the DeepSpeed
engine that it makes, or from its torch optimizer when it makes none.
"""

from __future__ import annotations

import functools
import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from deepspeed.runtime.engine import DeepSpeedEngine
from deepspeed.runtime.pipe.engine import PipelineEngine
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainers.contract import Done, Failed, Launch, Step
from trainers.errors import BadConfig
from trainers.profiling import Profiling
from trainers.progress import Progress

CHECKPOINT_DIR_ENV = "EVERTRAIN_CHECKPOINT_DIR"


def run(launch: Launch, progress: Progress) -> int:
    """Run the script to its end; returns the exit code that it chose. Raises BadConfig on a missing script or on a
    syntax error, and whatever the script raises."""
    progress.phase("starting")
    script = Path(launch.target).absolute()
    _check_syntax(script, launch.target)
    os.environ[CHECKPOINT_DIR_ENV] = _checkpoint_dir(launch)
    torch.set_num_threads(launch.threads)
    sys.argv = [launch.target, *launch.args]
    sys.path.insert(0, str(script.parent))  # as `python script.py` does
    profiling = Profiling(launch, int(os.environ.get("RANK", "0")), progress)
    watch = StepWatch(progress, launch.furthest_step, profiling)
    watch.install()
    code = _run_to_exit(script)
    watch.finish()
    if code != 0:
        progress.send(Failed(code, f"{launch.target} ended with exit code {code}", step=progress.step))
    elif os.environ.get("RANK", "0") == "0":
        progress.send(Done(progress.step))
    return code


class StepWatch:
    """Tells each optimizer step of the script. Nothing of it changes what the script computes."""

    def __init__(self, progress: Progress, furthest_step: int, profiling: Profiling) -> None:
        self._progress, self._profiling = progress, profiling
        self._furthest_step = furthest_step
        self._counted: Any = None  # the DeepSpeed engine, or the first torch optimizer, whose steps are told
        self._torch_steps = 0
        self._loss: Any = None
        self._latest: Callable[[], Step] | None = None

    def install(self) -> None:
        """Watch every DeepSpeed engine and torch optimizer of this process from now on."""
        self._progress.begin(0, 0, 0)
        watch = self
        plain: Any = DeepSpeedEngine
        pipeline: Any = PipelineEngine
        backward, step, train_batch = plain.backward, plain.step, pipeline.train_batch

        @functools.wraps(backward)
        def watched_backward(engine: Any, loss: Any, *args: Any, **kwargs: Any) -> Any:
            watch._loss = loss.detach() if isinstance(loss, torch.Tensor) else None
            return backward(engine, loss, *args, **kwargs)

        @functools.wraps(step)
        def watched_step(engine: Any, *args: Any, **kwargs: Any) -> Any:
            result = step(engine, *args, **kwargs)
            watch._engine_stepped(engine)
            return result

        @functools.wraps(train_batch)
        def watched_train_batch(engine: Any, *args: Any, **kwargs: Any) -> Any:
            watch._loss = result = train_batch(engine, *args, **kwargs)
            watch._engine_stepped(engine)
            return result

        plain.backward, plain.step, pipeline.train_batch = watched_backward, watched_step, watched_train_batch
        register_optimizer_step_post_hook(self._optimizer_stepped)

    def finish(self) -> None:
        """Tell the last step, if it was not."""
        if self._latest is not None:
            self._progress.stepped(self._latest(), last=True)
        self._profiling.finish()

    def _engine_stepped(self, engine: Any) -> None:
        if not isinstance(self._counted, DeepSpeedEngine):
            self._counted = engine
        if engine is self._counted and engine.global_steps > self._progress.step:
            self._tell(engine.global_steps, engine.global_samples, engine.get_lr()[0])

    def _optimizer_stepped(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if self._counted is None and not _inside_deepspeed():
            self._counted = optimizer
        if optimizer is self._counted:
            self._torch_steps += 1
            self._tell(self._torch_steps, 0, float(optimizer.param_groups[0]["lr"]))

    def _tell(self, step: int, samples: int, learning_rate: float) -> None:
        self._progress.phase("recomputing" if step <= self._furthest_step else "training")
        self._progress.step = step
        loss = self._loss
        self._latest = lambda: Step(
            step=step,
            epoch=0,
            at_ns=0,
            loss=None if loss is None else float(loss),
            samples=samples,
            learning_rate=float(learning_rate),
        )
        if self._profiling.tracing:
            self._profiling.stepped(step)
        if self._progress.is_due():  # reading the loss waits for a GPU
            self._progress.stepped(self._latest(), last=False)
            self._profiling.look(step)


def _inside_deepspeed() -> bool:
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(frame.f_locals.get("self"), DeepSpeedEngine):
            return True
    return False


def _run_to_exit(script: Path) -> int:
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SyntaxError as error:
        raise _syntax_error(error) from error
    except SystemExit as ending:
        if ending.code is None or isinstance(ending.code, int):
            return ending.code or 0
        print(ending.code, file=sys.stderr)
        return 1
    return 0


def _check_syntax(script: Path, given: str) -> None:
    try:
        compile(script.read_bytes(), str(script), "exec", dont_inherit=True)
    except OSError as error:
        raise BadConfig("script", given, f"cannot be read in {Path.cwd()}: {error.strerror}") from error
    except SyntaxError as error:
        raise _syntax_error(error) from error


def _syntax_error(error: SyntaxError) -> BadConfig:
    text = (error.text or "").strip()
    return BadConfig("script", f"{error.filename}:{error.lineno}", f"syntax error: {error.msg}: {text}")


def _checkpoint_dir(launch: Launch) -> str:
    root = launch.checkpoint_root.removeprefix("file://")
    directory = f"{root.rstrip('/')}/script"
    if "://" not in directory:
        os.makedirs(directory, exist_ok=True)
    return directory
