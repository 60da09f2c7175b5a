"""The server, the client and the CLI start without the weight of training."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("ray", "torch", "deepspeed", "numpy", "sklearn", "pyarrow")


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import orchestrator.main",
        "import orchestrator.api.server, orchestrator.api.http",
        "from orchestrator import Client",
        "from orchestrator import Observer",
        "import orchestrator.cli.app",
    ],
)
def test_nothing_of_training_is_imported(statement: str) -> None:
    assert loaded_by(statement) & set(HEAVY) == set()


def test_the_package_alone_brings_nothing_along() -> None:
    assert {"grpc", "pydantic"} & loaded_by("import orchestrator") == set()
