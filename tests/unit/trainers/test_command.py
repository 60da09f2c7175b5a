"""`python -m trainers.train` without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainers.command import read_command
from trainers.config import read_settings
from trainers.contract import LAUNCH_ENV


def test_a_recipe_needs_nothing_but_its_name() -> None:
    launch, every_step = read_command(["--recipe", "digits_cnn"])
    assert read_settings(launch).data.source == "sklearn://digits"
    assert (launch.kind, launch.target, every_step) == ("recipe", "digits_cnn", False)


def test_values_are_set_by_their_path_in_the_run_file() -> None:
    arguments = ["--entrypoint", "a.b:make", "--set", "train.lr=0.5", "--set", "data.source=x.npz", "--every-step"]
    launch, every_step = read_command([*arguments, "--set", "train.schedule.type=cosine"])
    settings = read_settings(launch)
    assert (settings.train.lr, settings.train.schedule.type) == (0.5, "cosine")
    assert settings.data.source == "x.npz"
    assert every_step


def test_a_script_keeps_its_own_arguments() -> None:
    launch, _ = read_command(["--script", "work.py", "--", "--steps", "5"])
    assert (launch.kind, launch.target, launch.args) == ("script", "work.py", ("--steps", "5"))


def test_the_launch_document_of_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, _ = read_command(["--recipe", "digits_cnn"])
    (tmp_path / "launch.json").write_text(launch.to_json())
    monkeypatch.setenv(LAUNCH_ENV, str(tmp_path / "launch.json"))
    assert read_command([]) == (launch, False)


@pytest.mark.parametrize("arguments", [[], ["--recipe", "digits_cnn"]])
def test_what_is_missing_is_named(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(LAUNCH_ENV, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit):
        read_command(arguments)
    assert ("--checkpoints" if arguments else LAUNCH_ENV) in capsys.readouterr().err
