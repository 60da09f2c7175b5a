"""One explainer for each kind of task: of images, of a table's rows, of a text's label, of the next token."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from trainers.attribution import attention, embedded_as, integrated_gradients, occlusion
from trainers.data.loader import Batch, Examples
from trainers.data.sampler import Indices, shuffled
from trainers.errors import BadConfig, TrainerError
from trainers.explanation import Array, Explanation, Sample, mean_by_place, mean_by_word
from trainers.tasks.classification import Classification
from trainers.tasks.language_modelling import LanguageModelling
from trainers.tasks.task import Task

_INTEGRATED_GRADIENTS = "integrated gradients (Sundararajan et al. 2017)"
_OCCLUSION = "occlusion (Zeiler and Fergus 2014), one token at a time"
_LOGIT = "the logit of the predicted class"
_TRAINING_SEEN = 4096  # examples of the training part that a baseline is made of
_DRAWS = 4  # replacements of a token, where none means nothing


@dataclass(frozen=True)
class Subject:
    """What is explained, on which examples of the test part. The model rests on the CPU."""

    task: Task
    model: nn.Module
    notes: Mapping[str, Any]  # of the task, as kept in the checkpoint
    indices: Indices
    seed: int

    def taken(self) -> list[tuple[int, Batch]]:
        """Each chosen example by its index, as a batch of one."""
        batch = self.task.splits.test.take(self.indices)
        return [
            (int(index), {name: column[place : place + 1] for name, column in batch.items()})
            for place, index in enumerate(self.indices)
        ]


def explain(task: Task, model: nn.Module, notes: Mapping[str, Any], count: int, seed: int) -> Explanation:
    """`count` examples of the test part, drawn by `seed`, or all that there are.

    Raises BadConfig when that part is empty, and TrainerError for a task that is not explained yet.
    """
    test = task.splits.test
    if not len(test):
        raise BadConfig("data.split", None, "leaves no example in the test part, which samples are drawn from")
    subject = Subject(task, model, notes, shuffled(len(test), seed)[:count], seed)
    return _explainer(task)(subject)


def _explainer(task: Task) -> Callable[[Subject], Explanation]:
    if isinstance(task, LanguageModelling):
        return next_tokens
    if isinstance(task, Classification):
        example = task.splits.test.take(np.zeros(1, dtype=np.int64))
        kinds = [(example[name].is_floating_point(), example[name].ndim) for name in task.inputs]
        if kinds == [(True, 4)]:
            return images
        if kinds == [(False, 2)]:
            return labelled_texts
        if kinds in ([(True, 2)], [(True, 2), (False, 2)]):
            return tables
        shapes = {name: [str(example[name].dtype), *example[name].shape] for name in task.inputs}
        raise TrainerError(
            f"a classification of inputs like {shapes} is not explained yet: only images, tables and texts"
        )
    raise TrainerError(f"a {type(task).__name__} is not explained yet: only classification and language modelling are")


# ---- images ---------------------------------------------------------------------------------------------------------


def images(subject: Subject) -> Explanation:
    """Inputs [n, channels, height, width]: integrated gradients from black."""
    (name,) = _inputs(subject)
    samples = []
    for index, batch in subject.taken():
        image = batch[name]
        forward = _forward(subject.model)
        told = _told(subject, batch, forward(image))
        found = integrated_gradients(forward, (image,), (torch.zeros_like(image),), told["target"])
        samples.append(
            Sample(
                index=index,
                **told["said"],
                attributions=_array(found.parts[0][0].sum(dim=0)),
                image=_array(image[0]),
                change=found.change,
                gap=found.gap,
            )
        )
    mean = mean_by_place(samples)
    return Explanation(
        kind="image",
        method=_INTEGRATED_GRADIENTS,
        output=_LOGIT,
        baseline="zero in every pixel",
        samples=tuple(samples),
        importance={f"row {row}, column {column}": float(mean[row, column]) for row, column in np.ndindex(mean.shape)},
        importance_of="pixel, counted from 0",
    )


# ---- tables ---------------------------------------------------------------------------------------------------------


def tables(subject: Subject) -> Explanation:
    """Numbers [n, columns], and categories [n, columns] where there are: integrated gradients from the training part's
    mean, of numbers and of the vectors that the model has for each category."""
    numbers, ids = _numbers_and_ids(subject, _some(subject.task.splits.train, _TRAINING_SEEN))
    embeddings = _embeddings(subject.model, ids.shape[1])
    baselines = tuple(each.mean(dim=0, keepdim=True) for each in (numbers, *_vectors(embeddings, ids)))
    columns = _columns(subject.notes, numbers.shape[1], ids.shape[1])
    samples = []
    for index, batch in subject.taken():
        numbers, ids = _numbers_and_ids(subject, batch)
        forward = _forward_embedded(subject, embeddings, ids)
        inputs = (numbers, *_vectors(embeddings, ids))
        told = _told(subject, batch, forward(*inputs))
        found = integrated_gradients(forward, inputs, baselines, told["target"])
        parts = [found.parts[0][0], *(each.sum(dim=1) for each in found.parts[1:])]
        samples.append(
            Sample(
                index=index,
                **told["said"],
                attributions=_array(torch.cat(parts)),
                words=_row(subject.notes, columns, numbers[0], ids[0]),
                change=found.change,
                gap=found.gap,
            )
        )
    return Explanation(
        kind="table",
        method=_INTEGRATED_GRADIENTS,
        output=_LOGIT,
        baseline="the mean of the training part",
        samples=tuple(samples),
        importance=dict(zip(columns, map(float, mean_by_place(samples)), strict=True)),
        importance_of="column",
    )


def _numbers_and_ids(subject: Subject, batch: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both [n, columns]; of ids there may be no column."""
    numbers, *ids = (batch[name] for name in _inputs(subject))
    return numbers, ids[0] if ids else torch.empty(len(numbers), 0, dtype=torch.int64)


