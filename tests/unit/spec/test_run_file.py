"""What a run file may say, and what it is told when it says something else."""

from __future__ import annotations

import dataclasses
import json
import typing

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator import spec
from orchestrator.cluster.rank_env import CONFIG_SECTIONS
from orchestrator.core.runs import Budgets
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.errors import InvalidSpec
from orchestrator.spec.quantities import parse_duration, parse_size
from orchestrator.spec.training import InitFrom, Train
from trainers import config
from trainers.config import Group, read_settings
from trainers.contract import Launch

EVERY_KEY = """
name: digits-cnn
recipe: digits_cnn
env: {NCCL_DEBUG: WARN}
secrets: [HF_TOKEN]
environment: {requirements: [einops==0.8.2]}
storage: s3://bucket/evertrain
data: {source: sklearn://digits, split: [0.70, 0.15, 0.15]}
train: {epochs: 20, global_batch: 128, optimizer: adamw, lr: 1e-3, early_stopping: {metric: val_loss, patience: 5}}
parallelism: {zero: 2, tensor: 1, pipeline: 1, sequence: 1, expert: 1}
deepspeed: {zero_optimization: {overlap_comm: false}}
resources: {workers: 2, cpu: 1, gpu: H100:8, memory: 2GiB, placement: spread}
checkpoint: {every: 1m30s, keep: 3}
retry: {max_restarts: 5}
queue: default
priority: 50
max_duration: 2h
"""
LEAST = {"name": "a", "recipe": "digits_cnn", "train": {"epochs": 1}}
_LAUGHS = "a0: &a0 [1, 1, 1]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9))
TEXT = {"recipe": "text_transformer", "resources": {"workers": 6}}
TEXT_OF_TWO = {"recipe": "text_transformer", "resources": {"workers": 2}}
MUON = {**TEXT_OF_TWO, "train": {"epochs": 1, "optimizer": "muon"}}
GROUPED = {"file": "a", "groups": [{"match": "a", "lr_factor": 2}]}
BATCH_OF_32 = {"epochs": 1, "global_batch": 32}
NVME = {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}
OPTIONS = {
    "epochs": 1, "lr": "auto", "micro_batch": "auto", "optimizer": "muon", "ema": 0.999, "label_smoothing": 0.1,
    "precision": "fp16", "loss_scale": 1024, "weight_decay_on": "matrices", "activation_checkpointing": True,
    "compile": True, "schedule": {"type": "plateau", "factor": 0.3, "patience": 1},
}  # fmt: skip
INIT_FROM = {
    "model": "bert@best", "checkpoint": "/c/step-1", "rename": {"": "encoder."}, "fresh": ["head.*"], "ignore": ["pooler.*"],
    "freeze": ["encoder.embeddings.*"], "groups": [{"match": "head.*", "lr_factor": 10}],
}  # fmt: skip
STOP = {"metric": "val_los", "patience": 1}
SCRIPT = {"name": "a", "script": "train.py"}


def told(document: object) -> dict[str, str]:
    """Message by path of everything that is wrong."""
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(document if isinstance(document, str) else json.dumps(document))
    return {problem.path: problem.message for problem in caught.value.problems}


def test_every_key_of_the_run_file_is_understood() -> None:
    parsed = spec.parse(EVERY_KEY)
    assert parsed.train.lr == 0.001
    assert parsed.checkpoint.every == 90.0
    assert parsed.max_duration == 7200.0
    assert parsed.train.early_stopping is not None
    assert parsed.train.early_stopping.mode == "min"
    assert spec.gang_shape(parsed) == GangShape(2, 1.0, 8.0, 2 * 2**30, spread=True, accelerator="H100")
    assert spec.budgets(parsed) == Budgets(application=5, infrastructure=20, preemption=100)


def test_a_dumped_run_file_is_complete_json_and_a_run_file_again() -> None:
    parsed = spec.parse(EVERY_KEY)
    document = spec.dump(parsed)
    assert spec.load(document) == parsed
    assert spec.parse(json.dumps(document)) == parsed
    assert spec.parse(yaml.safe_dump(document)) == parsed


