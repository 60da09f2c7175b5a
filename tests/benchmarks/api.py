"""The API under load: durable submissions a second, and a page of a long list.

    python -m tests.benchmarks.api [--quick]

The server is the real one (`python -m orchestrator.main server`, SQLite, `synchronous=FULL`), in a process of its own, and
so is each of the eight clients. Every pair is one spell of unary and one of batched submissions on a server of its own, and
alternating list calls to a server with 10,000 runs and one with 100,000.
"""

from __future__ import annotations

import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc

from orchestrator import spec
from orchestrator.core import lifecycle
from orchestrator.core.records import Submission
from orchestrator.ports import Change
from orchestrator.protocol.v1.generated import evertrain_pb2 as pb
from orchestrator.protocol.v1.generated import evertrain_pb2_grpc as rpc
from orchestrator.store import open_store
from tests.benchmarks.harness import Figure, arguments, median, report

CLIENTS = 8
SPELL_S, QUICK_SPELL_S = 4.0, 2.0
BATCH = 100
PAGE = 100
CALLS = 60  # list calls to each server in one pair
FEW, MANY = 10_000, 100_000
SPEC = '{"name": "bench", "recipe": "digits_cnn", "train": {"epochs": 1}, "resources": {"workers": 2, "cpu": 1}}'


@contextmanager
def server(data_dir: Path) -> Iterator[str]:
    """A server process on a free port; answers its address."""
    port, http_port = _free_ports(2)
    environment = os.environ | {
        "EVERTRAIN_DATA_DIR": str(data_dir),
        "EVERTRAIN_GRPC_PORT": str(port),
        "EVERTRAIN_HTTP_PORT": str(http_port),
        "EVERTRAIN_LOG_LEVEL": "WARNING",
    }
    process = subprocess.Popen([sys.executable, "-m", "orchestrator.main", "server"], env=environment)
    try:
        address = f"127.0.0.1:{port}"
        _wait_for(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    with grpc.insecure_channel(address) as channel:
        ready = grpc.channel_ready_future(channel)
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}: its error is above")
            with suppress(grpc.FutureTimeoutError):
                ready.result(timeout=0.2)
                return
    raise RuntimeError(f"the server on {address} does not answer")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as open_sockets:
        bound = [open_sockets.enter_context(socket.socket()) for _ in range(count)]
        for each in bound:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in bound]


def token(data_dir: Path) -> str:
    return (data_dir / "admin.token").read_text().strip()


# ---- submissions ----------------------------------------------------------------------------------------------------


def submissions_per_s(address: str, secret: str, batch: int, spell_s: float) -> float:
    """Acknowledged submissions a second of eight client processes, from the first call to the last answer."""
    command = [sys.executable, "-m", "tests.benchmarks.api", "--client", address, secret, str(batch), str(spell_s)]
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
    answers = [each.communicate(timeout=spell_s + 60)[0].split() for each in clients]
    if any(each.returncode for each in clients):
        raise RuntimeError("a client of the benchmark failed: its error is above")
    began, ended = min(float(each[1]) for each in answers), max(float(each[2]) for each in answers)
    return sum(int(each[0]) for each in answers) / (ended - began)


def client(address: str, secret: str, batch: int, spell_s: float) -> None:
    """One client process: submit until the spell is over, and print how many were acknowledged, and when."""
    metadata = (("authorization", f"Bearer {secret}"),)
    with grpc.insecure_channel(address) as channel:
        stub = rpc.RunsStub(channel)  # type: ignore[no-untyped-call]
        one = pb.SubmitRequest(spec=SPEC)
        many = pb.SubmitBatchRequest(submissions=[one] * batch)
        grpc.channel_ready_future(channel).result(timeout=30)
        print("connected", flush=True)
        sys.stdin.readline()
        done, began = 0, time.monotonic()
        while time.monotonic() - began < spell_s:
            if batch == 1:
                stub.Submit(one, metadata=metadata, timeout=30)
            else:
                stub.SubmitBatch(many, metadata=metadata, timeout=30)
            done += batch
        print(done, began, time.monotonic(), flush=True)


