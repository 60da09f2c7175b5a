"""Explanations of what real ranks have trained and sealed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from trainers.contract import Done, ExitCode, Sealed
from trainers.data.sources import read_labelled
from trainers.errors import BadConfig, TrainerError
from trainers.explain import explain_to, main


def sealed(gang: Gang) -> Path:
    return Path(gang.of(Sealed)[-1].checkpoint)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    """Two ranks, ZeRO 3, with a split of its own."""
    data = {"source": "sklearn://digits", "split": [0.7, 0.2, 0.1]}
    train = {"epochs": None, "steps": 40}
    gang = run_gang(digits_launch(tmp_path_factory.mktemp("digits"), data=data, train=train, parallelism={"zero": 3}))
    assert gang.codes == [0, 0]
    return gang


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    root = tmp_path_factory.mktemp("text")
    (root / "abc.txt").write_text("the cat sat on the mat; " * 200)
    launch = digits_launch(
        root,
        data={"source": str(root / "abc.txt")},
        model={"layers": 1, "width": 16, "heads": 2, "context": 11, "dropout": 0.0},
        train={"epochs": None, "steps": 40, "global_batch": 32, "lr": 2e-2},
        parallelism={"zero": 0},  # windows begin at every character of the sentence
    )
    gang = run_gang(replace(launch, target="text_transformer"), world_size=1)
    assert gang.codes == [0]
    return gang


@pytest.fixture
def retold(tmp_path: Path) -> Callable[..., Path]:
    """A copy of a checkpoint whose manifest says something else of its recipe."""

    def copy(gang: Gang, **recipe: Any) -> Path:
        place = Path(shutil.copytree(sealed(gang), tmp_path / "retold" / sealed(gang).name))
        manifest = json.loads((place / "manifest.json").read_text())
        manifest["extra"]["recipe"].update(recipe)
        (place / "manifest.json").write_text(json.dumps(manifest))
        return place

    return copy


def test_trained_digits_are_explained_whole_by_the_test_part_of_their_run(digits: Gang, tmp_path: Path) -> None:
    html, importance = tmp_path / "page.html", tmp_path / "importance.json"
    checkpoint = str(sealed(digits))
    code = main([checkpoint, "--html", str(html), "--json", str(importance), "--samples", "1000"])
    assert code == ExitCode.OK
    fact = json.loads(importance.read_text())
    assert fact["samples"] == round(1797 * 0.1)  # all of the test part, by the run's own split
    assert fact["right"] / fact["samples"] == pytest.approx(digits.one(Done).metrics["test_accuracy"], abs=1e-6)
    assert fact["completeness"]["gap_ratio"] < 0.01
    assert (fact["checkpoint"], fact["step"], fact["data"]) == (checkpoint, 40, "sklearn://digits")
    assert fact["features_total"] == 64
    values = {each["name"]: each["importance"] for each in fact["features"]}
    assert values["row 0, column 0"] == 0  # always blank in this data set
    assert max(values.values()) > 0.1
    page = html.read_text()
    assert page.count("data:image/png;base64,") == 2 * fact["samples"] + 1
    assert page.count("the change is") == fact["samples"]


def test_data_with_fewer_classes_are_explained_and_those_with_more_refused(digits: Gang, tmp_path: Path) -> None:
    examples = read_labelled("sklearn://digits")
    few, many = tmp_path / "few.npz", tmp_path / "many.npz"
    low = examples.targets < 3
    np.savez(few, x=examples.inputs[low], y=examples.targets[low])
    np.savez(many, x=examples.inputs, y=examples.targets + 2)
    checkpoint = str(sealed(digits))
    fact = explain_to(tmp_path / "few.html", checkpoint, source=str(few), samples=4)
    assert (fact["samples"], fact["data"]) == (4, str(few))
    with pytest.raises(BadConfig, match=r"many\.npz': holds class 11, where the model knows 0 to 9"):
        explain_to(tmp_path / "many.html", checkpoint, source=str(many))


def test_images_of_another_shape_are_refused(digits: Gang, tmp_path: Path) -> None:
    np.savez(tmp_path / "wide.npz", x=np.zeros((40, 8, 12)), y=np.arange(40) % 10)
    with pytest.raises(BadConfig, match=r"input_shape is \[1, 8, 12\], the model's \[1, 8, 8\]"):
        explain_to(tmp_path / "page.html", str(sealed(digits)), source=str(tmp_path / "wide.npz"))


def test_a_character_model_is_explained_on_its_own_text_and_on_another(text: Gang, tmp_path: Path) -> None:
    fact = explain_to(tmp_path / "own.html", str(sealed(text)), samples=20)
    assert (fact["kind"], fact["samples"], fact["features_total"]) == ("text", 20, 11)
    assert fact["right"] >= 15  # "the cat sat on the mat; " is soon known by heart
    near = {each["name"]: each["importance"] for each in fact["features"]}
    assert near["1 before"] > near["11 before"]
    assert "attention, the mean over layers and heads" in (tmp_path / "own.html").read_text()

    # Fewer characters: they must be told apart as they were.
    (tmp_path / "less.txt").write_text("sat on the mat; " * 200)
    fact = explain_to(tmp_path / "other.html", str(sealed(text)), source=str(tmp_path / "less.txt"), samples=12)
    assert fact["right"] >= 6

    (tmp_path / "strange.txt").write_text("the CAT! " * 400)
    with pytest.raises(BadConfig, match=r"holds 4 characters that the model does not know: '!', 'A', 'C', 'T'"):
        explain_to(tmp_path / "page.html", str(sealed(text)), source=str(tmp_path / "strange.txt"))


def test_data_must_be_named_where_the_checkpoint_does_not(
    digits: Gang, retold: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = str(retold(digits, data={}))
    with pytest.raises(BadConfig, match=r"data\.source: got None: must be given"):
        explain_to(tmp_path / "page.html", checkpoint)
    assert explain_to(tmp_path / "page.html", checkpoint, source="sklearn://digits", samples=1)["samples"] == 1


def test_weights_of_another_model_are_refused_by_name(
    digits: Gang, retold: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=r"makes another model than the checkpoint's: size mismatch for first\.weight"):
        explain_to(tmp_path / "page.html", str(retold(digits, model={"width": 12})))


def test_an_entrypoints_model_needs_its_code(
    digits: Gang, retold: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = str(retold(digits, kind="entrypoint", target="my_digits:make_task"))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_digits.py").write_text("from trainers.recipes.digits_cnn import digits_cnn as make_task\n")
    with pytest.raises(BadConfig, match="give --code DIR, the directory that my_digits:make_task is found in"):
        explain_to(tmp_path / "page.html", checkpoint)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    code = main([checkpoint, "--html", "page.html", "--code", "code", "--samples", "2"])
    assert code == ExitCode.OK
    assert "my_digits:make_task" in (tmp_path / "page.html").read_text()
    with pytest.raises(BadConfig, match="only recipes and entrypoints say what their model is"):
        explain_to(tmp_path / "page.html", str(unknown(Path(checkpoint))), source="sklearn://digits")


def unknown(place: Path) -> Path:
    """As older seals are, and those of scripts."""
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["extra"]["recipe"] = {}
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


def test_a_damaged_checkpoint_is_told_and_leaves_no_page(
    digits: Gang, retold: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = retold(digits)
    next(iter(place.glob("*optim_states.pt"))).write_bytes(b"short")
    assert main([str(place), "--html", str(tmp_path / "page.html")]) == ExitCode.STORAGE
    assert "is damaged: " in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_captums_absence_is_told_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TrainerError, match=r"pip install 'evertrain\[explain\]'"):
        explain_to(tmp_path / "page.html", "/nowhere")
