"""Preparing data as a Ray Data job on a real Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import yaml

from tests.integration.cluster.conftest import Stage
from trainers.data.prepare import main

JOB_S = 240  # a bound for hanging on a busy machine: Ray's workers import torch


def job(stage: Stage, run_file: Path, root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainers.data.ray_job", str(run_file), "--root", str(root)]
    env = {**stage.ray.env, "RAY_ADDRESS": stage.ray.address}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=JOB_S)


def files(root: Path) -> dict[str, bytes]:
    return {str(each.relative_to(root)): each.read_bytes() for each in root.glob("*/*/*.npy")}


def test_a_job_makes_what_one_process_makes(stage: Stage, tmp_path: Path) -> None:
    table = pa.table({"x": [number / 7 for number in range(300)], "label": [number % 3 for number in range(300)]})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet", row_group_size=150)
    run_file = tmp_path / "run.yaml"
    data = {"source": str(tmp_path / "some.parquet"), "split_by": {"stratify": "label"}}
    run_file.write_text(yaml.safe_dump({"name": "some", "data": data}))
    done = job(stage, run_file, tmp_path / "cluster")
    assert done.returncode == 0, done.stderr
    assert main([str(run_file), "--root", str(tmp_path / "here")]) == 0
    assert files(tmp_path / "cluster") == files(tmp_path / "here") != {}
