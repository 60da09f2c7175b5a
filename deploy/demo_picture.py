"""How the demo of the loop draws: digits as text, and the story as one page that needs nothing beside itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape
from typing import Any

_INKS = " .:-=+*#%@"
_WIDTH, _HEIGHT, _LEFT, _TOP = 900, 300, 60, 40


def drawn(images: Iterable[Any]) -> str:
    """Images [n, 64] beside one another, dark where there is ink."""
    pictures = [[_row(image, row) for row in range(8)] for image in images]
    return "\n".join("    " + "   ".join(picture[row] for picture in pictures) for row in range(8))


def _row(image: Any, row: int) -> str:
    return "".join(2 * _INKS[min(int(image[8 * row + column] * len(_INKS) / 17), 9)] for column in range(8))


@dataclass
class Story:
    """What was served, and what happened meanwhile."""

    began: float = field(default_factory=time.monotonic)
    rates: list[tuple[float, float, int]] = field(default_factory=list)  # when, share of right answers, version
    moments: list[tuple[float, str]] = field(default_factory=list)

    def served(self, right: float, version: int) -> None:
        self.rates.append((time.monotonic() - self.began, right, version))

    def happened(self, words: str) -> None:
        if not self.has(words):
            self.moments.append((time.monotonic() - self.began, words))

    def has(self, words: str) -> bool:
        return any(each == words for _, each in self.moments)

    def lowest_between(self, words: str) -> float:
        """Of the batches after that moment."""
        since = next((at for at, each in self.moments if each == words), 0.0)
        return min((right for at, right, _ in self.rates if at > since), default=1.0)

    def page(self, model: str) -> str:
        """Accuracy over time as SVG, a colour for each version, a line for each moment."""
        longest = max((at for at, *_ in self.rates), default=1.0)

        def x(at: float) -> float:
            return _LEFT + at / longest * (_WIDTH - _LEFT - 20)

        def y(right: float) -> float:
            return _TOP + (1 - right) * (_HEIGHT - _TOP - 40)

        parts = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - 20}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#ddd"/>'
            )
            parts.append(f'<text x="10" y="{y(share) + 4:.1f}">{share:.0%}</text>')
        for place, (at, words) in enumerate(self.moments):
            parts.append(
                f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{_TOP}" y2="{_HEIGHT - 40}" stroke="#b55" '
                f'stroke-dasharray="4"/><text x="{x(at) + 3:.1f}" y="{14 + 12 * (place % 3)}" fill="#b55">'
                f"{escape(words)}</text>"
            )
        for at, right, version in self.rates:
            colour = "#36a" if version == 1 else "#2a7"
            parts.append(f'<circle cx="{x(at):.1f}" cy="{y(right):.1f}" r="3.5" fill="{colour}"/>')
        parts.append(
            f'<text x="{_LEFT}" y="{_HEIGHT - 10}">seconds: 0 to {longest:.0f}; blue: version 1, green: 2</text>'
        )
        body = "".join(parts)
        return (
            f"<!doctype html><meta charset='utf-8'><title>{escape(model)}</title>"
            f"<h1>{escape(model)}: how often it was right</h1><svg viewBox='0 0 {_WIDTH} {_HEIGHT}' width='{_WIDTH}' "
            f"font-family='sans-serif' font-size='12'>{body}</svg>"
        )
