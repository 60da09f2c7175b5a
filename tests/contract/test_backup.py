"""A backup of a living server's directory, put back somewhere else."""

from __future__ import annotations

import io
import random
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.records import RunFilter
from orchestrator.errors import Refused, StorageFailed
from orchestrator.store import SqlStore, open_store
from orchestrator.store.backup import main, restore, save, send
from tests import builders
from tests.contract import postgres_server


def opened(directory: Path) -> SqlStore:
    return open_store(f"sqlite:///{directory / 'evertrain.db'}", directory / "secrets.key")


def submit(store: SqlStore, number: int) -> None:
    store.submit([builders.submission(run_id=f"run-{number:010d}", name=f"digits-{number}")])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "logs" / "run.log").write_text("step 1\n")
    (data / "observations" / "default" / "digits").mkdir(parents=True)
    (data / "observations" / "default" / "digits" / "00000001.obs").write_bytes(b"header\n")
    (data / "webhook.secret").write_text("signs\n")
    (data / "storage").mkdir()
    (data / "storage" / "shard").write_text("big")
    return data


@pytest.fixture
def store(data: Path) -> Iterator[SqlStore]:
    store = opened(data)
    submit(store, 0)
    store.put_secret("default", "HF_TOKEN", "hf_secret")
    yield store
    store.close()


def names(store: SqlStore) -> set[str]:
    return {run.name for run in store.runs(RunFilter("*"), limit=1000).runs}


def test_a_backup_of_a_server_at_work_holds_what_was_acknowledged_before_it(
    data: Path, store: SqlStore, tmp_path: Path
) -> None:
    stop, written = threading.Event(), [0]

    def work() -> None:
        while not stop.is_set():
            submit(store, written[-1] + 1)
            written.append(written[-1] + 1)

    working = threading.Thread(target=work)
    working.start()
    while len(written) < 10:
        pass
    acknowledged = list(written)
    save(data, tmp_path / "backup.tar.gz")
    stop.set()
    working.join()
    restore(tmp_path / "backup.tar.gz", tmp_path / "again")
    again = opened(tmp_path / "again")
    assert names(again) >= {f"digits-{number}" for number in acknowledged}
    assert again.secrets("default", ["HF_TOKEN"]) == {"HF_TOKEN": "hf_secret"}
    again.close()
    for name in ("logs/run.log", "observations/default/digits/00000001.obs", "webhook.secret"):
        assert (tmp_path / "again" / name).read_bytes() == (data / name).read_bytes()


def test_a_backup_is_private_and_leaves_checkpoints_out(data: Path, store: SqlStore, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    assert main(["save", str(data), str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        assert {each.partition("/")[0] for each in archive.getnames()} == {
            "evertrain.db", "secrets.key", "webhook.secret", "logs", "observations",
        }  # fmt: skip
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_backup_can_be_sent_and_takes_no_room_in_tmp(
    data: Path, store: SqlStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "no-room"))
    before = sorted(data.iterdir())
    stream = io.BytesIO()
    assert set(send(data, stream)) == {"evertrain.db", "secrets.key", "webhook.secret", "logs", "observations"}
    assert sorted(data.iterdir()) == before
    (tmp_path / "backup.tar.gz").write_bytes(stream.getvalue())
    restore(tmp_path / "backup.tar.gz", tmp_path / "again")
    again = opened(tmp_path / "again")
    assert names(again) == {"digits-0"}
    again.close()


def test_a_backup_that_is_sent_is_all_that_comes_out(data: Path, store: SqlStore) -> None:
    command = [sys.executable, "-m", "orchestrator.store.backup", "save", str(data), "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        assert "evertrain.db" in archive.getnames()
    assert b"evertrain.db" in done.stderr


def test_what_the_server_deletes_meanwhile_is_left_out(data: Path, store: SqlStore) -> None:
    (data / "logs" / "a.log").write_bytes(random.Random(0).randbytes(1_000_000))
    old = data / "logs" / "old.log"
    old.write_text("long ago\n")

    class Slow(io.BytesIO):
        def write(self, piece: Any, /) -> int:
            if self.tell() > 500_000:  # in the middle of a.log, when the names in the directory have been read
                old.unlink(missing_ok=True)
            return super().write(piece)

    stream = Slow()
    send(data, stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        assert {"logs/a.log", "logs/run.log"} <= set(archive.getnames())
        assert "logs/old.log" not in archive.getnames()


def test_a_directory_that_is_in_use_is_not_written_over(data: Path, store: SqlStore, tmp_path: Path) -> None:
    save(data, tmp_path / "backup.tar.gz")
    with pytest.raises(Refused, match="is not empty"):
        restore(tmp_path / "backup.tar.gz", data)
    assert names(store) == {"digits-0"}


def test_with_postgresql_a_dump_and_a_backup_of_the_directory_give_everything_back(
    data: Path, new_postgres_database: Callable[[], str], tmp_path: Path
) -> None:
    url, elsewhere = new_postgres_database(), new_postgres_database()
    store = open_store(url, data / "secrets.key")
    submit(store, 0)
    store.put_secret("default", "HF_TOKEN", "hf_secret")
    store.close()
    programs = postgres_server.binaries()
    assert programs is not None
    # The command of deploy/README.md, and its counterpart.
    dump = str(tmp_path / "evertrain.dump")
    subprocess.run([programs / "pg_dump", "--format=custom", f"--file={dump}", url], check=True)
    save(data, tmp_path / "backup.tar.gz")
    subprocess.run([programs / "pg_restore", "--no-owner", f"--dbname={elsewhere}", dump], check=True)
    restore(tmp_path / "backup.tar.gz", tmp_path / "again")

    again = open_store(elsewhere, tmp_path / "again" / "secrets.key")
    assert names(again) == {"digits-0"}
    assert again.secrets("default", ["HF_TOKEN"]) == {"HF_TOKEN": "hf_secret"}
    submit(again, 1)
    assert names(again) == {"digits-0", "digits-1"}
    again.close()


def test_half_a_backup_is_refused_and_leaves_nothing(
    data: Path, store: SqlStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "backup.tar.gz"
    save(data, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert main(["restore", str(file), str(tmp_path / "again")]) == 1
    assert "is not a whole backup" in capsys.readouterr().err
    assert list((tmp_path / "again").iterdir()) == []


def test_what_is_no_server_and_what_cannot_be_written_is_named(data: Path, store: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(Refused, match="holds no data of a server"):
        save(tmp_path / "empty", tmp_path / "backup.tar.gz")
    with pytest.raises(StorageFailed, match="cannot be written"):
        save(data, tmp_path / "nowhere" / "backup.tar.gz")