def _embeddings(model: nn.Module, columns: int) -> list[nn.Embedding]:
    """One for each column of categories, in their order. Raises TrainerError."""
    found = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    if len(found) != columns:
        raise TrainerError(
            f"a table of {columns} category columns in a model with {len(found)} embeddings is not explained yet: "
            "each column must have one"
        )
    return found


def _vectors(embeddings: Sequence[nn.Embedding], ids: torch.Tensor) -> list[torch.Tensor]:
    return [each(column).detach() for each, column in zip(embeddings, ids.unbind(dim=1), strict=True)]


def _forward_embedded(
    subject: Subject, embeddings: Sequence[nn.Embedding], ids: torch.Tensor
) -> Callable[..., torch.Tensor]:
    """The model as a function of numbers and of one vector for each category of one sample."""
    takes_ids = len(_inputs(subject)) == 2
    inner = _forward(subject.model)

    def forward(numbers: torch.Tensor, *vectors: torch.Tensor) -> torch.Tensor:
        given = (numbers, ids.expand(len(numbers), -1)) if takes_ids else (numbers,)
        with embedded_as(embeddings, vectors):
            return inner(*given)

    return forward


def _columns(notes: Mapping[str, Any], numbers: int, categories: int) -> tuple[str, ...]:
    roles = notes.get("preparation", {}).get("roles", {})
    known = (*roles.get("numbers", ()), *roles.get("categories", ()))
    if len(known) == numbers + categories:
        return known
    return tuple(f"column {index}" for index in range(numbers + categories))


def _row(notes: Mapping[str, Any], columns: Sequence[str], numbers: torch.Tensor, ids: torch.Tensor) -> tuple[str, ...]:
    """The values as the table had them, where the notes say how they were encoded."""
    preparation = notes.get("preparation", {})
    scales = {each["name"]: each for each in preparation.get("scales", ())}
    values = preparation.get("categories", {})
    shown = []
    for name, number in zip(columns, numbers.tolist(), strict=False):
        scale = scales.get(name, {"scale": 1.0, "shift": 0.0})
        shown.append(f"{number * scale['scale'] + scale['shift']:.4g}")
    for name, place in zip(columns[len(numbers) :], ids.tolist(), strict=True):
        known = values.get(name, ())
        shown.append(known[place - 1] if 0 < place <= len(known) else f"value {place}")
    return tuple(shown)


# ---- texts ----------------------------------------------------------------------------------------------------------


def labelled_texts(subject: Subject) -> Explanation:
    """Tokens [n, positions], of which those below the notes' `first_word` fill up or stand for unknown words."""
    (name,) = _inputs(subject)
    first = int(subject.notes.get("first_word", 0))
    forward = _forward(subject.model)
    draw = _drawn(subject, name) if first == 0 else lambda tokens: [torch.full_like(tokens, first - 1)]
    samples = []
    for index, batch in subject.taken():
        tokens = batch[name]
        real = int((tokens[0] != 0).sum()) if first else tokens.shape[1]
        told = _told(subject, batch, forward(tokens))
        looks = attention(subject.model, forward, tokens)
        samples.append(
            Sample(
                index=index,
                **told["said"],
                attributions=_array(occlusion(forward, tokens, draw(tokens), told["target"])[:real]),
                words=_words(subject.notes, tokens[0, :real]),
                attention=None if looks is None else _array(looks[:real, :real].mean(dim=0)),
            )
        )
    return Explanation(
        kind="text",
        method=_OCCLUSION,
        output="the logarithm of the predicted class's probability",
        baseline="an unknown word" if first else f"{_DRAWS} tokens drawn from the training part",
        samples=tuple(samples),
        importance=mean_by_word(samples),
        importance_of="word",
    )


