"""What every test may use, and which tests of a parallel run (`--numprocesses`) stay together."""

from __future__ import annotations

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

_INTEGRATION = "tests/integration/"
_TRAININGS = "tests/integration/trainers/"
_WITHOUT_CLUSTER = (_TRAININGS, "tests/integration/api/", "tests/integration/cli/")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


def _needs_cluster(nodeid: str) -> bool:
    return nodeid.startswith(_INTEGRATION) and not nodeid.startswith(_WITHOUT_CLUSTER)


class _ByFile(LoadScopeScheduling):
    """A file is never divided: its tests share what is slow to start.

    All that run a whole cluster are one unit. So no two of them compete for the machine, and each session's
    fixture comes up once.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "clusters" if _needs_cluster(nodeid) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    return _ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest units come first in a parallel run, so that at its end every process has something left to do."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: (not _needs_cluster(item.nodeid), not item.nodeid.startswith(_TRAININGS)))
