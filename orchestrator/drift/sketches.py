"""What is kept of a column: constant in size, whatever the number of rows, and mergeable over replicas and windows.

Numbers: a KLL sketch (Karnin, Lang and Liberty, FOCS 2016; 8 bytes for each of some 3 k values), the first two moments, the
extreme values, and counts of what is missing or infinite. Categories: a Misra-Gries summary (1982; its merge: Agarwal et
al., "Mergeable summaries", PODS 2012). KLL flips coins of its own, so two sketches of the same rows may differ within their
rank error; every test takes that error into account.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import datasketches
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

NUMBER_K = 350
"""Of a window's sketches: 8 kB with a rank error of 0.0077."""
REFERENCE_K = 800
"""Of a reference's, of which there is one: 19 kB with a rank error of 0.0035."""
EXTREMES = 16
"""The least and the greatest values, kept as they are: what lies beyond a range is counted exactly, as no sketch can."""
MOST_VALUES = 256
"""Categories counted one by one; rarer ones are counted together."""
FORMAT = 1
_MAGIC = b"EVDS"
_ASKED = 8  # answers that a sketch remembers


class SketchError(ValueError):
    """Bytes or columns that are no summary of this kind; says what was found and what was expected."""


@dataclass(frozen=True)
class Coded:
    """A category column as Arrow's dictionaries have it: `words[codes[row]]`; a negative code is missing."""

    codes: npt.NDArray[np.integer[Any]]
    words: Sequence[str]


Column = npt.NDArray[Any] | Coded | Sequence[str | None]


