"""How much of a GPU's bf16 arithmetic our transformer's training uses (MFU), and what it holds against what is planned.

    python -m tests.benchmarks.mfu [--quick]

Needs a GPU. The model of about 350 million and that of about 1.3 billion parameters take turns of a few optimizer steps with
the same model in a loop of plain PyTorch: `torch.compile`, autocast to bf16, fused AdamW. Ours is what a rank runs: task,
loader, and DeepSpeed with fp32 copies of the weights. A token costs 6 operations for each weight of a product, and causal
attention 6 x layers x width x context (half of Chowdhery et al. 2022, arXiv 2204.02311, appendix B, who count what a causal
mask spares); what is recomputed does not count. Seconds are of the wall: the GPU is nobody else's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from orchestrator.planning.plan import review
from orchestrator.spec import load
from tests.benchmarks.harness import Figure, arguments, median, report
from trainers.config import Data, Parallelism, Settings, Train, plan_batch
from trainers.data.loader import Batch, Loader
from trainers.data.sampler import Sampler
from trainers.distributed import World, join
from trainers.engine import build_engine
from trainers.layout import Degrees
from trainers.parallel import Place
from trainers.recipes.text_transformer import text_transformer

PAIRS = 5
CONTEXT, TURN_STEPS, WARM_STEPS = 1024, 3, 2
MFU_BOUND, MEMORY_TOLERANCE = 0.45, 0.15
PEAK_FLOPS = {"H100": 989.4e12, "H200": 989.4e12, "A100": 312e12}
"""Dense bf16, by a part of the GPU's name, from NVIDIA's data sheets (SXM)."""


@dataclass(frozen=True)
class Size:
    name: str
    layers: int
    width: int
    heads: int
    micro_batch: int
    accumulation: int

    @property
    def global_batch(self) -> int:
        return self.micro_batch * self.accumulation

    def run_file(self) -> dict[str, Any]:
        train = {"global_batch": self.global_batch, "micro_batch": self.micro_batch, "steps": 1_000_000}
        return {
            "name": "mfu",
            "recipe": "text_transformer",
            "data": {"source": "text://pydoc_topics"},
            "model": self.model(),
            "train": {**train, "optimizer": "adamw", "lr": 1e-4, "precision": "bf16", "compile": True},
            "parallelism": {"zero": 0},
            "resources": {"workers": 1, "gpu": 1},
        }

    def model(self) -> dict[str, Any]:
        shape = {"layers": self.layers, "width": self.width, "heads": self.heads}
        return {**shape, "context": CONTEXT, "dropout": 0.0}

    def settings(self) -> Settings:
        asked = self.run_file()
        return Settings(
            Data(asked["data"]["source"]), Train(**asked["train"]), model=self.model(), parallelism=Parallelism(zero=0)
        )


SIZES = (Size("350M", 28, 1024, 16, 16, 4), Size("1.3B", 26, 2048, 16, 8, 8))


@dataclass
class Arm:
    """Trains one optimizer step each time `step` is called."""

    step: Callable[[], None]
    products: int  # weights that take part in a product with every token

    def turn(self, size: Size, steps: int = TURN_STEPS) -> float:
        """Operations a second that count."""
        torch.cuda.synchronize()
        began_s = time.perf_counter()
        for _ in range(steps):
            self.step()
        torch.cuda.synchronize()
        a_token = 6 * self.products + 6 * size.layers * size.width * CONTEXT
        return a_token * CONTEXT * size.global_batch * steps / (time.perf_counter() - began_s)


def ours(size: Size, world: World) -> Arm:
    settings = size.settings()
    task, plan, place = text_transformer(settings), plan_batch(settings.train, 1), Place(0, 1, Degrees())
    engine = build_engine(task.model, settings, plan, world, place, 1_000_000)
    batches = _batches(size, world)

    def step() -> None:
        place.train_step(engine, task, (next(batches) for _ in range(size.accumulation)))

    return Arm(step, _products(engine.module))


def plain(size: Size, world: World) -> Arm:
    torch.manual_seed(0)
    model = text_transformer(size.settings()).model().to(world.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    compiled: Any = torch.compile(model)
    batches = _batches(size, world)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(size.accumulation):
            batch = next(batches)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                logits = compiled(batch["tokens"][:, :-1], batch["keys"])
            loss = functional.cross_entropy(logits.float().flatten(0, 1), batch["tokens"][:, 1:].flatten())
            (loss / size.accumulation).backward()
        optimizer.step()

    return Arm(step, _products(model))


def _products(model: torch.nn.Module) -> int:
    """Looking a token up multiplies nothing."""
    return sum(each.numel() for name, each in model.named_parameters() if each.ndim > 1 and "tokens" not in name)


def _batches(size: Size, world: World) -> Iterator[Batch]:
    settings = size.settings()
    train = text_transformer(settings).splits.train
    sampler = Sampler(len(train), size.global_batch, 0)
    loader = Loader(plan_batch(settings.train, 1), 0, world.device, torch.bfloat16)
    consumed = 0
    while True:
        yield from loader.training(train, sampler, consumed)
        consumed += size.global_batch


def measure(size: Size, world: World, pairs: int, peak_flops: float) -> Iterator[Figure]:
    torch.cuda.reset_peak_memory_stats()
    arms = {"ours": ours(size, world)}
    for _ in range(WARM_STEPS):
        arms["ours"].step()
    torch.cuda.synchronize()
    held, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    yield from _memory(size, held, most)
    arms["plain"] = plain(size, world)
    for _ in range(WARM_STEPS):
        arms["plain"].step()
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for pair in range(pairs):
        for name in sorted(arms, reverse=pair % 2 == 1):
            rates[name].append(arms[name].turn(size) / peak_flops)
        print(
            f"{size.name}, pair {pair}: " + ", ".join(f"{name} {each[-1]:.3f}" for name, each in rates.items()),
            flush=True,
        )
    ratios = [mine / its for mine, its in zip(rates["ours"], rates["plain"], strict=True)]
    yield Figure(f"{size.name}: MFU, ours, p50", median(rates["ours"]), "share", MFU_BOUND, "higher")
    yield Figure(f"{size.name}: MFU, plain PyTorch, p50", median(rates["plain"]), "share")
    yield Figure(f"{size.name}: ours over plain PyTorch, p50", median(ratios), "ratio")


def _memory(size: Size, held: int, most: int) -> Iterator[Figure]:
    """`held` between two steps, `most` within one, both as torch's allocator counts them, in bytes."""
    memory = review(load(size.run_file()), []).memory
    assert memory is not None
    print(f"{size.name}: reckoned {memory}; held {held:,}, at most {most:,}", flush=True)
    reckoned = {"model state": (memory.model_state, held), "peak": (memory.total - memory.runtime, most)}
    for name, (expected, seen) in reckoned.items():
        yield Figure(f"{size.name}: {name}, seen", seen / 2**30, "GiB")
        bound = MEMORY_TOLERANCE if name == "model state" else None
        yield Figure(f"{size.name}: {name}, how far the planner is off", abs(expected / seen - 1), "share", bound)


def main() -> None:
    pairs = arguments(__doc__ or "", PAIRS).pairs
    if not torch.cuda.is_available():
        raise SystemExit("mfu: torch sees no GPU here, and of a CPU nobody asks for this number")
    name = torch.cuda.get_device_name()
    peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
    if peak is None:
        raise SystemExit(f"mfu: the peak of a {name} is not known: add it to PEAK_FLOPS")
    print(f"{name}, torch {torch.__version__}, {peak / 1e12:.0f} TFLOP/s", flush=True)
    world = join(threads=4)
    figures: list[Figure] = []
    for size in SIZES:
        figures += measure(size, world, pairs, peak)
        torch._dynamo.reset()
        torch.cuda.empty_cache()
    report("mfu", figures)


if __name__ == "__main__":
    main()
