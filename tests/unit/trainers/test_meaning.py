"""Weights to begin with whose tensors fit and mean something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from trainers.config import InitFrom
from trainers.contract import MANIFEST_NAME, Manifest
from trainers.errors import BadConfig
from trainers.meaning import insist_on_meaning

PREPARED = {
    "roles": {"numbers": ["age", "height"], "categories": ["town"]},
    "categories": {"town": ["Bonn", "Köln"]},
    "vocabulary": [],
}


def model() -> nn.Module:
    return nn.Sequential(nn.Embedding(3, 4), nn.Linear(4, 2))


def sealed(directory: Path, notes: dict[str, Any]) -> str:
    manifest = Manifest(
        "run", 1, 1, 9, 0, 1, {}, {}, (), {}, True, {}, "2026-01-01T00:00:00+00:00", extra={"notes": notes}
    )
    (directory / MANIFEST_NAME).write_text(manifest.to_json())
    return str(directory)


@pytest.mark.parametrize(
    ("theirs", "ours", "words"),
    [
        ({"vocabulary": "abc"}, {"vocabulary": "abd"}, "knows other characters than these data: 'c' there is 'd' here"),
        ({"labels": ["no", "yes"]}, {"labels": ["yes", "no"]}, "other classes .* name 1.bias under init_from.fresh"),
        (
            {"preparation": PREPARED},
            {"preparation": {**PREPARED, "roles": {"numbers": ["height", "age"], "categories": ["town"]}}},
            "other columns .*: 'age' there is 'height' here, 'height' there is 'age' here",
        ),
        (
            {"preparation": PREPARED},
            {"preparation": {**PREPARED, "categories": {"town": ["Bonn", "Ulm"]}}},
            "other values of town .* name 0.weight under init_from.fresh",
        ),
    ],
)
def test_other_inputs_or_classes_of_the_same_number_are_refused(
    theirs: dict[str, Any], ours: dict[str, Any], words: str, tmp_path: Path
) -> None:
    init = InitFrom(model="parent@1", checkpoint=sealed(tmp_path, theirs))
    with pytest.raises(BadConfig, match=words) as refused:
        insist_on_meaning(model(), ours, init)
    assert (refused.value.path, refused.value.got) == ("init_from.model", "parent@1")


def test_what_begins_at_random_or_is_the_same_or_unknown_may_mean_anything(tmp_path: Path) -> None:
    checkpoint = sealed(tmp_path, {"vocabulary": "abc", "labels": ["no", "yes"]})
    same = {"vocabulary": "abc", "labels": ["no", "yes"], "items": ["new"]}
    insist_on_meaning(model(), same, InitFrom(checkpoint=checkpoint))
    other = {"vocabulary": "abd", "labels": ["yes", "no"]}
    insist_on_meaning(model(), other, InitFrom(checkpoint=checkpoint, fresh=("0.*", "1.*")))
    insist_on_meaning(model(), other, InitFrom(file="/weights.safetensors"))
