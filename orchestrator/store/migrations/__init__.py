"""The database's history, step by step, by alembic. Every change of `tables` comes with a new file in `versions`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from orchestrator.errors import Refused

_PG_LOCK = 0x65767472  # any number that nobody else uses: two servers must not migrate at once


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; it depends on this package's place alone, not on a file or a directory of the moment."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest tables, in one transaction. Raises Refused where a newer Evertrain wrote it."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _PG_LOCK})
        made = config(connection)
        script = ScriptDirectory.from_config(made)
        current = MigrationContext.configure(connection).get_current_revision()
        if current == script.get_current_head():
            return
        if current is not None and current not in {each.revision for each in script.walk_revisions()}:
            raise Refused(
                f"the database is at revision {current}, which this version does not know: "
                "a newer Evertrain wrote it; install that version, or restore a backup"
            )
        command.upgrade(made, "head")
