"""A verdict as it is recorded: the numbers behind it as JSON holds them, and pictures of what moved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.drift.sketches import CategorySummary, NumberSummary, Summary, TableSummary
from orchestrator.drift.verdicts import Finding, Verdict

SHOWN = 20
"""Features whose tests are recorded and drawn: those that moved, then those that differ most."""
_BINS = 24
_DISTANCES = ("ks", "chi_squared")


def evidence_of(verdict: Verdict) -> dict[str, Any]:
    """What was found with how much certainty, and the tests of the features that differ most."""
    shown = most_moved(verdict)[:SHOWN]
    return {
        "level": verdict.level,
        "findings": [_finding(each) for each in verdict.findings[:SHOWN]],
        "findings_more": max(0, len(verdict.findings) - SHOWN),
        "features": {
            name: {each.test: [each.effect, each.p] for each in verdict.evidence[name]} for name in shown
        },
        "features_more": len(verdict.evidence) - len(shown),
    }


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


def pictures(reference: TableSummary, window: TableSummary, names: list[str]) -> list[dict[str, Any]]:
    """Of each named feature that both sides have: `bins` in words, and the shares of the `reference` and `current` rows."""
    drawn = []
    for name in names:
        known, live = reference.columns.get(name), window.columns.get(name)
        picture = _picture(known, live) if known is not None and live is not None else None
        if picture is not None:
            drawn.append({"feature": name, **picture})
    return drawn


def _picture(known: Summary, live: Summary) -> Mapping[str, Any] | None:
    if isinstance(known, NumberSummary) and isinstance(live, NumberSummary) and known.count and live.count:
        return _of_numbers(known, live)
    if isinstance(known, CategorySummary) and isinstance(live, CategorySummary) and known.count and live.count:
        return _of_categories(known, live)
    return None


def _of_numbers(known: NumberSummary, live: NumberSummary) -> Mapping[str, Any]:
    """Equal bins over what 99 % of both hold: a few absurd values would press all others into one bin."""
    tails = np.concatenate([each.quantiles(np.array([0.005, 0.995])) for each in (known, live)])
    edges = np.linspace(tails.min(), tails.max(), _BINS + 1)
    if not tails.max() > tails.min():
        return {"bins": [f"{tails[0]:.4g}"], "reference": [1.0], "current": [1.0]}
    shares = [np.diff(each.ranks(edges)).tolist() for each in (known, live)]
    middles = (edges[:-1] + edges[1:]) / 2
    return {"bins": [f"{each:.4g}" for each in middles], "reference": shares[0], "current": shares[1]}


def _of_categories(known: CategorySummary, live: CategorySummary) -> Mapping[str, Any]:
    both = {
        value: (known.values.get(value, 0) / known.count, live.values.get(value, 0) / live.count)
        for value in {**known.values, **live.values}
    }
    largest = sorted(both, key=lambda value: (-max(both[value]), value))[:_BINS]
    return {
        "bins": largest,
        "reference": [both[value][0] for value in largest],
        "current": [both[value][1] for value in largest],
    }
