"""What ports.BundleStore promises, and the system clock beside it."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path

import pytest

from orchestrator.adapters.bundles import DiskBundleStore
from orchestrator.adapters.system_clock import SystemClock
from orchestrator.errors import NotFound, StorageFailed, TooLarge
from tests.contract.stores import at_once


@pytest.fixture
def bundles(tmp_path: Path) -> DiskBundleStore:
    return DiskBundleStore(tmp_path / "bundles", max_bytes=1000)


def files(tmp_path: Path) -> list[Path]:
    """What holds content, and not the marks of whose it is."""
    return [path for path in (tmp_path / "bundles").glob("??/*") if path.is_file()]


@pytest.mark.parametrize("data", [b"", b"code", b"\x00" * 1000])
def test_a_bundle_is_kept_under_its_hash_and_once(bundles: DiskBundleStore, tmp_path: Path, data: bytes) -> None:
    assert bundles.put("alpha", data) == hashlib.sha256(data).hexdigest() == bundles.put("alpha", data)

    assert bundles.get("alpha", hashlib.sha256(data).hexdigest()) == data
    (file,) = files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


def test_one_bundle_put_by_many_at_once_is_kept_once(bundles: DiskBundleStore, tmp_path: Path) -> None:
    hashes = at_once([partial(bundles.put, "alpha", b"code")] * 8)

    assert len(set(hashes)) == 1
    assert len(files(tmp_path)) == 1
    assert bundles.get("alpha", hashes[0]) == b"code"


def test_a_bundle_over_the_limit_is_refused_and_leaves_nothing(bundles: DiskBundleStore, tmp_path: Path) -> None:
    with pytest.raises(TooLarge, match="1,001 bytes, 1,000 are allowed"):
        bundles.put("alpha", b"x" * 1001)

    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["0" * 64, "", "../../etc/passwd", "A" * 64, "0" * 63])
def test_what_was_never_put_is_not_found(bundles: DiskBundleStore, name: str) -> None:
    with pytest.raises(NotFound):
        bundles.get("*", name)


def test_a_bundle_is_seen_by_the_projects_that_put_it_and_by_no_other(bundles: DiskBundleStore, tmp_path: Path) -> None:
    sha256 = bundles.put("alpha", b"code")

    assert (bundles.has("alpha", sha256), bundles.has("*", sha256), bundles.has("beta", sha256)) == (True, True, False)
    with pytest.raises(NotFound, match="ships its code"):
        bundles.get("beta", sha256)
    bundles.put("beta", b"code")
    assert bundles.get("beta", sha256) == b"code"
    assert len(files(tmp_path)) == 1


def test_whose_a_bundle_was_goes_with_it(bundles: DiskBundleStore, tmp_path: Path) -> None:
    bundles.put("alpha", b"code")
    kept = bundles.put("alpha", b"more code")

    bundles.prune(time.time() + 60, keep={kept})
    assert [path.name for path in (tmp_path / "bundles").glob("projects/*/*")] == [kept]


def test_a_damaged_bundle_is_never_handed_out_and_can_be_put_again(bundles: DiskBundleStore, tmp_path: Path) -> None:
    sha256 = bundles.put("alpha", b"code")
    files(tmp_path)[0].write_bytes(b"c0de")

    with pytest.raises(StorageFailed, match="damaged"):
        bundles.get("alpha", sha256)
    bundles.put("alpha", b"code")
    assert bundles.get("alpha", sha256) == b"code"


def test_a_disk_that_does_not_take_it_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "bundles").write_text("not a directory")

    with pytest.raises(StorageFailed, match="cannot be written"):
        DiskBundleStore(tmp_path / "bundles").put("alpha", b"code")


def test_the_monotonic_clock_never_goes_back() -> None:
    clock = SystemClock()
    readings = [clock.monotonic_ns() for _ in range(1000)]

    assert readings == sorted(readings)
    assert clock.now() > 1.7e9
