"""Which runs are sweeps, and which are whose trials."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "searches",
        sa.Column("run_id", Word, sa.ForeignKey("runs.id"), primary_key=True),
        sa.Column("kind", Word, nullable=False),
        sa.Column("sweep", Word, nullable=False),
    )
    op.create_index("ix_searches_kind_run_id", "searches", ["kind", "run_id"])
    op.create_index("ix_searches_sweep_kind_run_id", "searches", ["sweep", "kind", "run_id"])


def downgrade() -> None:
    op.drop_table("searches")
