"""What the stores on a disk promise beyond the common contract: durability, one owner, foreign errors, migrations."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, event, insert, text

from orchestrator import store as stores
from orchestrator.core.alerts import Alert, Firing, Outcome
from orchestrator.core.decisions import DecisionRecord, Standing
from orchestrator.core.monitors import Judgement, Monitor
from orchestrator.core.records import Cluster, Role, RunFilter, Token
from orchestrator.core.retraining import Action, Because, Cause, Decision, Trigger
from orchestrator.core.runs import STATE_NAMES
from orchestrator.errors import Conflict, EvertrainError, Refused, StorageFailed, Unavailable
from orchestrator.ports import Change, Store
from orchestrator.store import MemoryStore, SqlStore, tables
from orchestrator.store.engines import Engines, open_engines
from orchestrator.store.migrations import config, upgrade
from orchestrator.store.sealing import SecretBox
from orchestrator.store.writer import GroupWriter
from tests import builders
from tests.contract import postgres_server
from tests.contract.stores import KEY_FILE, STATES, at_once, move, open_store, submission, submit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'evertrain.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, sqlite_url: str) -> str:
    if request.param == "sqlite":
        return sqlite_url
    new_database: Callable[[], str] = request.getfixturevalue("new_postgres_database")
    return new_database()


@pytest.fixture
def engines(url: str) -> Iterator[Engines]:
    opened = open_engines(url)
    yield opened
    opened.close()


def execute(url: str, *statements: str) -> None:
    """From outside, as an operator would."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


# ---- durability ----------------------------------------------------------------------------------------------------

_WRITING_CHILD = """
import sys, threading
from orchestrator.core.records import EventDraft
from orchestrator.ports import Change
from tests.contract.stores import open_store, submission

store = open_store(sys.argv[1])
out = threading.Lock()

def tell(*words):
    with out:
        print(*words, flush=True)

def work(base):
    for number in range(base, base + 100_000):
        run = store.submit([submission(number, idempotency_key=str(number))])[0].run
        tell("run", number)
        if number % 3 == 0:
            store.apply([Change(run, (EventDraft(1.0, "told", str(number)),))])
            tell("event", number)

for worker in range(4):
    threading.Thread(target=work, args=((int(sys.argv[2]) * 4 + worker) * 100_000,)).start()
"""


