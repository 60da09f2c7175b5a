"""What rank 0 finds, and what it does not take for nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from trainers.archive import Archive
from trainers.contract import Admitted, Launch, incarnation_dir, step_dir
from trainers.errors import StorageError
from trainers.storage import LocalStorage


def launch(root: Path, sealed_step: int | None) -> Launch:
    return Launch(
        run_id="run-1",
        run_name="run",
        attempt=2,
        incarnation=1,
        kind="recipe",
        target="digits_cnn",
        config={},
        checkpoint_root=str(root),
        staging_dir=str(root / "staging"),
        admitted=(Admitted(1),),
        sealed_step=sealed_step,
    )


def open_archive(of: Launch) -> None:
    Archive(LocalStorage(Path(of.checkpoint_root), lambda: None), of, 3, lambda: None).open()


@pytest.mark.parametrize(
    ("sealed_step", "words"), [(300, "step 300 was sealed"), (0, "earlier attempts sealed checkpoints")]
)
def test_where_something_was_sealed_an_empty_place_is_no_fresh_start(
    sealed_step: int, words: str, tmp_path: Path
) -> None:
    with pytest.raises(StorageError, match=f"^{words}, but there is no checkpoint in {tmp_path} any more"):
        open_archive(launch(tmp_path, sealed_step))
    remains = tmp_path / incarnation_dir(1, 1) / step_dir(301)
    remains.mkdir(parents=True)  # of a save that never ended
    with pytest.raises(StorageError, match=words):
        open_archive(launch(tmp_path, sealed_step))
    (remains / "manifest.json").write_text("{}")  # spoilt, which is told where it is skipped
    open_archive(launch(tmp_path, sealed_step))


def test_where_nothing_was_sealed_an_empty_place_is_a_fresh_start(tmp_path: Path) -> None:
    open_archive(launch(tmp_path, None))
    open_archive(replace(launch(tmp_path, None), attempt=3))
