"""What was decided on retraining, and what became of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "decisions",
        sa.Column("project", Word, primary_key=True),
        sa.Column("model", Word, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", Word, nullable=False),
        sa.Column("because", Word, nullable=False),
        sa.Column("accepted", sa.Boolean, nullable=False),
        sa.Column("pending", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.UniqueConstraint("project", "model", "key", "because", name=op.f("uq_decisions_project_model_key_because")),
    )
    op.create_index("ix_decisions_pending_project_model_number", "decisions", ["pending", "project", "model", "number"])


def downgrade() -> None:
    op.drop_table("decisions")
