"""Whether a retraining could come to anything, by what is known before it is paid for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

IMAGES = (
    "learns from images, and of live images only what they look like is kept, from which nothing can be learned: submit a "
    "run of its name on new images; it is compared with the champion, and `evertrain model promote` lets it serve"
)
"""Of a model: why it is not retrained, and what to do instead."""


@dataclass(frozen=True)
class Proof:
    """What a challenger would be proven on. `share`: of the rows that it is made of, those that are held out, in each of the
    `strata` by itself. `reference_rows`: held out of the champion's own data; None: not known, or not looked at.
    """

    least_rows: int
    share: float
    strata: int = 1
    reference_rows: int | None = None

    @property
    def rows_needed(self) -> int:
        """So many hold `least_rows` out for certain: a stratum is cut at the nearest whole row, half a row off at most."""
        return math.ceil((self.least_rows + (self.strata - 1) / 2) / self.share)

    def lacking(self, rows: int) -> str:
        """Why nothing could be proven of a model that is made of so many rows; "" where it could."""
        if rows >= self.rows_needed:
            return ""
        return (
            f"of {rows:,} rows about {round(rows * self.share)} would be held out for the proof (data.split), which needs "
            f"{self.least_rows} (monitor.promote.minimum): {self.rows_needed:,} rows are needed"
        )

    @property
    def hopeless(self) -> str:
        """Why nothing could be proven, however many rows there were; "" where it could."""
        if self.reference_rows is None or self.reference_rows >= self.least_rows:
            return ""
        return (
            f"the champion's own data have {self.reference_rows} rows held out, and the proof, which is of them, too, needs "
            f"{self.least_rows}: lower monitor.promote.minimum, or leave them out by monitor.promote.reference_loss: null"
        )

    def doubts(self, rows: int) -> str:
        """What a person is told who has a model made of so many rows all the same; "" where nothing speaks against it."""
        why = self.hopeless or self.lacking(rows)
        return f"; what it makes could only be promoted by hand: {why}" if why else ""


def held_out_share(split: Sequence[float]) -> float:
    """What a proof is of, by the shares for training, validation and test: test, or validation where there is none."""
    return split[2] or split[1]
