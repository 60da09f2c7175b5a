"""What a client makes of a run file before it leaves the machine."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from orchestrator import shipping, spec
from orchestrator.errors import InvalidSpec, NotFound
from orchestrator.shipping import Misused

RECIPE = "name: a\nrecipe: digits_cnn\ntrain: {epochs: 1}\n"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_code_is_packed_and_stands_in_the_file_by_its_content(tmp_path: Path) -> None:
    write(tmp_path / "src" / "train.py", "print(1)")
    shipment = shipping.prepare(write(tmp_path / "job.yaml", "name: a\nscript: train.py\ncode: ./src\n"))
    assert shipment.bundle is not None
    assert spec.parse(shipment.text).bundle == hashlib.sha256(shipment.bundle).hexdigest()


def test_a_relative_script_brings_the_directory_of_its_run_file(tmp_path: Path) -> None:
    write(tmp_path / "train.py", "print(1)")
    assert shipping.prepare(write(tmp_path / "job.yaml", "name: a\nscript: train.py\n")).bundle is not None


def test_a_script_that_is_not_there_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="script: is not a file below"):
        shipping.prepare(write(tmp_path / "job.yaml", "name: a\nscript: train.py\n"))


def test_deepspeeds_own_file_is_put_in(tmp_path: Path) -> None:
    write(tmp_path / "ds.json", json.dumps({"zero_optimization": {"overlap_comm": False}}))
    shipment = shipping.prepare(write(tmp_path / "job.yaml", RECIPE + "deepspeed: ds.json\n"))
    assert spec.parse(shipment.text).deepspeed == {"zero_optimization": {"overlap_comm": False}}


def test_a_missing_deepspeed_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="deepspeed: is not there"):
        shipping.prepare(write(tmp_path / "job.yaml", RECIPE + "deepspeed: ds.json\n"))


def test_overrides_take_the_place_of_what_the_file_says(tmp_path: Path) -> None:
    overrides = dict(
        map(shipping.parse_override, ["train.lr=1e-2", "name=b", "resources.workers=2", "checkpoint.every=5s"])
    )
    parsed = spec.parse(shipping.prepare(write(tmp_path / "job.yaml", RECIPE), overrides).text)
    assert (parsed.name, parsed.train.lr, parsed.resources.workers, parsed.checkpoint.every) == ("b", 0.01, 2, 5.0)
    assert parsed.train.epochs == 1


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("1", "1"),
        ("true", "true"),
        ("", ""),
        ("a: b # c", "a: b # c"),
        ("[1", "[1"),
        ("x=y", "x=y"),
        ("'1'", "1"),
        ('"1"', "1"),
        ("\"'1'\"", "'1'"),
    ],
)
def test_environment_is_text_as_it_is_typed(tmp_path: Path, typed: str, value: str) -> None:
    overrides = dict([shipping.parse_override(f"env.DEBUG={typed}")])
    assert spec.parse(shipping.prepare(write(tmp_path / "job.yaml", RECIPE), overrides).text).env == {"DEBUG": value}


@pytest.mark.parametrize("text", ["train.lr", "=1", ""])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(Misused, match="KEY=VALUE"):
        shipping.parse_override(text)


def test_an_override_below_a_plain_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misused, match="not a section"):
        shipping.prepare(write(tmp_path / "job.yaml", RECIPE), {"name.x": 1})


def test_a_missing_run_file_is_told_from_a_run_that_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(Misused, match="no run file") as missing:
        shipping.prepare(tmp_path / "job.yaml")
    assert not isinstance(missing.value, NotFound)
    with pytest.raises(Misused, match="directory"):
        shipping.prepare(tmp_path)


def test_a_missing_code_directory_is_a_wrong_place_of_the_run_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"code: .*/nowhere is not a directory"):
        shipping.prepare(write(tmp_path / "job.yaml", "name: a\nscript: train.py\ncode: nowhere\n"))


def test_what_is_not_there_is_named_beside_all_else_that_is_wrong(tmp_path: Path) -> None:
    wrong = "name: a\nscript: train.py\ncode: nowhere\ndeepspeed: ds.json\nqueu: x\nsecrets: [A, A]\n"
    with pytest.raises(InvalidSpec) as refused:
        shipping.prepare(write(tmp_path / "job.yaml", wrong))
    assert [each.path for each in refused.value.problems] == ["deepspeed", "code", "queu", "secrets"]
