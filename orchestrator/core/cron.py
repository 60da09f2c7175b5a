"""Schedules as cron has them: minute, hour, day of month, month, day of week (0 and 7 are Sunday)."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_LONGEST_DAYS = 366 * 8 + 1
"""29 February may be eight years away."""


@dataclass(frozen=True)
class Cron:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0: Sunday
    either_day: bool  # both kinds of day are restricted: then one of them suffices, as cron has it

    def on(self, date: datetime.date) -> bool:
        if date.month not in self.months:
            return False
        of_month, of_week = date.day in self.days, (date.weekday() + 1) % 7 in self.weekdays
        return of_month or of_week if self.either_day else of_month and of_week


def parse_cron(text: str) -> Cron:
    """Raises ValueError that names the field and what it may hold."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(f"must have 5 fields ({', '.join(name for name, *_ in _FIELDS)}), such as 0 3 * * 1")
    minutes, hours, days, months, weekdays = (_values(part, *field) for part, field in zip(parts, _FIELDS, strict=True))
    either = not parts[2].startswith("*") and not parts[4].startswith("*")
    cron = Cron(minutes, hours, days, months, frozenset(each % 7 for each in weekdays), either)
    if next_after(cron, 0.0) is None:
        raise ValueError("names a day that no month has")
    return cron


def _values(text: str, name: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        elif not dash:
            last = str(high) if step else first
        if not all(each.isdecimal() and len(each) < 4 for each in (first, last, step or "1")):
            raise ValueError(f"has {part!r} as {name}: it must be *, a number, a range or a step such as */15")
        if not low <= int(first) <= int(last) <= high or (step and int(step) == 0):
            raise ValueError(f"has {part!r} as {name}: it must lie between {low} and {high}")
        found.update(range(int(first), int(last) + 1, int(step or 1)))
    return frozenset(found)


def next_after(cron: Cron, time: float, utc_offset_s: float = 0.0) -> float | None:
    """The first time of the schedule after `time`, both in seconds since the epoch; None where there is none."""
    zone = datetime.timezone(datetime.timedelta(seconds=utc_offset_s))
    begin = datetime.datetime.fromtimestamp(time, zone).replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
    for days in range(_LONGEST_DAYS):
        date = begin.date() + datetime.timedelta(days=days)
        if not cron.on(date):
            continue
        for hour in sorted(cron.hours):
            for minute in sorted(cron.minutes):
                found = datetime.datetime.combine(date, datetime.time(hour, minute), zone)
                if found >= begin:
                    return found.timestamp()
    return None
