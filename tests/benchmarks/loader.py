"""The loader against torch's: samples a second, share of a step, and the time to resume far into a run.

    python -m tests.benchmarks.loader [--quick]

Both arms read the same memory-mapped images and hand out the same batches: shuffled, of 128, in the same process
(torch's with `num_workers=0`, ours has no workers). torch's loader gathers sample by sample, as its documentation shows
it; a second figure lets its data set fetch whole batches at once, which is the most that it offers. Arms take turns within
a pair, and each pair's ratio is of rates that were measured one right after the other. The step is that of the
digits recipe, one rank.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from trainers.config import Data, Settings, Steps, Train, plan_batch
from trainers.data.loader import Batch, Loader
from trainers.data.prepare import prepare
from trainers.data.prepared import Columns
from trainers.data.sampler import Sampler
from trainers.recipes.digits_cnn import digits_cnn

BATCH, SAMPLES, BATCHES, STEPS = 128, 40_000, 200, 60
WARM_STEP = 10**6
PLAN = plan_batch(Train(global_batch=BATCH), 1)
CPU = torch.device("cpu")


class Rows(Dataset[Batch]):
    """Torch's way: one sample at a time."""

    def __init__(self, examples: Columns) -> None:
        self.columns = examples.columns
        self.rows = len(examples)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, index: int) -> Batch:
        return {name: column[index] for name, column in self.columns.items()}


class RowsAtOnce(Rows):
    """Torch's short cut: all samples of a batch in one call."""

    def __getitems__(self, indices: list[int]) -> Batch:
        where = torch.tensor(indices)
        return {name: column[where] for name, column in self.columns.items()}


def as_is(batch: Any) -> Any:
    return batch


def ours(examples: Columns) -> Iterator[Batch]:
    loader, sampler = Loader(PLAN, 0, CPU, torch.float32), Sampler(len(examples), BATCH, seed=0)
    for step in range(10**9):
        yield from loader.training(examples, sampler, step * BATCH)


def theirs(examples: Columns, *, at_once: bool) -> Iterator[Batch]:
    rows, collate = (RowsAtOnce(examples), as_is) if at_once else (Rows(examples), None)
    while True:
        yield from DataLoader(rows, batch_size=BATCH, shuffle=True, drop_last=True, collate_fn=collate)


def rate(batches: Iterator[Batch]) -> float:
    """Samples a second."""
    next(batches)
    began_s = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return BATCHES * BATCH / (time.perf_counter() - began_s)


def images(directory: Path) -> Columns:
    """Digits over and over, prepared as a run would have them."""
    digits = np.load(next(_prepared_digits(directory).glob("train/inputs.npy")))
    where = np.random.default_rng(0).integers(len(digits), size=SAMPLES)
    np.savez(directory / "digits.npz", x=digits[where][:, None], y=where % 10)
    return prepare(Data(str(directory / "digits.npz"), (1.0, 0.0, 0.0), steps=Steps()), directory / "made").part(
        "train"
    )


def _prepared_digits(directory: Path) -> Path:
    return prepare(Data("sklearn://digits", steps=Steps()), directory / "made").directory


def step_s() -> tuple[float, float]:
    """Seconds of all steps of the digits recipe, and of its loading: plain torch, so that nothing else counts."""
    task = digits_cnn(Settings(Data("sklearn://digits"), Train(global_batch=BATCH)))
    model = task.model()
    optimizer = torch.optim.AdamW(model.parameters())
    loader, sampler = Loader(PLAN, 0, CPU, torch.float32), Sampler(len(task.splits.train), BATCH, seed=0)
    steps, loads = [], []
    for step in (WARM_STEP, *range(STEPS)):
        began_s = time.perf_counter()
        (batch,) = loader.training(task.splits.train, sampler, step * BATCH)
        loaded_s = time.perf_counter()
        task.loss(model, batch).backward()
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - began_s)
        loads.append(loaded_s - began_s)
    return sum(steps[1:]), sum(loads[1:])  # but the first one, which warms up elsewhere in the order


def resume_s() -> float:
    """A sampler of more than a billion samples, from nothing to its first batch after 10^9 of them."""
    began_s = time.perf_counter()
    sampler = Sampler(2 * 10**9, BATCH, seed=1)
    sampler.batch(sampler.resume({**sampler.cursor(10**9)}))
    sampler.keys(10**9)
    return time.perf_counter() - began_s


def main() -> None:
    options = arguments(__doc__ or "")
    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {"ours": [], "torch": [], "torch at once": []}
    shares, steps, resumes = [], [], []
    with tempfile.TemporaryDirectory() as directory:
        examples = images(Path(directory))
        for pair in range(options.pairs):
            rates["ours"].append(rate(ours(examples)))
            rates["torch"].append(rate(theirs(examples, at_once=False)))
            rates["torch at once"].append(rate(theirs(examples, at_once=True)))
            step, load = step_s()
            steps.append(step / STEPS)
            shares.append(load / step)
            resumes.append(resume_s())
            print(f"pair {pair}: " + ", ".join(f"{name} {each[-1]:,.0f}/s" for name, each in rates.items()), flush=True)
    plain = [a / b for a, b in zip(rates["ours"], rates["torch"], strict=True)]
    at_once = [a / b for a, b in zip(rates["ours"], rates["torch at once"], strict=True)]
    report(
        "loader",
        [
            Figure("ours, p50", median(rates["ours"]), "samples/s"),
            Figure("torch DataLoader, p50", median(rates["torch"]), "samples/s"),
            Figure("ours over DataLoader, lower 95 % bound", lower_bound(plain), "ratio", 1.5, "higher"),
            Figure("ours over DataLoader with __getitems__, p50", median(at_once), "ratio"),
            Figure("step of digits_cnn, p50", median(steps) * 1e3, "ms"),
            Figure("share of loading in the step, p50", median(shares), "ratio", 0.02),
            Figure("resume at sample 10^9, p50", median(resumes) * 1e3, "ms"),
            Figure("resume at sample 10^9, worst", max(resumes) * 1e3, "ms", 50.0),
        ],
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
