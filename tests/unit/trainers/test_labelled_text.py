"""Texts with labels: what is read, how it becomes tokens, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from trainers.config import Data, Settings, Train
from trainers.data.labelled_text import read_labelled_text
from trainers.errors import BadConfig
from trainers.models.text_classifier import PADDING
from trainers.recipes.text_classification import UNKNOWN, text_classification

JSONL = '{"text": "good", "label": "up"}\n\n{"text": "bad", "label": "down"}\n' * 10


def settings(source: object, **model: object) -> Settings:
    return Settings(Data(str(source), (0.5, 0.25, 0.25)), Train(global_batch=1, epochs=1), model=model)


def write(directory: Path, text: str, name: str = "some.jsonl") -> Path:
    (directory / name).write_text(text, encoding="utf-8")
    return directory / name


def test_topics_are_passages_that_stand_nowhere_else() -> None:
    topics = read_labelled_text("text://pydoc_topics")
    assert len(set(topics.texts)) == len(topics.texts) > 500
    assert len(Counter(topics.labels)) == 8


def test_jsonl_and_csv_are_read(tmp_path: Path) -> None:
    lines = read_labelled_text(str(write(tmp_path, JSONL)))
    rows = read_labelled_text(str(write(tmp_path, 'id,label,text\n1,up,"good, really"\n2,down,bad\n', "some.csv")))
    assert (lines.texts[:2], lines.labels[:2]) == (["good", "bad"], ["up", "down"])
    assert (rows.texts, rows.labels) == (["good, really", "bad"], ["up", "down"])


def test_texts_become_words_and_padding(tmp_path: Path) -> None:
    lines = [{"text": ("Very good!", "bad ...")[index % 2], "label": index % 2} for index in range(20)]
    path = write(tmp_path, "".join(json.dumps(each) + "\n" for each in lines))
    task = text_classification(settings(path, context=5))
    taken = task.splits.train.take(np.arange(len(task.splits.train)))
    for tokens, target in zip(taken["inputs"].tolist(), taken["targets"].tolist(), strict=True):
        text = [task.notes["words"][each - task.notes["first_word"]] for each in tokens if each != PADDING]
        assert text == (["very", "good", "!"], ["bad", ".", ".", "."])[target]
        assert len(tokens) == 5


def test_words_that_training_hardly_saw_share_one_token(tmp_path: Path) -> None:
    lines = [{"text": f"the name{index}", "label": index % 2} for index in range(20)]
    path = write(tmp_path, "".join(json.dumps(each) + "\n" for each in lines))
    task = text_classification(settings(path, context=2))
    assert task.notes["words"] == ["the"]
    for part in (task.splits.train, task.splits.validation, task.splits.test):
        assert part.take(np.arange(2))["inputs"].tolist() == [[task.notes["first_word"], UNKNOWN]] * 2


@pytest.mark.parametrize(
    ("text", "model", "words"),
    [
        (
            JSONL.replace("good", "so very good"),
            {"context": 2},
            r"^model\.context: got 2: is less than the 3 words of text 0 .*true",
        ),
        (JSONL.replace("down", "up"), {}, "all 10 training examples are of class 0"),
        ("", {}, "holds no text"),
        ('{"text": "", "label": "up"}\n', {}, "line 1 must have a text that is not empty"),
        ('{"text": "good"}\n', {}, "line 1 must have a label"),
        ("[1]\n", {}, "line 1 must have a text"),
        ("{torn\n", {}, "must be a UTF-8 .jsonl file"),
        (JSONL, {"width": 12}, r"^model\.width: got 12: must be a multiple of twice model\.heads, 8"),
        (JSONL, {"family": "rnn", "width": 7}, r"^model\.width: got 7: must be even"),
        (JSONL, {"family": "cnn"}, r"^model\.family: got 'cnn': must be one of transformer, rnn"),
    ],
)
def test_texts_that_cannot_be_learned_from_are_refused(
    text: str, model: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BadConfig, match=words):
        text_classification(settings(write(tmp_path, text), **model))


def test_long_texts_lose_their_end_where_that_is_wished(tmp_path: Path) -> None:
    task = text_classification(settings(write(tmp_path, JSONL.replace("good", "so good")), context=1, truncate=True))
    assert task.splits.train.take(np.arange(1))["inputs"].shape == (1, 1)


def test_another_kind_of_file_is_refused() -> None:
    with pytest.raises(BadConfig, match=r"must be text://pydoc_topics, or a \.jsonl or \.csv file"):
        read_labelled_text("some.txt")