def test_whole_numbers_survive_a_wire_that_only_knows_floats() -> None:
    document = json.loads(json.dumps(spec.dump(spec.parse(EVERY_KEY))), parse_int=float)
    assert spec.dump(spec.load(document)) == spec.dump(spec.parse(EVERY_KEY))
    assert isinstance(spec.dump(spec.load(document))["train"]["global_batch"], int)


def test_what_the_server_adds_to_a_run_is_refused_of_users_and_read_of_the_store() -> None:
    added = {**LEAST, "proof": {"champion": 1, "checkpoint": "/seal"}}
    assert told(added)["proof"].startswith("is written by the server alone")
    assert spec.load(added) == spec.load(LEAST)


def test_a_dumped_run_file_has_the_sections_and_keys_that_ranks_read() -> None:
    config = spec.dump(spec.parse(EVERY_KEY))
    assert set(config) >= {"data", "model", "train", "parallelism", "deepspeed", "checkpoint"}
    assert set(config["checkpoint"]) == {"every", "every_epochs", "every_steps", "keep"}
    assert set(config["data"]) >= {"source", "split", "split_by", "columns", "checks", "clean", "steps", "prepared"}
    shape = {"type": "constant", "warmup_steps": 0, "final_ratio": 0.0}
    assert config["train"]["schedule"] == {**shape, "factor": 0.5, "patience": 2}


def test_every_training_option_and_every_source_of_weights_reaches_the_ranks() -> None:
    parsed = spec.parse(json.dumps({**LEAST, "train": OPTIONS, "init_from": INIT_FROM, "parallelism": {"zero": 1}}))
    dumped = {name: value for name, value in spec.dump(parsed).items() if name in CONFIG_SECTIONS}
    settings = read_settings(Launch("r", "r", 1, 1, "recipe", "digits_cnn", dumped, "/c", "/s"))
    assert (settings.train.lr, settings.train.micro_batch) == ("auto", "auto")
    assert (settings.train.ema, settings.train.loss_scale, settings.train.optimizer) == (0.999, 1024.0, "muon")
    assert settings.init_from is not None
    assert settings.init_from.groups == (Group("head.*", 10.0),)
    assert settings.init_from.checkpoint == "/c/step-1"


