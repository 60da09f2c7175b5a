"""The server's process ends when a part of it has ended by itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.system_clock import SystemClock
from orchestrator.main import build, serve
from orchestrator.settings import Settings
from orchestrator.store import MemoryStore


class Broken:
    async def run(self) -> None:
        raise TypeError("no such thing")


@pytest.mark.parametrize("part", ["loop", "housekeeping", "announcer"])
async def test_a_part_that_ends_by_itself_ends_the_server_with_its_error(part: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, grpc_port=0, http_port=0)
    broken: dict[str, Any] = {part: Broken()}
    server = replace(build(settings, MemoryStore(), SystemClock()), **broken)
    with pytest.raises(TypeError, match="no such thing"):
        await asyncio.wait_for(serve(server, asyncio.Event()), 30)
    server.parts.executor.shutdown()
