"""Tokens per second of our transformer against a plain PyTorch loop, and against Hugging Face's on the same DeepSpeed.

    python -m tests.benchmarks.throughput [--quick]

Three arms, a process each, take turns of a few steps, on the CPU in fp32, one thread, the same text and batches: our task,
loader and engine; the same model in a loop of plain PyTorch, with its AdamW as it comes; Hugging Face's Llama, of the same
dimensions, with our engine and its configuration. Ours runs in the environment that a zygote gives its ranks, the others in
that of a shell: `ours, in a shell's environment` is told beside them, so that the model's part can be known from the
allocator's. Their order changes with each round. A second is one of CPU time, so that what else runs on the machine
changes little. On a GPU nothing of this was measured.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from tests.benchmarks.harness import Figure, arguments, lower_bound, median, report
from trainers.config import Data, Parallelism, Settings, Train, plan_batch
from trainers.data.loader import Batch, Loader
from trainers.data.sampler import Sampler
from trainers.distributed import World, join
from trainers.engine import build_engine
from trainers.layout import Degrees, feed_width
from trainers.parallel import Place
from trainers.recipes.text_transformer import text_transformer
from trainers.zygote import ENVIRONMENT

PAIRS = 20
CONTEXT, LAYERS, HEADS, WIDTH, BATCH = 256, 4, 4, 256, 8
TURN_STEPS, WARM_STEPS = 6, 3
ALONE = Place(0, 1, Degrees())
SETTINGS = Settings(
    Data("text://pydoc_topics"),
    Train(global_batch=BATCH, steps=1_000_000, optimizer="adamw", lr=1e-4),
    model={"layers": LAYERS, "heads": HEADS, "width": WIDTH, "context": CONTEXT, "dropout": 0.0},
    parallelism=Parallelism(zero=0),
)


@dataclass
class Arm:
    """Trains one step on the next batch each time it is called."""

    step: Callable[[Batch], None]
    batches: Iterator[Batch]

    def turn(self, steps: int = TURN_STEPS) -> float:
        """Tokens per CPU second, after a step that brings this arm's memory back and is not counted."""
        self.step(next(self.batches))
        began_s = time.process_time()
        for _ in range(steps):
            self.step(next(self.batches))
        return steps * BATCH * CONTEXT / (time.process_time() - began_s)


def ours(world: World) -> Arm:
    task = text_transformer(SETTINGS)
    engine = build_engine(task.model, SETTINGS, plan_batch(SETTINGS.train, 1), world, ALONE, 1_000_000)

    def step(batch: Batch) -> None:
        engine.backward(task.loss(engine, batch))
        engine.step()

    return Arm(step, batches(world))


def plain() -> Arm:
    torch.manual_seed(0)
    model = text_transformer(SETTINGS).model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.0)
    stream = text_transformer(SETTINGS).splits.train
    order = torch.utils.data.RandomSampler(range(len(stream)), replacement=True, num_samples=2**40)
    columns = {"tokens": stream.take(torch.arange(len(stream)).numpy())["tokens"]}
    loader = torch.utils.data.DataLoader(_Rows(columns["tokens"]), batch_size=BATCH, sampler=order)

    def step(batch: Batch) -> None:
        optimizer.zero_grad()
        tokens = batch["tokens"]
        logits = model(tokens[:, :-1], batch["keys"])
        functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()

    keys = torch.zeros(BATCH, dtype=torch.int64)
    return Arm(step, ({"tokens": tokens, "keys": keys} for tokens in loader))


class _Rows(torch.utils.data.Dataset[torch.Tensor]):
    def __init__(self, rows: torch.Tensor) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self._rows[index]


def hugging_face(world: World) -> Arm:
    from transformers import LlamaConfig, LlamaForCausalLM

    vocabulary = len(text_transformer(SETTINGS).notes["vocabulary"])
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=feed_width(WIDTH),
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        use_cache=False,
        attn_implementation="sdpa",
    )

    def build() -> nn.Module:
        return LlamaForCausalLM(config)

    engine = build_engine(build, SETTINGS, plan_batch(SETTINGS.train, 1), world, ALONE, 1_000_000)

    def step(batch: Batch) -> None:
        tokens = batch["tokens"]
        logits = engine(input_ids=tokens[:, :-1]).logits
        engine.backward(functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))
        engine.step()

    return Arm(step, batches(world))


def batches(world: World) -> Iterator[Batch]:
    train = text_transformer(SETTINGS).splits.train
    sampler = Sampler(len(train), BATCH, 0)
    loader = Loader(plan_batch(SETTINGS.train, 1), 0, world.device, torch.float32)
    consumed = 0
    while True:
        yield from loader.training(train, sampler, consumed)
        consumed += BATCH


ARMS: dict[str, Callable[[World], Arm]] = {"ours": ours, "plain": lambda world: plain(), "hugging_face": hugging_face}
SHELL = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}


class Turns:
    """An arm in a process of its own, which takes a turn for each line that it reads."""

    def __init__(self, arm: str, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.throughput", "--arm", arm]
        inherited = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
        self._process = subprocess.Popen(
            command, env={**inherited, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def take(self, steps: int = TURN_STEPS) -> float:
        """Tokens per CPU second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(steps, file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            name, _, value = line.partition(" ")
            if name == "RATE":
                return float(value)
        raise RuntimeError(f"{self._process.args}: ended with {self._process.wait()} before its turn was over")

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def take_turns(name: str) -> None:
    arm = ARMS[name](join(threads=1))
    for line in sys.stdin:
        print("RATE", arm.turn(int(line)), flush=True)


def main() -> None:
    options = arguments(__doc__ or "", PAIRS)
    arms = {
        "ours": Turns("ours", {**ENVIRONMENT, **SHELL}),
        "ours, in a shell's environment": Turns("ours", SHELL),
        "plain PyTorch": Turns("plain", SHELL),
        "Hugging Face": Turns("hugging_face", SHELL),
    }
    for arm in arms.values():
        arm.take(WARM_STEPS)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    orders = list(itertools.permutations(arms))  # nobody always follows the same other
    for pair in range(options.pairs):
        for name in orders[pair * 7 % len(orders)]:
            rates[name].append(arms[name].take())
        print(f"pair {pair}: " + ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items()), flush=True)
    for arm in arms.values():
        arm.end()
    figures = [Figure(f"{name}, p50", median(values), "tokens/CPU-s") for name, values in rates.items()]
    for name, bound in (("plain PyTorch", 1.0), ("Hugging Face", 1.1)):
        ratios = [mine / its for mine, its in zip(rates["ours"], rates[name], strict=True)]
        bare = [mine / its for mine, its in zip(rates["ours, in a shell's environment"], rates[name], strict=True)]
        figures += [
            Figure(f"ours over {name}, p50", median(ratios), "ratio", bound, "higher"),
            Figure(f"ours over {name}, lower 95 % bound", lower_bound(ratios), "ratio"),
            Figure(f"ours over {name}, a shell's environment, p50", median(bare), "ratio"),
        ]
    report("throughput", figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--arm", choices=sorted(ARMS))
    one = parser.parse_known_args()[0].arm
    if one is None:
        main()
    else:
        take_turns(one)