def next_tokens(subject: Subject) -> Explanation:
    """Windows [n, context + 1]: what each token of the context counted for in the prediction of the last one."""

    def forward(tokens: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = subject.model(tokens, _keys(tokens))[:, -1]
        return logits.float()

    draw = _drawn(subject, "tokens")
    samples = []
    for index, batch in subject.taken():
        tokens = batch["tokens"][:, :-1]
        told = _told(subject, {"targets": batch["tokens"][:, -1]}, forward(tokens))
        looks = attention(subject.model, forward, tokens)
        samples.append(
            Sample(
                index=index,
                **told["said"],
                attributions=_array(occlusion(forward, tokens, draw(tokens), told["target"])),
                words=_words(subject.notes, tokens[0]),
                attention=None if looks is None else _array(looks[-1]),
            )
        )
    mean = mean_by_place(samples)
    return Explanation(
        kind="text",
        method=_OCCLUSION,
        output="the logarithm of the predicted token's probability",
        baseline=f"{_DRAWS} tokens drawn from the training part",
        samples=tuple(samples),
        importance={f"{len(mean) - place} before": float(each) for place, each in enumerate(mean)},
        importance_of="position before the predicted token",
    )


def _drawn(subject: Subject, name: str) -> Callable[[torch.Tensor], list[torch.Tensor]]:
    """What stands for any token: tokens as frequent as in training."""
    seen = _some(subject.task.splits.train, _TRAINING_SEEN)[name].flatten()
    seeds = itertools.count(subject.seed)

    def draw(tokens: torch.Tensor) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(next(seeds))
        return [seen[torch.randint(len(seen), tokens.shape, generator=generator)] for _ in range(_DRAWS)]

    return draw


def _words(notes: Mapping[str, Any], tokens: torch.Tensor) -> tuple[str, ...]:
    """The tokens as people write them."""
    if isinstance(characters := notes.get("vocabulary"), str):
        return tuple(characters[each] for each in tokens.tolist())
    words, first = notes.get("words"), notes.get("first_word", 0)
    if isinstance(words, list):
        return tuple(words[each - first] if each >= first else "(unknown)" for each in tokens.tolist())
    return tuple(map(str, tokens.tolist()))


# ---- all of them ----------------------------------------------------------------------------------------------------


def _inputs(subject: Subject) -> tuple[str, ...]:
    assert isinstance(subject.task, Classification)
    return subject.task.inputs


def _forward(model: nn.Module) -> Callable[..., torch.Tensor]:
    """Logits [batch, classes] of the model's inputs alone."""

    def forward(*inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = model(*inputs, _keys(inputs[0])).float()
        return logits

    return forward


def _keys(inputs: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(inputs), dtype=torch.int64)  # nothing is dropped out of a model at rest


def _told(subject: Subject, batch: Batch, logits: torch.Tensor) -> dict[str, Any]:
    """What the model says of one sample: the class to explain, and `said`, which a Sample keeps."""
    probabilities = logits.detach()[0].softmax(dim=-1)
    target, true = int(probabilities.argmax()), int(batch["targets"][0])
    said = {
        "predicted": _label(subject, target),
        "predicted_probability": float(probabilities[target]),
        "true": _label(subject, true),
        "true_probability": float(probabilities[true]),
    }
    return {"target": target, "said": said}


def _label(subject: Subject, target: int) -> str:
    if isinstance(subject.task, LanguageModelling):
        return _words(subject.notes, torch.tensor([target]))[0]
    labels = subject.notes.get("labels")
    return str(labels[target]) if isinstance(labels, list) and target < len(labels) else str(target)


def _some(examples: Examples, most: int) -> Mapping[str, torch.Tensor]:
    """As many examples as `most`, spread evenly."""
    return examples.take(np.unique(np.linspace(0, len(examples) - 1, most).astype(np.int64)))


def _array(values: torch.Tensor) -> Array:
    return values.detach().numpy().astype(np.float64)
