"""What an observer keeps of images until they were looked at."""

from __future__ import annotations

import numpy as np

from orchestrator.api.backlog import IMAGE_BYTES, Backlog, Block, Label, Row


def image(share: float) -> Row:
    """Its pixels take such a share of the room that there is."""
    return Row({"image": np.zeros((2, 2))}, "r", 0.0, None, None, None, int(share * IMAGE_BYTES))


def test_images_that_wait_are_bounded_by_their_bytes_and_others_by_their_number() -> None:
    backlog = Backlog(limit=100, plenty=50)
    for entry in (image(0.6), image(0.6), image(0.3), Label("r", 1), Block(3, {}, int(0.2 * IMAGE_BYTES))):
        backlog.put(entry, entry.rows if isinstance(entry, Block) else 1)
    assert (backlog.counts().recorded, backlog.counts().dropped) == (7, 4)
    taken, _ = backlog.take(100)
    assert len(taken) == 3
    backlog.put(image(0.9))
    assert backlog.counts().dropped == 4
