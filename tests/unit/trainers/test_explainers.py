"""Explanations of small models that are known, and the page that shows them."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from trainers.data.loader import Splits, Tensors
from trainers.errors import BadConfig, TrainerError
from trainers.explain_page import page
from trainers.explainers import explain
from trainers.explanation import FEATURES_KEPT, as_fact
from trainers.models.dropout import SampleDropout
from trainers.tasks.classification import Classification

KEYS = torch.zeros(4, dtype=torch.int64)


class Flat(nn.Module):
    """A linear model of pixels or numbers."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, classes)

    def forward(self, inputs: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(inputs.flatten(1))
        return logits


class Columns(nn.Module):
    """Linear in the numbers and in the vectors of two categories."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList((nn.Embedding(3, 2), nn.Embedding(4, 2)))
        self.linear = nn.Linear(2 + 4, 3)

    def forward(self, numbers: torch.Tensor, categories: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        vectors = [each(categories[:, index]) for index, each in enumerate(self.embeddings)]
        logits: torch.Tensor = self.linear(torch.cat((numbers, *vectors), dim=1))
        return logits


class Bag(nn.Module):
    """The mean of the real tokens' vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(6, 2), SampleDropout(0.5, layer=0)

    def forward(self, tokens: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        real = (tokens != 0).unsqueeze(2)
        return self.dropout((self.tokens(tokens) * real).sum(dim=1) / real.sum(dim=1), keys)


def task_of(build: Any, **columns: torch.Tensor) -> Classification:
    examples = Tensors({**columns, "targets": torch.arange(len(next(iter(columns.values())))) % 2})
    return Classification(Splits(examples, examples, examples), build, inputs=tuple(columns))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_pixels_of_a_linear_model_count_for_weight_times_pixel_summed_over_channels() -> None:
    task, model = task_of(None, inputs=torch.rand(9, 3, 4, 5)), Flat(60, 2).eval()
    found = explain(task, model, {}, count=6, seed=1)
    assert len({each.index for each in found.samples}) == 6
    for sample in found.samples:
        image = task.splits.test.take(np.array([sample.index]))["inputs"][0]
        weights = model.linear.weight[int(sample.predicted)].detach().view(3, 4, 5)
        assert sample.attributions == pytest.approx((weights * image).sum(dim=0).numpy(), abs=1e-5)
        assert sample.gap == pytest.approx(0, abs=1e-4)
        assert sample.true == str(sample.index % 2)
    mean = np.mean([np.abs(each.attributions) for each in found.samples], axis=0)
    assert found.importance["row 3, column 4"] == pytest.approx(mean[3, 4])
    assert len(found.importance) == 20


def test_the_same_seed_draws_the_same_samples_and_another_one_others() -> None:
    task, model = task_of(None, inputs=torch.rand(40, 1, 2, 2)), Flat(4, 2).eval()
    first, again, other = (explain(task, model, {}, count=5, seed=seed) for seed in (1, 1, 2))
    assert [each.index for each in first.samples] == [each.index for each in again.samples]
    assert [each.index for each in first.samples] != [each.index for each in other.samples]


NOTES = {
    "labels": ["low", "high", "none"],
    "preparation": {
        "roles": {"numbers": ["age", "size"], "categories": ["colour", "shape"]},
        "scales": [{"name": "age", "shift": 40.0, "scale": 10.0}, {"name": "size", "shift": 0.0, "scale": 1.0}],
        "categories": {"colour": ["blue", "red"], "shape": ["<flat>", "round", "square"]},
    },
}


def table() -> tuple[Classification, Columns]:
    ids = torch.stack((torch.arange(8) % 3, torch.arange(8) % 4), dim=1)
    return task_of(None, numbers=torch.randn(8, 2), categories=ids), Columns().eval()


def test_categories_count_for_what_their_vector_adds_to_the_mean_one() -> None:
    task, model = table()
    found = explain(task, model, NOTES, count=8, seed=0)
    every = task.splits.test.take(np.arange(8))
    for sample in found.samples:
        weights = model.linear.weight[NOTES["labels"].index(sample.predicted)].detach()  # type: ignore[attr-defined]
        numbers = weights[:2] * (every["numbers"][sample.index] - every["numbers"].mean(dim=0))
        shares = [numbers]
        for column, embedding in enumerate(model.embeddings):
            vectors = embedding(every["categories"][:, column]).detach()
            shares.append((weights[2 + 2 * column :][:2] * (vectors[sample.index] - vectors.mean(dim=0))).sum().view(1))
        assert sample.attributions == pytest.approx(torch.cat(shares).numpy(), abs=1e-5)
    assert list(found.importance) == ["age", "size", "colour", "shape"]
    assert found.samples[0].true in ("low", "high")


def test_a_row_is_shown_as_the_table_had_it() -> None:
    task, model = table()
    sample = next(each for each in explain(task, model, NOTES, count=8, seed=0).samples if each.index == 1)
    age = float(task.splits.test.take(np.array([1]))["numbers"][0, 0]) * 10 + 40
    assert sample.words == (f"{age:.4g}", sample.words[1], "blue", "<flat>")


def test_feature_vectors_without_names_are_told_by_their_place() -> None:
    task, model = task_of(None, inputs=torch.randn(6, 3)), Flat(3, 2).eval()
    found = explain(task, model, {}, count=3, seed=0)
    assert list(found.importance) == ["column 0", "column 1", "column 2"]
    assert found.samples[0].gap == pytest.approx(0, abs=1e-5)


def test_padding_of_a_text_counts_for_nothing_and_unknown_words_stand_for_none() -> None:
    tokens = torch.tensor([[2, 3, 1, 0], [5, 0, 0, 0], [4, 4, 2, 3]])
    notes = {"words": ["good", "bad", "cat", "dog"], "first_word": 2, "labels": ["no", "yes"]}
    found = explain(task_of(None, inputs=tokens), Bag().eval(), notes, count=3, seed=0)
    by_index = {each.index: each for each in found.samples}
    assert by_index[0].words == ("good", "bad", "(unknown)")
    assert by_index[0].attributions.shape == (3,)
    assert by_index[0].attributions[2] == 0  # it is the baseline already
    assert by_index[1].words == ("dog",)
    assert found.importance["dog"] == pytest.approx(abs(by_index[1].attributions[0]))
    assert by_index[2].gap is None


@dataclass
class Other:
    splits: Splits


def test_other_tasks_are_said_not_to_be_explained_yet() -> None:
    images = task_of(None, inputs=torch.rand(4, 1, 2, 2))
    with pytest.raises(TrainerError, match="a Other is not explained yet"):
        explain(Other(images.splits), Flat(4, 2), {}, count=1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(TrainerError, match=r"inputs like .*float32.* is not explained yet"):
        explain(task_of(None, inputs=torch.rand(4, 2, 2)), Flat(4, 2), {}, count=1, seed=0)
    task, _ = table()
    with pytest.raises(TrainerError, match="2 category columns in a model with 0 embeddings"):
        explain(task, Flat(4, 2), {}, count=1, seed=0)


def test_an_empty_test_part_is_a_bad_config() -> None:
    task = task_of(None, inputs=torch.rand(4, 1, 2, 2))
    empty = Tensors({"inputs": torch.rand(0, 1, 2, 2), "targets": torch.zeros(0, dtype=torch.int64)})
    task = replace(task, splits=replace(task.splits, test=empty))
    with pytest.raises(BadConfig, match=r"data\.split: .* leaves no example in the test part"):
        explain(task, Flat(4, 2), {}, count=1, seed=0)


# ---- the page -------------------------------------------------------------------------------------------------------


class Balanced(HTMLParser):
    """Fails where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.add(tag)


def read(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    return parser


def test_a_page_of_images_holds_its_pictures_and_asks_for_nothing() -> None:
    task, model = task_of(None, inputs=torch.rand(9, 1, 4, 5)), Flat(20, 2).eval()
    explanation = explain(task, model, {}, count=3, seed=0)
    html = page(explanation, {"model": "digits", "checkpoint": "/seals/step-1"})
    assert "script" not in read(html).seen
    assert set(re.findall(r'(?:src|href)="([^"]{11})', html)) == {"data:image/"}
    pictures = [Image.open(io.BytesIO(base64.b64decode(each))) for each in re.findall(r"base64,([^\"]+)", html)]
    assert [each.size for each in pictures] == [(5, 4)] * 7  # the whole, and two of each sample
    for sample in explanation.samples:
        assert f"test sample {sample.index}" in html
        assert f"<b>{sample.predicted}</b> ({sample.predicted_probability:.1%})" in html
        assert f"the change is {sample.change:.4f}" in html
    strongest = np.asarray(pictures[2])
    at = np.unravel_index(np.abs(explanation.samples[0].attributions).argmax(), (4, 5))
    full = (178, 24, 43) if explanation.samples[0].attributions[at] > 0 else (33, 102, 172)
    assert tuple(strongest[at]) == full


def test_what_data_say_is_text_on_the_page_and_never_markup() -> None:
    task, model = table()
    html = page(explain(task, model, NOTES, count=8, seed=0), {"model": "<script>alert(1)</script>"})
    assert "script" not in read(html).seen
    assert "flat" not in read(html).seen
    assert "shape = &lt;flat&gt;" in html


def test_a_page_of_text_shows_each_token_and_blanks_too() -> None:
    notes = {"words": [" ", "\n", "<b>", "dog"], "first_word": 2}
    found = explain(task_of(None, inputs=torch.tensor([[2, 3, 4, 5]])), Bag().eval(), notes, count=1, seed=0)
    html = page(found, {})
    read(html)
    assert re.findall(r">([^<]*)</span>", html) == ["␣", "↵", "&lt;b&gt;", "dog"]
    assert "not promised by this method" in html


def test_the_fact_is_plain_and_keeps_the_highest_features_alone() -> None:
    task, model = task_of(None, inputs=torch.rand(3, 1, 12, 12)), Flat(144, 2).eval()
    explanation = explain(task, model, {}, count=3, seed=0)
    fact = json.loads(json.dumps(as_fact(explanation, {"checkpoint": "/seals/step-1", "step": 1})))
    assert (fact["checkpoint"], fact["samples"], fact["features_total"]) == ("/seals/step-1", 3, 144)
    values = [each["importance"] for each in fact["features"]]
    assert values == sorted(explanation.importance.values(), reverse=True)[:FEATURES_KEPT]
    assert fact["completeness"]["largest_gap"] == pytest.approx(0, abs=1e-4)
    assert fact["right"] == sum(each.predicted == each.true for each in explanation.samples)
