"""Character trigrams, the baseline of everything that learns text: counted, and smoothed as Witten and Bell 1991 do."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence


class Trigrams:
    """P(character | the two before it): each order leans on the next lower one, by how many kinds it saw follow."""

    def __init__(self, text: str, vocabulary_size: int) -> None:
        self._counts: list[dict[str, Counter[str]]] = []
        for order in range(3):
            followers: dict[str, Counter[str]] = defaultdict(Counter)
            for start in range(len(text) - order):
                followers[text[start : start + order]][text[start + order]] += 1
            self._counts.append(followers)
        self._totals = [{past: seen.total() for past, seen in each.items()} for each in self._counts]
        self._uniform = 1 / vocabulary_size

    def probability(self, past: str, character: str) -> float:
        """`past`: up to two characters."""
        probability = self._uniform
        for order in range(len(past) + 1):
            shorter = past[len(past) - order :]
            if seen := self._counts[order].get(shorter):
                total, kinds = self._totals[order][shorter], len(seen)
                probability = (seen[character] + kinds * probability) / (total + kinds)
        return probability

    def nats(self, text: str) -> float:
        """Minus the logarithm of the probability of all characters but the first, which nothing foretells."""
        return -sum(
            math.log(self.probability(text[max(0, place - 2) : place], text[place])) for place in range(1, len(text))
        )


class TrigramClassifier:
    """The label under whose trigrams a text is the likeliest."""

    def __init__(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        vocabulary_size = len(set("".join(texts))) + 1
        self._models = {
            label: Trigrams(
                "\n".join(text for text, its in zip(texts, labels, strict=True) if its == label), vocabulary_size
            )
            for label in sorted(set(labels))
        }
        self._priors = {label: math.log(count / len(labels)) for label, count in Counter(labels).items()}

    def label(self, text: str) -> str:
        """Of one text."""
        return max(self._models, key=lambda label: self._priors[label] - self._models[label].nats("\n" + text))
