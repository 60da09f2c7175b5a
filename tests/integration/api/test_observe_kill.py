"""A server's process that is killed while replicas send: what it answered is there, and everything is there once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from orchestrator import Observer, spec
from orchestrator.adapters.observations import DiskObservationStore
from orchestrator.core.records import ModelVersion
from orchestrator.drift.batches import read_batch
from orchestrator.ports import Change
from orchestrator.store import open_store
from tests.builders import submission
from tests.integration.api.stack import SPEC

PATIENCE_S = 120.0


def register(data_dir: Path, model: str) -> None:
    store = open_store(f"sqlite:///{data_dir / 'evertrain.db'}", data_dir / "secrets.key")
    run = store.submit([submission(name=model, spec=spec.dump(spec.parse(SPEC)))])[0].run
    store.apply([Change(run, model=ModelVersion(run.project, model, 0, run.id, "/seal", {}, 1.0))])
    store.close()


def start(data_dir: Path, port: int) -> subprocess.Popen[bytes]:
    """Its HTTP side takes any port."""
    values = {"DATA_DIR": str(data_dir), "GRPC_PORT": str(port), "HTTP_PORT": "0", "LOG_LEVEL": "WARNING"}
    environment = os.environ | {f"EVERTRAIN_{name}": value for name, value in values.items()}
    return subprocess.Popen([sys.executable, "-m", "orchestrator.main", "server"], env=environment)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_server_that_is_killed_loses_nothing_that_it_answered_and_repeats_nothing(tmp_path: Path) -> None:
    register(tmp_path, "digits")
    port = free_port()
    server = start(tmp_path, port)
    try:
        admin = tmp_path / "admin.token"
        deadline = time.monotonic() + PATIENCE_S
        while not admin.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        token, sent_when_killed, recorded = admin.read_text().strip(), 0, 0
        with Observer("digits", server=f"127.0.0.1:{port}", token=token, every_s=0.001) as observer:
            while not sent_when_killed and time.monotonic() < deadline:
                if observer.counts.waiting < 500:
                    observer.record({"place": recorded})
                    recorded += 1
                else:
                    time.sleep(0.001)
                if observer.counts.sent > 200:
                    server.send_signal(signal.SIGKILL)
                    sent_when_killed = observer.counts.sent
            server.wait(30)
            kept = DiskObservationStore(tmp_path / "observations").rows("default", "digits")
            assert kept >= sent_when_killed > 200
            server = start(tmp_path, port)
            assert observer.flush(PATIENCE_S)
            assert observer.counts.sent == observer.counts.recorded == recorded
    finally:
        server.terminate()
        server.wait(30)

    batches = DiskObservationStore(tmp_path / "observations").read("default", "digits", after=0, limit_rows=10**9)
    places = np.concatenate([read_batch(each.data, each.at).columns["place"] for each in batches])
    assert places.tolist() == list(range(recorded))
