"""Live traffic from where it lies: parquet files, a database, Prometheus; read from where it was left off."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy

from orchestrator import spec
from orchestrator.cli.app import main
from orchestrator.drift.batches import read_batch
from tests.integration.api.http_side import Http
from tests.integration.api.stack import Stack
from tests.integration.watchers import free_port
from tests.unit.control.profiles import PROFILE

Feed = Callable[..., tuple[int, str]]
NUMBERS = iter(range(1, 10**6))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def model(stack: Stack) -> str:
    name = f"fed-{next(NUMBERS)}"
    stack.end(stack.place(stack.submit(name=name)))
    return name


@pytest.fixture
def feed(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Feed:
    """`evertrain monitor feed ...`: its exit code and what it said."""
    for name, value in (("SERVER", stack.address), ("TOKEN", stack.admin), ("HOME", str(tmp_path / "home"))):
        monkeypatch.setenv(f"EVERTRAIN_{name}", value)

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["evertrain", "monitor", "feed", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out + shown.err

    return run


def values(stack: Stack, model: str, column: str) -> list[float]:
    batches = stack.parts.observations.read("default", model, after=0)
    return [value for each in batches for value in np.asarray(read_batch(each.data, each.at).columns[column]).tolist()]


def test_each_parquet_file_is_sent_once(stack: Stack, model: str, feed: Feed, tmp_path: Path) -> None:
    directory = tmp_path / "served"
    directory.mkdir()

    def write(name: str, *ages: int) -> None:
        table = pa.table({"age": ages, "answer": ["yes"] * len(ages), "at": [pa.scalar(1.7e9)] * len(ages)})
        pq.write_table(table, directory / name)

    write("a.parquet", *range(25_000))
    write("_being-written.parquet", 9)
    words = ("parquet", model, str(directory), "--column", "prediction=answer", "--column", "time=at")
    assert feed(*words) == (0, f"25,000 rows sent to {model}\n")
    assert feed(*words) == (0, f"0 rows sent to {model}\n")
    write("b.parquet", 1, 2)
    assert feed(*words) == (0, f"2 rows sent to {model}\n")
    shutil.rmtree(tmp_path / "home")  # as if it had been killed before it wrote down how far it was
    assert feed(*words)[0] == 0

    assert values(stack, model, "age") == [*range(25_000), 1, 2]
    (first, *_) = stack.parts.observations.read("default", model, after=0)
    read = read_batch(first.data, first.at)
    assert set(read.columns) == {"age", "(prediction)"}
    assert set(read.times) == {1.7e9}


def test_a_query_goes_on_behind_its_last_row(stack: Stack, model: str, feed: Feed, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'served.db'}"
    engine = sqlalchemy.create_engine(url)

    def insert(*ages: int) -> None:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("create table if not exists served (at float, age integer, city text)"))
            for age in ages:
                connection.execute(
                    sqlalchemy.text("insert into served values (:at, :age, 'Oslo')"), {"at": 1.7e9 + age, "age": age}
                )

    insert(1, 2)
    words = ("sql", model, url, "select * from served where at > :after order by at", "--column", "time=at")
    assert feed(*words, "--after", "0") == (0, f"2 rows sent to {model}\n")
    insert(3)
    assert feed(*words) == (0, f"1 rows sent to {model}\n")
    assert feed(*words) == (0, f"0 rows sent to {model}\n")

    assert values(stack, model, "age") == [1, 2, 3]
    engine.dispose()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("parquet", "MODEL", "/no/such/directory"), "is no directory"),
        (("parquet", "MODEL", ".", "--column", "score=x"), "--column score=...: must be one of request, time"),
        (("parquet", "MODEL", ".", "--column", "score"), "'score': must be NAME=COLUMN"),
        (("parquet", "MODEL", ".", "--every", "soon"), "--every soon: must be a duration"),
        (("sql", "MODEL", "nodb://x", "select 1"), "give an URL as SQLAlchemy takes it"),
        (("sql", "MODEL", "sqlite://", "select * from absent"), "the query fails: no such table: absent"),
        (("sql", "MODEL", "sqlite://", "select 1 as x where 1 > :after"), "say where to begin, with --after"),
        (
            ("sql", "MODEL", "sqlite://", "select 1 as x where 1 > :after", "--after", "0"),
            "no column 'at': its columns",
        ),
        (("promql", "MODEL", "http://127.0.0.1:1", "x=up"), "Prometheus at http://127.0.0.1:1 does not answer"),
        (("promql", "MODEL", "file:///etc/passwd", "x=up"), "must be the http:// or https:// address"),
        (("parquet", "no-such-model", "FILES"), "no model 'no-such-model'"),
    ],
)
def test_what_is_wrong_is_said(model: str, feed: Feed, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    pq.write_table(pa.table({"age": [1]}), tmp_path / "a.parquet")
    named = {"MODEL": model, "FILES": str(tmp_path)}
    code, text = feed(*(named.get(word, word) for word in words))
    assert code in (1, 102)
    assert said in text


def test_a_file_that_says_nothing_of_a_feed_is_not_overwritten(model: str, feed: Feed, tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[]")
    code, text = feed("parquet", model, str(tmp_path), "--state", str(tmp_path / "state.json"))
    assert (code, "remove it to begin anew" in text) == (1, True)
    assert (tmp_path / "state.json").read_text() == "[]"


# ---- Prometheus -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A Prometheus' directory that holds an hour of two series of a minute's step, and the time of the first point."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        pytest.skip("Prometheus is not installed: apt-get install prometheus")
    root = tmp_path_factory.mktemp("prometheus")
    start = float(int(time.time()) // 60 * 60 - 7200)
    lines = ["# TYPE answer_share gauge"]
    for answer, share in (("yes", 0.25), ("no", 0.75)):
        for minute in range(60):
            lines.append(f'answer_share{{answer="{answer}"}} {share + minute / 1000} {start + 60 * minute}')
    (root / "points").write_text("\n".join([*lines, "# EOF", ""]))
    (root / "prometheus.yml").write_text("global: {}\n")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(root / "points"), str(root / "data")], check=True
    )
    return root, start


@contextmanager
def answering(root: Path, address: str) -> Iterator[None]:
    options = [f"--config.file={root / 'prometheus.yml'}", f"--storage.tsdb.path={root / 'data'}"]
    process = subprocess.Popen(["prometheus", *options, f"--web.listen-address={address}", "--log.level=warn"])
    try:
        _wait_until_ready(address, process)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def prometheus(recorded: tuple[Path, float]) -> Iterator[tuple[str, float]]:
    """Its address, and the time of the first point."""
    address = f"127.0.0.1:{free_port()}"
    with answering(recorded[0], address):
        yield f"http://{address}", recorded[1]


def _wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"Prometheus does not become ready; its exit code: {process.poll()}")


def test_queries_of_prometheus_become_rows(
    stack: Stack, model: str, feed: Feed, prometheus: tuple[str, float], tmp_path: Path
) -> None:
    url, start = prometheus
    state = tmp_path / "state.json"
    state.write_text(json.dumps({"source": "prom", "seq": 1, "position": start - 60}))
    queries = ('yes=answer_share{answer="yes"}', "all=sum(answer_share)")
    code, text = feed("promql", model, url, *queries, "--state", str(state))
    assert code == 0, text

    shares = [each for each in values(stack, model, "yes") if not np.isnan(each)]
    np.testing.assert_allclose(shares[:60], [0.25 + minute / 1000 for minute in range(60)])
    np.testing.assert_allclose(values(stack, model, "all")[1], 1.002)
    (first, *_) = stack.parts.observations.read("default", model, after=0)
    assert read_batch(first.data, first.at).times[0] == start
    assert feed("promql", model, url, *queries, "--state", str(state)) == (0, f"0 rows sent to {model}\n")


@pytest.mark.parametrize(
    ("query", "said"),
    [("x=answer_share", "query x gives 2 series"), ("x=sum(", "query x: Prometheus says: 1:5: parse error")],
)
def test_a_query_that_makes_no_column_is_refused_in_words(
    model: str, feed: Feed, prometheus: tuple[str, float], query: str, said: str
) -> None:
    code, text = feed("promql", model, prometheus[0], query, "--back", "3h")
    assert (code, said in text) == (1, True), text


WATCHED = """
recipe: tabular
data: {source: sklearn://wine}
train: {epochs: 1, global_batch: 32}
monitor: {window: {by: count, rows: 50, minimum: 20, length: 1h}, features: [height]}
"""


def test_a_monitor_is_blind_while_prometheus_is_down_and_the_feed_goes_on_when_it_is_back(
    stack: Stack, recorded: tuple[Path, float], tmp_path: Path
) -> None:
    document = spec.dump(spec.parse(f"name: measured\n{WATCHED}"))
    stack.end(stack.place(stack.submit(name="measured", spec=document)))
    stack.store.put_fact("default", "measured", 1, "profile", PROFILE)
    monitors, address = stack.parts.monitors, f"127.0.0.1:{free_port()}"
    state, said = tmp_path / "state.json", tmp_path / "said"
    state.write_text(json.dumps({"source": "prom", "seq": 1, "position": recorded[1] - 60}))
    words = ["promql", "measured", f"http://{address}", 'height=answer_share{answer="yes"}', "--every", "1s"]
    command = [sys.executable, "-m", "orchestrator.cli.app", "monitor", "feed", *words, "--state", str(state)]
    env = {**os.environ, "EVERTRAIN_SERVER": stack.address, "EVERTRAIN_TOKEN": stack.admin}

    def until(reached: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.05)

    def status() -> str:
        while monitors.one_pass():
            pass
        return monitors.get("default", "measured").status

    with said.open("wb") as output:
        feed = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        assert status() == "waiting"
        until(lambda: f"Prometheus at http://{address} does not answer" in said.read_text())
        stack.clock.ahead_s += 7200
        assert status() == "blind"
        with Http(stack) as http:
            shown = http.get("/metrics")[1]
        assert 'evertrain_monitor_status{project="default",model="measured",status="blind"} 1' in shown.replace(
            "1.0", "1"
        )
        with answering(recorded[0], address):
            until(lambda: len(values(stack, "measured", "height")) >= 60)
            assert status() == "drift", "and no longer blind"
        until(lambda: said.read_text().count("trying again in 1s") >= 2)
    finally:
        feed.terminate()
        feed.wait(30)
    shares = values(stack, "measured", "height")
    np.testing.assert_allclose(shares[:60], [0.25 + minute / 1000 for minute in range(60)], err_msg="each of them once")
    assert feed.returncode != 0
