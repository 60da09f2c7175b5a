"""Preparing data on a disk that is too small for them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trainers.config import Data, Steps
from trainers.data.prepare import prepare
from trainers.errors import StorageError


def test_a_full_disk_is_told_and_nothing_half_made_is_left(small_disk: Path, tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((300_000, 4, 4), dtype=np.float32)
    np.savez(tmp_path / "some.npz", x=x, y=np.arange(300_000) % 2)
    with pytest.raises(StorageError, match="No space left on device"):
        prepare(Data(str(tmp_path / "some.npz"), steps=Steps()), small_disk / "prepared")
    assert [each for each in (small_disk / "prepared").iterdir() if each.is_dir()] == []
