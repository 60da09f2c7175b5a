"""Real data beside the repository: for tests and benchmarks only, and not everybody has it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The file of that name; the test skips where there is none."""
    path = SHARED_DATA / name
    if not path.is_file():
        pytest.skip(f"needs {name} in {SHARED_DATA}")
    return path
