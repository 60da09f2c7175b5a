"""How aliases of models came to stand where they stand."""

from __future__ import annotations

import json
from collections import Counter

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alias_moves",
        sa.Column("project", Word, primary_key=True),
        sa.Column("name", Word, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("alias", Word, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["project", "name"], ["models.project", "models.name"]),
    )
    _begin_with_what_stands()


def _begin_with_what_stands() -> None:
    """Each alias there is gets its first move: what follows says where it stood before."""
    connection = op.get_bind()
    query = (
        "SELECT a.project, a.name, a.alias, a.version, v.record FROM model_aliases a JOIN model_versions v "
        "ON v.project = a.project AND v.name = a.name AND v.version = a.version ORDER BY a.project, a.name, a.alias"
    )
    insertion = sa.text("INSERT INTO alias_moves VALUES (:project, :name, :number, :alias, :record)")
    numbers = Counter[tuple[str, str]]()
    for project, name, alias, version, record in connection.execute(sa.text(query)).all():
        numbers[project, name] += 1
        row = {"project": project, "name": name, "number": numbers[project, name], "alias": alias}
        told = {
            "version": version,
            "before": 0,
            "at": json.loads(record)["created_at"],
            "by": "",
            "reason": "stood here before histories were kept; the time is that of the version",
        }
        connection.execute(insertion, {**row, "record": json.dumps({**row, **told})})


def downgrade() -> None:
    op.drop_table("alias_moves")
