"""The run files that people copy."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from orchestrator import spec
from orchestrator.planning.plan import review
from trainers.catalogue import RECIPES

EXAMPLES = sorted((Path(__file__).parents[3] / "deploy" / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_run_file_that_can_work(path: Path) -> None:
    document = yaml.safe_load(path.read_text())
    document.pop("code", None)  # a directory, which only `evertrain submit` ships
    parsed = spec.parse(yaml.safe_dump(document))
    assert parsed.name == document["name"]
    assert review(parsed, []).problems == ()


def test_every_recipe_has_an_example() -> None:
    assert {yaml.safe_load(path.read_text()).get("recipe") for path in EXAMPLES} >= RECIPES.keys()
