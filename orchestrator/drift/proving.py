"""Whether a challenger is better than the champion: one judgement, its reasons in words.

Both were asked about the same rows (`trainers/proof.py`), so differences are paired: what makes a row hard cancels out. The
interval of their mean is the percentile bootstrap's (Efron 1979) over rows. A challenger is promoted when

    gain         its lower end, on rows held out of the recent data, lies above the margin;
    reference    on rows held out of the champion's own data it loses less than is allowed, at the interval's lower end;
    slices       no class and no value of a column is worse by more than is allowed, as far as chance does not explain it;
    calibration  its confidence is no further from its accuracy (expected calibration error: Guo et al. 2017);
    latency      it takes no longer than is allowed.

What was not measured counts against it: nobody is promoted on half a proof. The same fact and seed give the same answer.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from orchestrator.drift.sketches import Floats

FORMAT = 1
ACCURACY, CONFIDENCE = "accuracy", "confidence"
_MOST_ROWS = 100_000
_BINS = 10
_FEW_VALUES = 32
_CHUNK = 2**21  # indices drawn at once


class ProofError(ValueError):
    """A fact that nothing can be judged by; says why."""


@dataclass(frozen=True)
class Policy:
    """`margin` and the losses that are allowed are shares: of all rows where the metric is accuracy, else of the champion's
    own mean. None: not judged. `metric` "": the task's usual one.
    """

    metric: str = ""
    margin: float = 0.0
    confidence: float = 0.95
    slice_loss: float | None = 0.05
    reference_loss: float | None = 0.05
    calibration_loss: float | None = 0.05
    slower: float | None = 1.5  # times the champion's latency
    least_rows: int = 100
    least_slice_rows: int = 20
    resamples: int = 4000


@dataclass(frozen=True)
class Part:
    """Rows that both were asked about. `values`: of each metric the champion's and the challenger's, [rows]."""

    source: str
    of: int
    values: Mapping[str, tuple[Floats, Floats]]
    slices: Mapping[str, tuple[tuple[str, ...], npt.NDArray[np.int64]]]  # words, and each row's place in them
    problem: str = ""

    @property
    def rows(self) -> int:
        return max((len(each[0]) for each in self.values.values()), default=0)


@dataclass(frozen=True)
class Outcomes:
    champion: int
    modes: Mapping[str, str]
    parts: Mapping[str, Part]
    latency: Mapping[int, tuple[float, float]]  # by rows of a batch: seconds
    parameters: tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `low` and `high`: the interval of the gain, positive where the challenger is better."""

    what: Literal["gain", "reference", "slice", "calibration", "latency"]
    holds: bool
    words: str
    champion: float | None = None
    challenger: float | None = None
    low: float | None = None
    high: float | None = None
    rows: int = 0


@dataclass(frozen=True)
class Judgement:
    promote: bool
    words: str
    champion: int
    metric: str = ""
    findings: tuple[Finding, ...] = ()

    def report(self) -> dict[str, Any]:
        """As JSON holds it: what an alias' move keeps."""
        return asdict(self)


def judge(fact: Mapping[str, Any], policy: Policy, seed: int = 0) -> Judgement:
    """The judgement of a version's fact `proof`. Raises ProofError for one that cannot be read."""
    champion = _int(fact, "champion")
    if problem := fact.get("problem"):
        return Judgement(False, f"not promoted: {problem}", champion)
    outcomes = read_outcomes(fact)
    metric = policy.metric or (ACCURACY if ACCURACY in outcomes.modes else next(iter(outcomes.modes), ""))
    if metric not in outcomes.modes:
        known = f"{metric} was not measured of both, but {', '.join(outcomes.modes)}" if outcomes.modes else ""
        words = f"not promoted: {known or 'no metric was measured of both'}"
        return Judgement(False, words, champion, metric)
    findings = tuple(_findings(outcomes, metric, policy, np.random.default_rng(seed)))
    against = [each.words for each in findings if not each.holds]
    told = against or [each.words for each in findings]
    head = f"not promoted over version {champion}" if against else f"better than version {champion}"
    return Judgement(not against, f"{head}: {'; '.join(told)}", champion, metric, findings)


def _findings(outcomes: Outcomes, metric: str, policy: Policy, generator: np.random.Generator) -> Iterator[Finding]:
    judged = {"recent": outcomes.parts["recent"]}
    yield _gain(judged["recent"], metric, outcomes.modes[metric], policy, generator)
    if policy.reference_loss is not None:
        judged["reference"] = outcomes.parts["reference"]
        yield _reference(judged["reference"], metric, outcomes.modes[metric], policy, generator)
    if policy.slice_loss is not None:
        yield from _slices(judged, metric, outcomes.modes[metric], policy, generator)
    if policy.calibration_loss is not None and CONFIDENCE in judged["recent"].values:
        yield _calibration(judged["recent"], policy, generator)
    if policy.slower is not None:
        yield _latency(outcomes, policy)


# ---- the metric -----------------------------------------------------------------------------------------------------


