"""The indexes of a listing hold the name too, so that a search for a prefix reads no rows that it does not show."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REPLACED = (
    ("project", "number"),
    ("project", "state", "number"),
    ("project", "queue", "number"),
    ("state", "number"),
    ("queue", "number"),
)


def upgrade() -> None:
    for columns in REPLACED:
        op.drop_index(_name(columns), "runs")
        op.create_index(_name((*columns, "name")), "runs", [*columns, "name"])
    op.create_index(_name(("number", "name")), "runs", ["number", "name"])


def downgrade() -> None:
    op.drop_index(_name(("number", "name")), "runs")
    for columns in REPLACED:
        op.drop_index(_name((*columns, "name")), "runs")
        op.create_index(_name(columns), "runs", [*columns])


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_runs_{'_'.join(columns)}"
