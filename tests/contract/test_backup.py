"""A backup of a living server's directory, put back somewhere else."""

from __future__ import annotations

import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.core.records import RunFilter
from orchestrator.errors import Refused, StorageFailed
from orchestrator.store import SqlStore, open_store
from orchestrator.store.backup import main, restore, save
from tests import builders


def opened(directory: Path) -> SqlStore:
    return open_store(f"sqlite:///{directory / 'evertrain.db'}", directory / "secrets.key")


def submit(store: SqlStore, number: int) -> None:
    store.submit([builders.submission(run_id=f"run-{number:010d}", name=f"digits-{number}")])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    (data / "logs").mkdir(parents=True)
    (data / "logs" / "run.log").write_text("step 1\n")
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
    assert (tmp_path / "again" / "logs" / "run.log").read_text() == "step 1\n"


def test_a_backup_is_private_and_leaves_checkpoints_out(data: Path, store: SqlStore, tmp_path: Path) -> None:
    file = tmp_path / "backup.tar.gz"
    assert main(["save", str(data), str(file)]) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        assert {each.partition("/")[0] for each in archive.getnames()} == {"evertrain.db", "secrets.key", "logs"}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_a_directory_that_is_in_use_is_not_written_over(data: Path, store: SqlStore, tmp_path: Path) -> None:
    save(data, tmp_path / "backup.tar.gz")
    with pytest.raises(Refused, match="is not empty"):
        restore(tmp_path / "backup.tar.gz", data)
    assert names(store) == {"digits-0"}


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