def _gain(part: Part, metric: str, mode: str, policy: Policy, generator: np.random.Generator) -> Finding:
    if (lacking := _lacking(part, metric, policy, "recent")) is not None:
        return Finding("gain", False, lacking)
    gains, champion, challenger, unit = _paired(part, metric, mode)
    low, high = _interval(_means(gains, policy.resamples, generator), policy.confidence)
    needed = policy.margin * unit
    if not gains.any():
        words = f"on all {len(gains)} recent rows its {metric} is the champion's: there is no gain"
        return Finding("gain", False, words, champion, challenger, low, high, len(gains))
    words = f"{_told(metric, champion, challenger, low, high, policy)} on {len(gains)} recent rows"
    holds = low > needed
    words += "" if holds else f", where the lower end must lie above {needed:.3g}"
    return Finding("gain", holds, words, champion, challenger, low, high, len(gains))


def _reference(part: Part, metric: str, mode: str, policy: Policy, generator: np.random.Generator) -> Finding:
    assert policy.reference_loss is not None
    if (lacking := _lacking(part, metric, policy, "reference")) is not None:
        return Finding("reference", False, lacking)
    gains, champion, challenger, unit = _paired(part, metric, mode)
    low, high = _interval(_means(gains, policy.resamples, generator), policy.confidence)
    allowed = policy.reference_loss * unit
    holds = low > -allowed or not gains.any()
    words = f"{_told(metric, champion, challenger, low, high, policy)} on {len(gains)} rows of the champion's own data"
    words += "" if holds else f", where a loss of {allowed:.3g} is allowed"
    return Finding("reference", holds, words, champion, challenger, low, high, len(gains))


def _lacking(part: Part, metric: str, policy: Policy, name: str) -> str | None:
    if part.problem:
        return f"the {name} rows could not be compared: {part.problem}"
    if metric not in part.values:
        return f"{metric} was not measured on the {name} rows"
    if part.rows < policy.least_rows:
        return f"only {part.rows} {name} rows were held out, at least {policy.least_rows} are needed"
    return None


def _paired(part: Part, metric: str, mode: str) -> tuple[Floats, float, float, float]:
    """The challenger's gain in each row, both means, and what a share is of."""
    champion, challenger = part.values[metric]
    gains = challenger - champion if mode == "max" else champion - challenger
    before = float(champion.mean())
    return gains, before, float(challenger.mean()), 1.0 if metric == ACCURACY else abs(before)


def _told(metric: str, champion: float, challenger: float, low: float, high: float, policy: Policy) -> str:
    return f"{metric} {champion:.4g} -> {challenger:.4g}, a gain within {low:.3g} and {high:.3g} at {policy.confidence:.0%}"


# ---- slices ---------------------------------------------------------------------------------------------------------


def _slices(
    parts: Mapping[str, Part], metric: str, mode: str, policy: Policy, generator: np.random.Generator
) -> Iterator[Finding]:
    """Each slice that is worse than allowed, and one finding where none is. Over all slices the probability of calling one
    worse by chance is held at 1 - confidence (Bonferroni)."""
    assert policy.slice_loss is not None
    cut = [each for name, part in parts.items() for each in _cut(name, part, metric, mode)]
    large = [each for each in cut if len(each[1]) >= policy.least_slice_rows]
    confidence = 1 - 2 * (1 - policy.confidence) / max(len(large), 1)  # one-sided
    worse = 0
    for name, gains, champion, challenger, unit in large:
        loss = -float(gains.mean())
        if loss <= policy.slice_loss * unit:
            continue
        low, high = _interval(_means(gains, policy.resamples, generator), confidence)
        if high < 0:
            worse += 1
            words = f"{name} is worse: {metric} {champion:.4g} -> {challenger:.4g} on {len(gains)} rows"
            words += f", where a loss of {policy.slice_loss * unit:.3g} is allowed"
            yield Finding("slice", False, words, champion, challenger, low, high, len(gains))
    if not worse:
        small = f"; {len(cut) - len(large)} more have too few rows to tell" if len(large) < len(cut) else ""
        yield Finding("slice", True, f"none of {len(large)} slices is worse than allowed{small}")


def _cut(of: str, part: Part, metric: str, mode: str) -> Iterator[tuple[str, Floats, float, float, float]]:
    if metric not in part.values:
        return
    gains, *_, unit = _paired(part, metric, mode)
    champion, challenger = part.values[metric]
    for column, (words, codes) in part.slices.items():
        for place in np.unique(codes).tolist():
            rows = codes == place
            name = f"{column} {words[place]!r} ({of})"
            yield name, gains[rows], float(champion[rows].mean()), float(challenger[rows].mean()), unit


# ---- calibration and latency ----------------------------------------------------------------------------------------


