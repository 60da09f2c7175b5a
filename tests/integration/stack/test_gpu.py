"""Runs on a GPU, on the whole stack. Where there is none these tests are skipped."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from orchestrator.errors import InvalidSpec
from tests.integration.stack.conftest import Stack, digits, kind, long_digits

pytestmark = pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="needs an NVIDIA GPU")

ONE_GPU = {"workers": 1, "cpu": 1, "gpu": 1}
SEES = "import torch\nprint('sees', torch.cuda.device_count(), 'GPUs', flush=True)\n"


def computing() -> set[int]:
    """Processes that hold memory of a GPU, as the driver knows them."""
    command = ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {int(line) for line in told.splitlines()}


def test_a_rank_computes_on_the_gpu_by_nccl_and_the_zygote_that_it_was_forked_from_never_touches_it(
    stack: Stack,
) -> None:
    run = stack.client.submit(long_digits("on-gpu", resources=ONE_GPU, env={"NCCL_DEBUG": "INFO"}))
    started = stack.until(run.id, kind("ranks_started"))
    stack.until(run.id, kind("training"))
    (pid,) = (int(each) for each in started.data["pids"])
    assert computing() == {pid}
    zygote = psutil.Process(pid).parent()
    assert zygote is not None
    assert "trainers.zygote" in zygote.cmdline()
    stack.client.cancel(run.id)
    assert stack.client.wait(run.id).state == "CANCELLED"
    assert not computing()
    assert any("NCCL INFO" in line.text for line in stack.client.logs(run.id))


def test_a_killed_rank_gives_the_gpu_back_and_goes_on_there_from_the_newest_seal(stack: Stack) -> None:
    run = stack.client.submit(long_digits("killed-on-gpu", resources=ONE_GPU))
    started = stack.until(run.id, kind("ranks_started"))
    stack.until(run.id, kind("checkpoint_sealed"))
    os.kill(int(started.data["pids"][0]), signal.SIGKILL)
    failed = stack.until(run.id, kind("rank_failed"))
    restored = stack.until(run.id, kind("restored"), after=failed.seq)
    assert int(restored.data["step"]) >= 10
    stack.until(run.id, kind("training"), after=restored.seq)
    stack.client.cancel(run.id)
    stack.client.wait(run.id)


def test_a_model_is_learnt_in_bf16(stack: Stack) -> None:
    bf16 = {"steps": 30, "global_batch": 128, "optimizer": "adamw", "lr": 3e-3, "precision": "bf16"}
    run = stack.client.wait(stack.client.submit(digits("learnt-on-gpu", train=bf16, resources=ONE_GPU)).id)
    assert run.state == "SUCCEEDED", run.reason
    assert run.result is not None
    assert run.result.metrics["test_accuracy"] > 0.5


def too_large(name: str, **train: Any) -> dict[str, Any]:
    """Some samples of it fit into a GPU's memory, 512 do not: they would keep some 250 GB for the backward pass."""
    return {
        "name": name,
        "recipe": "text_transformer",
        "data": {"source": "text://pydoc_topics"},
        "model": {"layers": 8, "width": 2048, "heads": 16, "context": 512},
        "train": {"steps": 2, "global_batch": 512, "optimizer": "adamw", "lr": 1e-4, **train},
        "resources": ONE_GPU,
    }


def test_a_batch_that_cannot_fit_into_the_gpu_is_refused_before_it_is_tried(stack: Stack) -> None:
    with pytest.raises(InvalidSpec, match="does not fit"):
        stack.client.submit(too_large("full-gpu", micro_batch=512))


def test_an_automatic_micro_batch_recovers_from_running_out_of_memory(stack: Stack) -> None:
    run = stack.client.wait(stack.client.submit(too_large("found-on-gpu", micro_batch="auto")).id)
    assert run.state == "SUCCEEDED", run.reason


def test_a_second_run_waits_for_the_gpu_and_is_told_so(stack: Stack) -> None:
    first = stack.client.submit(long_digits("holds-the-gpu", resources=ONE_GPU))
    stack.until(first.id, kind("training"))
    second = stack.client.submit(digits("waits-for-the-gpu", resources=ONE_GPU))
    queued = next(update.run for update in stack.updates(second.id) if update.run.reason.code == "waiting_for_capacity")
    assert "GPU" in queued.reason.message
    stack.client.cancel(first.id)
    assert stack.client.wait(second.id).state == "SUCCEEDED"


def test_a_run_that_asked_for_none_sees_none(stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "sees.py").write_text(SEES)
    run = stack.client.submit({"name": "sees", "script": "sees.py", "code": str(tmp_path), "resources": {"workers": 1}})
    assert stack.client.wait(run.id).state == "SUCCEEDED"
    assert "sees 0 GPUs" in [line.text for line in stack.client.logs(run.id, follow=True)]
