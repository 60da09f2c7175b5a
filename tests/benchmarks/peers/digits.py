"""Digits on DeepSpeed ZeRO-2 as its documentation writes a training: our model and data, none of our loop.

Runs under torchrun (`torchrun --nproc-per-node 2 digits.py OPTIONS`) and, by `train`, inside Ray Train. Rank 0 prints a
JSON line with the wall clock at each optimizer step that somebody measures: the first of a start, and every 100th.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.nn import functional
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from trainers.models.cnn import Cnn


def tell(marks: Path | None, **facts: Any) -> None:
    line = json.dumps({"at": time.time(), "pid": os.getpid(), **facts})
    if marks is None:
        print(line, flush=True)
    else:
        with marks.open("a") as file:
            file.write(line + "\n")


def engine_of(width: int, batch: int, world: int, lr: float) -> Any:
    torch.manual_seed(0)
    model = Cnn(channels=1, classes=10, width=width, blocks=1, norm="layer", dropout=0.1)
    config = {
        "train_batch_size": batch,
        "train_micro_batch_size_per_gpu": batch // world,
        "zero_optimization": {"stage": 2},
        "optimizer": {"type": "AdamW", "params": {"lr": lr, "torch_adam": True}},
        "steps_per_print": 1_000_000_000,
    }
    return deepspeed.initialize(model=model, model_parameters=list(model.parameters()), config=config)[0]


def train(options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    deepspeed.init_distributed(dist_backend="gloo", verbose=False)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    marks = Path(options.marks) if options.marks else None
    tell(marks, rank=rank, started=True)
    digits = load_digits()
    images = torch.from_numpy((digits.images / 16.0).astype(np.float32)).unsqueeze(1)[:1257]
    data = TensorDataset(images, torch.from_numpy(digits.target[:1257]).long(), torch.arange(1257))
    engine = engine_of(options.width, options.batch, world, options.lr)
    step = 0
    if options.checkpoint_dir and (Path(options.checkpoint_dir) / "latest").exists():
        engine.load_checkpoint(options.checkpoint_dir)
        step = engine.global_steps
    sampler = DistributedSampler(data, world, rank, shuffle=True, seed=0, drop_last=True)
    loader = DataLoader(data, batch_size=options.batch // world, sampler=sampler, drop_last=True)
    started_step, epoch = step, 0
    while step < options.steps:
        sampler.set_epoch(epoch)
        epoch += 1
        for inputs, targets, keys in loader:
            loss = functional.cross_entropy(engine(inputs, keys), targets)
            engine.backward(loss)
            engine.step()
            step += 1
            if rank == 0 and (step == started_step + 1 or step % options.tell_every == 0):
                tell(marks, step=step, first=step == started_step + 1, loss=float(loss.detach()))
            if options.checkpoint_dir and step % options.checkpoint_every == 0:
                engine.save_checkpoint(options.checkpoint_dir)
            if step >= options.steps:
                break
    if rank == 0:
        tell(marks, step=step, done=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tell-every", type=int, default=100)
    parser.add_argument("--checkpoint-dir", default="")
    parser.add_argument("--checkpoint-every", type=int, default=20)
    parser.add_argument(
        "--marks", default="", help="file that the JSON lines are appended to; default: standard output"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    train(parse(sys.argv[1:]))
