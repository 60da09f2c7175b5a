"""Weights from elsewhere: what goes where, and what is told when it does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainers.config import InitFrom
from trainers.errors import BadConfig
from trainers.init_from import load_first_weights


class Encoder(nn.Module):
    def __init__(self, vocabulary: int = 5) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, 3)
        self.dense = nn.Linear(3, 3)


class Classifier(nn.Module):
    def __init__(self, vocabulary: int = 5) -> None:
        super().__init__()
        self.encoder = Encoder(vocabulary)
        self.head = nn.Linear(3, 2)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Encoder, str]:
    encoder = Encoder()
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    return encoder, str(tmp_path / "encoder.safetensors")


def refused(into: nn.Module, **init: Any) -> BadConfig:
    before = {name: each.clone() for name, each in into.state_dict().items()}
    with pytest.raises(BadConfig) as caught:
        load_first_weights(into, InitFrom(**init))
    assert all(torch.equal(each, before[name]) for name, each in into.state_dict().items())  # nothing half loaded
    return caught.value


def test_tensors_go_where_their_names_say(trained: tuple[Encoder, str]) -> None:
    encoder, file = trained
    model = Classifier()
    head = model.head.weight.clone()
    load_first_weights(model, InitFrom(file=file, rename={"": "encoder."}, fresh=("head.*",)))
    assert torch.equal(model.encoder.tokens.weight, encoder.tokens.weight)
    assert torch.equal(model.encoder.dense.bias, encoder.dense.bias)
    assert torch.equal(model.head.weight, head)


def test_a_directory_of_safetensors_is_read_whole(trained: tuple[Encoder, str]) -> None:
    encoder, file = trained
    save_file({"head.weight": torch.ones(2, 3), "head.bias": torch.ones(2)}, Path(file).with_name("head.safetensors"))
    model = Classifier()
    rename = {"": "encoder.", "head.": "head."}  # the longest beginning decides
    load_first_weights(model, InitFrom(file=str(Path(file).parent), rename=rename))
    assert model.head.weight.sum() == 6
    assert torch.equal(model.encoder.tokens.weight, encoder.tokens.weight)


def test_another_vocabulary_is_told_with_both_shapes(trained: tuple[Encoder, str]) -> None:
    error = refused(Encoder(vocabulary=8), file=trained[1])
    assert error.path == "init_from.file"
    assert "the vocabulary differs: tokens.weight is [5, 3] there and [8, 3] here" in str(error)
    assert "init_from.fresh" in str(error)


def test_another_shape_is_told_with_both_shapes(tmp_path: Path) -> None:
    state = {**Encoder().state_dict(), "dense.bias": torch.zeros(4)}
    save_file(state, tmp_path / "wide.safetensors")
    error = refused(Encoder(), file=str(tmp_path / "wide.safetensors"))
    assert "dense.bias is [4] there and [3] here" in str(error)


def test_what_is_missing_and_what_has_no_place_is_named(trained: tuple[Encoder, str]) -> None:
    error = refused(Classifier(), file=trained[1], rename={"tokens.": "encoder.tokens."})
    assert "the model has no dense.weight: map it by init_from.rename, or name it under init_from.ignore" in str(error)
    assert "there is no encoder.dense.weight there" in str(error)
    assert "and 1 more" in str(error) or "there is no head.bias there" in str(error)


def test_what_may_be_left_out_is_said_by_patterns(trained: tuple[Encoder, str]) -> None:
    model = Classifier()
    init = InitFrom(
        file=trained[1], rename={"tokens.": "encoder.tokens."}, ignore=("dense.*",), fresh=("*.dense.*", "head.*")
    )
    load_first_weights(model, init)
    assert torch.equal(model.encoder.tokens.weight, trained[0].tokens.weight)


def test_tied_weights_are_given_once(tmp_path: Path) -> None:
    model = Encoder()
    model.dense.weight = model.tokens.weight
    save_file({"tokens.weight": torch.ones(5, 3), "dense.bias": torch.zeros(3)}, tmp_path / "tied.safetensors")
    load_first_weights(model, InitFrom(file=str(tmp_path / "tied.safetensors")))
    assert model.dense.weight.sum() == 15


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.safetensors", None, "no such file"),
        ("pickled.pt", b"x", "must be a .safetensors file"),
        ("broken.safetensors", b"x" * 30, "cannot be read as safetensors"),
        ("empty", None, "no such file"),
    ],
)
def test_a_source_that_is_none_is_told(name: str, content: bytes | None, words: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert words in str(refused(Encoder(), file=str(tmp_path / name)))


def test_a_directory_without_weights_is_told(tmp_path: Path) -> None:
    assert "no *.safetensors file" in str(refused(Encoder(), file=str(tmp_path)))


def test_a_checkpoint_without_a_manifest_is_told(tmp_path: Path) -> None:
    error = refused(Encoder(), checkpoint=str(tmp_path / "attempt-0001" / "step-1"), model="digits@3")
    assert error.path == "init_from.model"
    assert "is no sealed checkpoint" in str(error)
