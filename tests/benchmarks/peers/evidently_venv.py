"""evidently in a virtual environment of its own: it does not import beside pandas 3. Made once, in the cache directory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.drift.sketches import Coded, Column
from tests.benchmarks.drift_streams import features

VERSION = "0.7.23"
_SCRIPT = Path(__file__).with_name("evidently_drift.py")
_WINDOW, _ROWS = 1_000, 10_000


def python() -> str:
    """The interpreter of the environment, which is installed on the first call (357 MB)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evertrain-benchmarks"
    home = cache / f"evidently-{VERSION}"
    interpreter, finished = home / "bin" / "python", home / "installed"
    if not finished.exists():
        print(f"installing evidently {VERSION} into {home}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        packages = [f"evidently=={VERSION}", "pandas<3"]
        subprocess.run([str(interpreter), "-m", "pip", "install", "--quiet", *packages], check=True)
        finished.touch()
    return str(interpreter)


def judge(reference: Mapping[str, Column], current: Mapping[str, Column], reports: int) -> dict[str, Any]:
    """CPU seconds, rows, and in how many reports evidently called a column drifted."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "columns.npz")
        sides = {"reference": reference, "current": current}
        np.savez(
            path,
            **{f"{side}/{name}": _plain(each) for side, columns in sides.items() for name, each in columns.items()},
        )
        command = [python(), str(_SCRIPT), str(path), str(reports)]
        quiet = {**os.environ, "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=quiet)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def false_alarm_share(streams: int) -> float:
    """Of stationary streams of 10,000 rows and 50 features, judged in windows of 1,000: those with any column drifted."""
    alarms = 0
    for seed in range(streams):
        generator = np.random.default_rng(50_000 + seed)
        found = judge(features(generator, _ROWS), features(generator, _ROWS), _ROWS // _WINDOW)
        alarms += found["drifted"] > 0
    return alarms / streams


def _plain(column: Column) -> np.ndarray[Any, Any]:
    return np.asarray(column.words)[column.codes] if isinstance(column, Coded) else np.asarray(column)
