"""Answers and the labels that come for them, minutes or weeks later, joined by request.

Constant in size however late labels come: a request is looked at where the hash of its id is a multiple of 2^level, and the
level rises where too many answers wait. Whether a request belongs to the sample depends on its id alone, never on what was
answered or on when its label came, so the joined rows are an unbiased sample of all that get a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import xxhash

MOST_WAITING = 20_000
MOST_EARLY = 5_000

Value = str | float


@dataclass(frozen=True)
class Joined:
    """One answer whose label is known. `confidence` None: the model did not say."""

    answer: Value
    label: Value
    confidence: float | None = None


@dataclass
class Joining:
    """`waiting`: answers without a label, `early`: labels without an answer, both by the hash of the request."""

    level: int = 0
    waiting: dict[int, tuple[Value, float | None]] = field(default_factory=dict)
    early: dict[int, Value] = field(default_factory=dict)
    given_up: int = 0

    @property
    def unknown(self) -> int:
        """Labels of the sample whose request nobody has told of, so far or ever."""
        return self.given_up + len(self.early)

    def answered(
        self, requests: Sequence[str | None], answers: Sequence[Value | None], confidences: Sequence[float | None]
    ) -> Iterator[Joined]:
        """Take in answers, of one length; those whose label came before them are given back."""
        for key, place in self._sampled(requests):
            answer = answers[place]
            if answer is None:
                continue
            label = self.early.pop(key, None)
            if label is not None:
                yield Joined(answer, label, confidences[place])
                continue
            self.waiting[key] = answer, confidences[place]
        while len(self.waiting) > MOST_WAITING:
            self._thin()

    def labelled(self, requests: Sequence[str | None], labels: Sequence[Value | None]) -> Iterator[Joined]:
        """Take in labels, of one length; a second label for one request is one for an unknown request."""
        for key, place in self._sampled(requests):
            label = labels[place]
            if label is None:
                continue
            known = self.waiting.pop(key, None)
            if known is not None:
                yield Joined(known[0], label, known[1])
                continue
            self.early[key] = label
        excess = max(0, len(self.early) - MOST_EARLY)
        for key in list(islice(self.early, excess)):
            del self.early[key]
        self.given_up += excess

    def _sampled(self, requests: Sequence[str | None]) -> Iterator[tuple[int, int]]:
        mask = (1 << self.level) - 1
        for place, request in enumerate(requests):
            if request is not None and not (key := xxhash.xxh3_64_intdigest(request.encode()) >> 1) & mask:
                yield key, place

    def _thin(self) -> None:
        self.level += 1
        mask = (1 << self.level) - 1
        self.waiting = {key: value for key, value in self.waiting.items() if not key & mask}
        self.early = {key: value for key, value in self.early.items() if not key & mask}

    def state(self) -> dict[str, Any]:
        """What `from_state` goes on from, as JSON holds it."""
        return {
            "level": self.level,
            "waiting": [[key, *value] for key, value in self.waiting.items()],
            "early": [[key, value] for key, value in self.early.items()],
            "given_up": self.given_up,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Joining:
        waiting = {key: (answer, confidence) for key, answer, confidence in state["waiting"]}
        return cls(state["level"], waiting, dict(state["early"]), state["given_up"])


def word(value: Value | None) -> str | None:
    """A class in words, as answers and labels are compared: 3.0 and 3 are one. None: missing."""
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
