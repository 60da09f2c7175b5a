"""Alerts that were acted on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alerts",
        sa.Column("project", Word, primary_key=True),
        sa.Column("fingerprint", Word, primary_key=True),
        sa.Column("starts_at", sa.Double, primary_key=True, autoincrement=False),
        sa.Column("told_at", sa.Double, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("ix_alerts_told_at", "alerts", ["told_at"])


def downgrade() -> None:
    op.drop_table("alerts")
