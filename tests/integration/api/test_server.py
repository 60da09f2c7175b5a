"""The servers themselves: ports, limits, deadlines, TLS, restarts; and the HTTP side."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Client
from orchestrator.api.http import HttpServer
from orchestrator.api.scraping import READ_ONE_BY_ONE
from orchestrator.api.server import GrpcServer
from orchestrator.api.status import DeadlinePassed
from orchestrator.core.records import Role
from orchestrator.core.runs import Run
from orchestrator.errors import EvertrainError, Refused, Unauthenticated, Unavailable
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import Metrics
from tests.certificates import self_signed
from tests.integration.api.http_side import Http
from tests.integration.api.stack import SPEC, Stack


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", 0))
        occupied.listen()
        yield occupied.getsockname()[1]


def with_settings(stack: Stack, **settings: Any) -> Any:
    return replace(stack.parts, settings=Settings(**{**stack.settings.model_dump(), **settings}))


def test_a_taken_port_says_which_and_what_to_do(stack: Stack, taken: int) -> None:
    async def grpc_start() -> None:
        await GrpcServer(with_settings(stack, grpc_port=taken)).start()

    async def http_start() -> None:
        await HttpServer(with_settings(stack, http_port=taken), Metrics(stack.settings), Http(stack).alerts).start()

    for start, variable in ((grpc_start, "EVERTRAIN_GRPC_PORT"), (http_start, "EVERTRAIN_HTTP_PORT")):
        with pytest.raises(Refused, match=rf"(?s)127\.0\.0\.1:{taken}.*{variable}"):
            stack.on_loop(start())


def test_a_second_server_on_the_port_of_the_first_is_refused(stack: Stack) -> None:
    async def start() -> None:
        await GrpcServer(with_settings(stack, grpc_port=stack.server.port)).start()

    with pytest.raises(Refused, match="evertrain down"):
        stack.on_loop(start())


def test_half_of_tls_is_refused(stack: Stack, tmp_path: Path) -> None:
    async def start(**settings: Any) -> None:
        await GrpcServer(with_settings(stack, **settings)).start()

    with pytest.raises(Refused, match="EVERTRAIN_TLS_KEY"):
        stack.on_loop(start(tls_cert=tmp_path / "cert.pem"))
    with pytest.raises(Refused, match=r"cert\.pem|key\.pem"):
        stack.on_loop(start(tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem"))


def test_with_a_certificate_calls_are_encrypted_and_checked(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    with Stack(tmp_path / "data", tls_cert=cert, tls_key=key) as stack:
        with Client(f"localhost:{stack.server.port}", stack.admin, ca_cert=cert) as client:
            assert client.submit(SPEC).state == "QUEUED"
        with Client(f"localhost:{stack.server.port}", stack.admin) as plain, pytest.raises(Unavailable):
            plain.create_token("x", Role.VIEWER)


def test_a_renewed_certificate_is_served_without_a_restart_and_a_broken_one_never(tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    with Stack(tmp_path / "data", tls_cert=cert, tls_key=key) as stack, Http(stack) as http:

        def served() -> set[str]:
            ports = (stack.server.port, http.server.port)
            return {ssl.get_server_certificate(("127.0.0.1", port), timeout=20).strip() for port in ports}

        first, first_key = cert.read_text(), key.read_bytes()
        assert served() == {first.strip()}
        cert.write_text(first[:100])
        assert served() == {first.strip()}
        self_signed(tmp_path, days=30)
        renewed_key = key.read_bytes()
        key.write_bytes(first_key)
        assert served() == {first.strip()}, "its key is not there yet"
        key.write_bytes(renewed_key)
        assert served() == {cert.read_text().strip()}
        with Client(f"localhost:{stack.server.port}", stack.admin, ca_cert=cert) as client:
            assert client.submit(SPEC).state == "QUEUED"
        trusting = ssl.create_default_context(cafile=str(cert))
        with urllib.request.urlopen(
            f"https://localhost:{http.server.port}/metrics", timeout=20, context=trusting
        ) as told:
            shown = re.search(
                rb"^evertrain_certificate_expiry_timestamp_seconds ([0-9.e+]+)$", told.read(), re.MULTILINE
            )
    assert shown is not None
    assert float(shown[1]) == pytest.approx(time.time() + 30 * 86_400, abs=300)


def test_a_certificate_with_the_key_of_another_is_refused(stack: Stack, tmp_path: Path) -> None:
    cert, key = self_signed(tmp_path)
    kept = key.read_bytes()
    self_signed(tmp_path)
    key.write_bytes(kept)

    async def start() -> None:
        await GrpcServer(with_settings(stack, tls_cert=cert, tls_key=key)).start()

    with pytest.raises(Refused, match="is not the key of the first certificate"):
        stack.on_loop(start())


def test_a_call_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    release = threading.Event()
    with Stack(tmp_path, unary_deadline_s=0.2) as stack, stack.client() as client:
        stack.store.clusters = stack.store.runs = lambda *a, **k: release.wait(20)  # type: ignore[method-assign,assignment]
        try:
            with pytest.raises(DeadlinePassed, match="look before you repeat"):
                next(client.list())
        finally:
            release.set()


def test_a_bug_is_an_internal_error_without_details(tmp_path: Path) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the secret is hunter2")

    with Stack(tmp_path) as stack, stack.client() as client:
        stack.store.runs = broken  # type: ignore[method-assign,assignment]
        with pytest.raises(EvertrainError, match="incident") as told:
            next(client.list())
    assert "hunter2" not in str(told.value)


def test_a_client_waits_out_a_restart_and_submits_once(tmp_path: Path) -> None:
    first = Stack(tmp_path)
    with first:
        port, admin = first.server.port, first.admin
    answers: list[Any] = []
    away = threading.Event()

    def submit() -> None:
        with Client(f"127.0.0.1:{port}", admin) as client:
            pause = client._calls._pause
            client._calls._pause = lambda pause_s: away.set() or pause(pause_s)  # type: ignore[method-assign,func-returns-value]
            answers.append(client.submit(SPEC, idempotency_key="once"))

    thread = threading.Thread(target=submit)
    thread.start()
    assert away.wait(20), "the client meets a closed port first"
    second = Stack(tmp_path)
    second.settings = Settings(data_dir=tmp_path, grpc_port=port, http_port=0)
    with second, second.client() as client:
        thread.join(30)
        assert [run.id for run in client.list()] == [answers[0].id]
        assert second.admin == admin


def test_a_watch_goes_on_over_a_restart(tmp_path: Path) -> None:
    seen: list[int] = []
    first = Stack(tmp_path)
    with first:
        port, admin = first.server.port, first.admin
        client = Client(f"127.0.0.1:{port}", admin)
        run: Run = first.submit()
        updates = client.watch(run.id)
        seen += [event.seq for event in next(updates).events]
    second = Stack(tmp_path)
    second.settings = Settings(data_dir=tmp_path, grpc_port=port, http_port=0)
    with second:
        second.parts.commands.cancel("*", run.id, by="ada")
        for update in updates:
            seen += [event.seq for event in update.events]
    assert seen == [1, 2]
    client.close()


def test_no_server_is_unavailable_with_advice() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Client(f"127.0.0.1:{port}", "evt_x") as client, pytest.raises(Unavailable, match="evertrain up"):
        client.create_token("x", Role.VIEWER)  # never tried again by itself


def test_a_wrong_token_is_not_tried_again(stack: Stack) -> None:
    with Client(stack.address, "evt_wrong") as client, pytest.raises(Unauthenticated):
        client.get("x")


def test_deadlines_of_the_client_hold(stack: Stack) -> None:
    with Client(stack.address, stack.admin, timeout_s=1e-6) as client, pytest.raises(DeadlinePassed):
        client.get("x")


# ---- HTTP -----------------------------------------------------------------------------------------------------------


def test_health_and_readiness_need_no_token(stack: Stack) -> None:
    with Http(stack) as http:
        assert http.get("/healthz") == (200, "ok\n")
        assert http.get("/readyz") == (200, "ok\n")
        assert http.get("/nothing")[0] == 404


def test_a_store_that_does_not_answer_is_not_ready(tmp_path: Path) -> None:
    def away(*args: object) -> None:
        raise Unavailable("the database at /srv/secret does not answer")

    with Stack(tmp_path) as stack, Http(stack) as http:
        stack.store.clusters = away  # type: ignore[method-assign,assignment]
        status, text = http.get("/readyz")
        assert (status, http.get("/healthz")[0]) == (503, 200)
        assert "/srv/secret" not in text


def test_metrics_are_open_on_loopback(stack: Stack) -> None:
    stack.submit("metered")
    with Http(stack) as http:
        status, text = http.get("/metrics")
    assert status == 200
    assert 'evertrain_runs{state="QUEUED"}' in text


def test_metrics_want_a_viewer_of_every_project_elsewhere(stack: Stack) -> None:
    with Http(stack, metrics_without_token=False) as http:
        assert http.get("/metrics")[0] == 401
        assert http.get("/metrics", "evt_wrong")[0] == 401
        assert http.get("/metrics", stack.token("alpha", Role.ADMIN))[0] == 403
        assert http.get("/metrics", stack.agent)[0] == 403
        assert http.get("/metrics", stack.token("*", Role.VIEWER))[0] == 200


def test_runs_from_before_a_restart_are_on_metrics_and_go_when_they_end(stack: Stack) -> None:
    run = stack.place(stack.submit("metered", name="older"))
    with Http(stack) as http:
        shown = f'run="{run.id}"'
        assert shown in http.get("/metrics")[1]
        stack.end(run)
        text = http.get("/metrics")[1]
        assert f'evertrain_run_state{{project="metered",{shown},name="older",state="SUCCEEDED"}} 1.0' in text
        assert http.metrics.living() & {run.id} == set()


def test_more_living_runs_than_series_are_not_read_again_at_each_scrape(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        stack.place(stack.submit("metered"))
    with Http(stack, metrics_runs=2) as http:
        http.get("/metrics")
        shown, reads, run = http.metrics.living(), [], stack.store.run
        monkeypatch.setattr(stack.store, "run", lambda *names: reads.append(names) or run(*names))
        http.get("/metrics")
        assert (http.metrics.living(), reads) == (shown, [])
        assert len(shown) == 2


def test_many_runs_from_before_a_restart_are_read_at_once(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    placed = {stack.place(stack.submit("many")).id for _ in range(READ_ONE_BY_ONE + 1)}
    reads: list[Any] = []
    monkeypatch.setattr(stack.store, "run", lambda *names: reads.append(names))
    with Http(stack) as http:
        http.get("/metrics")
        assert placed <= http.metrics.living()
    assert reads == []


def test_reads_go_on_while_every_stream_is_open(client: Client) -> None:
    run = client.submit(SPEC)
    watches = [client.watch(run.id) for _ in range(50)]
    for each in watches:
        next(each)
    assert client.get(run.id).state == "QUEUED"
    client.cancel(run.id)


def test_the_channel_survives_an_error(client: Client) -> None:
    for _ in range(3):
        with pytest.raises(EvertrainError):
            client.get("run-nosuch")
    assert client.submit(SPEC).id
