"""Encoded images as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from trainers.data.preparing.checks import decoded


def pixels(table: pa.Table, column: str, size: tuple[int, int] | None, grey: bool) -> npt.NDArray[np.float32]:
    """Images [rows, channels, height, width] within 0 and 1, one channel where `grey`, else red, green and blue.

    `size` is the height and width that they are resized to; without it they must be of one size already.
    """
    images = []
    for image in _decoded(table, column, grey):
        if size is not None and (image.height, image.width) != size:
            image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        images.append(np.asarray(image, dtype=np.float32) / 255)
    stacked: npt.NDArray[np.float32] = np.stack(images)
    return stacked[:, None] if grey else np.ascontiguousarray(np.moveaxis(stacked, -1, 1))


def originals(table: pa.Table, column: str, grey: bool) -> list[npt.NDArray[Any]]:
    """Images as they came, each [height, width] where `grey`, else with red, green and blue last, from 0 to 255."""
    return [np.asarray(image) for image in _decoded(table, column, grey)]


def _decoded(table: pa.Table, column: str, grey: bool) -> Iterator[Image.Image]:
    for body in table[column]:
        image = decoded(body.as_py())
        if image is None:
            raise ValueError(
                f"an image of column {column} cannot be decoded any more: did the source change meanwhile?"
            )
        yield image.convert("L" if grey else "RGB")
