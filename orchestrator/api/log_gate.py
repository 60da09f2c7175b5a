"""Which of the lines that a cluster ships are kept: a cut for long lines, a rate for loud runs. Pure; time is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.core.records import LogLine

_RUNS = 10_000  # buckets kept; beyond it the fullest ones, which tell nothing, are dropped


@dataclass
class _Bucket:
    level_bytes: float  # what the run may still write at once
    at_s: float
    dropped: int = 0  # lines since the last marker


class LogGate:
    """A token bucket for each run. What it drops is counted in a line in the place of the first one dropped."""

    def __init__(self, *, line_bytes: int, rate_bytes_per_s: int, burst_bytes: int) -> None:
        self._line_bytes = line_bytes
        self._rate = rate_bytes_per_s
        self._burst = burst_bytes
        self._buckets: dict[str, _Bucket] = {}

    def admit(self, lines: Sequence[LogLine], now_s: float) -> list[LogLine]:
        """The lines to keep, in their order. `now_s` is monotonic."""
        kept: list[LogLine] = []
        marker_at: dict[tuple[str, int, str], int] = {}
        for line in lines:
            line = self._cut(line)
            bucket = self._bucket(line.run_id, now_s)
            size = len(line.text.encode())
            if size <= bucket.level_bytes:
                bucket.level_bytes -= size
                kept.append(line)
                marker_at.pop((line.run_id, line.attempt, line.source), None)
                continue
            source = (line.run_id, line.attempt, line.source)
            if source not in marker_at:
                marker_at[source] = len(kept)
                kept.append(line)
                bucket.dropped = 0
            bucket.dropped += 1
            place = marker_at[source]
            kept[place] = replace(kept[place], text=self._marker(bucket.dropped))
        self._tidy(now_s)
        return kept

    def _cut(self, line: LogLine) -> LogLine:
        raw = line.text.encode()
        if len(raw) <= self._line_bytes:
            return line
        head = raw[: self._line_bytes].decode(errors="ignore")
        return replace(line, text=f"{head} [evertrain: {len(raw) - self._line_bytes} more bytes of this line were cut]")

    def _marker(self, dropped: int) -> str:
        lines = "1 line" if dropped == 1 else f"{dropped} lines"
        return f"[evertrain: {lines} dropped here: the run writes more than {self._rate} bytes/s]"

    def _bucket(self, run_id: str, now_s: float) -> _Bucket:
        bucket = self._buckets.setdefault(run_id, _Bucket(self._burst, now_s))
        bucket.level_bytes = self._level(bucket, now_s)
        bucket.at_s = max(bucket.at_s, now_s)
        return bucket

    def _level(self, bucket: _Bucket, now_s: float) -> float:
        return min(self._burst, bucket.level_bytes + max(0.0, now_s - bucket.at_s) * self._rate)

    def _tidy(self, now_s: float) -> None:
        """A full bucket is as good as none."""
        if len(self._buckets) > _RUNS:
            self._buckets = {run: each for run, each in self._buckets.items() if self._level(each, now_s) < self._burst}
