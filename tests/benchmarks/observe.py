"""Live traffic: rows a second made durable over gRPC, and what observing adds to one prediction.

    python -m tests.benchmarks.observe [--quick]

The server is the real one, in a process of its own. Two client processes build Arrow batches of 2,000 rows of 20 mixed
columns and send them, each on one stream; in the same pair, one process writes the same batches to a file and flushes it
once a batch, with no network and no checks. A prediction is a dot product in a loop, with an observer and without, in turn.
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil

from orchestrator import Observer, spec
from orchestrator.core.records import ModelVersion, Submission
from orchestrator.drift.batches import write_batch
from orchestrator.ports import Change
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from orchestrator.store import open_store
from tests.benchmarks.api import SPEC, server, token
from tests.benchmarks.harness import Figure, arguments, median, report

CLIENTS = 2
ROWS = 2_000
IN_FLIGHT = 8  # batches of a stream that are not answered yet
SPELL_S, QUICK_SPELL_S = 8.0, 4.0
PREDICTIONS = 20_000
MODEL = "served"
CITIES = [f"city-{number}" for number in range(50)]


def fill(data_dir: Path) -> None:
    """A store with one version of the model."""
    data_dir.mkdir(parents=True, exist_ok=True)
    store = open_store(f"sqlite:///{data_dir / 'evertrain.db'}", data_dir / "secrets.key")
    try:
        document = spec.dump(spec.parse(SPEC))
        run = store.submit([Submission("run-0000000001", "default", MODEL, document, "b", 1.0, "default", 50)])[0].run
        store.apply([Change(run, model=ModelVersion("default", MODEL, 0, run.id, "/seal", {}, 1.0))])
    finally:
        store.close()


def columns(generator: np.random.Generator, rows: int = ROWS) -> dict[str, Any]:
    """Fifteen numbers, five categories, and ours: one of a kind each time."""
    made: dict[str, Any] = {f"number-{n}": generator.normal(size=rows) for n in range(15)}
    made |= {f"category-{n}": [CITIES[code] for code in generator.integers(50, size=rows)] for n in range(5)}
    made["(request)"] = [f"request-{number}" for number in range(rows)]
    made["(time)"] = np.full(rows, time.time())
    made["(prediction)"] = ["yes"] * rows
    made["(confidence)"] = generator.uniform(size=rows)
    return made


# ---- rows a second --------------------------------------------------------------------------------------------------


def client(address: str, secret: str, spell_s: float) -> None:
    """One client process: send until the spell is over; prints how many rows were acknowledged, and when."""
    tables = [columns(np.random.default_rng(seed)) for seed in range(4)]
    metadata = (("authorization", f"Bearer {secret}"),)
    with grpc.insecure_channel(address) as channel:
        stub = rpc.MonitorsStub(channel)  # type: ignore[no-untyped-call]
        grpc.channel_ready_future(channel).result(timeout=30)
        print("connected", flush=True)
        sys.stdin.readline()
        began = time.monotonic()
        sent, answered = 0, 0

        def requests() -> Iterator[pb.ObserveRequest]:
            nonlocal sent
            for seq in itertools.count(1):
                if time.monotonic() - began >= spell_s:
                    return
                while sent - answered >= IN_FLIGHT:
                    time.sleep(0.0005)
                data = write_batch(tables[seq % len(tables)])
                sent += 1
                yield pb.ObserveRequest(model=MODEL, source=f"client-{os.getpid()}", seq=seq, kind="rows", data=data)

        for reply in stub.Observe(requests(), metadata=metadata):
            assert not reply.refused, reply.refused
            answered += 1
        print(answered * ROWS, began, time.monotonic(), flush=True)


def rows_per_s(address: str, secret: str, spell_s: float) -> float:
    command = [sys.executable, "-m", "tests.benchmarks.observe", "--client", address, secret, str(spell_s)]
    clients = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(CLIENTS)
    ]
    for each in clients:
        assert each.stdout is not None
        each.stdout.readline()  # connected
    for each in clients:
        assert each.stdin is not None
        each.stdin.write("go\n")
        each.stdin.flush()
    answers = [each.communicate(timeout=spell_s + 120)[0].split() for each in clients]
    if any(each.returncode for each in clients):
        raise RuntimeError("a client of the benchmark failed: its error is above")
    began, ended = min(float(each[1]) for each in answers), max(float(each[2]) for each in answers)
    return sum(int(each[0]) for each in answers) / (ended - began)


def server_cpu_s() -> float:
    """Of the one child process that is a server."""
    (found,) = [each for each in psutil.Process().children() if "orchestrator.main" in each.cmdline()]
    times = found.cpu_times()
    return float(times.user + times.system)


def file_rows_per_s(path: Path, spell_s: float) -> float:
    """The same batches, by one process, into a file that is flushed after each."""
    tables = [columns(np.random.default_rng(seed)) for seed in range(4)]
    began, rows = time.monotonic(), 0
    with path.open("wb") as file:
        for number in itertools.count():
            file.write(write_batch(tables[number % len(tables)]))
            file.flush()
            os.fsync(file.fileno())
            rows += ROWS
            if time.monotonic() - began >= spell_s:
                return rows / (time.monotonic() - began)
    raise AssertionError("the loop ends by itself")


# ---- a prediction ---------------------------------------------------------------------------------------------------


def serve(rows: list[dict[str, Any]], weights: np.ndarray[Any, Any], observer: Observer | None) -> tuple[float, float]:
    """Seconds and CPU seconds of one prediction, those of the observer's thread included."""
    began, cpu = time.perf_counter(), time.process_time()
    for row in rows:
        score = float(weights @ np.fromiter((row[f"number-{n}"] for n in range(15)), float, 15))
        if observer is not None:
            observer.record(row, prediction="yes" if score > 0 else "no", confidence=0.5)
    took = time.perf_counter() - began
    if observer is not None and not observer.flush(120):
        raise RuntimeError("the observer's rows do not arrive")
    return took / len(rows), (time.process_time() - cpu) / len(rows)


