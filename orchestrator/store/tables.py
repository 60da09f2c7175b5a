"""The tables. What a query filters or sorts by is a column; everything else is JSON text written by `codec`.

JSON is kept as text and not as the database's own JSON type: PostgreSQL's refuses NUL characters and NaN, and both
occur in what users' programs print and measure.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Sorted and compared byte by byte on every database, so that prefixes are ranges and every store sorts alike.
Word = Text().with_variant(Text(collation="C"), "postgresql")
Number = BigInteger().with_variant(Integer(), "sqlite")

# `number` counts submissions: the order of runs does not depend on anybody's clock. `record` is the Run as JSON without
# `spec` and `attempts`, which stand last: a listing never reads them.
runs = Table(
    "runs",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", Word, nullable=False),
    Column("project", Word, nullable=False),
    Column("name", Word, nullable=False),
    Column("queue", Word, nullable=False),
    Column("state", Word, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("last_event", BigInteger, nullable=False),
    Column("idempotency_key", Word),
    Column("spec_sha256", Word, nullable=False),
    Column("record", Text, nullable=False),
    Column("spec", Text, nullable=False),
    Column("attempts", Text, nullable=False),
    UniqueConstraint("id"),
    UniqueConstraint("project", "idempotency_key"),
    sqlite_autoincrement=True,
)
# Every filter of a listing, within one project and over all of them, walks an index that is already in listing order. The
# name stands last in it, so that a search for a prefix need not read the rows of those that it passes.
Index(None, runs.c.project, runs.c.number, runs.c.name)
Index(None, runs.c.project, runs.c.state, runs.c.number, runs.c.name)
Index(None, runs.c.project, runs.c.queue, runs.c.number, runs.c.name)
Index(None, runs.c.number, runs.c.name)
Index(None, runs.c.state, runs.c.number, runs.c.name)
Index(None, runs.c.queue, runs.c.number, runs.c.name)
# Where few runs match a prefix, they are gathered by these.
Index(None, runs.c.project, runs.c.name, runs.c.number)
Index(None, runs.c.name, runs.c.number)


# A row for each run that is a sweep or a sweep's trial; `sweep` is the id of the sweep, of itself for a sweep.
searches = Table(
    "searches",
    metadata,
    Column("run_id", Word, ForeignKey(runs.c.id), primary_key=True),
    Column("kind", Word, nullable=False),
    Column("sweep", Word, nullable=False),
    Index(None, "kind", "run_id"),
    Index(None, "sweep", "kind", "run_id"),
)

events = Table(
    "events",
    metadata,
    Column("run_id", Word, ForeignKey(runs.c.id), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
    sqlite_with_rowid=False,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("run_id", Word, ForeignKey(runs.c.id), primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("incarnation", Integer, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row a model: the counter from which versions are taken, so that no number is ever given twice.
models = Table(
    "models",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("last_version", Integer, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("run_id", Word, ForeignKey(runs.c.id), nullable=False),
    Column("record", Text, nullable=False),
    ForeignKeyConstraint(["project", "name"], ["models.project", "models.name"]),
    UniqueConstraint("project", "name", "run_id"),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("alias", Word, primary_key=True),
    Column("version", Integer, nullable=False),
    ForeignKeyConstraint(
        ["project", "name", "version"],
        ["model_versions.project", "model_versions.name", "model_versions.version"],
    ),
)

# Where aliases stand is in `model_aliases`; how they came there is here, numbered within the model.
alias_moves = Table(
    "alias_moves",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("alias", Word, nullable=False),
    Column("record", Text, nullable=False),
    ForeignKeyConstraint(["project", "name"], ["models.project", "models.name"]),
)

# Moves that receivers of webhooks are to hear of, until they have.
untold_moves = Table(
    "untold_moves",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    ForeignKeyConstraint(
        ["project", "name", "number"], ["alias_moves.project", "alias_moves.name", "alias_moves.number"]
    ),
)

model_facts = Table(
    "model_facts",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("fact", Word, primary_key=True),
    Column("record", Text, nullable=False),
    ForeignKeyConstraint(
        ["project", "name", "version"],
        ["model_versions.project", "model_versions.name", "model_versions.version"],
    ),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Word, primary_key=True),
    Column("name", Word, nullable=False),
    Column("project", Word, nullable=False, index=True),
    Column("role", Word, nullable=False),
    Column("secret_sha256", Word, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    UniqueConstraint("secret_sha256"),
)

# Values are encrypted by `sealing`: the key is not in the database.
secrets = Table(
    "secrets",
    metadata,
    Column("project", Word, primary_key=True),
    Column("name", Word, primary_key=True),
    Column("value", Text, nullable=False),
)

clusters = Table(
    "clusters",
    metadata,
    Column("name", Word, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
)

# One row a decision on retraining; `key` and `because` are those of DecisionRecord.key. `pending`: something of it is still
# to be done, awaited or announced.
decisions = Table(
    "decisions",
    metadata,
    Column("project", Word, primary_key=True),
    Column("model", Word, primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("key", Word, nullable=False),
    Column("because", Word, nullable=False),
    Column("accepted", Boolean, nullable=False),
    Column("pending", Boolean, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    UniqueConstraint("project", "model", "key", "because"),
    Index(None, "pending", "project", "model", "number"),
)

# Alerts that were acted on, so that none is acted on twice. `told_at`: when it was last told, by which old ones go.
alerts = Table(
    "alerts",
    metadata,
    Column("project", Word, primary_key=True),
    Column("fingerprint", Word, primary_key=True),
    Column("starts_at", Double, primary_key=True, autoincrement=False),
    Column("told_at", Double, nullable=False, index=True),
    Column("record", Text, nullable=False),
)

# `record` is the Monitor as JSON without `state`, which is large and stands last. `last_judgement`: the highest number given.
monitors = Table(
    "monitors",
    metadata,
    Column("project", Word, primary_key=True),
    Column("model", Word, primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("last_judgement", BigInteger, nullable=False),
    Column("record", Text, nullable=False),
    Column("state", Text, nullable=False),
)

judgements = Table(
    "judgements",
    metadata,
    Column("project", Word, primary_key=True),
    Column("model", Word, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("record", Text, nullable=False),
    ForeignKeyConstraint(["project", "model"], ["monitors.project", "monitors.model"]),
    sqlite_with_rowid=False,
)
