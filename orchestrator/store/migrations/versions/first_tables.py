"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _runs()
    _models()
    _access()


def _runs() -> None:
    op.create_table(
        "runs",
        sa.Column("number", NUMBER, autoincrement=True, nullable=False),
        sa.Column("id", WORD, nullable=False),
        sa.Column("project", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("queue", WORD, nullable=False),
        sa.Column("state", WORD, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("last_event", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", WORD, nullable=True),
        sa.Column("spec_sha256", WORD, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
        sa.UniqueConstraint("project", "idempotency_key", name=op.f("uq_runs_project_idempotency_key")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_runs_name_number"), "runs", ["name", "number"])
    op.create_index(op.f("ix_runs_project_name_number"), "runs", ["project", "name", "number"])
    op.create_index(op.f("ix_runs_project_number"), "runs", ["project", "number"])
    op.create_index(op.f("ix_runs_project_queue_number"), "runs", ["project", "queue", "number"])
    op.create_index(op.f("ix_runs_project_state_number"), "runs", ["project", "state", "number"])
    op.create_index(op.f("ix_runs_queue_number"), "runs", ["queue", "number"])
    op.create_index(op.f("ix_runs_state_number"), "runs", ["state", "number"])
    op.create_table(
        "events",
        sa.Column("run_id", WORD, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_events_run_id")),
        sa.PrimaryKeyConstraint("run_id", "seq", name=op.f("pk_events")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoints",
        sa.Column("run_id", WORD, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("incarnation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_checkpoints_run_id")),
        sa.PrimaryKeyConstraint("run_id", "step", "attempt", "incarnation", name=op.f("pk_checkpoints")),
        sqlite_with_rowid=False,
    )


def _models() -> None:
    op.create_table(
        "models",
        sa.Column("project", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_models")),
    )
    op.create_table(
        "model_versions",
        sa.Column("project", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("run_id", WORD, nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "name"], ["models.project", "models.name"], name=op.f("fk_model_versions_project_name")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_model_versions_run_id")),
        sa.PrimaryKeyConstraint("project", "name", "version", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("project", "name", "run_id", name=op.f("uq_model_versions_project_name_run_id")),
    )
    op.create_table(
        "model_aliases",
        sa.Column("project", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("alias", WORD, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project", "name", "version"],
            ["model_versions.project", "model_versions.name", "model_versions.version"],
            name=op.f("fk_model_aliases_project_name_version"),
        ),
        sa.PrimaryKeyConstraint("project", "name", "alias", name=op.f("pk_model_aliases")),
    )


def _access() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("project", WORD, nullable=False),
        sa.Column("role", WORD, nullable=False),
        sa.Column("secret_sha256", WORD, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("secret_sha256", name=op.f("uq_tokens_secret_sha256")),
    )
    op.create_index(op.f("ix_tokens_project"), "tokens", ["project"])
    op.create_table(
        "secrets",
        sa.Column("project", WORD, nullable=False),
        sa.Column("name", WORD, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("project", "name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "clusters",
        sa.Column("name", WORD, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_clusters")),
    )


def downgrade() -> None:
    for table in (
        "clusters",
        "secrets",
        "tokens",
        "model_aliases",
        "model_versions",
        "models",
        "checkpoints",
        "events",
        "runs",
    ):
        op.drop_table(table)