def _calibration(part: Part, policy: Policy, generator: np.random.Generator) -> Finding:
    assert policy.calibration_loss is not None
    pairs = list(zip(part.values[CONFIDENCE], part.values[ACCURACY], strict=True))
    champion, challenger = (_calibration_error(*each) for each in pairs)
    words = f"calibration error {champion:.3f} -> {challenger:.3f}"
    low = high = None
    holds = challenger - champion <= policy.calibration_loss
    if not holds:  # of few rows the error is mostly chance

        def rise(rows: npt.NDArray[np.int64]) -> float:
            before, after = (_calibration_error(confidence[rows], right[rows]) for confidence, right in pairs)
            return before - after

        resamples = min(policy.resamples, 500)
        low, high = _interval(_resampled(part.rows, rise, resamples, generator), policy.confidence)
        holds = high >= 0
    words += "" if holds else f", where {policy.calibration_loss:.3g} more is allowed"
    return Finding("calibration", holds, words, champion, challenger, low, high, part.rows)


def _calibration_error(confidence: Floats, right: Floats) -> float:
    """Mean distance of confidence and accuracy over bins of confidence, by their rows."""
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=_BINS)
    return float(np.abs(gaps).sum() / max(len(right), 1))


def _latency(outcomes: Outcomes, policy: Policy) -> Finding:
    assert policy.slower is not None
    if not outcomes.latency:
        return Finding("latency", False, "its latency was not measured")
    ratios = {size: after / before for size, (before, after) in outcomes.latency.items()}
    size = max(ratios, key=lambda each: ratios[each])
    champion, challenger = outcomes.latency[size]
    holds = ratios[size] <= policy.slower
    words = f"latency {1e3 * champion:.3g} -> {1e3 * challenger:.3g} ms for a batch of {size}"
    words += "" if holds else f", where {policy.slower:g} times as long is allowed"
    return Finding("latency", holds, words, champion, challenger)


# ---- the bootstrap --------------------------------------------------------------------------------------------------


def _means(values: Floats, resamples: int, generator: np.random.Generator) -> Floats:
    """Means of so many samples of the values, drawn with replacement."""
    different, counts = np.unique(values, return_counts=True)
    if len(different) <= _FEW_VALUES:  # of right and wrong there are three: how often each is drawn says it all
        drawn = generator.multinomial(len(values), counts / len(values), size=resamples)
        return np.asarray(drawn @ different / len(values))
    at_once = max(1, _CHUNK // len(values))
    means = [
        values[generator.integers(0, len(values), (min(at_once, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, at_once)
    ]
    return np.concatenate(means)


def _resampled(
    rows: int, statistic: Callable[[npt.NDArray[np.int64]], float], resamples: int, generator: np.random.Generator
) -> Floats:
    return np.array([statistic(generator.integers(0, rows, rows)) for _ in range(resamples)])


def _interval(resampled: Floats, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


# ---- reading the fact -----------------------------------------------------------------------------------------------


def read_outcomes(fact: Mapping[str, Any]) -> Outcomes:
    """Raises ProofError."""
    if fact.get("format") != FORMAT:
        raise ProofError(f"the proof has format {fact.get('format')!r}, {FORMAT} is needed: train the challenger anew")
    try:
        parts = {name: _part(fact["parts"][name]) for name in ("recent", "reference")}
        latency = {int(size): _numbers(pair) for size, pair in fact["latency"].items()}
        if any(min(each) <= 0 for each in latency.values()):
            raise ProofError("a latency is not above 0")
        counts = fact["parameters"]
        parameters = int(counts["champion"]), int(counts["challenger"])
        return Outcomes(_int(fact, "champion"), dict(fact["modes"]), parts, latency, parameters)
    except (KeyError, TypeError, AttributeError, ValueError, zlib.error) as error:
        raise ProofError(f"the proof cannot be read: {error!r}") from error


def _int(fact: Mapping[str, Any], name: str) -> int:
    value = fact.get(name)
    if not isinstance(value, int):
        raise ProofError(f"the proof's {name} is {value!r}, not a number")
    return value


def _numbers(pair: Mapping[str, Any]) -> tuple[float, float]:
    return float(pair["champion"]), float(pair["challenger"])


def _part(raw: Mapping[str, Any]) -> Part:
    source, of = str(raw["source"]), int(raw["of"])
    if problem := raw.get("problem"):
        return Part(source, of, {}, {}, str(problem))
    rows = int(raw["rows"])
    if not 0 <= rows <= _MOST_ROWS:
        raise ProofError(f"{rows} rows, at most {_MOST_ROWS} can be judged")
    values = {
        metric: (_array(pair["champion"], rows, "<f4"), _array(pair["challenger"], rows, "<f4"))
        for metric, pair in raw["values"].items()
    }
    slices = {}
    for name, each in raw["slices"].items():
        words, codes = tuple(map(str, each["words"])), _array(each["codes"], rows, "<u2").astype(np.int64)
        if rows and codes.max() >= len(words):
            raise ProofError(f"a row's {name} is none of its {len(words)} words")
        slices[name] = words, codes
    return Part(source, of, values, slices)


def _array(text: str, rows: int, kind: str) -> Floats:
    unpacked = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), 4 * rows + 1)
    values = np.frombuffer(unpacked, dtype=kind).astype(np.float64)
    if len(values) != rows or not np.isfinite(values).all():
        raise ProofError(f"{len(values)} finite values for {rows} rows")
    return values
