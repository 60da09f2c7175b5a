"""Images in MNIST's format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from trainers.data.sources import read_labelled
from trainers.errors import BadConfig


def packed(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write(directory: Path, images: bytes, labels: bytes | None) -> str:
    (directory / "some-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    if labels is not None:
        (directory / "some-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return str(directory / "some-images-idx3-ubyte.gz")


PIXELS = np.arange(2 * 3 * 4).reshape(2, 3, 4)
GOOD = packed(PIXELS)
LABELS = packed(np.array([7, 1]))


def test_images_and_the_labels_beside_them_are_read(tmp_path: Path) -> None:
    read = read_labelled(write(tmp_path, GOOD, LABELS))
    assert np.allclose(read.inputs * 255, PIXELS)
    assert read.targets.tolist() == [7, 1]


def test_files_that_are_not_packed_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "images-idx3-ubyte").write_bytes(GOOD)
    (tmp_path / "labels-idx1-ubyte").write_bytes(LABELS)
    assert read_labelled(str(tmp_path / "images-idx3-ubyte")).targets.tolist() == [7, 1]


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (GOOD, None, "no such file: images need their labels beside them"),
        (GOOD, packed(np.array([7])), "holds 2 images, and some-labels-idx1-ubyte.gz 1 labels"),
        (GOOD[:-1], LABELS, "must hold 24 bytes as its head says, not 23"),
        (LABELS, LABELS, "must be an IDX file of bytes in 3 dimensions"),
        (b"", LABELS, "must be an IDX file of bytes"),
    ],
)
def test_broken_files_are_told(images: bytes, labels: bytes | None, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=words):
        read_labelled(write(tmp_path, images, labels))


def test_torn_archives_are_told(tmp_path: Path) -> None:
    source = write(tmp_path, GOOD, LABELS)
    Path(source).write_bytes(Path(source).read_bytes()[:-9])
    with pytest.raises(BadConfig, match="cannot be unpacked"):
        read_labelled(source)
