"""What ranks print: whole lines, without secrets, never too long, never too many."""

from __future__ import annotations

from orchestrator.cluster.rank_output import LINE_BYTES, LineSplitter, RateLimit, Redactor


def test_lines_are_whole_however_the_bytes_arrive() -> None:
    splitter = LineSplitter(Redactor(()))
    assert [line for byte in "één\ntwo\r\nthr".encode() for line in splitter.feed(bytes([byte]))] == ["één", "two"]
    assert splitter.rest() == ["thr"]


def test_bytes_that_are_no_utf8_are_shown_by_their_numbers() -> None:
    (line,) = LineSplitter(Redactor(())).feed(b"half \xed\xa0\x80, none \xff\n")
    assert line == r"half \xed\xa0\x80, none \xff"
    line.encode()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_progress_bar_is_a_line_about_once_a_second_and_one_at_its_end() -> None:
    clock = Clock()
    splitter = LineSplitter(Redactor(()), clock)
    told = []
    for percent in range(101):
        told += splitter.feed(f"\r{percent:3}%".encode())
        clock.now_s += 0.125
    told += splitter.feed(b"\ndone\n")
    assert told == [f"{percent:3}%" for percent in range(0, 100, 8)] + ["100%", "done"]


def test_a_bar_that_ends_its_states_with_the_carriage_return_is_told_as_well() -> None:
    splitter = LineSplitter(Redactor(()), Clock())
    assert splitter.feed(b"10%\r20%\r") == ["10%"]
    assert splitter.feed(b"30%\r") == []
    assert splitter.feed(b"\nnext") == ["30%"]
    assert splitter.rest() == ["next"]


def test_of_the_states_that_come_at_once_only_the_newest_is_told() -> None:
    splitter = LineSplitter(Redactor(()), Clock())
    assert splitter.feed(b"before\n" + b"".join(b"\r%d" % number for number in range(50_000))) == ["before", "49998"]
    assert splitter.rest() == ["49999"]


def test_a_bar_that_is_wiped_leaves_no_empty_lines() -> None:
    splitter = LineSplitter(Redactor(()), Clock())
    assert splitter.feed(b"\r    \rtext") == []
    assert splitter.rest() == ["text"]


def test_a_bar_after_a_line_that_was_too_long_is_told() -> None:
    splitter = LineSplitter(Redactor(()), Clock())
    (line,) = splitter.feed(b"x" * (LINE_BYTES + 1))
    assert splitter.feed(b"yy\r50%") == []
    assert splitter.feed(b"\r51%\n") == ["51%"]
    assert line.startswith("xxx")


def test_a_secret_is_redacted_even_across_the_place_where_a_line_is_cut() -> None:
    secret = "s3cr3t-value"
    splitter = LineSplitter(Redactor((secret,)))
    (line,) = splitter.feed(b"x" * (LINE_BYTES - 4) + secret.encode() + b"y" * 100)
    assert "s3cr" not in line
    assert splitter.feed(b"z" * 100 + b"\nnext\n") == ["next"]


def test_each_line_of_a_secret_of_several_lines_is_redacted() -> None:
    redact = Redactor(("-----BEGIN-----\nabcdefgh\n-----END-----",))
    assert redact("key abcdefgh") == "key ***"


def test_a_flood_is_dropped_and_counted() -> None:
    limit = RateLimit(0.0, per_s=10, burst=5)
    assert limit.admit([str(number) for number in range(8)], 0.0) == ["0", "1", "2", "3", "4"]
    assert limit.admit(["late"], 0.0) == []
    marker, line = limit.admit(["again"], 1.0)
    assert line == "again"
    assert "4 lines dropped" in marker
    assert limit.flush() == []
