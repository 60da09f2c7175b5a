"""`python -m trainers.train`: a launch from the command line, for use without a server."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

from trainers.catalogue import RECIPES
from trainers.contract import LAUNCH_ENV, Admitted, Launch


def read_command(arguments: list[str]) -> tuple[Launch, bool]:
    """The launch, and whether every step is told. Without a target the launch is the file that EVERTRAIN_LAUNCH names."""
    parser = argparse.ArgumentParser(prog="python -m trainers.train", description="one rank of a training")
    target = parser.add_mutually_exclusive_group()
    target.add_argument("--recipe", help="name of a recipe")
    target.add_argument("--entrypoint", help="package.module:make_task")
    target.add_argument("--script", help="an existing script; its arguments follow --")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="e.g. train.lr=0.002")
    parser.add_argument("--code", help="directory to run in")
    parser.add_argument("--checkpoints", help="where checkpoints go; resumes from what is there")
    parser.add_argument("--threads", type=int, default=1, help="of this rank")
    parser.add_argument("--every-step", action="store_true", help="tell every step, to compare losses")
    parser.add_argument("args", nargs="*", help="arguments of the script")
    options = parser.parse_args(arguments)
    if not (options.recipe or options.entrypoint or options.script):
        if LAUNCH_ENV not in os.environ:
            parser.error(f"name a --recipe, --entrypoint or --script, or set {LAUNCH_ENV} to a launch document")
        return Launch.from_json(Path(os.environ[LAUNCH_ENV]).read_text()), options.every_step
    if options.checkpoints is None and os.environ.get("WORLD_SIZE", "1") != "1":
        parser.error("several ranks need a directory in common: name it with --checkpoints")
    return _launch(options), options.every_step


def _launch(options: argparse.Namespace) -> Launch:
    kind: Literal["recipe", "entrypoint", "script"] = (
        "recipe" if options.recipe else "entrypoint" if options.entrypoint else "script"
    )
    root = options.checkpoints or tempfile.mkdtemp(prefix="evertrain-")
    return Launch(
        run_id="local",
        run_name="local",
        attempt=1,
        incarnation=1,
        kind=kind,
        target=options.recipe or options.entrypoint or options.script,
        config={} if kind == "script" else _config(options),
        checkpoint_root=root,
        staging_dir=str(Path(root, "staging")),
        args=tuple(options.args),
        code_dir=options.code,
        threads=options.threads,
        admitted=(Admitted(1, 1),),
    )


def _config(options: argparse.Namespace) -> dict[str, Any]:
    config: dict[str, Any] = {"train": {"global_batch": 128, "epochs": 20, "lr": 2e-3}}
    if options.recipe in RECIPES:
        config["data"] = {"source": RECIPES[options.recipe].source}
    for each in options.set:
        path, _, text = each.partition("=")
        *sections, name = path.split(".")
        inner = config
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = _value(text)
    return config


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
