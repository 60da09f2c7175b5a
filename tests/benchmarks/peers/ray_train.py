"""The digits training under Ray Train: `python -m tests.benchmarks.peers.ray_train MAX_FAILURES STORAGE OPTIONS...`.

Connects to the Ray of RAY_ADDRESS. The first mark is the moment before `fit()`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from tests.benchmarks.peers import digits


def loop(config: dict[str, Any]) -> None:
    digits.train(digits.parse(config["options"]))


def main(max_failures: int, storage: str, options: list[str]) -> None:
    root = str(Path(__file__).parents[3])
    compiled = os.environ["TORCH_EXTENSIONS_DIR"]  # workers inherit the raylet's environment, not this process's
    env_vars = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "TORCH_EXTENSIONS_DIR": compiled}
    ray.init(runtime_env={"env_vars": env_vars}, log_to_driver=False)
    trainer = TorchTrainer(
        loop,
        train_loop_config={"options": options},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(storage_path=storage, failure_config=FailureConfig(max_failures=max_failures)),
    )
    marks = digits.parse(options).marks
    digits.tell(Path(marks), fit=True)
    trainer.fit()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
