"""What every test may use, and which tests of a parallel run (`--numprocesses`) stay together."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_CLUSTERS = ("tests/integration/cluster/", "tests/integration/stack/", "tests/integration/test_stack.py")
_TRAININGS = "tests/integration/trainers/"


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class _ByFile(LoadScopeScheduling):
    """A file is never divided: its tests share what is slow to start.

    All that run a whole cluster are one unit. So no two of them compete for the machine, and each session's
    fixture comes up once.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "clusters" if nodeid.startswith(_CLUSTERS) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    return _ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest units come first in a parallel run, so that at its end every process has something left to do."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not item.nodeid.startswith(_CLUSTERS), not item.nodeid.startswith(_TRAININGS)))
