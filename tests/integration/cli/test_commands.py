"""Commands as they are typed, against a real server in this process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from orchestrator.cli.app import main
from orchestrator.core.records import LogLine, Role
from tests import proofs
from tests.integration.api.stack import Stack
from tests.integration.api.watching import put_on_watch
from trainers.contract import Manifest
from trainers.weights_only import write_file

RUN_FILE = "name: digits\nrecipe: digits_cnn\ntrain: {epochs: 2, global_batch: 32}\nresources: {workers: 2}\n"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def document(self) -> object:
        return json.loads(self.out)


Run = Callable[..., Answer]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("server"), log_drain_s=0.2, watch_poll_s=0.2) as started:
        yield started


@pytest.fixture
def evertrain(stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("EVERTRAIN_SERVER", stack.address)
    monkeypatch.setenv("EVERTRAIN_TOKEN", stack.admin)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str, token: str = "") -> Answer:
        if token:
            monkeypatch.setenv("EVERTRAIN_TOKEN", token)
        monkeypatch.setattr(sys, "argv", ["evertrain", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Answer(int(ended.value.code or 0), shown.out, shown.err)

    return run


@pytest.fixture
def run_file(tmp_path: Path) -> str:
    (tmp_path / "job.yaml").write_text(RUN_FILE)
    return str(tmp_path / "job.yaml")


def test_a_submitted_run_is_found_by_id_and_by_name(evertrain: Run, run_file: str) -> None:
    submitted = evertrain("submit", run_file, "--name", "findable", "--set", "train.lr=5e-3", "-o", "json")
    assert submitted.code == 0
    run_id = submitted.document["id"]  # type: ignore[index]
    for name in (run_id, "findable"):
        described = evertrain("describe", name, "--output", "json")
        assert described.document["spec"]["train"]["lr"] == 0.005  # type: ignore[index]
        assert described.document["events"][0]["kind"] == "submitted"  # type: ignore[index]
    assert run_id in evertrain("list", "--name", "findable").out
    assert "Timeline" in evertrain("describe", run_id).out


def test_the_output_option_counts_before_and_after_the_command(evertrain: Run) -> None:
    assert json.loads(evertrain("-o", "json", "cluster", "list").out) == []
    assert yaml.safe_load(evertrain("cluster", "list", "-o", "yaml").out) == []
    assert evertrain("cluster", "list").out == "no cluster has attached yet\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list"], "no runs"),
        (["model", "list"], "no models"),
        (["token", "list"], "no tokens"),
        (["secret", "list"], "no secrets"),
        (["cluster", "list"], "no cluster has attached yet"),
        (["checkpoint", "list", "fresh"], "no checkpoints"),
    ],
)
def test_what_there_is_none_of_is_said_to_people_and_an_empty_list_to_programs(
    evertrain: Run, stack: Stack, words: list[str], said: str
) -> None:
    project = "with-a-run" if "fresh" in words else "empty"
    if "fresh" in words:
        stack.submit(project, name="fresh")
    assert evertrain("-p", project, *words).out == f"{said}\n"
    assert evertrain("-p", project, *words, "-o", "json").document == []
    assert yaml.safe_load(evertrain("-p", project, *words, "-o", "yaml").out) == []


def test_answers_that_go_on_are_a_document_a_line_or_yaml_documents(evertrain: Run, stack: Stack) -> None:
    run = stack.submit(name="wordy")
    for form in ("json", "yaml"):
        assert evertrain("logs", run.id, "-o", form).out == ""
    stack.parts.logs.append([LogLine(run.id, 1, 1, 0, 1.0, f"line {seq}", "host", seq) for seq in (1, 2)])
    lines = [json.loads(each) for each in evertrain("logs", run.id, "-o", "json").out.splitlines()]
    assert [each["text"] for each in lines] == ["line 1", "line 2"]
    assert list(yaml.safe_load_all(evertrain("logs", run.id, "-o", "yaml").out)) == lines
    evertrain("cancel", run.id)
    watched = list(yaml.safe_load_all(evertrain("watch", run.id, "-o", "yaml").out))
    assert watched[-1]["run"]["state"] == "CANCELLED"


def test_one_key_is_one_run(evertrain: Run, run_file: str) -> None:
    first, second = (evertrain("submit", run_file, "--idempotency-key", "k1", "-o", "json").document for _ in range(2))
    assert first["id"] == second["id"]  # type: ignore[index]
    other = evertrain("submit", run_file, "--idempotency-key", "k1", "--name", "other")
    assert other.code == 1
    assert "k1" in other.err


def test_a_wrong_run_file_is_refused_with_every_place_and_without_traceback(evertrain: Run, run_file: str) -> None:
    refused = evertrain("submit", run_file, "--set", "train.lrr=1", "--set", "priority=200")
    assert refused.code == 1
    assert refused.err.splitlines() == [
        "error: 2 places are wrong:",
        "  train.lrr: is not a known key, did you mean lr? (got 1)",
        "  priority: must be at most 100 (got 200)",
    ]


def test_what_a_run_file_names_and_is_not_there_is_a_wrong_place_of_it(evertrain: Run, run_file: str) -> None:
    for change, place in (("code=./nowhere", "code: "), ("deepspeed=nowhere.json", "deepspeed: ")):
        answer = evertrain("submit", run_file, "--set", change)
        assert answer.code == 1
        assert place in answer.err


def test_a_change_below_a_plain_value_is_wrong_usage(evertrain: Run, run_file: str) -> None:
    answer = evertrain("submit", run_file, "--set", "name.x=1")
    assert answer.code == 2
    assert "name is not a section" in answer.err


def test_a_dry_run_prints_the_whole_run_file_and_records_nothing(evertrain: Run, run_file: str) -> None:
    printed = evertrain("submit", run_file, "--dry-run", "--name", "never-sent")
    assert yaml.safe_load(printed.out)["train"]["global_batch"] == 32
    assert evertrain("list", "--name", "never-sent", "-o", "json").document == []


def test_what_is_shipped_is_told_and_hidden_files_are_not_among_it(evertrain: Run, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / ".env").write_text("TOKEN=hush\n")
    (tmp_path / "job.yaml").write_text("name: scripted\nscript: train.py\n")
    submitted = evertrain("submit", str(tmp_path / "job.yaml"))
    assert submitted.code == 0
    assert f"shipped as its code: 2 files, 41 B, of {tmp_path}" in submitted.err


def test_a_plan_says_that_it_would_wait_where_there_is_no_cluster(evertrain: Run, run_file: str) -> None:
    planned = evertrain("plan", run_file)
    assert planned.code == 0
    assert "no cluster has attached yet" in planned.out


LARGE = """
name: large
recipe: text_transformer
model: {layers: 22, width: 2048, heads: 32}
train: {steps: 10, global_batch: 8, micro_batch: 1}
resources: {workers: 4, memory: 10GiB}
"""


@pytest.fixture
def large_file(tmp_path: Path) -> str:
    (tmp_path / "large.yaml").write_text(LARGE)
    return str(tmp_path / "large.yaml")


def test_a_plan_tells_layout_batch_memory_and_time_in_words(evertrain: Run, run_file: str) -> None:
    shown = evertrain("plan", run_file, "--set", "train.micro_batch=4")
    assert shown.code == 0
    told = {line.split("  ")[0].strip(): line.split("  ", 1)[-1].strip() for line in shown.out.splitlines()}
    assert told["run"] == "digits: 2 workers of 1 CPU"
    assert told["layout"] == "ZeRO 0"
    assert told["batch"].startswith("32 = 4 x 4 x 2: ")
    assert told["model"].endswith(" parameters")
    assert told["expected time"].startswith("not known")
    parts = ["parameters", "gradients", "optimizer", "activations", "buffers", "runtime", "total"]
    assert [each for each in told if each in parts] == parts


def test_a_plan_is_a_document_for_programs(evertrain: Run, run_file: str) -> None:
    document = evertrain("plan", run_file, "-o", "json").document
    assert document["batch"] == {"global_batch": 32, "micro_batch": 16, "accumulation": 1, "data": 2}  # type: ignore[index]
    assert document["memory"]["parameters"] == 4 * document["model"]["elements"]  # type: ignore[index]
    assert document["problems"] == []  # type: ignore[index]
    assert yaml.safe_load(evertrain("plan", run_file, "-o", "yaml").out) == document


def test_a_plan_that_cannot_work_names_every_problem_and_submit_refuses_with_the_same_words(
    evertrain: Run, large_file: str
) -> None:
    wrong = ["--set", "deepspeed.sparse_gradients=true", "--set", "model.heads=3"]
    shown = evertrain("plan", large_file, *wrong)
    assert shown.code == 1
    assert "it cannot work: 2 places are wrong:" in shown.out
    refused = evertrain("submit", large_file, *wrong)
    assert refused.code == 1
    places = refused.err.splitlines()[1:]
    assert len(places) == 2
    assert shown.out.splitlines()[-2:] == places


def test_what_does_not_fit_is_told_with_what_would(evertrain: Run, large_file: str) -> None:
    shown = evertrain("plan", large_file)
    assert shown.code == 1
    assert "resources.memory: does not fit: ZeRO 0 takes about 18." in shown.out
    assert "ZeRO 3 would, at " in shown.out
    (problem,) = evertrain("plan", large_file, "-o", "json").document["problems"]  # type: ignore[index]
    assert problem["path"] == "resources.memory"


def test_a_layout_left_to_the_planner_is_stored_and_described_with_its_reason(evertrain: Run, large_file: str) -> None:
    auto = ["--set", "parallelism=auto"]
    shown = evertrain("plan", large_file, *auto)
    assert shown.code == 0
    assert "parallelism auto: ZeRO 0, tensor 4 (" in shown.out
    run_id = evertrain("submit", large_file, *auto, "-o", "json").document["id"]  # type: ignore[index]
    described = evertrain("describe", run_id)
    assert "parallelism auto: ZeRO 0, tensor 4 (" in described.out
    document = evertrain("describe", run_id, "-o", "json").document
    assert document["spec"]["parallelism"]["tensor"] == 4  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["describe", "nobody"], 102, "nobody"),
        (["watch", "nobody"], 102, "nobody"),
        (["cancel", "nobody"], 102, "nobody"),
        (["logs", "nobody"], 102, "nobody"),
        (["submit", "nowhere.yaml"], 2, "no run file nowhere.yaml"),
        (["submit", "--dry-run", "nowhere.yaml"], 2, "no run file nowhere.yaml"),
        (["plan", "nowhere.yaml"], 2, "no run file nowhere.yaml"),
        (["plan", "nowhere.yaml", "--set", "train.lr"], 2, "KEY=VALUE"),
        (["plan", "nowhere.yaml", "--set", "train.lr=["], 2, "train.lr=["),
        (["model", "describe", "nothing"], 102, "nothing"),
        (["checkpoint", "verify", "/nowhere/at/all"], 102, "/nowhere/at/all"),
        (["cluster", "drain", "nowhere"], 102, "nowhere"),
        (["lisst"], 2, "list"),
        (["list", "-o", "xml"], 2, "xml"),
        (["list", "--limit", "0"], 2, "limit"),
        (["logs", "x", "--since", "soon"], 2, "1h30m"),
        (["cluster", "drain", "x", "--evict", "--undo"], 2, "opposite"),
    ],
)
def test_exit_codes_tell_what_went_wrong(evertrain: Run, words: list[str], code: int, said: str) -> None:
    answer = evertrain(*words)
    assert answer.code == code
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""


def test_files_that_cannot_be_used_are_named_without_a_traceback(
    evertrain: Run, run_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "coded.yaml").write_text("name: coded\nscript: train.py\n")
    (tmp_path / ".evertrainignore").write_bytes(b"\xff")
    shipped = evertrain("submit", str(tmp_path / "coded.yaml"))
    assert (shipped.code, shipped.err.count("is not UTF-8 text")) == (1, 1)

    monkeypatch.setenv("EVERTRAIN_HOME", str(tmp_path / "train.py" / "home"))
    up = evertrain("up")
    assert (up.code, up.err.count("set EVERTRAIN_HOME to a directory of your own")) == (1, 1)

    monkeypatch.setattr("orchestrator.cli.runs._shipment", raiser(OSError(28, "No space left on device", "/full")))
    full = evertrain("submit", run_file)
    assert (full.code, full.err) == (1, "error: /full: No space left on device\n")


def test_standard_input_that_is_no_text_is_refused(evertrain: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["submit", "-"], ["secret", "put", "BINARY"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), encoding="utf-8"))
        answer = evertrain(*words)
        assert (answer.code, answer.err.count("standard input is not UTF-8 text (at byte 0)")) == (1, 1)


def raiser(error: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_run_is_paused_with_a_reason_and_resumed(evertrain: Run, run_file: str) -> None:
    evertrain("submit", run_file, "--name", "held")
    assert "look at the data" in evertrain("pause", "held", "--reason", "look at the data").out
    assert "is QUEUED: place" in evertrain("resume", "held").out
    assert "resumed by" in evertrain("describe", "held").out


def test_cancelling_ends_and_watching_then_says_cancelled(evertrain: Run, run_file: str) -> None:
    evertrain("submit", run_file, "--name", "unwanted")
    assert "CANCELLED" in evertrain("cancel", "unwanted", "--reason", "not needed").out
    assert evertrain("cancel", "unwanted").code == 0
    assert evertrain("watch", "unwanted").code == 103


def test_watching_to_the_end_answers_by_exit_code(evertrain: Run, stack: Stack) -> None:
    run = stack.place(stack.submit(name="watched"))
    threading.Timer(0.5, stack.end, [run]).start()
    watched = evertrain("watch", run.id)
    assert watched.code == 0
    assert "attempt 1 placed" in watched.out
    assert "test_accuracy 0.98" in watched.out
    assert "goodput" in watched.out


def test_watching_for_programs_is_one_document_a_line(evertrain: Run, stack: Stack) -> None:
    run = stack.place(stack.submit(name="machine-watched"))
    stack.end(run)
    lines = [json.loads(line) for line in evertrain("watch", run.id, "-o", "json").out.splitlines()]
    assert lines[-1]["run"]["state"] == "SUCCEEDED"


@pytest.mark.parametrize(("option", "hint"), [([], ""), (["--project", "default"], "--project default ")])
def test_ctrl_c_detaches_and_says_that_the_run_goes_on(stack: Stack, option: list[str], hint: str) -> None:
    run = stack.submit(name="left-alone")
    environment = {**os.environ, "EVERTRAIN_SERVER": stack.address, "EVERTRAIN_TOKEN": stack.admin}
    command = [sys.executable, "-m", "orchestrator.cli.app", *option, "watch", "left-alone"]
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in a shell's background ignore it
    ) as watcher:
        assert watcher.stdout is not None
        assert "submitted" in watcher.stdout.readline()
        watcher.send_signal(signal.SIGINT)
        _, told = watcher.communicate(timeout=20)
    assert watcher.returncode == 101
    assert f"the run goes on. Come back with: evertrain {hint}watch {run.id}\n" in told
    with stack.client() as client:
        assert client.get(run.id).state == "QUEUED"


def test_logs_are_filtered_as_asked(evertrain: Run, stack: Stack) -> None:
    run = stack.submit(name="talkative")
    stack.parts.logs.append(
        [LogLine(run.id, 1, 1, rank, 1000.0 + rank, f"hello from {rank}", "host", rank + 1) for rank in range(3)]
    )
    assert [line.split(" | ")[1] for line in evertrain("logs", "talkative").out.splitlines()] == [
        "hello from 0", "hello from 1", "hello from 2",
    ]  # fmt: skip
    assert "hello from 1" in evertrain("logs", "talkative", "--rank", "1").out
    assert evertrain("logs", "talkative", "--tail", "1", "-o", "json").document["rank"] == 2  # type: ignore[index]


def test_a_token_is_shown_once_and_its_role_is_held(evertrain: Run, run_file: str) -> None:
    secret = evertrain("token", "create", "onlooker", "--role", "viewer", "--expires", "1h").out.strip()
    listed = evertrain("token", "list", "-o", "json").document
    made = next(each for each in listed if each["name"] == "onlooker")  # type: ignore[attr-defined]
    assert secret not in json.dumps(listed)
    refused = evertrain("submit", run_file, token=secret)
    assert refused.code == 1
    assert "needs the role user" in refused.err
    assert made["role"] == Role.VIEWER.value


def test_a_secret_is_read_from_standard_input_and_never_shown(
    evertrain: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "value").write_text("hunter2\n")
    with (tmp_path / "value").open() as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        assert evertrain("secret", "put", "MY_TOKEN").code == 0
    listed = evertrain("secret", "list", "-o", "json")
    assert "MY_TOKEN" in listed.document  # type: ignore[operator]
    assert "hunter2" not in listed.out
    assert evertrain("secret", "delete", "MY_TOKEN").code == 0
    assert evertrain("secret", "delete", "MY_TOKEN").code == 102


def test_nobody_to_talk_to_is_said_with_what_to_do(
    evertrain: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("EVERTRAIN_SERVER")
    monkeypatch.setenv("EVERTRAIN_HOME", str(tmp_path))
    answer = evertrain("list")
    assert answer.code == 1
    assert "evertrain up" in answer.err


def test_the_schema_is_json_unless_yaml_is_asked_for(evertrain: Run) -> None:
    schema = evertrain("schema")
    assert schema.document["title"] == "RunSpec"  # type: ignore[index]
    as_yaml = evertrain("schema", "-o", "yaml").out
    assert yaml.safe_load(as_yaml) == schema.document
    assert not as_yaml.startswith("{")


def sealed_by_hand(root: Path, weights: dict[str, torch.Tensor] | None = None, **recipe: object) -> Path:
    """A checkpoint of one rank, as the trainers write it."""
    directory = root / "attempt-0001/incarnation-0001/step-000000000004"
    directory.mkdir(parents=True)
    state = {"module": weights or {"layer.weight": torch.arange(6.0).view(2, 3)}}
    file = write_file(directory / "mp_rank_00_model_states.pt", state, 0, lambda: None)
    layout = {"zero": 0, "data": 1, "tensor": 1, "pipeline": 1, "sequence": 1, "expert": 1}
    extra = {
        "recipe": {"kind": "recipe", "target": "digits_cnn", "model": {"width": 8}, **recipe},
        "notes": {"classes": 10},
    }
    manifest = Manifest("run-1", 1, 1, 4, 0, 1, layout, {}, (file,), {}, True, {}, "", extra=extra)
    (directory / "manifest.json").write_text(manifest.to_json())
    return directory


def test_a_challenger_is_compared_promoted_and_taken_back(evertrain: Run, stack: Stack) -> None:
    for _ in range(3):
        stack.end(stack.place(stack.submit(name="rival")))
    stack.store.put_fact("default", "rival", 2, "proof", proofs.better(champion=1))
    stack.store.put_fact("default", "rival", 3, "proof", proofs.equal(champion=1))
    assert "nothing stood there before" in evertrain("model", "promote", "rival@1").out

    same = evertrain("model", "compare", "rival@3")
    assert "version 3 is not promoted over version 1" in same.out
    assert "there is no gain" in same.out
    refused = evertrain("model", "promote", "rival")
    assert (refused.code, "rival@3 is not promoted over version 1" in refused.err) == (1, True)
    promoted = evertrain("model", "promote", "rival@2", "--reason", "spring")
    assert "champion of rival is version 2 (it was version 1): spring; better than version 1" in promoted.out
    back = evertrain("model", "rollback", "rival", "--reason", "it lied")
    assert "champion of rival is version 1 (it was version 2): version 2 taken back: it lied" in back.out

    told = json.loads(evertrain("model", "history", "rival", "-o", "json").out)
    assert [(each["before"], each["version"]) for each in told] == [(2, 1), (1, 2), (0, 1)]
    assert "first-admin" in evertrain("model", "history", "rival").out
    assert "random numbers" in evertrain("model", "lineage", "rival@2").out
    assert evertrain("model", "history", "nobody").code == 102


def test_a_models_weights_leave_as_one_file_and_a_config(evertrain: Run, stack: Stack, tmp_path: Path) -> None:
    checkpoint = sealed_by_hand(tmp_path)
    stack.end(stack.place(stack.submit(name="leaver")), str(checkpoint))
    exported = evertrain("model", "export", "leaver@1", "--to", str(tmp_path / "out"))
    assert (exported.code, exported.out.strip()) == (0, str(tmp_path / "out"))
    weights = load_file(tmp_path / "out/model.safetensors")
    assert torch.equal(weights["layer.weight"], torch.arange(6.0).view(2, 3))
    modes = {(tmp_path / "out" / name).stat().st_mode for name in ("config.json", "model.safetensors")}
    assert len(modes) == 1  # who may read the one may read the other
    config = json.loads((tmp_path / "out/config.json").read_text())
    model = {"width": 8, "blocks": 1, "norm": "layer", "dropout": 0.1}
    assert (config["target"], config["model"]) == ("digits_cnn", model)
    assert config["notes"] == {"classes": 10}

    (checkpoint / "mp_rank_00_model_states.pt").write_bytes(b"short")
    spoilt = evertrain("model", "export", "leaver", "--to", str(tmp_path / "spoilt"))
    assert spoilt.code == 1
    assert "is damaged: mp_rank_00_model_states.pt has 5 bytes where" in spoilt.err
    assert not (tmp_path / "spoilt").exists()


def test_a_model_is_explained_on_a_page_and_its_importance_kept_with_the_version(
    evertrain: Run, stack: Stack, tmp_path: Path
) -> None:
    from trainers.config import Data, Settings, Train
    from trainers.recipes import MAKERS

    data = {"source": "sklearn://digits"}
    task = MAKERS["digits_cnn"](Settings(Data(**data), Train(global_batch=1, steps=1), model={"width": 8}))
    checkpoint = sealed_by_hand(tmp_path, task.model().state_dict(), data=data)
    stack.end(stack.place(stack.submit(name="seen")), str(checkpoint))
    html = tmp_path / "page.html"
    explained = evertrain("model", "explain", "seen@1", "--html", str(html), "--samples", "3")
    assert (explained.code, explained.out.strip()) == (0, str(html))
    assert html.read_text().count("test sample ") == 3
    with stack.client() as client:
        kept = client.facts("seen")["importance"]
    assert (kept["checkpoint"], kept["samples"], len(kept["features"])) == (str(checkpoint), 3, 64)

    refused = evertrain("model", "explain", "seen", "--html", str(html), "--data", str(tmp_path / "nowhere.npz"))
    assert refused.code == 1
    assert "error: cannot explain seen@1: data.source: got" in refused.err
    assert "no such file" in refused.err


SWEEP_FILE = """
name: searched
recipe: digits_cnn
train: {epochs: 1, global_batch: 128}
search:
  metric: val_accuracy
  mode: max
  space: {train.lr: {log: [1e-4, 1e-1]}}
