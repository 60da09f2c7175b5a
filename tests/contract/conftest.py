"""Databases for the contract suites."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.contract import postgres_server


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL server of this session; the URL of its first database."""
    programs = postgres_server.binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres_server.running(programs) as url:
        yield url


@pytest.fixture
def new_postgres_database(postgres_url: str) -> Iterator[Callable[[], str]]:
    """Makes empty databases, dropped after the test; answers their URLs."""
    made: list[str] = []
    root = make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = create_engine(root, isolation_level="AUTOCOMMIT")

    def make() -> str:
        name = f"test_{uuid.uuid4().hex}"
        _execute(engine, f'CREATE DATABASE "{name}"')
        made.append(name)
        return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    yield make
    for name in made:
        _execute(engine, f'DROP DATABASE "{name}" WITH (FORCE)')
    engine.dispose()


def _execute(engine: Any, statement: str) -> None:
    with engine.connect() as connection:
        connection.execute(text(statement))