@pytest.mark.parametrize("kill_after", [1, 150])
def test_what_was_acknowledged_before_kill_9_is_there_exactly_once(url: str, kill_after: int) -> None:
    acknowledged: list[tuple[str, int]] = []
    for life in range(2):
        command = [sys.executable, "-c", _WRITING_CHILD, url, str(life)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as child:
            assert child.stdout is not None
            for _ in range(kill_after):
                kind, number = child.stdout.readline().split()
                acknowledged.append((kind, int(number)))
            child.send_signal(signal.SIGKILL)
            # What it had said before it died counts too; only the last line may be torn.
            for line in child.stdout.read().splitlines(keepends=True):
                if line.endswith("\n"):
                    kind, number = line.split()
                    acknowledged.append((kind, int(number)))

    store = open_store(url)
    try:
        _check_acknowledged(store, acknowledged)
    finally:
        store.close()


def _check_acknowledged(store: SqlStore, acknowledged: list[tuple[str, int]]) -> None:
    page, stored = "", []
    while True:
        found = store.runs(RunFilter("default"), page=page, limit=1000)
        stored += [run.id for run in found.runs]
        page = found.next_page
        if not page:
            break
    assert len(stored) == len(set(stored))
    for kind, number in acknowledged:
        run_id = submission(number).run_id
        assert run_id in stored
        kinds = [event.kind for event in store.events(run_id)]
        assert kinds.count("submitted") == 1
        assert kind == "run" or kinds == ["submitted", "told"]
        (again,) = store.submit([submission(number, run_id="run-again", idempotency_key=str(number))])
        assert (again.created, again.run.id) == (False, run_id)


def test_sqlite_is_opened_so_that_a_commit_is_on_disk(sqlite_url: str) -> None:
    engines = open_engines(sqlite_url)
    with engines.writer.connect() as connection:
        settings = {
            name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    with engines.reader.connect() as connection:
        read_only = connection.scalar(text("PRAGMA query_only"))
    engines.close()

    assert settings == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    assert read_only == 1


def test_postgres_commits_synchronously_even_where_the_database_says_otherwise(
    new_postgres_database: Callable[[], str],
) -> None:
    url = new_postgres_database()
    name = url.split("?")[0].rsplit("/", 1)[1]
    execute(url, f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    engines = open_engines(url)
    with engines.writer.connect() as connection:
        assert connection.scalar(text("SHOW synchronous_commit")) == "on"
    engines.close()


# ---- group commit --------------------------------------------------------------------------------------------------


def test_calls_that_wait_share_one_commit_and_only_the_wrong_one_fails(engines: Engines) -> None:
    upgrade(engines.writer)
    commits: list[Connection] = []
    event.listen(engines.writer, "commit", commits.append)
    writer = GroupWriter(engines.writer, "test")
    busy, go_on = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        busy.set()
        assert go_on.wait(30)

    def write(name: str) -> Callable[[], str]:
        def work(connection: Connection) -> str:
            connection.execute(insert(tables.secrets), {"project": "p", "name": name, "value": "v"})
            if name == "bad":
                connection.execute(insert(tables.secrets), {"project": "p", "name": name, "value": "v"})
            return name

        return lambda: writer.write(work)

    def bad() -> str:
        with pytest.raises(Conflict):
            write("bad")()
        return "refused"

    holder = threading.Thread(target=writer.write, args=(hold,))
    holder.start()
    assert busy.wait(30)
    threading.Thread(target=_release_when, args=(lambda: writer._calls.qsize() == 5, go_on)).start()
    answers = at_once([write("a"), write("b"), bad, write("c"), write("d")])
    holder.join()
    writer.close()

    assert answers == ["a", "b", "refused", "c", "d"]
    assert len(commits) == 2
    with engines.reader.connect() as connection:
        names = connection.scalars(text("SELECT name FROM secrets ORDER BY name")).all()
    assert names == ["a", "b", "c", "d"]


def _release_when(condition: Callable[[], bool], gate: threading.Event) -> None:
    pause = threading.Event()
    while not condition():
        pause.wait(0.001)
    gate.set()


def test_a_mistake_in_our_own_code_fails_its_call_alone(engines: Engines) -> None:
    upgrade(engines.writer)
    writer = GroupWriter(engines.writer, "test")

    def mistake(connection: Connection) -> None:
        connection.execute(insert(tables.secrets), {"project": "p", "name": "half", "value": "v"})
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        writer.write(mistake)
    assert writer.write(lambda connection: connection.scalar(text("SELECT count(*) FROM secrets"))) == 0
    writer.close()


def test_a_full_disk_fails_the_call_and_leaves_the_store_usable(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    submit(store, [1])
    with store._engines.writer.connect() as connection:  # the pool's only connection: the limit stays with it
        pages = connection.scalar(text("PRAGMA page_count"))
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(Unavailable, match="full"):
        submit(store, range(10, 500))

    assert [run.id for run in store.runs(RunFilter("default")).runs] == [submission(1).run_id]
    with store._engines.writer.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    submit(store, range(10, 500))
    assert store.count_by_state()["QUEUED"] == 491
    store.close()


# ---- one owner, private files --------------------------------------------------------------------------------------


def test_a_second_server_on_the_same_file_is_refused_until_the_first_is_gone(sqlite_url: str) -> None:
    code = (
        "import sys; from tests.contract.stores import open_store; s = open_store(sys.argv[1]); print('open'); input()"
    )
    command = [sys.executable, "-u", "-c", code, sqlite_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"

        with pytest.raises(Refused, match=rf"in use by another server, process {owner.pid};"):
            open_store(sqlite_url)
        owner.kill()

    open_store(sqlite_url).close()
    open_store(sqlite_url).close()


def test_a_second_server_on_the_same_postgresql_database_is_refused_until_the_first_is_gone(
    new_postgres_database: Callable[[], str],
) -> None:
    url = new_postgres_database()
    code = (
        "import sys; from tests.contract.stores import open_store; s = open_store(sys.argv[1]); print('open'); input()"
    )
    command = [sys.executable, "-u", "-c", code, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"

        with pytest.raises(Refused, match="in use by another server; stop that one first"):
            open_store(url)
        owner.kill()

    open_store(url).close()


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "evertrain.db"
    before = os.umask(0)
    try:
        store = open_store(f"sqlite:///{path}")
        store.put_secret("p", "A", "b")
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)

    assert modes.keys() >= {"evertrain.db", "evertrain.db-wal", "evertrain.db.lock"}
    assert set(modes.values()) == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("url", ["mysql://root@db/x", "sqlite://", "sqlite:///:memory:", "nonsense", ""])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(Refused, match="sqlite:///PATH"):
        open_store(url)


def test_a_file_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageFailed, match="cannot be made"):
        open_store(f"sqlite:///{tmp_path / 'file' / 'evertrain.db'}")


def test_a_file_that_is_no_database_is_unavailable_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "evertrain.db"
    path.write_text("a letter to somebody " * 100)

    with pytest.raises(Unavailable, match="not a database"):
        open_store(f"sqlite:///{path}")

    assert path.read_text().startswith("a letter")


# ---- foreign errors ------------------------------------------------------------------------------------------------


def every_call(store: Store) -> dict[str, Callable[[], Any]]:
    run = builders.queued_run()
    token = Token("t", "t", "p", Role.USER, "0" * 64, 1.0)
    watched, judged = Monitor("p", "m", {}, "r", 1, 1.0), Judgement(0, 1.0, 0.0, 1.0, 9, "stable", 0, "stable")
    trigger = Trigger(Cause.MANUAL, "k", 1.0, "asked for")
    refused = Decision(trigger, Action.REFUSE, Because.IN_PROGRESS, "one is under way")
    decided = DecisionRecord("p", "m", 0, 1.0, refused, Standing.CLOSED)
    alert = Alert("p", "a", "f", 1.0, True, {})
    return {
        "submit": lambda: store.submit([submission(1)]),
        "submit_keyed": lambda: store.submit([submission(1, idempotency_key="k")]),
        "used_keys": lambda: store.used_keys("p", ["k"]),
        "run": lambda: store.run("p", "r"),
        "runs": lambda: store.runs(RunFilter("p", states=("QUEUED", "FAILED"), name_prefix="a")),
        "trials": lambda: store.trials("r"),
        "unfinished": store.unfinished,
        "count_by_state": store.count_by_state,
        "apply": lambda: store.apply([Change(run)]),
        "events": lambda: store.events("r"),
        "newest_event": lambda: store.newest_event("r"),
        "checkpoints": lambda: store.checkpoints("r"),
        "models": lambda: store.models("p"),
        "facts": lambda: store.facts("p", "m", 1),
        "put_fact": lambda: store.put_fact("p", "m", 1, "f", {}),
        "monitor": lambda: store.monitor("p", "m"),
        "monitors": lambda: store.monitors("p"),
        "put_monitor": lambda: store.put_monitor(watched),
        "record_judgements": lambda: store.record_judgements(watched, [judged]),
        "judgements": lambda: store.judgements("p", "m"),
        "record_decision": lambda: store.record_decision(decided),
        "change_decision": lambda: store.change_decision(decided),
        "decisions": lambda: store.decisions("p", "m"),
        "decision": lambda: store.decision("p", "m", 1),
        "open_decisions": store.open_decisions,
        "move_alias": lambda: store.move_alias("p", "m", "a", 1, at=1.0, by="b", reason="r"),
        "untold_moves": store.untold_moves,
        "move_told": lambda: store.move_told("p", "m", 1),
        "standing": lambda: store.standing("p", "a"),
        "alias_history": lambda: store.alias_history("p", "m"),
        "add_token": lambda: store.add_token(token),
        "token_by_hash": lambda: store.token_by_hash("0" * 64),
        "tokens": lambda: store.tokens("p"),
        "revoke_token": lambda: store.revoke_token("p", "t", 1.0),
        "put_secret": lambda: store.put_secret("p", "s", "v"),
        "secrets": lambda: store.secrets("p", ["s"]),
        "secret_names": lambda: store.secret_names("p"),
        "delete_secret": lambda: store.delete_secret("p", "s"),
        "put_cluster": lambda: store.put_cluster(Cluster("c", "p", 1)),
        "clusters": store.clusters,
        "firings": lambda: store.firings([("p", "f", 1.0)]),
        "keep_firings": lambda: store.keep_firings([Firing(alert, 1.0, 1.0, Outcome.NOTED, "noted")]),
        "alerts_told_at": store.alerts_told_at,
        "forget_firings": lambda: store.forget_firings(1.0),
    }


def test_the_list_of_calls_is_complete() -> None:
    public = {name for name in vars(Store) if not name.startswith("_")} - {"close"}
    assert set(every_call(MemoryStore())) >= public


def test_a_database_without_our_tables_leaks_no_foreign_error(url: str) -> None:
    store = open_store(url)
    execute(url, *(f"DROP TABLE {table.name}" for table in reversed(tables.metadata.sorted_tables)))

    for name, call in every_call(store).items():
        with pytest.raises(EvertrainError) as caught:
            call()
        assert isinstance(caught.value, Unavailable), name
    store.close()


def test_a_server_that_went_away_is_unavailable_and_needs_no_new_store(
    new_postgres_database: Callable[[], str],
) -> None:
    programs = postgres_server.binaries()
    assert programs is not None
    with postgres_server.running(programs) as own_url:
        store = open_store(own_url)
        submit(store, [1])
        execute(own_url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        submit(store, [2])
        assert store.count_by_state()["QUEUED"] == 2

    for name, call in every_call(store).items():
        with pytest.raises(EvertrainError) as caught:
            call()
        assert isinstance(caught.value, Unavailable), name
    store.close()
    with pytest.raises(Unavailable):
        open_store(own_url)


@pytest.mark.parametrize("value", ["lone \udc80", "nul \x00", 2**80])
def test_a_value_that_the_database_cannot_hold_is_refused(url: str, value: Any) -> None:
    store = open_store(url)
    bad = submission(1, priority=value) if isinstance(value, int) else submission(1, name=value)
    kept = []
    with contextlib.suppress(Refused):  # PostgreSQL holds no NUL, SQLite does: what is taken must come back
        kept.append(store.submit([bad])[0].run)
    assert [run.id for run in store.runs(RunFilter("default")).runs] == [run.id for run in kept]
    assert [store.run("default", run.id) for run in kept] == kept
    store.close()


# ---- secrets at rest ------------------------------------------------------------------------------------------------


def stored_secrets(url: str) -> list[str]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = list(connection.scalars(text("SELECT value FROM secrets ORDER BY name")))
    engine.dispose()
    return found


def test_no_value_of_a_secret_is_in_the_database(url: str, tmp_path: Path) -> None:
    key_file = tmp_path / "keys" / "secrets.key"
    store = stores.open_store(url, key_file)
    store.put_secret("p", "A", "hunter2 ü")
    store.close()
    execute(url, "INSERT INTO secrets VALUES ('p', 'B', 'hunter2 of an older version')")

    store = stores.open_store(url, key_file)
    values = store.secrets("p", ["A", "B"])
    store.close()

    assert values == {"A": "hunter2 ü", "B": "hunter2 of an older version"}
    assert ["hunter2" in value for value in stored_secrets(url)] == [False, False]
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_a_key_that_is_not_the_databases_own_is_refused_at_the_start(url: str, tmp_path: Path) -> None:
    right, wrong, no_key = (tmp_path / name for name in ("right", "wrong", "no-key"))
    no_key.write_text("a letter")
    store = stores.open_store(url, right)
    store.put_secret("p", "A", "value")
    store.close()

    with pytest.raises(Refused, match=f"(?s){wrong}.*put back"):
        stores.open_store(url, wrong)
    with pytest.raises(Refused, match=f"{no_key} holds no key"):
        stores.open_store(url, no_key)
    with pytest.raises(StorageFailed, match="key of secrets"):
        stores.open_store(url, right / "below-a-file")

    store = stores.open_store(url, right)
    assert store.secrets("p", ["A"]) == {"A": "value"}
    store.close()


# ---- migrations ----------------------------------------------------------------------------------------------------


def test_the_migrations_make_exactly_the_tables(engines: Engines) -> None:
    upgrade(engines.writer)

    with engines.writer.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_the_migrations_make_the_tables_word_by_word_on_sqlite(tmp_path: Path) -> None:
    migrated = open_engines(f"sqlite:///{tmp_path / 'migrated.db'}")
    upgrade(migrated.writer)
    created = open_engines(f"sqlite:///{tmp_path / 'created.db'}")
    tables.metadata.create_all(created.writer)

    found = [_schema(tmp_path / name) for name in ("migrated.db", "created.db")]
    migrated.close()
    created.close()

    assert found[0] == found[1]


def _schema(path: Path) -> dict[str, list[str]]:
    """Each object's definition as a sorted list of its lines: the order of constraints is of no matter."""
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {
        name: sorted(line.strip().rstrip(",") for line in sql.splitlines())
        for name, sql in rows
        if name not in ("alembic_version", "sqlite_sequence")
    }


def test_migrating_needs_no_certain_directory_and_is_idempotent(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    upgrade(engines.writer)
    upgrade(engines.writer)

    with engines.reader.connect() as connection:
        newest = ScriptDirectory.from_config(config()).get_current_head()
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == newest


def test_a_database_of_the_first_version_is_migrated_with_all_that_it_holds(url: str) -> None:
    engines = open_engines(url)
    with engines.writer.begin() as connection:
        command.upgrade(config(connection), "0001")
    old = SqlStore(engines, SecretBox(KEY_FILE))
    made = submit(old, range(7))
    old.close()
    execute(url, "INSERT INTO secrets VALUES ('default', 'KEY', 'value')")

    store = open_store(url)
    submit(store, [100])
    kept, listed = [store.run("default", run.id) for run in made], store.runs(RunFilter("default")).runs
    values = store.secrets("default", ["KEY"])
    with store._engines.writer.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
    store.close()

    assert kept == made
    assert [run.id for run in listed] == [submission(number).run_id for number in (100, 6, 5, 4, 3, 2, 1, 0)]
    assert values == {"KEY": "value"}
    assert differences == []


def test_aliases_of_before_histories_were_kept_begin_one_where_they_stand(url: str) -> None:
    engines = open_engines(url)
    with engines.writer.begin() as connection:
        command.upgrade(config(connection), "0004")
    old = SqlStore(engines, SecretBox(KEY_FILE))
    (run,) = submit(old, [1])
    old.close()
    execute(url, "INSERT INTO models VALUES ('default', 'digits', 1)")
    record = f'{{"project": "default", "name": "digits", "version": 1, "run_id": "{run.id}", "checkpoint": "/seal", '
    record += '"metrics": {}, "created_at": 7.5}'
    execute(url, f"INSERT INTO model_versions VALUES ('default', 'digits', 1, '{run.id}', '{record}')")
    execute(url, "INSERT INTO model_aliases VALUES ('default', 'digits', 'champion', 1)")

    store = open_store(url)
    (move,) = store.alias_history("default", "digits")
    late = store.move_alias("default", "digits", "champion", 1, expected=2, at=9.0, by="ann", reason="")
    store.close()

    assert (move.number, move.alias, move.version, move.before, move.at) == (1, "champion", 1, 0, 7.5)
    assert late == move


def test_every_step_can_be_taken_back(engines: Engines) -> None:
    with engines.writer.begin() as connection:
        command.upgrade(config(connection), "head")
        command.downgrade(config(connection), "0001")
        command.upgrade(config(connection), "head")
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    open_store(url).close()
    execute(url, "UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(Refused, match="newer Evertrain"):
        open_store(url)


# ---- cost of a listing ---------------------------------------------------------------------------------------------


def asked_plans(store: SqlStore, listings: Iterable[tuple[RunFilter, str]]) -> list[tuple[str, list[str]]]:
    """The statements that those listings sent, with SQLite's plan of each."""
    asked: list[tuple[str, Any]] = []
    event.listen(
        store._engines.reader,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, parameters, _context, _many: asked.append((statement, parameters)),
    )
    for where, page in listings:
        store.runs(where, page=page)
    with store._engines.reader.connect() as connection:
        return [
            (statement, [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)])
            for statement, parameters in list(asked)
        ]


FIELDS: tuple[dict[str, Any], ...] = (
    {},
    {"states": ("QUEUED",)},
    {"queue": "fast"},
    {"states": ("QUEUED",), "queue": "fast"},
)


def test_every_filter_walks_an_index_in_listing_order(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    for run, state in zip(submit(store, range(7)), STATE_NAMES, strict=True):
        move(store, run, STATES[state])
    later = store.runs(RunFilter("default"), limit=2).next_page
    wheres = [RunFilter(project, **fields) for project in ("default", "*") for fields in FIELDS]

    for statement, plan in asked_plans(store, [(where, page) for where in wheres for page in ("", later)]):
        shown, subquery, walk = plan
        assert shown == "SEARCH runs USING INTEGER PRIMARY KEY (rowid=?)", (statement, plan)
        assert subquery.startswith("LIST SUBQUERY"), (statement, plan)
        assert walk.startswith(("SEARCH runs USING", "SCAN runs")), (statement, plan)
        # Without any filter the numbers themselves are in order; every other walk is bounded by an index.
        assert not walk.startswith("SCAN") or statement.count("WHERE") == 1, (statement, plan)
    store.close()


def test_a_search_for_names_that_many_have_reads_no_row_that_it_does_not_show(sqlite_url: str) -> None:
    store = open_store(sqlite_url)
    submit(store, range(1100), name="many")
    later = store.runs(RunFilter("default"), limit=2).next_page
    wheres = [RunFilter(project, name_prefix="ma", **fields) for project in ("default", "*") for fields in FIELDS[:3]]

    plans = asked_plans(store, [(where, page) for where in wheres for page in ("", later)])
    listings = [(statement, plan) for statement, plan in plans if "substr" in statement]
    assert len(listings) == 12
    for statement, plan in listings:
        assert "B-TREE" not in str(plan), (statement, plan)
        assert "USING COVERING INDEX" in plan[-1], (statement, plan)
    store.close()
