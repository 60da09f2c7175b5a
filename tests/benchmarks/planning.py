"""The preflight's own time: every example, and the widest question there is.

    python -m tests.benchmarks.planning [--quick]

CPU seconds of one process, for the machine is shared: what a person waits for on a quiet one. There is no peer that
answers the same question without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from orchestrator import spec
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import Node
from orchestrator.planning.plan import plan
from tests.benchmarks.harness import Figure, arguments, median, report

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
WIDEST = {
    "name": "wide",
    "recipe": "text_transformer",
    "data": {"source": "/data/corpus.txt"},
    "model": {"layers": 32, "width": 4096, "heads": 64, "context": 4096, "experts": 8},
    "train": {
        "steps": 1000,
        "global_batch": 2**14,
        "micro_batch": 1,
        "precision": "bf16",
        "activation_checkpointing": True,
    },
    "parallelism": "auto",
    "resources": {"workers": 4096, "cpu": 1, "gpu": "H100:1"},
}
HOSTS = tuple(
    Node(f"node-{place}", f"host-{place}", "10.0.0.1", 64.0, 8.0, 2**40, 64.0, 8.0, 2**40, "H100")
    for place in range(512)
)
CLUSTER = ClusterView("large", "*", connected=True, draining=False, nodes=HOSTS)


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(pairs: int) -> list[Figure]:
    examples = {
        each.name: spec.load(_shipped(spec.read_mapping(each.read_text(), source=each.name)))
        for each in EXAMPLES.glob("*.yaml")
    }
    widest = spec.load(WIDEST)
    answer = plan(widest, [CLUSTER])
    assert answer.works, answer.problems
    print(f"chosen for {WIDEST['name']}: {answer.layout}: {answer.reason}")
    took: dict[str, list[float]] = {name: [] for name in examples}
    wide = []
    for _ in range(pairs):
        for name, parsed in examples.items():
            took[name].append(cpu_s(lambda parsed=parsed: plan(parsed, [CLUSTER])))  # type: ignore[misc]
        wide.append(cpu_s(lambda: plan(widest, [CLUSTER])))
    slowest = max(took, key=lambda name: max(took[name]))
    print(f"slowest example: {slowest}")
    return [
        Figure("plan of an example, slowest, first time", max(each[0] for each in took.values()), "s", 1.0),
        Figure("plan of an example, median", median([value for each in took.values() for value in each]), "s"),
        Figure("plan of 4,096 workers on 512 nodes, auto, slowest", max(wide), "s", 1.0),
    ]


def _shipped(document: dict[str, object]) -> dict[str, object]:
    """As the client sends it: code that lies beside the file stands there as its bundle."""
    return {**document, "code": f"{spec.BUNDLE_PREFIX}{'0' * 64}"} if "code" in document else document


if __name__ == "__main__":
    report("planning", measure(arguments("how long the preflight takes").pairs))
