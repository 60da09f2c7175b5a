"""A verdict as it is recorded: the numbers behind it as JSON holds them, and pictures of what moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.core.monitors import Picture
from orchestrator.drift.sketches import CategorySummary, Floats, NumberSummary, Summary, TableSummary
from orchestrator.drift.tests import describing
from orchestrator.drift.together import Compared
from orchestrator.drift.verdicts import Finding, Verdict

SHOWN = 20
"""Features whose tests are recorded and drawn: those that moved, then those that differ most."""
DESCRIBED = 5
"""Of them, beside those that moved, that also have the measures which decide nothing, and take half of a judgement's time."""
_BINS = 24
_DISTANCES = ("ks", "chi_squared")


def evidence_of(verdict: Verdict, reference: TableSummary, window: TableSummary) -> dict[str, Any]:
    """What was found with how much certainty, and the tests of the features that differ most. `verdict` is one that was not
    described: that is made up for, of these features.
    """
    shown = most_moved(verdict)[:SHOWN]
    found = {each.feature for each in verdict.findings}
    tests = {
        name: (*verdict.evidence[name], *describing(reference.columns[name], window.columns[name]))
        if name in found or place < DESCRIBED
        else tuple(verdict.evidence[name])
        for place, name in enumerate(shown)
    }
    return {
        "level": verdict.level,
        "findings": [_finding(each) for each in verdict.findings[:SHOWN]],
        "findings_more": max(0, len(verdict.findings) - SHOWN),
        "features": [
            {"feature": name, "tests": {each.test: [each.effect, each.p] for each in told}}
            for name, told in tests.items()
        ],
        "features_more": len(verdict.evidence) - len(shown),
    }


def told_together(name: str, found: Compared) -> dict[str, Any]:
    """Of all features at once, or of an embedding, whether or not that is a finding."""
    evidence, told = found.evidence, {"of": name, "words": found.words}
    if evidence is None:
        return told
    return {**told, "test": evidence.test, "effect": evidence.effect, "p": evidence.p, "n": evidence.n, "m": evidence.m}


def most_moved(verdict: Verdict) -> list[str]:
    """Features that were tested: those with findings first, then by the distance of their distributions."""
    found = {each.feature: place for place, each in enumerate(verdict.findings)}

    def distance(name: str) -> float:
        return max((abs(each.effect) for each in verdict.evidence[name] if each.test in _DISTANCES), default=0.0)

    return sorted(verdict.evidence, key=lambda name: (found.get(name, len(found)), -distance(name), name))


def _finding(finding: Finding) -> dict[str, Any]:
    evidence = finding.evidence
    return {
        "feature": finding.feature,
        "test": finding.test,
        "nature": finding.nature,
        "severity": int(finding.severity),
        "effect": evidence.effect,
        "p": evidence.p,
        "n": evidence.n,
        "m": evidence.m,
        "windows": finding.streak.windows,
        "since": finding.streak.since,
        "words": finding.words,
    }


def pictures(reference: TableSummary, window: TableSummary, names: Sequence[str]) -> tuple[Picture, ...]:
    """Of each named feature that both sides have, of one kind."""
    both = [(name, reference.columns.get(name), window.columns.get(name)) for name in names]
    drawn = [_picture(name, known, live) for name, known, live in both if known is not None and live is not None]
    return tuple(each for each in drawn if each is not None)


def _picture(name: str, known: Summary, live: Summary) -> Picture | None:
    if isinstance(known, NumberSummary) and isinstance(live, NumberSummary) and known.count and live.count:
        return _of_numbers(name, known, live)
    if isinstance(known, CategorySummary) and isinstance(live, CategorySummary) and known.count and live.count:
        return _of_categories(name, known, live)
    return None


def _of_numbers(name: str, known: NumberSummary, live: NumberSummary) -> Picture:
    """Equal bins over what 99 % of both hold: a few absurd values would press all others into one bin."""
    tails = np.concatenate([each.quantiles(np.array([0.005, 0.995])) for each in (known, live)])
    if not tails.max() > tails.min():
        return Picture(name, (f"{tails[0]:.4g}",), (1.0,), (1.0,))
    edges = np.linspace(tails.min(), tails.max(), _BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    first, second = (_shares(each, edges) for each in (known, live))
    return Picture(name, tuple(f"{each:.4g}" for each in middles), first, second)


def _shares(column: NumberSummary, edges: Floats) -> tuple[float, ...]:
    """Between each two edges; the first bin has what lies on its lower edge, too."""
    upto = column.ranks(edges).copy()
    upto[0] = column.ranks(np.nextafter(edges[:1], -np.inf))[0]
    return tuple(np.diff(upto).tolist())


def _of_categories(name: str, known: CategorySummary, live: CategorySummary) -> Picture:
    both = {
        value: (known.values.get(value, 0) / known.count, live.values.get(value, 0) / live.count)
        for value in {**known.values, **live.values}
    }
    largest = sorted(both, key=lambda value: (-max(both[value]), value))[:_BINS]
    first, second = (tuple(both[value][side] for value in largest) for side in (0, 1))
    return Picture(name, tuple(largest), first, second)
