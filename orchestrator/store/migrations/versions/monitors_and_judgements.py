"""What watches models, and what it has judged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "monitors",
        sa.Column("project", Word, primary_key=True),
        sa.Column("model", Word, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("last_judgement", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
    )
    op.create_table(
        "judgements",
        sa.Column("project", Word, primary_key=True),
        sa.Column("model", Word, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["project", "model"], ["monitors.project", "monitors.model"]),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("judgements")
    op.drop_table("monitors")
