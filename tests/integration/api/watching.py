"""A model under watch in a server of this process, and its live traffic."""

from __future__ import annotations

from orchestrator import spec
from orchestrator.core.runs import Run
from orchestrator.drift.batches import write_batch
from orchestrator.ports import Observed
from tests.integration.api.stack import Stack
from tests.unit.control.profiles import PROFILE
from tests.unit.drift.streams import columns

FILE = """
recipe: tabular
data: {source: sklearn://wine}
train: {epochs: 1, global_batch: 32}
monitor: {window: {by: count, rows: 500}}
"""


def put_on_watch(stack: Stack, model: str, *, windows: int = 3, shift: float = 0.0, project: str = "default") -> Run:
    """A run with a monitor, its registered version, and so many windows that were judged."""
    document = spec.dump(spec.parse(f"name: {model}\n{FILE}"))
    run = stack.end(stack.place(stack.submit(project, name=model, spec=document)))
    stack.store.put_fact(project, model, 1, "profile", PROFILE)
    for seq in range(1, windows + 1):
        data = write_batch(columns(500, seq, shift=shift))
        batch = Observed(0, stack.clock.now(), "pod", seq, "rows", 1, 500, data)
        stack.parts.observations.append(project, model, [batch])
    while stack.parts.monitors.one_pass():
        pass
    return run