@pytest.mark.parametrize("key", ["train", "init_from"])
def test_server_and_ranks_know_the_same_keys(key: str) -> None:
    server, ranks = {"train": (Train, config.Train), "init_from": (InitFrom, config.InitFrom)}[key]
    assert set(server.model_fields) == {each.name for each in dataclasses.fields(ranks)}


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"rescources": {}}, "rescources", "did you mean resources?"),
        ({"epochs": 3}, "epochs", "did you mean train.epochs?"),
        ({"train": {"epoch": 3}}, "train.epoch", "did you mean epochs?"),
        ({"recipe": "digits_cn"}, "recipe", "did you mean digits_cnn?"),
        ({"recipe": None}, "recipe", "exactly one of"),
        ({"script": "train.py"}, "script", "exactly one of"),
        ({"name": "Digits_CNN"}, "name", "lower-case letters, digits and hyphens"),
        ({"name": "a" * 64}, "name", "1 to 63"),
        ({"name": None}, "name", "text"),
        ({"train": {"epochs": 1, "lr": 0}}, "train.lr", "greater than 0"),
        ({"train": {"epochs": 1, "lr": "1e-3"}}, "train.lr", "without quotes"),
        ({"train": {"epochs": 1, "lr": "fast"}}, "train.lr", "must be auto or a number"),
        ({"train": {"epochs": 1, "micro_batch": 1.5}}, "train.micro_batch", "auto or a whole number"),
        ({"train": {"epochs": 1, "micro_batch": 0}}, "train.micro_batch", "greater than 0"),
        ({"train": {"epochs": 1, "precision": "fp16"}}, "train.precision", "zero of at least 1"),
        ({"train": {"epochs": 1, "loss_scale": 8}}, "train.loss_scale", "is for train.precision fp16"),
        ({"train": {"epochs": 1, "ema": 1}}, "train.ema", "less than 1"),
        ({"train": {"epochs": 1, "ema": 0.9}, "parallelism": {"zero": 3}}, "train.ema", "zero must be at most 2"),
        ({"train": {"epochs": 1, "micro_batch": "auto"}, "parallelism": {"zero": 3}}, "train.micro_batch", "give a number"),
        ({**MUON, "parallelism": {"tensor": 2}}, "train.optimizer", "whole"),
        ({"recipe": "digits_gan", "train": {"epochs": 1, "lr": "auto"}}, "train.lr", "takes its own steps"),
        ({"recipe": "recommender", "train": {"epochs": 1, "micro_batch": "auto"}}, "train.micro_batch", "its own steps"),
        (
            {"recipe": "digits_gan", "train": {"epochs": 1, "precision": "fp16"}, "parallelism": {"zero": 1}},
            "train.precision",
            "scales no loss",
        ),
        ({"recipe": "recommender", "train": {"epochs": 1, "ema": 0.9}}, "train.ema", "beside its model"),
        ({"recipe": "digits_gan", "train": {"epochs": 1, "label_smoothing": 0.1}}, "train.label_smoothing", "not known"),
        (
            {**TEXT_OF_TWO, "init_from": GROUPED, "parallelism": {"pipeline": 2}},
            "init_from.groups",
            "parallelism.pipeline must be 1",
        ),
        ({"init_from": {"freeze": ["a.*"]}}, "init_from", "exactly one of model, file and checkpoint"),
        ({"init_from": {"file": "a", "model": "b@1"}}, "init_from", "names model and file"),
        ({"init_from": {"model": "digits"}}, "init_from", "digits-cnn@3"),
        ({"init_from": {"file": "a", "groups": [{"match": "a", "lr_factor": 0}]}}, "init_from.groups[0].lr_factor", "than 0"),
        ({"init_from": {"file": "a", "frezze": ["a"]}}, "init_from.frezze", "did you mean freeze?"),
        ({"train": {"epochs": True}}, "train.epochs", "number"),
        ({"train": {"epochs": 3_000_000_000, "steps": 100}}, "train.epochs", "at most 2147483647"),
        ({"train": {"epochs": 10**30}}, "train.epochs", "at most 2147483647"),
        ({"train": {"steps": 2**64}}, "train.steps", "at most 2147483647"),
        ({"train": {"steps": 1, "global_batch": 2**31}}, "train.global_batch", "at most 2147483647"),
        ({"train": {"steps": 1, "schedule": {"warmup_steps": 2**31}}}, "train.schedule.warmup_steps", "at most 2147483647"),
        ({"checkpoint": {"every_steps": 2**31}}, "checkpoint.every_steps", "at most 2147483647"),
        ({"train": {"epochs": 1.5}}, "train.epochs", "whole number"),
        ({"train": {}}, "train.epochs", "when to end"),
        ({"train": {"epochs": 1, "optimizer": "adamww"}}, "train.optimizer", "'adamw'"),
        ({"train": {"epochs": 1, "early_stopping": {"metric": "val_loss"}}}, "train.early_stopping", "patience, target"),
        ({"train": {"epochs": 1, "early_stopping": STOP}}, "train.early_stopping.metric", "val_loss?"),
        (
            {"data": {"split": [0.8, 0, 0.2]}, "train": {"epochs": 1, "early_stopping": {**STOP, "metric": "val_loss"}}},
            "train.early_stopping.metric",
            "data.split gives it nothing",
        ),
        (
            {"data": {"split": [0.8, 0, 0.2]}, "train": {"epochs": 1, "schedule": {"type": "plateau"}}},
            "train.schedule.type",
            "data.split gives it nothing",
        ),
        ({"train": {"epochs": 1, "global_batch": 32, "micro_batch": 5}}, "train.micro_batch", "1, 2, 4, 8, 16, 32"),
        ({"resources": {"workers": 3}}, "train.global_batch", "30 or 33 is"),
        ({"resources": {"workers": 0}}, "resources.workers", "at least 1"),
        ({"resources": {"gpu": "H100:many:x"}}, "resources.gpu", "H100:8"),
        ({"resources": {"memory": 2}}, "resources.memory", "2GiB"),
        ({"resources": {"memory": "2 chickens"}}, "resources.memory", "500MB or 2GiB"),
        ({"resources": {"placement": "scatter"}}, "resources.placement", "'pack'"),
        ({"data": {"split": [0.7, 0.2, 0.2]}}, "data.split", "adds up to 1.1"),
        ({"data": {"split": [0.7, 0.3]}}, "data.split", "3 numbers (the parts for training, validation and test)"),
        ({"data": {"split": 0.7}}, "data.split", "3 numbers"),
        ({"train": {"epochs": 1, "betas": [0.9]}}, "train.betas", "2 numbers"),
        ({"recipe": "text_transformer", "data": {"source": "ftp://x"}}, "data.source", "sklearn://"),
        ({"recipe": "text_transformer", "data": {"clean": {"nulls": "drop"}}}, "data.clean", "as they are"),
        ({"data": {"columns": {"age": {"min": 3, "max": 2}}}}, "data.columns.age", "min 3 is above max 2"),
        ({"data": {"columns": {"age": {"typ": "number"}}}}, "data.columns.age.typ", "did you mean type?"),
        ({"data": {"split_by": {"group": "a", "time": "b"}}}, "data.split_by", "one column"),
        ({"data": {"steps": {"resize": [32]}}}, "data.steps.resize", "height and width"),
        ({"data": {"steps": {"tokenize": {}}}}, "data.steps.tokenize.length", ""),
        ({"data": {"prepared": "s3://key:secret@bucket"}}, "data.prepared", "credentials"),
        ({"model": {"widht": 3}}, "model.widht", "did you mean width?"),
        ({"model": {"dropout": 1}}, "model.dropout", "less than 1"),
        ({"env": {"WORLD_SIZE": "2"}}, "env.WORLD_SIZE", "reserved"),
        ({"env": {"MASTER_PORT": "2"}}, "env.MASTER_PORT", "reserved"),
        ({"env": {"A": 4}}, "env.A", "in quotes"),
        ({"secrets": ["A", "A"]}, "secrets", "twice"),
        ({"secrets": ["A"], "env": {"A": "1"}}, "env.A", "also named under secrets"),
        ({"environment": {}}, "environment", "exactly one"),
        ({"launcher": "ray_train", "environment": {"python": "/usr/bin/python3"}}, "launcher", "takes no environment"),
        ({"environment": {"requirements": ["--index-url=x"]}}, "environment.requirements[0]", "einops"),
        ({"storage": "here"}, "storage", "s3://"),
        ({"priority": 101}, "priority", "at most 100"),
        ({"elastic": {"min_workers": 0, "max_workers": 2}}, "elastic.min_workers", "at least 1"),
        ({"elastic": {"min_workers": 1, "max_workers": 4}}, "elastic", "not yet"),
        ({"deepspeed": {"train_batch_size": 8}}, "deepspeed.train_batch_size", "train.global_batch"),
        ({"deepspeed": {"checkpoint": {"load_universal": True}}}, "deepspeed.checkpoint", "by Evertrain alone"),
        ({"deepspeed": {"zero_optimization": {"stage": 1}}}, "deepspeed.zero_optimization.stage", "parallelism.zero"),
        ({"deepspeed": "ds.json"}, "deepspeed", "evertrain submit"),
        ({"entrypoint": "nonsense", "recipe": None}, "entrypoint", "package.module:make_task"),
        ({"args": ["--x"]}, "args", "script only"),
        ({"max_duration": "2 hours"}, "max_duration", "1h30m"),
        ({"max_duration": 0}, "max_duration", "above zero"),
        ({"parallelism": {"tensor": 2}}, "parallelism.tensor", "digits_cnn is not divided so (that of text_transformer is)"),
        ({"parallelism": {"tensor": 2}}, "resources.workers", "must be a multiple of 2 (tensor 2)"),
        ({"parallelism": {"offload": "cpu"}}, "parallelism.offload", "needs parallelism.zero of at least 1"),
        ({"parallelism": {"offload": "disk"}}, "parallelism.offload", "'cpu'"),
        ({"deepspeed": NVME}, "deepspeed.zero_optimization.offload_optimizer.device", "must be cpu or none"),
        ({**TEXT, "parallelism": {"tensor": 3}}, "parallelism.tensor", "must divide model.heads, 4"),
        ({**TEXT, "parallelism": {"pipeline": 3}}, "parallelism.pipeline", "must divide model.layers, 2"),
        ({**TEXT, "parallelism": {"sequence": 2}, "model": {"context": 63}}, "parallelism.sequence", "model.context, 63"),
        ({**TEXT, "parallelism": {"expert": 3}}, "parallelism.expert", "must divide model.experts, 0"),
        ({**TEXT, "parallelism": {"pipeline": 2, "zero": 2}}, "parallelism.zero", "must be 0 or 1"),
        ({**TEXT, "parallelism": {"zero": 3}, "model": {"experts": 4}}, "parallelism.zero", "at most 2"),
        ({**TEXT, "parallelism": {"tensor": 2}, "train": BATCH_OF_32}, "train.global_batch", "resources.workers / 2 (3)"),
        ({"deepspeed": {"tensor_parallel": {}}}, "deepspeed.tensor_parallel", "parallelism.tensor"),
        ({"parallelism": {"zero": 4}}, "parallelism.zero", "at most 3"),
        ({"search": {"trials": 3}}, "search.space", "is required"),
        ({"monitor": {"window": {"by": "time", "length": "1h"}}}, "monitor", "where they are prepared"),
        ({"monitor": {"window": {"season": "hour"}}}, "monitor.window", "needs windows within one: by: time"),
        ({"max_cost": "20 dollars"}, "max_cost", "20 USD"),
    ],
)  # fmt: skip
def test_a_wrong_place_is_named_with_what_would_be_right(change: dict[str, typing.Any], path: str, words: str) -> None:
    problems = told({**LEAST, **change})
    assert words in problems[path]


