"""What tests of several folders need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.small_disk import mount, unmount


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    why_not = mount(disk)
    if why_not:
        pytest.skip(f"mounting a small tmpfs is not permitted here: {why_not}")
    yield disk
    unmount(disk)
