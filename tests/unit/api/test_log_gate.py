from __future__ import annotations

from orchestrator.api.log_gate import LogGate
from orchestrator.core.records import LogLine


def line(seq: int, text: str = "x" * 100, run: str = "run-a", source: str = "host") -> LogLine:
    return LogLine(run, 1, 1, 0, 0.0, text, source, seq)


def gate(line_bytes: int = 1000, rate: int = 100, burst: int = 300) -> LogGate:
    return LogGate(line_bytes=line_bytes, rate_bytes_per_s=rate, burst_bytes=burst)


def test_lines_within_the_rate_pass_as_they_are() -> None:
    lines = [line(seq) for seq in (1, 2, 3)]
    assert gate().admit(lines, 0.0) == lines


def test_a_long_line_is_cut_and_says_so() -> None:
    kept = gate(line_bytes=10).admit([line(1, "é" * 50)], 0.0)[0]
    assert kept.text.startswith("é" * 5 + " ")
    assert "90 more bytes" in kept.text


def test_what_is_over_the_rate_leaves_one_line_that_counts_it() -> None:
    kept = gate().admit([line(seq) for seq in range(1, 8)], 0.0)
    assert [each.seq for each in kept] == [1, 2, 3, 4]
    assert "4 lines dropped" in kept[3].text


def test_the_rate_fills_up_again_with_time() -> None:
    limited = gate()
    limited.admit([line(seq) for seq in range(1, 6)], 0.0)
    assert limited.admit([line(6), line(7)], 1.0)[0].text == "x" * 100
    assert len(limited.admit([line(seq) for seq in range(8, 12)], 1000.0)) == 4


def test_a_loud_run_does_not_silence_another() -> None:
    limited = gate()
    limited.admit([line(seq) for seq in range(1, 20)], 0.0)
    quiet = line(1, run="run-b")
    assert limited.admit([quiet], 0.0) == [quiet]


def test_sources_of_one_run_share_its_rate_and_have_markers_of_their_own() -> None:
    lines = [line(seq, source=source) for seq in range(1, 5) for source in ("one", "two")]
    kept = gate().admit(lines, 0.0)
    assert len([each for each in kept if "dropped" not in each.text]) == 3
    assert sorted(each.source for each in kept if "dropped" in each.text) == ["one", "two"]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    limited = gate()
    limited.admit([line(seq) for seq in range(1, 4)], 100.0)
    assert "dropped" in limited.admit([line(4)], 50.0)[0].text
    assert "dropped" in limited.admit([line(5)], 100.0)[0].text


def test_buckets_of_runs_that_went_silent_are_forgotten() -> None:
    limited = gate()
    for number in range(10_050):
        limited.admit([line(1, "x", run=f"run-{number}")], float(number))
    assert len(limited._buckets) < 10_001