"""


def test_a_sweep_is_listed_described_and_stopped(evertrain: Run, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP_FILE)
    assert evertrain("submit", str(tmp_path / "sweep.yaml")).code == 0
    assert "searched" in evertrain("sweep", "list").out
    assert "train.lr log [0.0001, 0.1]" in evertrain("sweep", "describe", "searched").out
    assert evertrain("sweep", "trials", "searched", "-o", "json").document == []
    best = evertrain("sweep", "best", "searched")
    assert (best.code, "no trial of searched has reported val_accuracy yet" in best.err) == (1, True)
    page = tmp_path / "sweep.html"
    assert evertrain("sweep", "describe", "searched", "--html", str(page)).code == 0
    assert page.read_text().startswith("<!doctype html>")
    assert evertrain("sweep", "export", "searched", "--to", str(tmp_path / "trials.xls")).code == 2
    assert "CANCELLED" in evertrain("sweep", "stop", "searched").out


def test_what_is_no_sweep_is_not_found_among_them(evertrain: Run, run_file: str) -> None:
    evertrain("submit", run_file, "--name", "plain")
    for words in (("describe", "plain"), ("stop", "plain"), ("describe", "nobody")):
        assert evertrain("sweep", *words).code == 102


def test_a_monitor_is_listed_described_paused_and_resumed(evertrain: Run, stack: Stack, tmp_path: Path) -> None:
    assert "no monitors" in evertrain("monitor", "list").out
    put_on_watch(stack, "seer", shift=1.0)

    assert "drift (major): height: median" in evertrain("monitor", "list").out
    described = evertrain("monitor", "describe", "seer").out
    assert "each feature, all together by a classifier; errors by Page-Hinkley" in described
    assert "all features together: a classifier tells rows from the reference's" in " ".join(described.split())
    assert "seer, judged against version 1" in described
    assert "3 windows judged" in described
    judged = evertrain("monitor", "judgements", "seer", "-o", "json").document
    assert [each["status"] for each in judged] == ["drift", "drift", "suspected"]  # type: ignore[attr-defined]
    page = tmp_path / "seer.html"
    assert evertrain("monitor", "describe", "seer", "--html", str(page)).code == 0
    assert page.read_text().count("<figure>") == 6
    assert "paused by first-admin: holidays" in evertrain("monitor", "pause", "seer", "--reason", "holidays").out
    assert "seer: drift (major)" in evertrain("monitor", "resume", "seer").out
    assert evertrain("monitor", "describe", "nobody").code == 102
