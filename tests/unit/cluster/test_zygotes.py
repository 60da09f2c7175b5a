"""Which zygote a run's ranks are forked from."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cluster.keeper import Keeper
from orchestrator.cluster.local_dirs import NodeDirs

# Listens and ends as a zygote does, and imports nothing.
LISTENER = f"""\
#!{sys.executable}
import socket, sys
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[sys.argv.index("--socket") + 1])
listener.listen()
with open(__file__ + ".log", "a") as log:
    log.write(sys.argv[sys.argv.index("--accelerator") + 1] + "\\n")
sys.stdin.read()
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    path = tmp_path / "python"
    path.write_text(LISTENER)
    path.chmod(0o755)
    return path


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    with tempfile.TemporaryDirectory(prefix="et-") as short:  # a socket's path has at most 107 bytes
        keeper = Keeper(NodeDirs(short, "node-1"), os.getpid())
        yield keeper
        keeper.close()


def test_runs_with_and_without_gpus_have_a_zygote_each(keeper: Keeper, python: Path) -> None:
    async def ask() -> list[str]:
        environment = {"python": str(python)}
        return [await keeper.zygote(environment, each) for each in ("cpu", "cuda", "cpu")]

    cpu, cuda, again = asyncio.run(ask())
    assert cpu == again != cuda
    assert Path(f"{python}.log").read_text().split() == ["cpu", "cuda"]
