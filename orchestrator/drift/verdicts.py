"""One verdict for each window: what moved, by how much, since when, and how sure that is.

Errors are controlled over everything that is looked at. Over time: window t may spend alpha / (zeta(3/2) t^(3/2)) of the
probability alpha of ever raising a false alarm; these sum to alpha, and the union bound holds although all windows are judged
against one reference (alpha-spending: Lan and DeMets 1983; online: Tian and Ramdas 2021). Over features, and over the spans
of an adaptive window: Benjamini and Hochberg (1995) at that level; where nothing has moved, its first rejection is Simes'
test (1986) of all of them. Significant is not yet important: an effect must also reach `Policy.least_effect`. And one window
is not yet a change: it must last `persistence` windows, each of which shows it by itself.
"""

from __future__ import annotations

import datetime
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import numpy as np

from orchestrator.drift.distributions import more_often
from orchestrator.drift.sketches import CategorySummary, NumberSummary, Summary, TableSummary, kind_of
from orchestrator.drift.tests import Evidence, deciding, describing, robust_deviation
from orchestrator.drift.windows import Window

_ZETA = 2.612375348685488  # of 3/2: the sum of t^(-3/2)
_CORROBORATES = 0.1
_BY_CHANCE = 1e-6
_MODERATE, _MAJOR = 0.1, 0.2
_JOINT = ("c2st", "mmd")
_MANY = 1 / 3
"""A share of features moved together that makes a change one grade more severe."""


class Status(enum.StrEnum):
    """What a window is judged to be. A stream without rows is blind: that is no sign of stability."""

    BLIND = "blind"
    TOO_FEW = "too_few"
    STABLE = "stable"
    SUSPECTED = "suspected"  # something moved, and has not yet lasted
    DATA_FAULT = "data_fault"  # the data are broken, rather than the world changed
    DRIFT = "drift"


class Severity(enum.IntEnum):
    NONE = 0
    MINOR = 1
    MODERATE = 2
    MAJOR = 3


Nature = Literal["drift", "data"]
_DATA = ("missing", "range", "schema")
_GONE = "is no longer there"
_TOLD = 5


@dataclass(frozen=True)
class Policy:
    """`alpha`: the probability of ever raising a false alarm against one reference. `least_effect`: of a distribution, as the
    largest distance of distribution functions or of shares (0.05: a level moved by an eighth of its deviation), and of all
    features together as their tests tell it;
    `least_share`: of rows missing, out of range or of new categories, as a difference.
    """

    alpha: float = 0.01
    persistence: int = 2
    least_rows: int = 200
    least_effect: float = 0.05
    least_share: float = 0.002


@dataclass(frozen=True)
class Streak:
    """How long something has been seen without a break."""

    windows: int
    since: float


@dataclass(frozen=True)
class History:
    """What judgements remember of one another; begins anew with each reference."""

    judged: int = 0
    streaks: Mapping[str, Streak] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Something that moved. `evidence` is of the test that decided; `words` tell it to people. What all features show
    together is one hypothesis among those of the features, and spends of their level what one of them does.
    """

    feature: str
    test: str  # "distribution", "missing", "range", "new_categories", "schema", or what was judged beside the features
    evidence: Evidence
    severity: Severity
    streak: Streak
    words: str

    @property
    def nature(self) -> Nature:
        return "data" if self.test in _DATA else "drift"


@dataclass(frozen=True)
class Verdict:
    """On the window [start, end]. `evidence`: every test of every feature, whatever came of it."""

    start: float
    end: float
    rows: int
    status: Status
    severity: Severity
    findings: tuple[Finding, ...]
    evidence: Mapping[str, tuple[Evidence, ...]]
    level: float
    words: str


@dataclass(frozen=True)
class _Hypothesis:
    """One of the family: it decides by `p`, over all spans; `alone` is the newest window's own. Few are put into words."""

    feature: str
    test: str
    evidence: Evidence
    p: float
    alone: float
    since: float
    words: Callable[[], str]

    @property
    def key(self) -> str:
        return f"{self.feature}/{self.test}"


def judge(
    reference: TableSummary,
    spans: Sequence[Window],
    history: History,
    policy: Policy,
    beside: Mapping[str, Evidence] | None = None,
    *,
    describe: bool = True,
) -> tuple[Verdict, History]:
    """Judge the newest window, `spans[0]`, and the longer spans that end with it.

    `beside`: evidence that is not of one feature (performance, all features at once), by name; it joins the family of
    tests. Too few rows leave the history as it is: nothing was looked at. `describe`: the evidence also has the tests that
    decide nothing, which take half of the time.
    """
    newest = spans[0]
    if newest.rows < policy.least_rows:
        return _not_judged(newest, policy), history
    judged = history.judged + 1
    level = policy.alpha / (_ZETA * judged**1.5)
    columns = newest.table.columns
    tests = {name: deciding(known, columns[name]) for name, known in reference.columns.items() if name in columns}
    family = list(_family(reference, spans, tests, beside or {}))
    held = [each for each in _rejected(family, level) if _matters(each, policy) and each.alone <= _CORROBORATES]
    streaks = {each.key: _longer(history.streaks.get(each.key), each.since) for each in held}
    findings = [*_schema(reference, newest), *(_finding(each, streaks[each.key]) for each in held)]
    findings.sort(key=lambda each: (-each.severity, each.evidence.p, each.feature))
    status = _status(findings, policy)
    severity = _severity(findings, len(reference.columns))
    evidence = {
        name: (*each, *(describing(reference.columns[name], columns[name]) if describe else ()))
        for name, each in tests.items()
    }
    words = _summary(status, severity, findings, newest, policy)
    verdict = Verdict(newest.start, newest.end, newest.rows, status, severity, tuple(findings), evidence, level, words)
    return verdict, History(judged, streaks)


