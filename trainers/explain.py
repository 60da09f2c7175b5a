"""`python -m trainers.explain CHECKPOINT --html FILE [--data SOURCE]`: what a sealed checkpoint's model looks at.

    the HTML page    samples of the test part with what each input counted for, and what counted over all of them
    --json FILE      the latter alone, as it is kept with a model version

The model is built anew by its recipe, or by an entrypoint's code where `--code` says where that lies. It computes on the
CPU, in fp32. Needs captum: `pip install 'evertrain[explain]'`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

from trainers.contract import ExitCode
from trainers.errors import StorageError, TrainerError
from trainers.explained_model import ExplainedModel, load


def explain_to(
    html: Path,
    checkpoint: str,
    *,
    source: str | None = None,
    code: str | None = None,
    samples: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """Write the page, and return the importance as plain values.

    Raises StorageError for a damaged checkpoint or a file that cannot be written, BadConfig where data or code do not
    suit the model, and TrainerError where captum is missing or such a task is not explained yet.
    """
    if importlib.util.find_spec("captum") is None:
        raise TrainerError("an explanation needs captum, which is not installed here: pip install 'evertrain[explain]'")
    from trainers.explain_page import page
    from trainers.explainers import explain
    from trainers.explanation import as_fact

    explained = load(checkpoint, source, code)
    notes = explained.config["notes"]
    explanation = explain(explained.task, explained.model, notes, samples, seed)
    about = _about(explained, seed)
    _write(html, page(explanation, about))
    return as_fact(explanation, about)


def _about(explained: ExplainedModel, seed: int) -> dict[str, Any]:
    config = explained.config
    return {
        "model": config["target"],
        "run_id": config["run_id"],
        "checkpoint": config["checkpoint"],
        "step": config["step"],
        "data": explained.source,
        "seed": seed,
    }


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def main(arguments: list[str]) -> int:
    """The exit code. What went wrong is told on standard error, in a sentence."""
    parser = argparse.ArgumentParser(prog="python -m trainers.explain", description="what a model looks at")
    parser.add_argument("checkpoint", help="its directory, or its URL")
    parser.add_argument("--html", type=Path, required=True, help="the page to write")
    parser.add_argument("--json", type=Path, help="the importance to write")
    parser.add_argument("--data", help="the source of samples; by default what the model was trained on")
    parser.add_argument("--code", type=os.path.abspath, help="directory of an entrypoint's code")
    parser.add_argument("--samples", type=int, default=32, help="how many of the test part")
    parser.add_argument("--seed", type=int, default=0, help="draws the samples")
    options = parser.parse_args(arguments)
    if options.samples < 1:
        parser.error("--samples must be at least 1")
    html, to_json = options.html.absolute(), options.json and options.json.absolute()  # code may change the directory
    try:
        importance = explain_to(
            html, options.checkpoint, source=options.data, code=options.code, samples=options.samples, seed=options.seed
        )
        if to_json is not None:
            _write(to_json, json.dumps(importance, indent=1))
    except TrainerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(options.html)
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
