"""Images in IDX files, the format of MNIST: one file of images, and one of labels beside it."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trainers.errors import BadConfig

_IMAGES, _LABELS = "images-idx3", "labels-idx1"  # in the names of the two files
_UNSIGNED_BYTE = 8


def is_idx(source: str) -> bool:
    """Whether the name is that of a file of images, such as train-images-idx3-ubyte.gz."""
    return _IMAGES in source.rpartition("/")[2]


def read_idx(images: Path) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Images [n, height, width] within 0 and 1, and their labels [n], from the file beside it whose name says
    labels-idx1 in place of images-idx3. Raises BadConfig."""
    labels = images.with_name(images.name.replace(_IMAGES, _LABELS))
    pixels, classes = _array(images, dimensions=3), _array(labels, dimensions=1)
    if len(pixels) != len(classes):
        raise BadConfig(
            "data.source", str(images), f"holds {len(pixels)} images, and {labels.name} {len(classes)} labels"
        )
    return (pixels / 255).astype(np.float32), classes.astype(np.int64)


def _array(path: Path, dimensions: int) -> npt.NDArray[np.uint8]:
    """Two zero bytes, the type, the number of dimensions, each dimension as a big-endian word, then the bytes."""
    if not path.is_file():
        raise BadConfig("data.source", str(path), "no such file: images need their labels beside them")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise BadConfig("data.source", str(path), f"cannot be unpacked: {error}") from error
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise BadConfig("data.source", str(path), f"must be an IDX file of bytes in {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    expected_bytes = int(np.prod(shape, dtype=np.int64))
    if len(content) - start != expected_bytes:
        raise BadConfig(
            "data.source", str(path), f"must hold {expected_bytes} bytes as its head says, not {len(content) - start}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