@dataclass
class NumberSummary:
    """Of finite numbers. `spread` is the sum of squared deviations from the mean."""

    k: int = NUMBER_K
    count: int = 0
    missing: int = 0
    infinite: int = 0
    mean: float = 0.0
    spread: float = 0.0
    lowest: Floats = field(default_factory=lambda: np.empty(0))  # ascending, EXTREMES of them at most
    highest: Floats = field(default_factory=lambda: np.empty(0))
    sketch: Any = None
    _asked: dict[tuple[str, bytes], Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.sketch is None:
            self.sketch = datasketches.kll_doubles_sketch(self.k)

    @property
    def rows(self) -> int:
        return self.count + self.missing + self.infinite

    @property
    def low(self) -> float:
        return float(self.lowest[0]) if self.count else math.inf

    @property
    def high(self) -> float:
        return float(self.highest[-1]) if self.count else -math.inf

    @property
    def deviation(self) -> float:
        return math.sqrt(self.spread / self.count) if self.count else 0.0

    @property
    def rank_error(self) -> float:
        """Of any rank, with 99 % confidence; 0 while every value is still held."""
        return float(self.sketch.normalized_rank_error(False)) if self.sketch.is_estimation_mode() else 0.0

    def update(self, values: npt.NDArray[Any]) -> None:
        """Take in a one-dimensional array of numbers; NaN is missing."""
        self._asked.clear()
        numbers = np.require(
            values, np.float64, ("C", "W")
        )  # the sketch refuses what is read-only, as Arrow's columns are
        if numbers.ndim != 1:
            raise SketchError(f"a column of numbers has one dimension, this one has the shape {numbers.shape}")
        total = float(numbers.sum()) if len(numbers) else 0.0
        if not math.isfinite(total):
            numbers = self._finite_of(numbers)
            total = float(numbers.sum())
        if len(numbers) == 0:
            return
        self.sketch.update(numbers)
        mean = total / len(numbers)
        with np.errstate(over="ignore"):  # the square of an absurd value may be infinite
            spread = max(0.0, float(np.dot(numbers, numbers)) - total * mean)
            if spread < 1e-6 * abs(total * mean):  # the difference of two like numbers: take the longer way
                deviations = numbers - mean
                spread = float(np.dot(deviations, deviations))
        self._add_moments(len(numbers), mean, spread)
        self._keep_extremes(numbers, numbers)

    def _keep_extremes(self, low: Floats, high: Floats) -> None:
        """Only what passes the innermost kept value can be among the extremes: after the first batches, next to nothing."""
        if len(self.lowest) == EXTREMES:
            low, high = low[low < self.lowest[-1]], high[high > self.highest[0]]
        if len(low):
            joined = np.concatenate([self.lowest, low])
            self.lowest = np.sort(np.partition(joined, EXTREMES)[:EXTREMES] if len(joined) > EXTREMES else joined)
        if len(high):
            joined = np.concatenate([self.highest, high])
            self.highest = np.sort(np.partition(joined, -EXTREMES)[-EXTREMES:] if len(joined) > EXTREMES else joined)

    def _finite_of(self, numbers: Floats) -> Floats:
        finite = np.isfinite(numbers)
        missing = int(np.isnan(numbers).sum())
        self.missing += missing
        self.infinite += len(numbers) - int(finite.sum()) - missing
        return numbers[finite]

    def _add_moments(self, count: int, mean: float, spread: float) -> None:
        both, step = self.count + count, mean - self.mean
        if both:
            self.spread += spread + step * step * self.count * count / both
            self.mean += step * count / both
        self.count = both

    def merge(self, other: NumberSummary) -> None:
        self._asked.clear()
        self.missing += other.missing
        self.infinite += other.infinite
        if other.count:
            self.sketch.merge(other.sketch)
            self._add_moments(other.count, other.mean, other.spread)
            self._keep_extremes(other.lowest, other.highest)

    def ranks(self, at: Floats) -> Floats:
        """The share of values that are at most each of `at` (ascending, without repeats). Not to be written to."""
        if not self.count:
            return np.full(len(at), np.nan)
        return self._once("ranks", at, lambda: self.sketch.get_cdf(at, True)[:-1])

    def quantiles(self, shares: Floats) -> Floats:
        """The values below which such shares lie; NaN of nothing. Not to be written to."""
        if not self.count:
            return np.full(len(shares), np.nan)
        return self._once("quantiles", shares, lambda: self.sketch.get_quantiles(shares))

    def _once(self, what: str, at: Floats, ask: Callable[[], Any]) -> Floats:
        """A reference is asked the same of every window, and a window by each of its tests."""
        key = (what, at.tobytes())
        if (known := self._asked.get(key)) is None:
            if len(self._asked) >= _ASKED:
                del self._asked[next(iter(self._asked))]
            known = self._asked[key] = np.asarray(ask(), dtype=np.float64)
            known.flags.writeable = False
        else:
            self._asked[key] = self._asked.pop(key)  # the one that was asked least recently goes first
        return known

    def facts(self) -> dict[str, Any]:
        counts = {"k": self.k, "count": self.count, "missing": self.missing, "infinite": self.infinite}
        if not self.count:
            return counts
        return {**counts, "mean": self.mean, "spread": self.spread, "extremes": [len(self.lowest), len(self.highest)]}

    def blob(self) -> bytes:
        if not self.count:
            return b""
        return self.lowest.tobytes() + self.highest.tobytes() + bytes(self.sketch.serialize())

    @classmethod
    def read(cls, facts: Mapping[str, Any], blob: bytes) -> NumberSummary:
        """Raises SketchError, and whatever else a stranger's facts lead to."""
        _check_counts(facts, "k", "count", "missing", "infinite")
        if not facts["count"]:
            return cls(**facts)
        counts = dict(facts)
        low, high = counts.pop("extremes")
        if not (0 < low <= EXTREMES and 0 < high <= EXTREMES):
            raise SketchError(f"{low} and {high} extremes are kept of a column: 1 to {EXTREMES} are")
        if isinstance(counts["mean"], str) or counts["spread"] < 0:
            raise SketchError(f"a column has the mean {counts['mean']!r} and the spread {counts['spread']!r}")
        extremes = np.frombuffer(blob[: 8 * (low + high)], dtype=np.float64)
        sketch = datasketches.kll_doubles_sketch.deserialize(blob[8 * (low + high) :])
        summary = cls(**counts, lowest=extremes[:low], highest=extremes[low:], sketch=sketch)
        if summary.sketch.n != summary.count:
            raise SketchError(f"a sketch of {summary.sketch.n} values stands beside a count of {summary.count}")
        return summary


@dataclass
class CategorySummary:
    """Counts of the most frequent values. A value's true count lies between its count here and that plus `error`."""

    most: int = MOST_VALUES
    count: int = 0
    missing: int = 0
    error: int = 0
    values: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.count + self.missing

    @property
    def other(self) -> int:
        """Rows whose value is not among `values`, or not yet counted to one of them."""
        return self.count - sum(self.values.values())

    @property
    def rank_error(self) -> float:
        """By what share of the rows a value's count may be too low."""
        return self.error / self.count if self.count else 0.0

    def update(self, values: Coded | Iterable[str | None]) -> None:
        """Take in a column of texts; None, and a negative code, is missing."""
        counted = _coded_counts(values) if isinstance(values, Coded) else _counts(values)
        self.missing += counted.pop(None, 0)
        self._add(counted)

    def _add(self, counted: Mapping[Any, int]) -> None:
        for value, times in counted.items():
            self.count += times
            self.values[str(value)] = self.values.get(str(value), 0) + times
        self._shrink()

    def _shrink(self) -> None:
        if len(self.values) <= self.most:
            return
        cut = sorted(self.values.values(), reverse=True)[self.most]
        self.error += cut
        self.values = {value: times - cut for value, times in self.values.items() if times > cut}

    def merge(self, other: CategorySummary) -> None:
        self.missing += other.missing
        self.error += other.error
        lost = other.other
        self._add(other.values)
        self.count += lost

    def facts(self) -> dict[str, Any]:
        return {
            "most": self.most,
            "count": self.count,
            "missing": self.missing,
            "error": self.error,
            "values": self.values,
        }

    def blob(self) -> bytes:
        return b""

    @classmethod
    def read(cls, facts: Mapping[str, Any], blob: bytes) -> CategorySummary:
        """Raises SketchError, and whatever else a stranger's facts lead to."""
        _check_counts(facts, "most", "count", "missing", "error")
        _check_counts(facts["values"], *facts["values"])
        summary = cls(**facts)
        if summary.other < 0 or len(summary.values) > summary.most:
            raise SketchError(f"{len(summary.values)} values hold more than the {summary.count} rows of their column")
        return summary


def _check_counts(facts: Mapping[str, Any], *names: str) -> None:
    """Whoever adds to one that is no count would fail, long after it was taken in."""
    for name in names:
        if type(facts[name]) is not int or facts[name] < 0:
            raise SketchError(f"{name} of a column is {facts[name]!r}: a count is needed")


def _coded_counts(column: Coded) -> dict[str | None, int]:
    times = np.bincount(np.maximum(column.codes, -1) + 1, minlength=len(column.words) + 1)
    if len(times) > len(column.words) + 1:
        raise SketchError(f"code {len(times) - 2} is beyond the {len(column.words)} words of its dictionary")
    counted: dict[str | None, int] = {None: int(times[0])}
    for place in np.flatnonzero(times[1:]):
        word = str(column.words[int(place)])
        counted[word] = counted.get(word, 0) + int(times[place + 1])
    return counted


def _counts(values: Iterable[Any]) -> dict[Any, int]:
    counted: dict[Any, int] = Counter(values.tolist() if isinstance(values, np.ndarray) else values)
    for value in [each for each in counted if isinstance(each, float) and math.isnan(each)]:
        counted[None] = counted.get(None, 0) + counted.pop(value)
    return counted


Summary = NumberSummary | CategorySummary
_KINDS: Mapping[str, type[NumberSummary] | type[CategorySummary]] = {
    "number": NumberSummary,
    "category": CategorySummary,
}


def kind_of(summary: Summary) -> str:
    return "number" if isinstance(summary, NumberSummary) else "category"


@dataclass
class TableSummary:
    """Of all columns of some rows."""

    rows: int = 0
    columns: dict[str, Summary] = field(default_factory=dict)
    k: int = NUMBER_K

    def update(self, columns: Mapping[str, Column]) -> None:
        """Take in a batch: columns of one length by name. A column's kind is that of its first batch.

        A column that is not in a batch counts as missing in it: what a table lacks is told of, not passed over. Raises
        SketchError for columns of different lengths and for texts where numbers were; nothing is taken in then.
        """
        rows = _length(columns)
        read = {name: _readable(name, column, self.columns.get(name)) for name, column in columns.items()}
        for name, column in read.items():
            summary = self.columns.get(name)
            if summary is None:
                summary = self.columns[name] = self._empty(column)
                summary.missing = self.rows
            summary.update(column)
        for name in self.columns.keys() - columns.keys():
            self.columns[name].missing += rows
        self.rows += rows

    def _empty(self, column: Any) -> Any:
        return NumberSummary(k=self.k) if isinstance(column, np.ndarray) else CategorySummary()

    def merge(self, other: TableSummary) -> None:
        """As if this summary had also seen the other's rows. Raises SketchError where a column is of two kinds."""
        for name, summary in other.columns.items():
            mine = self.columns.get(name)
            if mine is not None and type(mine) is not type(summary):
                raise SketchError(f"column {name} is of kind {kind_of(mine)} here and {kind_of(summary)} there")
        for name, summary in other.columns.items():
            if name not in self.columns:
                self.columns[name] = self._twin(summary)
                self.columns[name].missing = self.rows
            self.columns[name].merge(summary)  # type: ignore[arg-type]  # of one kind: looked at above
        for name in self.columns.keys() - other.columns.keys():
            self.columns[name].missing += other.rows
        self.rows += other.rows

    def _twin(self, summary: Summary) -> Summary:
        return NumberSummary(k=self.k) if isinstance(summary, NumberSummary) else CategorySummary(most=summary.most)

    def to_bytes(self) -> bytes:
        """A JSON head of the counts, then the sketches one behind the other."""
        blobs = [summary.blob() for summary in self.columns.values()]
        head = {
            "format": FORMAT,
            "rows": self.rows,
            "k": self.k,
            "columns": [
                {"name": name, "kind": kind_of(summary), "bytes": len(blob), "facts": summary.facts()}
                for (name, summary), blob in zip(self.columns.items(), blobs, strict=True)
            ],
        }
        text = json.dumps(head, separators=(",", ":")).encode()
        return _MAGIC + struct.pack("<I", len(text)) + text + b"".join(blobs)

    @classmethod
    def from_bytes(cls, data: bytes) -> TableSummary:
        """The reverse of `to_bytes`. Raises SketchError for bytes of anything else: they may come from a stranger."""
        try:
            return cls._read(data)
        except SketchError:
            raise
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, struct.error, RuntimeError) as error:
            raise SketchError(f"these {len(data)} bytes are no summary of a table: {error}") from None

    @classmethod
    def _read(cls, data: bytes) -> TableSummary:
        if data[:4] != _MAGIC:
            raise SketchError(f"these {len(data)} bytes are no summary of a table: they begin with {data[:4]!r}")
        (length,) = struct.unpack_from("<I", data, 4)
        head, place = json.loads(data[8 : 8 + length]), 8 + length
        if head["format"] != FORMAT:
            raise SketchError(f"the summary has format {head['format']}, this version reads {FORMAT}")
        table = cls(rows=int(head["rows"]), k=int(head["k"]))
        for each in head["columns"]:
            summary = _KINDS[each["kind"]].read(each["facts"], data[place : place + each["bytes"]])
            table.columns[each["name"]] = summary
            place += each["bytes"]
        if place != len(data):
            raise SketchError(f"the summary should have {place} bytes and has {len(data)}: it was cut, or more follows")
        return table


def _length(columns: Mapping[str, Column]) -> int:
    lengths = {name: len(each.codes if isinstance(each, Coded) else each) for name, each in columns.items()}
    if len(set(lengths.values())) > 1:
        shortest, longest = min(lengths, key=lengths.__getitem__), max(lengths, key=lengths.__getitem__)
        raise SketchError(
            f"columns of one batch have one length: {shortest} has {lengths[shortest]} rows, {longest} {lengths[longest]}"
        )
    return next(iter(lengths.values()), 0)


def _readable(name: str, column: Column, known: Summary | None) -> Any:
    """The column as its summary takes it: an array of numbers, codes, or texts."""
    numeric = isinstance(column, np.ndarray) and column.dtype.kind in "fiub"
    if known is None or isinstance(known, NumberSummary) == numeric:
        return column if numeric or isinstance(column, Coded) else _texts(column)
    if isinstance(known, NumberSummary):
        raise SketchError(f"column {name} held numbers before and holds texts now")
    assert isinstance(column, np.ndarray)
    return column.astype(str).tolist()


def _texts(column: Any) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)