def test_all_problems_are_told_at_once() -> None:
    problems = told({**LEAST, "name": "A", "priority": -1, "train": {"lr": -1}, "queu": "x"})
    assert set(problems) == {"name", "priority", "train.lr", "train.epochs", "queu"}


def test_the_value_is_shown_as_it_was_written() -> None:
    with pytest.raises(InvalidSpec, match=r'train\.lr: must be auto or a number, without quotes \(got "fast"\)'):
        spec.parse("name: a\nrecipe: digits_cnn\ntrain: {epochs: 1, lr: fast}")


def test_the_value_of_a_reserved_variable_is_shown_and_not_its_name_again() -> None:
    with pytest.raises(InvalidSpec, match=r'env\.RANK: RANK is reserved.* \(got "17"\)'):
        spec.parse(json.dumps({**LEAST, "env": {"RANK": "17"}}))


def test_of_two_targets_nothing_else_is_said_than_that_they_are_two() -> None:
    assert list(told({**LEAST, "script": "train.py"})) == ["script"]
    assert list(told({**SCRIPT, "entrypoint": "a:b", "args": ["x"], "train": {"epochs": 1}})) == ["script"]


def test_a_script_takes_arguments_and_none_of_the_sections_that_it_would_never_see() -> None:
    parsed = spec.parse(json.dumps({**SCRIPT, "args": ["--lr", "0.1"], "resources": {"workers": 3}}))
    assert (parsed.kind, parsed.target, parsed.args) == ("script", "train.py", ("--lr", "0.1"))
    assert "args" in told({**SCRIPT, "script": "train.py --lr 1"})["script"]
    assert "args" in told({**SCRIPT, "train": {"lr": 0.5}})["train"]
    assert "below the code directory" in told({**SCRIPT, "script": "../train.py"})["script"]


