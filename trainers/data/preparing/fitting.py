"""The second pass: what the transformations need to know of the training part, and nothing of the others.

Statistics are gathered piece by piece and merged. Means and variances are merged exactly (Chan, Golub and LeVeque,
"Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979); quantiles come from the rows whose
content has the lowest hashes: a uniform sample that does not depend on how the rows are cut into pieces, and all of them
where there are not more than `SAMPLE_ROWS`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainers.config import Data
from trainers.data.preparing import checks, survey
from trainers.data.preparing.hashing import hash_rows
from trainers.data.preparing.images import originals, pixels
from trainers.data.preparing.looks import is_image, looks
from trainers.data.preparing.roles import Roles
from trainers.data.preparing.sketch import Sketch, k_of
from trainers.data.preparing.splitting import DROPPED, Parts
from trainers.data.preparing.tokens import units_of
from trainers.data.reading.formats import Fragment
from trainers.data.sampler import Unsigned

SAMPLE_ROWS = 65_536
PROFILED_ROWS = 1_500
CATEGORIES = 10_000
"""A category of more values is an identifier: it is refused."""

Floats = npt.NDArray[np.float64]
Keys = TypeVar("Keys", Unsigned, Floats)


@dataclass
class Moments:
    """Number, mean and variance of some series [k], one each."""

    count: Floats
    mean: Floats
    squares: Floats  # sum of the squared deviations from the mean
    low: Floats
    high: Floats

    @classmethod
    def of(cls, values: Floats) -> Moments:
        """Of `values` [n, k], where NaN stands for none."""
        known = np.isfinite(values)
        count = known.sum(axis=0).astype(np.float64)
        mean = np.where(known, values, 0.0).sum(axis=0) / np.maximum(count, 1)
        squares = np.where(known, (values - mean) ** 2, 0.0).sum(axis=0)
        low = np.where(known, values, np.inf).min(axis=0, initial=np.inf)
        high = np.where(known, values, -np.inf).max(axis=0, initial=-np.inf)
        return cls(count, mean, squares, low, high)

    def merged(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        difference = other.mean - self.mean
        squares = self.squares + other.squares + difference**2 * self.count * share
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Moments(count, self.mean + difference * share, squares, low, high)

    @property
    def deviation(self) -> Floats:
        """Standard deviation of each series."""
        result: Floats = np.sqrt(self.squares / np.maximum(self.count, 1))
        return result


@dataclass
class Statistics:
    """Of the training part, but for `labels`, which are of every part."""

    rows: int = 0
    numbers: Moments | None = None  # of `Roles.numbers`, or of a tensor's or image's channels
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    units: Counter[str] = field(default_factory=Counter)  # of text
    labels: dict[int, Counter[Any]] = field(default_factory=dict)  # by part
    label_moments: Moments | None = None  # of a label that is a number
    nulls: Counter[str] = field(default_factory=Counter)
    looks: dict[str, Moments] = field(default_factory=dict)  # of images: what they look like, in numbers, each alone
    sketches: dict[str, Sketch] = field(default_factory=dict)  # of those, of number columns, and of a label that is one
    sample: pa.Table | None = None  # plain columns of the rows with the lowest hashes
    sample_keys: Unsigned = field(default_factory=lambda: np.zeros(0, dtype=np.uint64))
    profiled: pa.Table | None = None  # numbers, looks and categories of rows drawn at random, each by itself
    profiled_keys: Floats = field(default_factory=lambda: np.zeros(0))


def gather(piece: Fragment, parts: Parts, roles: Roles, data: Data, grey: bool) -> Statistics:
    """Statistics of one fragment. `parts` [rows] says which rows are whose."""
    total, start = Statistics(), 0
    for raw, place in survey.places(piece):
        table, _ = checks.typed(raw, data, place)
        mine = parts[start : start + table.num_rows]
        start += table.num_rows
        if roles.label is not None and roles.classes:
            for part in set(mine.tolist()) - {DROPPED}:
                chosen = table.filter(pa.array(mine == part))
                total.labels.setdefault(part, Counter()).update(survey.label_counts(chosen, roles.label))
        train = table.filter(pa.array(mine == 0))
        if train.num_rows:
            total = merged(total, _of_table(train, roles, data, grey))
    return total


def merged(one: Statistics, other: Statistics) -> Statistics:
    """Of both. `one` is used up."""
    for part, counts in other.labels.items():
        one.labels.setdefault(part, Counter()).update(counts)
    for name, values in other.categories.items():
        one.categories.setdefault(name, Counter()).update(values)
    for name, sketch in other.sketches.items():
        if name in one.sketches:
            one.sketches[name].merge(sketch)
        else:
            one.sketches[name] = sketch
    for name, moments in other.looks.items():
        one.looks[name] = one.looks[name].merged(moments) if name in one.looks else moments
    one.rows += other.rows
    one.units.update(other.units)
    one.nulls.update(other.nulls)
    one.numbers = _both(one.numbers, other.numbers)
    one.label_moments = _both(one.label_moments, other.label_moments)
    one.sample, one.sample_keys = _lowest(
        [each.sample for each in (one, other)], np.concatenate([one.sample_keys, other.sample_keys]), SAMPLE_ROWS
    )
    one.profiled, one.profiled_keys = _lowest(
        [each.profiled for each in (one, other)],
        np.concatenate([one.profiled_keys, other.profiled_keys]),
        PROFILED_ROWS,
    )
    return one


def _both(one: Moments | None, other: Moments | None) -> Moments | None:
    if one is None or other is None:
        return one or other
    return one.merged(other)


def _lowest(tables: Sequence[pa.Table | None], keys: Keys, most: int) -> tuple[pa.Table | None, Keys]:
    known = [each for each in tables if each is not None]
    if not known:
        return None, keys
    table = pa.concat_tables(known)
    if len(keys) > most:
        places = np.sort(np.argpartition(keys, most)[:most])
        return table.take(pa.array(places)), keys[places]
    return table, keys


def _of_table(table: pa.Table, roles: Roles, data: Data, grey: bool) -> Statistics:
    plain = [*roles.numbers, *roles.categories, *((roles.label,) if roles.label else ())]
    plain += [roles.text] if roles.text else []
    keys = hash_rows(table, roles.content)
    total = Statistics(rows=table.num_rows)
    total.sample, total.sample_keys = _lowest([table.select(plain)], keys, SAMPLE_ROWS)
    seen = _looks(table, roles, grey)
    total.looks = {name: Moments.of(values[:, None]) for name, values in seen.items()}
    total.sketches = _sketches(table, roles, seen)
    if (watched := table.select([*roles.numbers, *roles.categories]) if not seen else pa.table(seen)).num_columns:
        # Not by the hash of their content: equal rows would all be in the sample or none, and few values make many equal.
        drawn = np.random.default_rng(int(keys.sum(dtype=np.uint64))).random(table.num_rows)
        total.profiled, total.profiled_keys = _lowest([watched], drawn, PROFILED_ROWS)
    if roles.numbers:
        total.numbers = Moments.of(numbers(table, roles.numbers))
    elif roles.tensor is not None or roles.image is not None:
        total.numbers = _channel_moments(table, roles, data, grey)
    for name in roles.categories:
        counts = survey.label_counts(table, name)
        total.categories[name] = Counter({value: count for value, count in counts.items() if value is not None})
    if roles.text is not None and data.steps is not None and data.steps.tokenize is not None:
        for text in table[roles.text]:
            total.units.update(units_of(text.as_py(), data.steps.tokenize.unit))
    if roles.label is not None and not roles.classes:
        total.label_moments = Moments.of(numbers(table, [roles.label]))
    total.nulls.update({name: int(mask.sum()) for name, mask in checks.missing(table, roles.content).items()})
    return total


def _looks(table: pa.Table, roles: Roles, grey: bool) -> dict[str, Floats]:
    """What the images look like; nothing of what is none."""
    if roles.image is not None:
        return looks(originals(table, roles.image, grey))
    if roles.tensor is not None and is_image(shape := table.schema.field(roles.tensor).type.shape):
        return looks(list(checks.tensors(table, roles.tensor).reshape(-1, *shape)))
    return {}


def _sketches(table: pa.Table, roles: Roles, seen: Mapping[str, Floats]) -> dict[str, Sketch]:
    names = [*roles.numbers, *seen, *((roles.label,) if roles.label and not roles.classes else ())]
    sketches = {name: Sketch(k_of(len(names))) for name in names}
    for name, sketch in sketches.items():
        sketch.update(seen[name] if name in seen else numbers(table, [name])[:, 0])
    return sketches


def numbers(table: pa.Table, columns: Sequence[str]) -> Floats:
    """Columns as one array [rows, columns]; what is missing or infinite is NaN."""
    result = np.empty((table.num_rows, len(columns)))
    for place, name in enumerate(columns):
        column = pc.cast(table[name], pa.float64(), safe=False).fill_null(np.nan)
        result[:, place] = column.to_numpy()
    result[~np.isfinite(result)] = np.nan
    return result


def _channel_moments(table: pa.Table, roles: Roles, data: Data, grey: bool) -> Moments:
    """Of each channel of the images, or of all elements where an array has no channels."""
    if roles.image is not None:
        values = pixels(table, roles.image, data.steps.resize if data.steps else None, grey).astype(np.float64)
    else:
        values = checks.tensors(table, roles.tensor or "").astype(np.float64)
    channels = values.shape[1] if values.ndim == 4 else 1
    last = np.moveaxis(values, 1, -1) if values.ndim == 4 else values
    return Moments.of(last.reshape(-1, channels))
