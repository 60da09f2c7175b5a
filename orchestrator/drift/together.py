"""One window's rows against the reference's, all features at once: which columns can be compared, the test, and its words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from orchestrator.drift.multivariate import Classifier, Embedding, Kernel, empty, learn, mmd
from orchestrator.drift.rows import LEAST_ROWS, MOST_CELLS, PROJECTED, Cells, Layout, RowSample
from orchestrator.drift.sketches import Floats
from orchestrator.drift.tests import Evidence

Multivariate = Literal["classifier", "mmd", "none"]
TOGETHER = "all features together"
LEARNED_ROWS = 1_000
"""Whose embeddings stand for all before them."""
_SEED = 20_071
_GAPS_MOVED = 0.05
"""Share of a column's rows: where so many more, or fewer, are missing than before, that is told of the column itself, and
filling the gaps would only make another difference of it."""
_LEAST_COLUMNS = 2
_CORRELATION_MOVED = 0.2
_TOLD = 0.01  # a greater probability is no finding at any level


@dataclass
class RowReference:
    """Rows of what a model was trained on, and what was last learned of them."""

    layout: Layout
    rows: Cells  # [rows, columns]
    _learned: dict[tuple[Multivariate, frozenset[str]], Classifier | Embedding] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def learned(self, test: Multivariate, without: frozenset[str]) -> Classifier | Embedding:
        """The same for every window, unless a column comes to be missing."""
        if (test, without) not in self._learned:
            self._learned.clear()
            known = self.layout.described(self.rows, without)
            self._learned[test, without] = learn(known, _SEED) if test == "mmd" else Classifier.learned(known, _SEED)
        return self._learned[test, without]


@dataclass(frozen=True)
class Compared:
    """`evidence` None: they could not be compared, and `words` say why."""

    words: str
    evidence: Evidence | None = None


@dataclass
class Together:
    """What is compared as a whole: all features with the training rows, by the `test`, and each embedding, of which training
    leaves none, with those of the first rows that came.
    """

    reference: RowReference | None = None
    test: Multivariate = "none"
    embeddings: tuple[str, ...] = ()  # columns of vectors; with "none" for the features, by the classifier
    embedded: RowSample | None = None  # the first rows

    @property
    def layout(self) -> Layout | None:
        """Of the rows that windows keep; None: they keep none."""
        features = self.reference.layout if self.reference is not None and self.test != "none" else Layout(())
        layout = replace(features, vectors=self.embeddings)
        return layout if layout.width else None

    def compare(self, sample: RowSample | None, of_season: Cells | None = None) -> dict[str, Compared]:
        """A window's rows, by what was compared. `of_season`: what features are compared with in place of training rows."""
        named = [*([TOGETHER] if self.test != "none" else []), *(f"embedding {name}" for name in self.embeddings)]
        if self.reference is None and self.test != "none":
            found = {
                TOGETHER: Compared("not compared: the version's profile holds no rows, only summaries of its columns")
            }
        elif sample is None:
            return dict.fromkeys(named, Compared("not compared: replicas send summaries, and no rows"))
        else:
            found = {TOGETHER: self._features(sample, of_season)} if self.test != "none" else {}
        if sample is not None:
            found |= {f"embedding {name}": self._embedding(name, sample) for name in self.embeddings}
            self._learn(sample)
        return found

    def _features(self, sample: RowSample, of_season: Cells | None) -> Compared:
        assert self.reference is not None
        width, known = len(self.reference.layout.columns), self.reference
        if of_season is not None:
            known = RowReference(known.layout, of_season[:, :width])
        return compared(known, sample.rows[:, :width], self.test)

    def _embedding(self, name: str, sample: RowSample) -> Compared:
        layout, known = self.layout, self.embedded
        assert layout is not None
        if known is None or known.offered < LEARNED_ROWS:
            seen = known.offered if known is not None else 0
            return Compared(f"not compared: the first {LEARNED_ROWS:,} rows are learned, {seen:,} of them were seen")
        places = layout.places_of(name)
        numbers = Layout(tuple(f"{name} {place}" for place in range(PROJECTED)))
        reference = RowReference(numbers, known.rows[:, places])
        return compared(reference, sample.rows[:, places], self.test if self.test != "none" else "classifier")

    def _learn(self, sample: RowSample) -> None:
        if not self.embeddings or not len(sample.rows):
            return
        if self.embedded is None:
            self.embedded = RowSample(min(LEARNED_ROWS, 2 * MOST_CELLS // sample.rows.shape[1]))
        if self.embedded.offered < LEARNED_ROWS:
            self.embedded.merge(sample)


def compared(reference: RowReference, rows: Cells, test: Multivariate) -> Compared:
    """`rows`: a window's, in the places of the reference's."""
    known = reference.rows
    for whose, few in (("the reference", known), ("the window", rows)):
        if len(few) < LEAST_ROWS:
            return Compared(
                f"not compared: {len(few)} rows of {whose} are kept as rows, at least {LEAST_ROWS} are needed"
            )
    left_out = _gaps_moved(reference.layout, known, rows)
    if len(reference.layout.columns) - len(left_out) < _LEAST_COLUMNS:
        return Compared(f"not compared: fewer than {_LEAST_COLUMNS} columns have values as often as before")
    learned = reference.learned(test, frozenset(left_out))
    seen = reference.layout.described(rows, frozenset(left_out))
    if isinstance(learned, Embedding):
        window = empty(learned)
        window.update(learned, seen)
        evidence = mmd(learned, window)
        words = f"{evidence.effect:.3f} apart (maximum mean discrepancy; 0: not at all)"
    else:
        evidence = learned.against(seen, _SEED)
        area = evidence.effect + 0.5
        words = f"a classifier tells rows from the reference's, area under its curve {area:.3f} (0.5: it cannot)"
    without = f"; without {', '.join(left_out[:3])}{' and more' if len(left_out) > 3 else ''}" if left_out else ""
    told = evidence.p < _TOLD
    moved = _correlation_moved(reference, frozenset(left_out), seen, learned.kernel) if told else ""
    return Compared(words + without, replace(evidence, detail=words + moved + without))


def _gaps_moved(layout: Layout, known: Cells, rows: Cells) -> list[str]:
    more = np.abs(np.isnan(rows).mean(axis=0) - np.isnan(known).mean(axis=0))
    return [name for name, moved in zip(layout.columns, more, strict=True) if moved > _GAPS_MOVED]


def _correlation_moved(reference: RowReference, without: frozenset[str], seen: Floats, kernel: Kernel) -> str:
    """The two columns whose correlation changed most, where chance does not change one so much."""
    names = reference.layout.names(without)
    if len(names) < _LEAST_COLUMNS:
        return ""
    before, now = (
        _correlations(kernel.scaled(each)) for each in (reference.layout.described(reference.rows, without), seen)
    )
    change = np.abs(np.nan_to_num(now - before))
    one, other = np.unravel_index(int(change.argmax()), change.shape)
    if change[one, other] < max(_CORRELATION_MOVED, 4.0 / math.sqrt(min(len(seen), len(reference.rows)))):
        return ""
    return f"; correlation of {names[one]} and {names[other]} {before[one, other]:.2f} -> {now[one, other]:.2f}"


def _correlations(scaled: Floats) -> Floats:
    """NaN of what does not vary."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.corrcoef(scaled, rowvar=False))
