"""From rows to arrays: what was fitted on the training part, applied to any rows, in training and when serving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainers.config import Data, Steps, section
from trainers.data.preparing import checks
from trainers.data.preparing.fitting import CATEGORIES, Moments, Statistics, numbers
from trainers.data.preparing.images import pixels
from trainers.data.preparing.roles import Roles
from trainers.data.preparing.splitting import PARTS
from trainers.data.preparing.tokens import encode, numbered, vocabulary_of
from trainers.errors import BadConfig

Arrays = dict[str, npt.NDArray[Any]]

_FENCES = 3.0  # interquartile ranges beyond the quartiles, where outliers begin: Tukey's outer fences


@dataclass(frozen=True)
class Scale:
    """One number: missing ones become `fill`, then it is held between `low` and `high`, then (x - shift) / scale."""

    name: str
    shift: float = 0.0
    scale: float = 1.0
    fill: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Fitted:
    """All that a transformation knows. It is plain JSON in the manifest."""

    roles: Roles
    steps: Steps
    scales: tuple[Scale, ...] = ()  # of each number column, or of each channel
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # values by number, from 1; 0 is unknown
    classes: tuple[Any, ...] | None = None  # values of the label by number, from 0
    vocabulary: tuple[str, ...] = ()  # units by number, from 2
    grey: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Fitted:
        scales = tuple(Scale(**each) for each in raw["scales"])
        roles = section(Roles, raw["roles"], "roles")
        steps = section(Steps, raw["steps"], "steps")
        categories = {name: tuple(values) for name, values in raw["categories"].items()}
        classes = None if raw["classes"] is None else tuple(raw["classes"])
        return cls(roles, steps, scales, categories, classes, tuple(raw["vocabulary"]), raw["grey"])


def fit(statistics: Statistics, roles: Roles, data: Data, grey: bool) -> Fitted:
    """Raises BadConfig on labels and categories that cannot be learned."""
    steps = data.steps or Steps()
    for name, counts in statistics.categories.items():
        if len(counts) > CATEGORIES:
            raise BadConfig("data.features", name, f"holds {len(counts)} different texts: leave it out, or tokenize it")
    vocabulary = vocabulary_of(statistics.units, steps.tokenize.vocabulary) if steps.tokenize else ()
    return Fitted(
        roles=roles,
        steps=steps,
        scales=_scales(statistics, roles, data, steps),
        categories={name: tuple(sorted(counts)) for name, counts in statistics.categories.items()},
        classes=_classes(statistics, roles),
        vocabulary=vocabulary,
        grey=grey,
    )


def _classes(statistics: Statistics, roles: Roles) -> tuple[Any, ...] | None:
    if roles.label is None or not roles.classes:
        return None
    known = statistics.labels[0]
    for part, counts in statistics.labels.items():
        if strange := [value for value in counts if value not in known]:
            raise BadConfig(
                "data.split",
                strange[0],
                f"is a class of {roles.label} in the {PARTS[part]} part, but of no row of training: split by "
                f"{{stratify: {roles.label}}}, or leave rare classes out",
            )
    return tuple(sorted(known))


def _scales(statistics: Statistics, roles: Roles, data: Data, steps: Steps) -> tuple[Scale, ...]:
    moments = statistics.numbers
    if moments is None:
        return ()
    names = roles.numbers or tuple(f"channel {each}" for each in range(len(moments.mean)))
    return tuple(_scale(place, name, moments, statistics.sample, data, steps) for place, name in enumerate(names))


def _scale(place: int, name: str, moments: Moments, sample: pa.Table, data: Data, steps: Steps) -> Scale:
    low, high = None, None
    if moments.count[place] == 0:
        raise BadConfig("data.features", name, "has no value in the training part: leave it out")
    column = name in (sample.column_names if sample is not None else ())
    known = numbers(sample, [name])[:, 0] if column else np.empty(0)
    known = known[np.isfinite(known)]
    mean, deviation = float(moments.mean[place]), float(moments.deviation[place])
    least, most = float(moments.low[place]), float(moments.high[place])
    if data.clean.outliers == "clip" and column:
        first, third = np.quantile(known, [0.25, 0.75])
        low, high = float(first - _FENCES * (third - first)), float(third + _FENCES * (third - first))
        held = known.clip(low, high)
        mean, deviation = float(held.mean()), float(held.std())
        least, most = max(least, low), min(most, high)
    shift, scale = {"standard": (mean, deviation), "range": (least, most - least), "none": (0.0, 1.0)}[steps.normalize]
    fills = {"mean": mean, "zero": 0.0}
    fill = float(np.median(known)) if data.clean.nulls == "median" and column else fills.get(data.clean.nulls)
    return Scale(
        name, shift, scale if scale > 1e-12 * max(1.0, abs(shift)) else 1.0, fill if column else None, low, high
    )


def apply(table: pa.Table, fitted: Fitted) -> Arrays:
    """The arrays of a table's rows, by name: `inputs`, `categories` or `tokens`, and `targets` where there is a label.

    Raises ValueError on what cannot be transformed.
    """
    roles, arrays = fitted.roles, Arrays()
    if roles.numbers:
        values = numbers(table, roles.numbers)
        for place, scale in enumerate(fitted.scales):
            values[:, place] = _scaled(values[:, place], scale)
        arrays["inputs"] = values.astype(np.float32)
    if roles.categories:
        columns = [_codes(table[name], fitted.categories[name]) + 1 for name in roles.categories]
        arrays["categories"] = np.stack(columns, axis=1).astype(np.int32)
    if roles.image is not None:
        size = fitted.steps.resize
        arrays["inputs"] = _channels(pixels(table, roles.image, size, fitted.grey), fitted)
    if roles.tensor is not None:
        arrays["inputs"] = _channels(checks.tensors(table, roles.tensor).astype(np.float32), fitted)
    if roles.text is not None and fitted.steps.tokenize is not None:
        how = fitted.steps.tokenize
        arrays["tokens"] = encode(table[roles.text].to_pylist(), how.unit, numbered(fitted.vocabulary), how.length)
    if roles.label is not None and roles.label in table.column_names:
        arrays["targets"] = _targets(table, roles.label, fitted)
    return arrays


def _scaled(values: npt.NDArray[np.float64], scale: Scale) -> npt.NDArray[np.float64]:
    if scale.fill is not None:
        values = np.where(np.isnan(values), scale.fill, values)
    if scale.low is not None:
        values = values.clip(scale.low, scale.high)
    return (values - scale.shift) / scale.scale


def _channels(values: npt.NDArray[np.float32], fitted: Fitted) -> npt.NDArray[np.float32]:
    shape = (1, -1, 1, 1) if values.ndim == 4 else (1,) * values.ndim
    shift = np.array([each.shift for each in fitted.scales], dtype=np.float32).reshape(shape)
    scale = np.array([each.scale for each in fitted.scales], dtype=np.float32).reshape(shape)
    return (values - shift) / scale


def _targets(table: pa.Table, label: str, fitted: Fitted) -> npt.NDArray[Any]:
    if fitted.classes is None:
        return numbers(table, [label])[:, 0].astype(np.float32)
    codes = _codes(table[label], fitted.classes)
    if (codes < 0).any():
        value = table[label][int(np.flatnonzero(codes < 0)[0])].as_py()
        raise ValueError(f"{value!r} is none of the classes of {label}: {', '.join(map(str, fitted.classes))}")
    return codes.astype(np.int32)


def _codes(column: pa.ChunkedArray, values: tuple[Any, ...]) -> npt.NDArray[np.int64]:
    """The place of each value among `values`; -1 for what is not there."""
    places = pc.index_in(column, value_set=pa.array(list(values), column.type))
    codes: npt.NDArray[np.int64] = places.fill_null(-1).to_numpy().astype(np.int64)
    return codes