def added_us(address: str, secret: str, seed: int, sketches: bool) -> tuple[float, float]:
    """What observing added to a prediction: of the loop's time, and of the process's CPU time until all was sent."""
    generator = np.random.default_rng(seed)
    table = columns(generator, PREDICTIONS)
    names = [name for name in table if not name.startswith("(")]
    rows = [dict(zip(names, values, strict=True)) for values in zip(*(_listed(table[n]) for n in names), strict=True)]
    weights = generator.normal(size=15)
    with Observer(MODEL, server=address, token=secret, sketches=sketches) as observer:
        serve(rows[:1000], weights, observer)  # imports and connects
        measured = {arm: serve(rows, weights, arm) for arm in random.Random(seed).sample((None, observer), 2)}
        if observer.counts.sent != observer.counts.recorded:
            raise RuntimeError(f"not everything was sent: {observer.counts}")
    bare, observed = measured[None], measured[observer]
    return (observed[0] - bare[0]) * 1e6, (observed[1] - bare[1]) * 1e6


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


# ---- all of it ------------------------------------------------------------------------------------------------------


def measure(pairs: int, spell_s: float, root: Path) -> list[Figure]:
    sent, per_cpu, written, loop, cpu, sketch_cpu = [], [], [], [], [], []
    for pair in range(pairs):
        data_dir = root / f"server-{pair}"
        fill(data_dir)
        with server(data_dir) as address:
            secret = token(data_dir)
            rows_per_s(address, secret, 0.5)  # a server imports what reads rows with the first of them
            for arm in random.Random(pair).sample(("server", "file"), 2):
                if arm == "server":
                    before = server_cpu_s()
                    sent.append(rows_per_s(address, secret, spell_s))
                    per_cpu.append(sent[-1] * spell_s / (server_cpu_s() - before))
                else:
                    written.append(file_rows_per_s(root / f"file-{pair}", spell_s / 2))
            took, used = added_us(address, secret, pair, sketches=False)
            loop.append(took)
            cpu.append(used)
            sketch_cpu.append(added_us(address, secret, pair, sketches=True)[1])
        print(
            f"pair {pair + 1}: {sent[-1]:,.0f} rows/s, file {written[-1]:,.0f} rows/s; a prediction takes {took:.1f} us "
            f"more and {used:.1f} us of CPU, {sketch_cpu[-1]:.1f} with sketches",
            flush=True,
        )
    ratios = [ours / theirs for ours, theirs in zip(sent, written, strict=True)]
    return [
        Figure("rows ingested durably", median(sent), "1/s", 200_000.0, "higher"),
        Figure("rows for a CPU-second of the server", median(per_cpu), "1/s"),
        Figure("rows written to a file and flushed", median(written), "1/s"),
        Figure("ingested over written", median(ratios), "ratio"),
        Figure("added to a prediction", median(loop), "us", 20.0),
        Figure("CPU time for a prediction, sending included", median(cpu), "us", 20.0),
        Figure("CPU time for a prediction, sketches", median(sketch_cpu), "us"),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        address, secret, spell_s = sys.argv[2:]
        client(address, secret, float(spell_s))
        return
    asked = arguments("rows a second of live traffic, and what observing adds to a prediction")
    with tempfile.TemporaryDirectory(prefix="evertrain-bench-") as root:
        report("observe", measure(asked.pairs, QUICK_SPELL_S if asked.quick else SPELL_S, Path(root)))


if __name__ == "__main__":
    main()
