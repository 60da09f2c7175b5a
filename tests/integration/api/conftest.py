from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator import Client
from tests.integration.api.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One server for a whole file of tests: they keep apart by runs and projects of their own."""
    with Stack(tmp_path_factory.mktemp("server"), log_drain_s=0.5, watch_poll_s=0.5, token_cache_s=60.0) as started:
        yield started


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as opened:
        yield opened