def test_code_stands_for_a_shipped_bundle_and_a_directory_must_be_shipped_first() -> None:
    parsed = spec.parse(json.dumps({**SCRIPT, "code": "bundle:" + "a" * 64}))
    assert parsed.bundle == "a" * 64
    assert "evertrain submit" in told({**SCRIPT, "code": "./src"})["code"]
    assert "64 hex digits" in told({**SCRIPT, "code": "bundle:abc"})["code"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "is not YAML: did not find expected node content (got line 2, column 1)"),
        ("a: 1\nb: 2\na: 3", 'has the key "a" twice in one mapping: keep one (got line 3, column 1)'),
        ('{"a": 1, "a": 2}', 'is given twice in one mapping: keep one (got "a")'),
        ("- 1", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: 1\n---\nb: 1", "second document"),
        ("x: &a [*a]", "alias *a before or inside its anchor"),
        ("x: !!python/object/apply:os.system [true]", "has the tag"),
        ("[" * 5000, "nested deeper than 32"),
        ('{"a":' * 5000, "nested deeper than 32"),
        ("a: .inf", "finite"),
        ('{"a": 1e999}', "finite"),
        ('{"a": NaN}', "has a number that is none: numbers must be finite (got NaN)"),
        ('{"a": [-Infinity]}', "finite (got -Infinity)"),
        ('{"a": %s}' % ("1" * 5000), "has a whole number of 5000 digits, at most 100 are read"),
        ("a: -" + "1" * 101, "has a whole number of 101 digits"),
        ("a: 0x" + "f" * 101, "put it in quotes if it is text (got line 1, column 4)"),
        ("a: \x00", "control characters"),
        ("a: " + "x" * 2**20, "1 MiB"),
        (_LAUGHS, "values"),
    ],
)  # fmt: skip
def test_text_that_is_no_run_file_is_refused_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(text, source="job.yaml")
    assert str(caught.value).startswith("job.yaml: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        ({"env": {"A": "x\ud800"}}, "env.A", "half of a surrogate pair"),
        ({"env": {"A\udcff": "x"}}, "env.A\\udcff", "half of a surrogate pair"),
        ({"deepspeed": {"a": [{"b": "\udfff"}]}}, "deepspeed.a[0].b", "half of a surrogate pair"),
        ({"name": "a\0b"}, "name", "NUL"),
        ({"env": {"A": "a\0b"}}, "env.A", "NUL"),
        ({"storage": "/a\0b"}, "storage", "NUL"),
        ({"environment": {"python": "/a\0b"}}, "environment.python", "NUL"),
        ({"model": {"a\0b": 1}}, "model.a\\u0000b", "NUL"),
        ({"script": "train.py", "recipe": None, "args": ["ok", "a\0b"]}, "args[1]", "NUL"),
    ],
)
def test_text_that_nothing_can_carry_is_refused_in_words_that_can_be(
    change: dict[str, typing.Any], path: str, words: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(json.dumps({**LEAST, **change}))
    assert [problem.path for problem in caught.value.problems] == [path]
    assert words in str(caught.value)
    str(caught.value).encode()
    assert "\0" not in str(caught.value)


def test_a_whole_surrogate_pair_is_the_character_that_it_spells() -> None:
    text = json.dumps({**LEAST, "env": {"A": "\N{ROCKET}"}})
    assert "\\ud83d" in text
    assert spec.parse(text).env == {"A": "\N{ROCKET}"}


@pytest.mark.parametrize(
    ("change", "path", "shown"),
    [
        ({"storage": "s3://key:hunter2@bucket/runs"}, "storage", "s3://***@bucket/runs"),
        ({"storage": "s3://key:a/hunter2@bucket/runs"}, "storage", "s3://***@bucket/runs"),
        ({"storage": "https://me:a@hunter2@host/x"}, "storage", "https://***@host/x"),
        ({"data": {"source": "s3://key:hunter2@bucket/x"}}, "data.source", "s3://***@bucket/x"),
    ],
)
def test_credentials_in_an_address_are_refused_without_being_shown(
    change: dict[str, typing.Any], path: str, shown: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        spec.parse(json.dumps({**LEAST, **change}))
    (problem,) = caught.value.problems
    assert problem.path == path
    assert shown in problem.got
    assert "evertrain secret put" in problem.message
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/a@b:c", "http://host:9000/a@b", "sftp://me@host/runs", "/local/a:b@c"])
def test_an_address_without_a_password_is_taken(url: str) -> None:
    assert spec.parse(json.dumps({**LEAST, "storage": url})).storage == url


def test_yaml_is_read_without_its_old_surprises() -> None:
    read = spec.read_mapping(
        "a: on\nb: 1e-3\nc: 1:30\nd: 2024-01-01\ne: 0x10\nf: ~\ng: '5'\nno: &x {k: 1}\nh: *x", source="t"
    )
    assert read == {
        "a": "on", "b": 0.001, "c": "1:30", "d": "2024-01-01", "e": 16, "f": None, "g": "5", "no": {"k": 1}, "h": {"k": 1},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2h", 7200), ("1h30m", 5400), ("1.5m", 90), ("500ms", 0.5), (9, 9)]
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("2GiB", 2**31), ("500MB", 500_000_000), ("1.5 KiB", 1536), ("7B", 7), (9, 9)]
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


def test_the_schema_describes_every_key_and_refuses_others() -> None:
    schema = spec.json_schema()
    assert set(schema["properties"]) == set(spec.RunSpec.model_fields)
    assert schema["additionalProperties"] is False
    assert all("description" in each for each in schema["properties"].values())
    for section in schema["$defs"].values():
        assert all("description" in each for each in section["properties"].values() if section["title"] != "Cost")


# ---- properties -----------------------------------------------------------------------------------------------------

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_keys = st.sampled_from([*spec.RunSpec.model_fields, "lr", "workers", "gpu", "every", "x"]) | st.text(max_size=5)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4), max_leaves=12
)
_documents = st.dictionaries(_keys, _values, max_size=8)


