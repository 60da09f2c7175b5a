"""A sweep and its trials are runs of their own kind; a trial's row names its sweep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from orchestrator.store.tables import Word

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("kind", Word, nullable=False, server_default="run"))
    op.add_column("runs", sa.Column("sweep", Word, nullable=False, server_default=""))
    op.create_index("ix_runs_kind_number", "runs", ["kind", "number"])
    op.create_index("ix_runs_sweep_number", "runs", ["sweep", "number"])


def downgrade() -> None:
    op.drop_index("ix_runs_sweep_number", "runs")
    op.drop_index("ix_runs_kind_number", "runs")
    op.drop_column("runs", "sweep")
    op.drop_column("runs", "kind")
