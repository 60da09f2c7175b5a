"""What every test may use, and how a parallel run (`--numprocesses`) deals the tests out."""

from __future__ import annotations

import os

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_TRAININGS = "tests/integration/trainers/"
_CLUSTERS = {
    "tests/integration/cluster/": "one Ray",
    "tests/integration/stack/": "one stack",
    "tests/integration/test_stack.py": "one stack",
}
_NICER = 5


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def _cluster(nodeid: str) -> str | None:
    return next((name for prefix, name in _CLUSTERS.items() if nodeid.startswith(prefix)), None)


class _ByUnit(LoadScopeScheduling):
    """A file is never divided: its tests share what is slow to start. Files that share a whole cluster are one unit."""

    def _split_scope(self, nodeid: str) -> str:
        return _cluster(nodeid) or nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByUnit:
    return _ByUnit(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest units come first in a parallel run, so that at its end every process has something left to do."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (_cluster(item.nodeid) is None, not item.nodeid.startswith(_TRAININGS)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Clusters have deadlines, and wait most of the time: in a parallel run all other tests fill that time and give way."""
    if hasattr(item.config, "workerinput") and not _cluster(item.nodeid) and os.nice(0) < _NICER:
        os.nice(_NICER - os.nice(0))
