"""What an image looks like, in a few numbers: live images are watched by these, and a row stays small.

    brightness        mean of all pixels
    contrast          their standard deviation
    sharpness         variance of the Laplacian (Pertuz, Puig and Garcia 2013): low where an image is blurred
    lightest, darkest   share of the pixels that are as light, or as dark, as any of the image
    red, green, blue  means of the channels, of images that have three

All but the last are of the mean over the channels, and in the units of the pixels. A profile has the same numbers of the
training images (`trainers/data/preparing/looks.py`): a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

PLAIN, COLOURS = ("brightness", "contrast", "sharpness", "lightest", "darkest"), ("red", "green", "blue")
_PIXELS_AT_ONCE = 2**20
_CHANNELS = (1, 3, 4)


def looks(images: Sequence[Array | None]) -> dict[str, Floats]:
    """Of images [height, width] with channels first, last or none: each number by its name, [images]; NaN where there is no
    image. Raises ValueError for arrays of other dimensions.
    """
    rows = np.concatenate([_of_stack(each) for each in _alike(images)] or [np.empty((0, 8))])
    names = PLAIN if np.isnan(rows[:, len(PLAIN) :]).all() else PLAIN + COLOURS
    return {name: rows[:, place] for place, name in enumerate(names)}


def is_image(shape: Sequence[int]) -> bool:
    """Whether `looks` takes arrays of this shape."""
    return len(shape) == 2 or (len(shape) == 3 and (shape[2] in _CHANNELS or shape[0] in _CHANNELS))


def _alike(images: Sequence[Array | None]) -> Iterator[list[Array | None]]:
    """Neighbours of one shape, as many as are looked at together."""
    for shape, group in groupby(images, lambda each: None if each is None else each.shape):
        same = list(group)
        step = max(1, _PIXELS_AT_ONCE // max(1, int(np.prod(shape or (1,)))))
        yield from (same[start : start + step] for start in range(0, len(same), step))


def _of_stack(images: list[Array | None]) -> Floats:
    """[images, 8]"""
    made = np.full((len(images), len(PLAIN) + len(COLOURS)), np.nan)
    if not images or images[0] is None:
        return made
    stack = _channels_last(np.stack([each for each in images if each is not None]).astype(np.float32))
    grey = stack[..., :3].mean(axis=3)
    flat = grey.reshape(len(grey), -1)
    middle = 4 * grey[:, 1:-1, 1:-1]
    around = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    edges = (middle - around).reshape(len(grey), -1)
    made[:, 0], made[:, 1] = flat.mean(axis=1), flat.std(axis=1)
    made[:, 2] = edges.var(axis=1) if edges.shape[1] else 0.0
    made[:, 3] = (flat == flat.max(axis=1, keepdims=True)).mean(axis=1)
    made[:, 4] = (flat == flat.min(axis=1, keepdims=True)).mean(axis=1)
    if stack.shape[3] >= 3:
        made[:, 5:] = stack[..., :3].mean(axis=(1, 2))
    return made


def _channels_last(stack: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """[images, height, width, channels]"""
    if stack.ndim == 3:
        return stack[..., None]
    if stack.ndim == 4 and stack.shape[3] in _CHANNELS:
        return stack
    if stack.ndim == 4 and stack.shape[1] in _CHANNELS:
        return np.moveaxis(stack, 1, 3)
    raise ValueError(
        f"an image has the shape {stack.shape[1:]}: height and width are needed, and 1, 3 or 4 channels before or after "
        "them, if any"
    )
