"""What takes long says that it goes on: a silent rank would be ended as one that hangs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from trainers import storage as module
from trainers.data.loader import Batch, Tensors
from trainers.evaluation import evaluate
from trainers.layout import Degrees
from trainers.parallel import Place
from trainers.storage import LocalStorage, ObjectStorage, digest
from trainers.weights_only import WeightsOnlyEngine

BLOCK_BYTES = 4 * 2**20


class Signs:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


class Engine:
    def eval(self) -> None: ...

    def train(self) -> None: ...


class Loader:
    def evaluation(self, examples: Tensors) -> Iterator[Batch]:
        for value in examples.columns["x"]:
            yield {"x": value.reshape(1), "weight": torch.ones(1)}


class Task:
    def measure(self, model: Any, batch: Batch) -> dict[str, torch.Tensor]:
        return {"error": batch["x"]}


def test_an_evaluation_gives_a_sign_for_each_batch() -> None:
    signs, examples = Signs(), Tensors({"x": torch.tensor([1.0, 2.0, 6.0])})
    parts: Any = (Place(0, 1, Degrees()), Engine(), Task(), Loader(), examples)
    assert evaluate(*parts, "val_", signs) == {"val_error": 3.0}
    assert signs.count == 3


def test_hashing_gives_a_sign_for_each_block(tmp_path: Path) -> None:
    signs = Signs()
    (tmp_path / "shard").write_bytes(bytes(2 * BLOCK_BYTES + 1))
    digest(tmp_path / "shard", signs)
    assert signs.count == 3


def test_writing_and_reading_a_checkpoint_file_give_signs(tmp_path: Path) -> None:
    signs = Signs()
    engine = WeightsOnlyEngine(0, signs)
    engine.save({str(number): torch.zeros(1000) for number in range(20)}, str(tmp_path / "state.pt"))
    assert engine.problem is None
    assert signs.count >= 20
    written = signs.count
    engine.load(str(tmp_path / "state.pt"))
    assert signs.count > written


def test_a_copy_to_another_disk_gives_a_sign_for_each_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system here")
    source = other / f"evertrain-test-{tmp_path.name}-{time.monotonic_ns()}"
    signs, content = Signs(), bytes(range(256)) * (3 * BLOCK_BYTES // 256)
    try:
        source.write_bytes(content)
        LocalStorage(tmp_path, signs).publish(source, "shard")
    finally:
        source.unlink()
    assert (tmp_path / "shard").read_bytes() == content
    assert signs.count == 3


class SlowBucket:
    """Carries a file in parts, with pauses."""

    def __init__(self, *, parts: int) -> None:
        self._parts = parts

    def put_file(self, source: str, target: str, callback: Any) -> None:
        for _ in range(self._parts):
            time.sleep(0.05)
            callback.relative_update(1)

    def get_file(self, source: str, target: str, callback: Any) -> None:
        time.sleep(0.2)
        raise FileNotFoundError(source)


@pytest.fixture
def looking_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.01)


@pytest.mark.usefixtures("looking_often")
def test_an_upload_gives_signs_while_its_parts_arrive(tmp_path: Path) -> None:
    signs = Signs()
    (tmp_path / "shard").write_bytes(b"weights")
    ObjectStorage("s3://runs", SlowBucket(parts=6), "runs", signs).publish(tmp_path / "shard", "shard")
    assert 3 <= signs.count <= 7
    assert not (tmp_path / "shard").exists()


@pytest.mark.usefixtures("looking_often")
def test_a_transfer_that_does_not_move_gives_none(tmp_path: Path) -> None:
    signs = Signs()
    assert ObjectStorage("s3://runs", SlowBucket(parts=0), "runs", signs).fetch("shard", tmp_path) is None
    assert signs.count == 0
