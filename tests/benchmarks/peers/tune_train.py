"""A search by raw Ray Tune over Ray Train, as Ray's documentation writes it: `python -m tests.benchmarks.peers.tune_train J`.

Each trial is a function that calls `TorchTrainer(...).fit()`, and `TuneReportCallback` passes on what its workers report.
Points and halving are those of the sweep beside it: the same searcher, scheduler and seed. Connects to RAY_ADDRESS's Ray.
J: {"search": ..., "epochs": ..., "slots": ..., "storage": ..., "marks": ..., "width": ...}. A mark is written when
the search begins and ends, and at the first optimizer step of each trial.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")

import ray
import torch
from ray import train, tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from torch.nn import functional

from orchestrator.cluster.search_points import OBJECTIVE, REPORT, Points
from orchestrator.cluster.search_schedulers import scheduler
from orchestrator.spec.search import Search
from tests.benchmarks.peers import digits


def loop(config: dict[str, Any]) -> None:
    """One worker's life: the training of `digits.train`, reporting its accuracy on held-out images after every epoch."""
    import deepspeed
    from sklearn.datasets import load_digits

    torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    data = load_digits()
    images = torch.from_numpy(data.images / 16.0).float().unsqueeze(1)
    targets, keys = torch.from_numpy(data.target).long(), torch.arange(len(images))
    engine = digits.engine_of(config["width"], 128, world, config["lr"])
    share = 128 // world
    for epoch in range(1, config["epochs"] + 1):
        order = torch.randperm(1257, generator=torch.Generator().manual_seed(epoch))
        for start in range(0, 1257 - 127, 128):
            mine = order[start + rank * share : start + (rank + 1) * share]
            engine.backward(functional.cross_entropy(engine(images[mine], keys[mine]), targets[mine]))
            engine.step()
            if rank == 0 and epoch == 1 and start == 0:
                digits.tell(Path(config["marks"]), first=True, trial=config["trial"])
        with torch.no_grad():
            engine.eval()
            right = engine(images[1257:1527], keys[1257:1527]).argmax(1) == targets[1257:1527]
            engine.train()
        train.report({OBJECTIVE: right.float().mean().item(), REPORT: epoch, "whole": epoch == config["epochs"]})


def trial(config: dict[str, Any], *, given: dict[str, Any]) -> None:
    """Tune's trainable: one `fit()`."""
    point = {"lr": config["point"]["train.lr"], "trial": config["trial"]}
    TorchTrainer(
        loop,
        train_loop_config={**given, **point},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"trial-{config['trial']}",
            storage_path=given["storage"],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()
    digits.tell(Path(given["marks"]), ended=True, trial=config["trial"])


def main(given: dict[str, Any]) -> None:
    search = Search.model_validate(given["search"])
    root = str(Path(__file__).parents[3])
    env_vars = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "PYTHONPATH": root, "RAY_TRAIN_V2_ENABLED": "1"}
    ray.init(runtime_env={"env_vars": env_vars}, log_to_driver=False)
    marks = Path(given["marks"])
    digits.tell(marks, begun=True)
    nearly_nothing = {f"node:{ray.util.get_node_ip_address()}": 0.001}  # of the function: its workers hold the CPUs
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(trial, given=given), nearly_nothing),
        tune_config=tune.TuneConfig(
            num_samples=search.wanted,
            search_alg=Points(search, room=lambda: int(given["slots"])),
            scheduler=scheduler(search, {"train": {"epochs": given["epochs"]}}),
        ),
        run_config=tune.RunConfig(storage_path=given["storage"], name="search", verbose=0),
    ).fit()
    digits.tell(marks, done=True, trials=len(results), errors=len(results.errors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("given")
    main(json.loads(parser.parse_args(sys.argv[1:]).given))
