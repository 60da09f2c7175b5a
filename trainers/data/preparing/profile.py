"""What a model was trained on and what it then predicted, small enough to be kept with a model version: drift is judged
against it.

The fact `profile` of a model version is this JSON object:

    {"format": 2,
     "rows": 1258,                                          of the training part
     "columns": ["dep_delay", "carrier"],                   numbers, then categories, as the model reads them
     "numbers": {"dep_delay": NUMBER, ...},                 columns of numbers, raw values; of images, what they look like
     "categories": {"carrier": CATEGORY, ...},
     "label": {"name": "delayed", ...NUMBER or CATEGORY},   absent where there is no label
     "channels": [MOMENTS, ...],                            of the pixels of images, and of arrays
     "looks": ["brightness", ...],                          those of `numbers` that tell of images (`looks`)
     "sample": SAMPLE,                                      rows of the training part; absent where there are no columns
     "predictions": {"part": "test", "rows": 270, "label": CATEGORY, "confidence": NUMBER, "calibration": CALIBRATION}}

    MOMENTS   {"count": 1250, "mean": 8.1, "deviation": 36.2, "min": -21.0, "max": 1301.0}     of finite values
    NUMBER    MOMENTS and {"missing": 8, "sketch": "BQEP..."}
    CATEGORY  {"count": 1258, "missing": 0, "values": {"UA": 411, ...}, "other": 3}
    SAMPLE    {"columns": ["dep_delay", "carrier"], "words": {"carrier": ["UA", ...]}, "values": "AABA..."}
    CALIBRATION  {"rows": [0, ..., 201], "right": [0, ..., 199]}     by 20 equal bins of confidence from 0 to 1

`sketch` is base64 of what datasketches' `kll_doubles_sketch.serialize()` gives (`trainers.data.preparing.sketch`): it
holds `count` values, merges with any other KLL sketch of doubles, and answers quantiles and CDFs. Its k is 800 (rank error
0.0035) for up to 10 numbers and less for more, so that a profile stays below half of what a result may carry.
`values` are the 100 most frequent ones as text, and their counts; `other` counts the rows of all others. `sample` has rows
drawn at random, as base64 of little-endian float32 row by row: a category is the place of its word among `words`, -1 where
it is none of them; what is missing is NaN.

`predictions` is what the final weights made of the test part (the validation part where there is none): how often
each class was predicted, in the words of `label`, with which probability, and how often that was right.
`trainers.predictions` adds it at the end of a run; prepared data do not have it, nor do tasks that predict no class.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainers.data.preparing.fitting import Moments, Statistics, numbers
from trainers.data.preparing.sketch import Floats, Sketch
from trainers.data.preparing.transform import Fitted

FORMAT = 2
_VALUES = 100
"""A category's most frequent values are counted one by one."""
_SAMPLE_CELLS, _SAMPLE_WORDS = 24_576, 15
"""The sample takes 128 kB of text at most."""
_SAMPLE_COLUMNS = 240  # of more there would be too few rows to tell anything


def profile_of(statistics: Statistics, fitted: Fitted) -> dict[str, Any]:
    """The profile of the training part, without predictions, as JSON holds it."""
    roles = fitted.roles
    profile: dict[str, Any] = {"format": FORMAT, "rows": statistics.rows, "numbers": {}, "categories": {}}
    profile["columns"] = [*roles.numbers, *roles.categories]
    for place, name in enumerate(roles.numbers):
        profile["numbers"][name] = _number(statistics, name, statistics.numbers, place)
    for name, moments in statistics.looks.items():
        profile["numbers"][name] = _number(statistics, name, moments, 0)
    for name in roles.categories:
        profile["categories"][name] = category(statistics.categories[name], statistics.nulls[name])
    if roles.label is not None:
        label = (
            category(statistics.labels[0], 0)
            if roles.classes
            else _number(statistics, roles.label, statistics.label_moments, 0)
        )
        profile["label"] = {"name": roles.label, **label}
    if 0 < len(profile["numbers"]) + len(roles.categories) <= _SAMPLE_COLUMNS:
        profile["sample"] = _sample(statistics, list(profile["numbers"]), profile["categories"])
    if statistics.looks:
        profile["looks"] = list(statistics.looks)
    if statistics.numbers is not None and not roles.numbers:
        profile["channels"] = [_moments(statistics.numbers, place) for place in range(len(fitted.scales))]
    return profile


def quantiles(number: Mapping[str, Any], shares: Floats) -> Floats:
    """Of a NUMBER of a profile: the values below which such shares of it lie. Raises ValueError."""
    return Sketch.from_text(number["sketch"]).quantiles(shares)


def number(values: Floats, k: int) -> dict[str, Any]:
    """A NUMBER of values [n], all at once; NaN is missing."""
    sketch, moments = Sketch(k), Moments.of(values[:, None])
    sketch.update(values)
    return _joined(moments, 0, int(np.isnan(values).sum()), sketch)


def category(counts: Counter[Any], missing: int) -> dict[str, Any]:
    """A CATEGORY of how often each value is there."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], str(pair[0])))
    return {
        "count": sum(counts.values()),
        "missing": missing,
        "values": {str(value): count for value, count in ordered[:_VALUES]},
        "other": sum(count for _, count in ordered[_VALUES:]),
    }


def _sample(statistics: Statistics, named: Sequence[str], categories: Mapping[str, Any]) -> dict[str, Any]:
    """A SAMPLE of the numbers that are named, and of categories."""
    columns = (*named, *categories)
    assert statistics.profiled is not None  # of columns that are there
    lowest = np.argsort(statistics.profiled_keys)[: _SAMPLE_CELLS // len(columns)]
    table = statistics.profiled.take(pa.array(lowest))
    words = {name: list(categories[name]["values"])[:_SAMPLE_WORDS] for name in categories}
    values = [numbers(table, [name])[:, 0] for name in named]
    values += [_codes(table[name].to_pylist(), words[name]) for name in categories]
    with np.errstate(over="ignore"):
        cells = np.stack(values, axis=1).astype("<f4")
    return {"columns": list(columns), "words": words, "values": base64.b64encode(cells.tobytes()).decode()}


def _codes(values: Sequence[Any], words: Sequence[str]) -> Floats:
    places = {word: float(place) for place, word in enumerate(words)}
    return np.array([np.nan if each is None else places.get(str(each), -1.0) for each in values])


def known_values(statistics: Statistics, name: str) -> npt.NDArray[np.float64]:
    """The finite values of a number among the sampled rows."""
    values = numbers(statistics.sample, [name])[:, 0]
    return values[np.isfinite(values)]


def _number(statistics: Statistics, name: str, moments: Moments | None, place: int) -> dict[str, Any]:
    assert moments is not None  # of columns that are there
    return _joined(moments, place, statistics.nulls[name], statistics.sketches[name])


def _joined(moments: Moments, place: int, missing: int, sketch: Sketch) -> dict[str, Any]:
    return {**_moments(moments, place), "missing": missing, "sketch": sketch.to_text()}


def _moments(moments: Moments, place: int) -> dict[str, Any]:
    return {
        "count": int(moments.count[place]),
        "mean": float(moments.mean[place]),
        "deviation": float(moments.deviation[place]),
        "min": float(moments.low[place]),
        "max": float(moments.high[place]),
    }
