"""Moves of aliases that receivers of webhooks have not heard of yet."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "untold_moves",
        sa.Column("project", Word, primary_key=True),
        sa.Column("name", Word, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.ForeignKeyConstraint(
            ["project", "name", "number"], ["alias_moves.project", "alias_moves.name", "alias_moves.number"]
        ),
    )


def downgrade() -> None:
    op.drop_table("untold_moves")
