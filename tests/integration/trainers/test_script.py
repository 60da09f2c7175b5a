"""Scripts that know nothing of Evertrain, run unchanged."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.trainers.gangs import Gang, digits_launch, run_gang
from trainers.contract import Done, ExitCode, Failed, Launch, Message, PhaseChanged, Step

DEEPSPEED_SCRIPT = """
import argparse, os, deepspeed, torch
parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int)
steps = parser.parse_args().steps
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
config = {
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "optimizer": {"type": "Adam", "params": {"lr": 0.01, "torch_adam": True}},
    "zero_optimization": {"stage": 2},
}
engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=config)
x = torch.ones(2, 4)
for _ in range(2 * steps):
    engine.backward((engine(x) - 1).square().mean())
    engine.step()
open(os.path.join(os.environ["EVERTRAIN_CHECKPOINT_DIR"], f"rank-{os.environ['RANK']}"), "w").close()
"""

TORCH_SCRIPT = """
import torch
weight = torch.zeros(3, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.5)
for _ in range(4):
    optimizer.zero_grad()
    (weight - 1).square().sum().backward()
    optimizer.step()
"""


def script_launch(tmp_path: Path, source: str, *args: str) -> Launch:
    code = tmp_path / "code"
    code.mkdir()
    (code / "work.py").write_text(source)
    launch = digits_launch(tmp_path)
    return replace(launch, kind="script", target="work.py", config={}, args=args, code_dir=str(code))


def test_a_deepspeed_script_runs_with_its_arguments_and_tells_its_steps(tmp_path: Path) -> None:
    gang = run_gang(script_launch(tmp_path, DEEPSPEED_SCRIPT, "--steps", "5"))
    assert gang.codes == [0, 0]
    told = gang.of(Step)
    assert [each.step for each in told] == [1, 2, 3, 4, 5]
    assert [each.samples for each in told] == [8, 16, 24, 32, 40]
    assert all(each.learning_rate == 0.01 for each in told)
    losses = [each.loss for each in told if each.loss is not None]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 5
    assert gang.one(Done).step == 5
    assert {each.name for each in (tmp_path / "checkpoints" / "script").iterdir()} == {"rank-0", "rank-1"}
    assert [each.phase for each in gang.of(PhaseChanged)] == ["starting", "training"]


def test_a_torch_script_tells_the_steps_of_its_optimizer(tmp_path: Path) -> None:
    gang = run_gang(script_launch(tmp_path, TORCH_SCRIPT), world_size=1)
    assert [(each.step, each.learning_rate) for each in gang.of(Step)] == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.5)]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("x = 1\nif x\n    pass\n", "work.py:2'"),
        ("import broken\n", "broken.py:1'"),
    ],
)
def test_a_syntax_error_is_told_with_its_file_and_line(source: str, words: str, tmp_path: Path) -> None:
    launch = script_launch(tmp_path, source)
    (tmp_path / "code" / "broken.py").write_text("def f(:\n")
    gang = run_gang(launch, world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert words in gang.one(Failed).message
    assert "syntax error" in gang.one(Failed).message


def test_a_missing_script_is_a_bad_config(tmp_path: Path) -> None:
    gang = run_gang(replace(script_launch(tmp_path, ""), target="absent.py"), world_size=1)
    assert gang.codes == [ExitCode.BAD_CONFIG]
    assert gang.one(Failed).message.startswith("script: got 'absent.py'")


def test_an_exception_is_told_with_its_traceback(tmp_path: Path) -> None:
    gang = run_gang(script_launch(tmp_path, "def f():\n    return {}['key']\nf()\n"), world_size=1)
    failed = gang.one(Failed)
    assert gang.codes == [ExitCode.APPLICATION]
    assert failed.message == "KeyError: 'key' (work.py:2)"
    assert 'work.py", line 2, in f' in failed.traceback


def test_the_exit_code_of_a_script_is_the_ranks(tmp_path: Path) -> None:
    gang = run_gang(script_launch(tmp_path, "import sys; sys.exit(7)"), world_size=1)
    assert gang.codes == [7]
    assert gang.one(Failed).code == 7
    assert not gang.of(Done)


def test_a_stop_ends_a_script_that_catches_every_exception(tmp_path: Path) -> None:
    stubborn = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except Exception:\n        pass\n"

    def stop(gang: Gang, rank: int, message: Message) -> None:
        if isinstance(message, PhaseChanged):
            gang.kill(0, signal.SIGTERM)

    gang = run_gang(script_launch(tmp_path, stubborn), world_size=1, watch=stop)
    assert gang.codes == [ExitCode.STOPPED]