@settings(max_examples=300, deadline=None)
@given(_documents)
@example({"init_from": {"checkpoint": None}})
@example({"data": {"prepared": None, "source": None}})
def test_no_document_makes_the_parser_raise_anything_else(document: dict[str, object]) -> None:
    for text in (yaml.safe_dump({**LEAST, **document}, allow_unicode=True), json.dumps({**SCRIPT, **document})):
        outcome = parsed_or_refused(text)
        if isinstance(outcome, InvalidSpec):
            assert outcome.problems
        else:
            assert spec.load(spec.dump(outcome)) == outcome


def parsed_or_refused(text: str) -> spec.RunSpec | InvalidSpec:
    try:
        return spec.parse(text)
    except InvalidSpec as error:
        return error


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@`,? \n\t01.~\x00\ud800é"), max_size=60))
def test_no_text_makes_the_parser_raise_anything_else(text: str) -> None:
    with pytest.raises(InvalidSpec):
        spec.parse(text)


@settings(max_examples=200, deadline=None)
@given(
    workers=st.integers(1, 64),
    per_worker=st.integers(1, 64),
    every=st.floats(0.01, 1e6),
    memory=st.integers(2**26, 2**45),
    lr=st.floats(1e-9, 10),
    zero=st.integers(0, 3),
)
def test_dump_and_load_are_inverse(
    workers: int, per_worker: int, every: float, memory: int, lr: float, zero: int
) -> None:
    document = {
        **LEAST,
        "train": {"steps": 5, "global_batch": workers * per_worker, "micro_batch": per_worker, "lr": lr},
        "resources": {"workers": workers, "memory": memory},
        "checkpoint": {"every": every},
        "parallelism": {"zero": zero},
    }
    parsed = spec.load(document)
    assert spec.load(spec.dump(parsed)) == parsed
    assert parsed.resources.memory == memory


def test_auto_stands_in_place_of_the_whole_layout() -> None:
    parsed = spec.load({**LEAST, "parallelism": "auto"})
    assert parsed.parallelism.auto
    assert spec.dump(parsed)["parallelism"] == "auto"
    assert spec.load(spec.dump(parsed)) == parsed
    assert "auto" not in spec.dump(spec.load(LEAST))["parallelism"]


@pytest.mark.parametrize("layout", ["atuo", {"auto": True}, {"zero": "auto"}, ["auto"]])
def test_auto_is_one_word_and_nothing_beside_it(layout: object) -> None:
    (path,) = told({**LEAST, "parallelism": layout})
    assert path.startswith("parallelism")


def test_a_script_divides_itself_and_takes_no_auto() -> None:
    assert "parallelism" in told({**SCRIPT, "parallelism": "auto"})


def test_editors_are_told_that_auto_is_a_layout() -> None:
    layout = spec.json_schema()["properties"]["parallelism"]
    assert {"const": "auto"} in layout["anyOf"]
    assert "zero" in layout["anyOf"][0]["properties"]
    assert "auto" not in layout["anyOf"][0]["properties"]


@pytest.mark.parametrize(
    ("document", "prepares"),
    [
        ({**LEAST, "recipe": "digits_cnn"}, False),
        ({**LEAST, "recipe": "digits_cnn", "data": {"split": [0.8, 0.1, 0.1]}}, False),
        ({**LEAST, "recipe": "digits_cnn", "data": {"checks": {"rows": 10}}}, True),
        ({**LEAST, "recipe": "digits_cnn", "data": {"source": "/images/*.png"}}, True),
        ({**LEAST, "recipe": "text_rnn"}, False),
        (SCRIPT, False),
    ],
)
def test_data_are_prepared_before_placement_where_the_recipe_would(document: dict[str, object], prepares: bool) -> None:
    assert spec.prepares_data(spec.dump(spec.load(document))) is prepares