# ---- lists ----------------------------------------------------------------------------------------------------------


def fill(data_dir: Path, count: int) -> None:
    """That many runs in the store: nearly all have ended, as they do where 100,000 were submitted."""
    data_dir.mkdir(parents=True)
    store = open_store(f"sqlite:///{data_dir / 'evertrain.db'}", data_dir / "secrets.key")
    document = spec.dump(spec.parse(SPEC))
    try:
        for start in range(0, count, 1000):
            numbers = range(start, min(start + 1000, count))
            now = time.time()
            answers = store.submit([_submission(number, document, now) for number in numbers])
            ended = [
                lifecycle.cancel(each.run, by="bench", message="", now=now)
                for number, each in zip(numbers, answers, strict=True)
                if number % 100
            ]
            store.apply([Change(each.run, each.events) for each in ended if isinstance(each, lifecycle.Transition)])
    finally:
        store.close()


def _submission(number: int, document: dict[str, object], now: float) -> Submission:
    return Submission(f"run-{number:010d}", "default", f"bench-{number % 50}", document, "bench", now, "default", 50)


class Lister:
    """Pages of a list, from the newest run to the oldest and again."""

    def __init__(self, address: str, secret: str) -> None:
        self._channel = grpc.insecure_channel(address)
        self._stub = rpc.RunsStub(self._channel)  # type: ignore[no-untyped-call]
        self._metadata = (("authorization", f"Bearer {secret}"),)
        self._page = ""

    def seconds(self) -> float:
        began = time.perf_counter()
        request = pb.ListRunsRequest(page_size=PAGE, page=self._page)
        answer = self._stub.List(request, metadata=self._metadata, timeout=30)
        took = time.perf_counter() - began
        assert len(answer.runs) == PAGE
        self._page = answer.next_page
        return took

    def close(self) -> None:
        self._channel.close()


def p99(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98]


# ---- all of it ------------------------------------------------------------------------------------------------------


def measure(pairs: int, spell_s: float, root: Path) -> list[Figure]:
    with ExitStack() as stack:
        listers = {}
        for count in (FEW, MANY):
            fill(root / str(count), count)
            address = stack.enter_context(server(root / str(count)))
            listers[count] = Lister(address, token(root / str(count)))
            stack.callback(listers[count].close)
        unary, batched = [], []
        took: dict[int, list[float]] = {FEW: [], MANY: []}
        for lister in listers.values():
            for _ in range(20):  # a page cache that is cold is measured by nobody
                lister.seconds()
        for pair in range(pairs):
            data_dir = root / f"submit-{pair}"
            data_dir.mkdir()
            with server(data_dir) as address:
                unary.append(submissions_per_s(address, token(data_dir), 1, spell_s))
                batched.append(submissions_per_s(address, token(data_dir), BATCH, spell_s))
            for _ in range(CALLS):
                for count in random.Random(pair).sample((FEW, MANY), 2):
                    took[count].append(listers[count].seconds())
            print(f"pair {pair + 1}: unary {unary[-1]:.0f}/s, batched {batched[-1]:.0f}/s", flush=True)
    return [
        Figure("durable submissions, unary", median(unary), "1/s", 300.0, "higher"),
        Figure("durable submissions, batched", median(batched), "1/s", 3000.0, "higher"),
        Figure("list at 100,000 runs, median", median(took[MANY]) * 1e3, "ms"),
        Figure("list at 100,000 runs, p99", p99(took[MANY]) * 1e3, "ms", 20.0),
        Figure("list p99 at 100,000 over 10,000 runs", p99(took[MANY]) / p99(took[FEW]), "ratio", 1.5),
    ]


def main() -> None:
    if sys.argv[1:2] == ["--client"]:
        address, secret, batch, spell_s = sys.argv[2:]
        client(address, secret, int(batch), float(spell_s))
        return
    asked = arguments("durable submissions and long lists through the API")
    with tempfile.TemporaryDirectory(prefix="evertrain-bench-") as root:
        report("api", measure(asked.pairs, QUICK_SPELL_S if asked.quick else SPELL_S, Path(root)))


if __name__ == "__main__":
    main()
