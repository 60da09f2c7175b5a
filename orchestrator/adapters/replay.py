"""Which numbers of a source were kept before: sources send again what was not acknowledged, and not always in order.

The window is that of IPsec against replays (RFC 4303, section 3.4.3): the highest number, and one bit for each of those just
below it.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 512


@dataclass
class Replay:
    """Of one source. What is not above the window counts as kept: nobody can tell any more."""

    highest: int = 0
    bits: int = 0  # bit n: highest - n was kept
    at: float = 0.0  # last heard

    def take(self, seq: int, at: float) -> bool:
        """Whether `seq` is new; if so, it is not from now on."""
        self.at = max(self.at, at)
        ahead = seq - self.highest
        if ahead > 0:
            self.bits = (self.bits << min(ahead, WINDOW) | 1) & (1 << WINDOW) - 1
            self.highest = seq
            return True
        if ahead <= -WINDOW or self.bits >> -ahead & 1:
            return False
        self.bits |= 1 << -ahead
        return True