def _not_judged(window: Window, policy: Policy) -> Verdict:
    status = Status.TOO_FEW if window.rows else Status.BLIND
    words = f"not judged: {window.rows} rows, at least {policy.least_rows} are needed"
    if status is Status.BLIND:
        words = f"blind: no rows between {_time(window.start)} and {_time(window.end)}"
    return Verdict(window.start, window.end, window.rows, status, Severity.NONE, (), {}, 0.0, words)


def _family(
    reference: TableSummary,
    spans: Sequence[Window],
    newest: Mapping[str, Sequence[Evidence]],
    beside: Mapping[str, Evidence],
) -> Iterator[_Hypothesis]:
    for name, known in reference.columns.items():
        seen: dict[str, list[tuple[Evidence, Window]]] = {}
        for span in spans:
            live = span.table.columns.get(name)
            tests = newest.get(name, ()) if span is spans[0] else deciding(known, live) if live else ()
            for test, evidence in _decisive(tests):
                seen.setdefault(test, []).append((evidence, span))
        for test, each in seen.items():
            evidence, span = min(each, key=lambda one: one[0].p)
            alone = next((one.p for one, tested in each if tested is spans[0]), 1.0)
            words = partial(_moved, name, test, evidence, known, span.table.columns[name])
            yield _Hypothesis(name, test, evidence, min(1.0, evidence.p * len(spans)), alone, span.start, words)
    for name, evidence in beside.items():
        words = partial(_as_whole, name, evidence)
        yield _Hypothesis(name, evidence.test, evidence, evidence.p, evidence.p, spans[0].start, words)


def _decisive(tests: Sequence[Evidence]) -> Iterator[tuple[str, Evidence]]:
    """As one hypothesis each; of two tests of a distribution, the smaller probability counts twice (Bonferroni)."""
    known = {each.test: each for each in tests}
    if "ks" in known:
        yield "distribution", replace(known["ks"], p=min(1.0, 2 * min(known["ks"].p, known["rank_sum"].p)))
    for each in tests:
        if each.test == "chi_squared":
            yield "distribution", each
        elif each.test not in ("ks", "rank_sum"):
            yield each.test, each


def _rejected(family: Sequence[_Hypothesis], level: float) -> list[_Hypothesis]:
    """Benjamini and Hochberg: the k smallest, k the largest with p(k) <= k level / m."""
    ordered = sorted(family, key=lambda each: each.p)
    last = max((k for k, each in enumerate(ordered, 1) if each.p <= k * level / len(ordered)), default=0)
    return ordered[:last]


def _matters(hypothesis: _Hypothesis, policy: Policy) -> bool:
    if hypothesis.test in ("distribution", *_JOINT):
        return abs(hypothesis.evidence.effect) >= policy.least_effect
    if hypothesis.test in ("missing", "range", "new_categories"):
        return abs(hypothesis.evidence.effect) >= policy.least_share
    return True


def _longer(streak: Streak | None, since: float) -> Streak:
    return Streak(1, since) if streak is None else Streak(streak.windows + 1, streak.since)


def _finding(hypothesis: _Hypothesis, streak: Streak) -> Finding:
    effect = abs(hypothesis.evidence.effect)
    severity = Severity.MAJOR if effect >= _MAJOR else Severity.MODERATE if effect >= _MODERATE else Severity.MINOR
    return Finding(hypothesis.feature, hypothesis.test, hypothesis.evidence, severity, streak, hypothesis.words())


def _schema(reference: TableSummary, window: Window) -> Iterator[Finding]:
    """Columns that came, went or changed their kind: no statistics are needed."""
    rows, columns = window.rows, window.table.columns
    came = {name: _folded(name) for name in sorted(columns.keys() - reference.columns.keys())}
    for name, known in reference.columns.items():
        live = columns.get(name)
        if live is None:
            # A column of which no row has a value may not be sent at all: where it is mostly missing, that is chance.
            if more_often(rows, rows, known.missing, known.rows) >= _BY_CHANCE:
                continue
            folded = _folded(name)
            misspelt = next((each for each, alike in came.items() if alike == folded), None)
            came.pop(misspelt or "", None)
            words = f"{name} {_GONE}" + (f": is it what comes as {misspelt!r} now?" if misspelt else "")
            yield _of_schema(name, words, window, rows, reference.rows)
        elif live.missing < live.rows and known.missing < known.rows and type(live) is not type(known):
            words = f"{name} was a {kind_of(known)} and is a {kind_of(live)} now"
            yield _of_schema(name, words, window, rows, reference.rows)
    for name in came:
        yield _of_schema(name, f"{name} is new: the model was not trained with it", window, rows, reference.rows)


