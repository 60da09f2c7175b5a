"""What a launch trains: a recipe's task, or that of the user's own code."""

from __future__ import annotations

import importlib
import os
import sys

from trainers.catalogue import RECIPES
from trainers.config import Settings
from trainers.contract import Launch
from trainers.data.prepare import is_asked_for
from trainers.errors import BadConfig
from trainers.recipes import MAKERS
from trainers.tasks.task import AnyTask, SteppingTask, Task


def make_task(launch: Launch, settings: Settings) -> AnyTask:
    """The recipe's task, or the user's own. Raises BadConfig when there is none of that name."""
    if launch.kind == "recipe":
        if launch.target not in MAKERS:
            raise BadConfig("recipe", launch.target, f"must be one of {', '.join(MAKERS)}")
        if is_asked_for(settings.data) and not RECIPES[launch.target].prepares_data:
            raise BadConfig(
                "data", launch.target, "this recipe takes its data as they are: leave source and split only"
            )
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


def enter_code(code_dir: str) -> None:
    """The user's code becomes the working directory and heads the module search path."""
    try:
        os.chdir(code_dir)
    except OSError as error:
        raise BadConfig("code", code_dir, f"cannot enter: {error}") from error
    sys.path.insert(0, code_dir)
