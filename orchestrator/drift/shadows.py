"""Who was right: the champion's answers and those of versions that stand by, to the same requests, once the label is known.

Answers and labels come in any order. A request is forgotten when more than `MOST_REQUESTS` came after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.recall import Paired

MOST_REQUESTS = 50_000

Words = Sequence[str | None]


@dataclass
class _Request:
    at: float = 0.0  # when the champion's answer came
    answers: dict[int, str] = field(default_factory=dict)
    label: str | None = None
    counted: set[int] = field(default_factory=set)  # versions, once each


@dataclass
class Shadows:
    """Of one champion. `made`: when each version that stands by was; a request of before then may be one that it learned
    from, and does not count.
    """

    champion: int
    made: Mapping[int, float]
    _counts: dict[int, list[int]] = field(default_factory=dict)  # rows, gained, lost
    _requests: dict[str, _Request] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Since the last comparison: those of the version that has answered most of them."""
        return max((rows for rows, _, _ in self._counts.values()), default=0)

    def answered(self, version: int, requests: Words, answers: Words, at: float) -> None:
        """By the champion or in shadow, `at` some time."""
        for name, answer in zip(requests, answers, strict=True):
            if name is not None and answer is not None and (version == self.champion or version in self.made):
                request = self._of(name)
                request.answers[version] = answer
                request.at = at if version == self.champion else request.at
                self._count(request)

    def labelled(self, requests: Words, labels: Words) -> None:
        for name, label in zip(requests, labels, strict=True):
            if name is not None and label is not None:
                request = self._of(name)
                request.label = label
                self._count(request)

    def compared(self) -> list[Paired]:
        """What was counted since it was asked last."""
        pairs = [Paired(version, *counts) for version, counts in sorted(self._counts.items())]
        self._counts = {}
        return pairs

    def _of(self, name: str) -> _Request:
        request = self._requests.setdefault(name, _Request())
        while len(self._requests) > MOST_REQUESTS:
            del self._requests[next(iter(self._requests))]
        return request

    def _count(self, request: _Request) -> None:
        served = request.answers.get(self.champion)
        if request.label is None or served is None:
            return
        for version in request.answers.keys() - request.counted:
            request.counted.add(version)
            if version in self.made and self.made[version] <= request.at:
                right, was_right = request.answers[version] == request.label, served == request.label
                counts = self._counts.setdefault(version, [0, 0, 0])
                counts[0] += 1
                counts[1] += right and not was_right
                counts[2] += was_right and not right
