"""Hugging Face's transformers: a tiny Llama and its tokenizer, made here, on real text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from tests.tiny_llama import VOCABULARY, write_tiny_llama
from trainers.config import Data, Settings, Train
from trainers.contract import Done, ExitCode, Failed, Launch, Sealed
from trainers.errors import BadConfig
from trainers.export import export
from trainers.recipes.hf_causal_lm import hf_causal_lm

transformers = pytest.importorskip("transformers")
SOURCE, SPLIT = "text://pydoc_topics", (0.96, 0.02, 0.02)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("llama"))


def llama_launch(root: Path, model: dict[str, Any], *, zero: int = 1, **train: Any) -> Launch:
    return replace(
        digits_launch(
            root,
            data={"source": SOURCE, "split": list(SPLIT)},
            model={"context": 64, **model},
            train={"epochs": None, "steps": 60, "global_batch": 16, "lr": 1e-2, "clip": 1.0, **train},
            parallelism={"zero": zero},
        ),
        target="hf_causal_lm",
    )


def weights(gang: Gang) -> dict[str, torch.Tensor]:
    states = Path(gang.of(Sealed)[-1].checkpoint, "mp_rank_00_model_states.pt")
    kept: dict[str, torch.Tensor] = torch.load(states, weights_only=False)["module"]
    return kept


def exported(gang: Gang, directory: Path) -> Path:
    return export(gang.of(Sealed)[-1].checkpoint, directory)


def of_token_frequencies(llama: Path) -> float:
    """The loss in the test part of who knows how often each token comes, and nothing of context."""
    settings = Settings(Data(SOURCE, SPLIT), Train(16, epochs=1), model={"config": str(llama), "context": 64})
    splits = hf_causal_lm(settings).splits
    counts = torch.bincount(splits.train.tokens, minlength=VOCABULARY) + 1.0
    return float(-(counts / counts.sum()).log()[splits.test.tokens].mean())


def test_a_tiny_llama_learns_english_and_from_pretrained_loads_what_was_saved(llama: Path, tmp_path: Path) -> None:
    gang = run_gang(llama_launch(tmp_path / "first", {"config": str(llama)}))
    assert gang.one(Done).metrics["test_loss"] < of_token_frequencies(llama) - 0.3
    directory = exported(gang, tmp_path / "exported")
    assert json.loads((directory / "evertrain.json").read_text())["target"] == "hf_causal_lm"
    tokens = transformers.AutoTokenizer.from_pretrained(directory)("The print function", return_tensors="pt")[
        "input_ids"
    ]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    trained = transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(llama)).eval()
    trained.load_state_dict({name.removeprefix("causal_lm."): each for name, each in weights(gang).items()})
    assert torch.equal(loaded(tokens).logits, trained(tokens).logits)
    # Training that begins with the export begins where the first ended.
    second = run_gang(llama_launch(tmp_path / "second", {"weights": str(directory)}, steps=1, lr=1e-9))
    assert second.one(Done).metrics["test_loss"] == pytest.approx(gang.one(Done).metrics["test_loss"], rel=1e-5)


def test_zero_3_computes_the_same(llama: Path, tmp_path: Path) -> None:
    runs = [run_gang(llama_launch(tmp_path / str(zero), {"config": str(llama)}, zero=zero, steps=3)) for zero in (0, 3)]
    assert runs[1].losses() == pytest.approx(runs[0].losses(), rel=1e-4)


def test_what_does_not_fit_together_is_told_with_its_path(llama: Path) -> None:
    for model, words in (
        ({}, "model: got {'context': 64}: name the directory of a config.json in model.config"),
        (
            {"config": "/nowhere"},
            "model.config: got '/nowhere': must be a directory on every node that holds config.json",
        ),
        ({"weights": str(llama)}, "must hold weights as .safetensors"),
        ({"config": str(llama), "context": 256}, "model.context: got 256: must be at most 128"),
    ):
        settings = Settings(Data(SOURCE, SPLIT), Train(16, epochs=1), model={"context": 64, **model})
        with pytest.raises(BadConfig) as refused:
            hf_causal_lm(settings).model()
        assert words in str(refused.value)


def test_code_in_a_models_directory_is_not_run(llama: Path, tmp_path: Path) -> None:
    directory = tmp_path / "stranger"
    directory.mkdir()
    for file in llama.iterdir():
        (directory / file.name).write_bytes(file.read_bytes())
    (directory / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit")
    config = '{"model_type": "own", "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}}'
    (directory / "config.json").write_text(config)
    gang = run_gang(llama_launch(tmp_path / "run", {"config": str(directory)}), world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert "without running its code" in gang.one(Failed).message
    assert not (tmp_path / "ran").exists()
