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
