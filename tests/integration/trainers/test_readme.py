"""What trainers/README.md tells a newcomer to type."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import yaml

from tests.integration.trainers.gangs import digits_launch, run_gang
from trainers.contract import Done, Failed

README = Path(__file__).parents[3] / "trainers" / "README.md"


def test_a_model_of_ones_own_learns_as_it_is_typed_from_the_readme(tmp_path: Path) -> None:
    section = README.read_text().partition("## How to add a model")[2]
    python, run_file = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml"))
    assert python is not None
    assert run_file is not None
    (tmp_path / "line.py").write_text(python[1])
    said = yaml.safe_load(run_file[1])
    launch = digits_launch(tmp_path / "run", data={"source": ""}, model={}, train=said["train"])
    gang = run_gang(replace(launch, kind="entrypoint", target=said["entrypoint"], code_dir=str(tmp_path)))
    assert gang.codes == [0, 0], gang.of(Failed)
    assert gang.one(Done).metrics["test_error"] < 0.01