def _folded(name: str) -> str:
    """Alike for names that differ in capitals, blanks and punctuation."""
    return "".join(filter(str.isalnum, name.casefold())) or name


def _of_schema(name: str, words: str, window: Window, n: int, m: int) -> Finding:
    severity = Severity.MINOR if "is new" in words else Severity.MAJOR
    return Finding(name, "schema", Evidence("schema", 1.0, 0.0, n, m), severity, Streak(1, window.start), words)


def _status(findings: Sequence[Finding], policy: Policy) -> Status:
    if any(each.test == "schema" and each.severity is Severity.MAJOR for each in findings):
        return Status.DATA_FAULT  # whatever moved beside it: a model that is not told what it needs answers otherwise
    lasting = [each for each in findings if each.streak.windows >= policy.persistence]
    if any(each.nature == "drift" for each in lasting):
        return Status.DRIFT
    if any(each.nature == "data" for each in lasting):
        return Status.DATA_FAULT
    return Status.SUSPECTED if any(each.test != "schema" for each in findings) else Status.STABLE


def _severity(findings: Sequence[Finding], features: int) -> Severity:
    worst = max((each.severity for each in findings), default=Severity.NONE)
    moved = {each.feature for each in findings if each.nature == "drift" and each.test not in _JOINT}
    many = len(moved) > 1 and len(moved) >= _MANY * features
    return Severity(min(worst + 1, Severity.MAJOR)) if many else worst


def _as_whole(name: str, evidence: Evidence) -> str:
    return f"{name}: {evidence.detail or f'{evidence.test} {evidence.effect:.3g}'}"


def _moved(name: str, test: str, evidence: Evidence, known: Summary, live: Summary) -> str:
    match test:
        case "missing":
            now, before = live.missing / live.rows, known.missing / known.rows
            return f"{name}: missing in {now:.1%} of the rows, before in {before:.1%}"
        case "range":
            return f"{name}: {evidence.effect:.2%} of the values lie beyond the reference's range: {evidence.detail}"
        case "new_categories":
            return (
                f"{name}: {evidence.effect:.1%} of the rows have values that the reference has not: {evidence.detail}"
            )
    if isinstance(known, NumberSummary) and isinstance(live, NumberSummary):
        middle, unit = np.array([0.5]), robust_deviation(known)
        was, is_now = float(known.quantiles(middle)[0]), float(live.quantiles(middle)[0])
        by = f" ({(is_now - was) / unit:+.2f} deviations)" if unit else ""
        return f"{name}: median {was:.4g} -> {is_now:.4g}{by}, distance of the distributions {evidence.effect:.3f}"
    assert isinstance(known, CategorySummary)
    assert isinstance(live, CategorySummary)
    value, was, has = _largest_change(known, live)
    return f"{name}: {value!r} {was:.1%} -> {has:.1%}, distance of the shares {evidence.effect:.3f}"


def _largest_change(known: CategorySummary, live: CategorySummary) -> tuple[str, float, float]:
    shares = {
        value: (known.values.get(value, 0) / known.count, live.values.get(value, 0) / live.count)
        for value in {**known.values, **live.values}
    }
    value = max(sorted(shares), key=lambda each: abs(shares[each][1] - shares[each][0]))
    return value, *shares[value]


def _summary(status: Status, severity: Severity, findings: Sequence[Finding], window: Window, policy: Policy) -> str:
    if status is Status.STABLE:
        return f"stable: nothing moved in {window.rows} rows up to {_time(window.end)}"
    head = {
        Status.SUSPECTED: f"suspected ({severity.name.lower()}), not yet in {policy.persistence} windows running",
        Status.DATA_FAULT: f"the data look broken ({severity.name.lower()})",
        Status.DRIFT: f"drift ({severity.name.lower()})",
    }[status]
    gone = [each for each in findings if each.test == "schema" and _GONE in each.words]
    told, others = [], list(findings)
    if len(gone) > 2:  # one cause has taken them: it must not hide what else moved
        named = ", ".join(each.feature for each in gone[:_TOLD]) + (", ..." if len(gone) > _TOLD else "")
        told.append(f"{len(gone)} columns are no longer there ({named}): {gone[0].words}")
        others = [each for each in findings if each not in gone]
    told += [f"{each.words} [since {_time(each.streak.since)}, p {each.evidence.p:.1g}]" for each in others[:_TOLD]]
    more = f"; and {len(others) - _TOLD} more" if len(others) > _TOLD else ""
    return f"{head}: {'; '.join(told)}{more}"


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
