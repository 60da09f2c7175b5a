"""A rank that waits for a slot goes on when its host says so, and only then."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.unit.trainers.test_progress import Recorder
from trainers.contract import Launch, PhaseChanged
from trainers.errors import Stopped
from trainers.progress import Progress
from trainers.train import begin_to_restore


def wait_at(gate: Path, said: bytes, sink: Recorder) -> None:
    """A rank at a gate that opens, says that and closes."""
    os.mkfifo(gate)
    host = threading.Thread(target=gate.write_bytes, args=(said,))
    host.start()
    launch = Launch("run-1", "one", 1, 1, "recipe", "digits_cnn", {}, "/c", "/s", gate=str(gate))
    try:
        begin_to_restore(launch, Progress(sink))
    finally:
        host.join()


def test_a_rank_goes_on_once_its_host_says_so(tmp_path: Path) -> None:
    sink = Recorder()
    wait_at(tmp_path / "gate", b"go", sink)
    assert [each.phase for each in sink.said if isinstance(each, PhaseChanged)] == ["restoring"]


def test_a_rank_whose_host_goes_away_while_it_waits_writes_nothing_and_ends(tmp_path: Path) -> None:
    sink = Recorder()
    with pytest.raises(Stopped, match="its host went away"):
        wait_at(tmp_path / "gate", b"", sink)
    assert not sink.said
