"""How an attempt under `launcher: ray_train` is led, with a driver that is a script of the test."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster import ray_train
from orchestrator.cluster.gang_messages import Bind
from orchestrator.cluster.gang_story import GangStory
from orchestrator.cluster.host import Host, HostIdentity
from orchestrator.cluster.local_dirs import NodeDirs
from orchestrator.cluster.outbox import Outbox
from orchestrator.cluster.ray_train import RayTrainJob
from orchestrator.core.observations import AttemptEnded, Happening, Placed
from orchestrator.core.orders import AttemptOrder
from orchestrator.core.runs import NodeShare

PATIENCE_S = 60.0  # a bound for hanging, not a measurement
SHARE = NodeShare("node-1", "host-1", "127.0.0.1", 2)
PLACED = Placed((SHARE,), 0.0)


class NoServices:
    """Of a node whose ranks somebody else starts."""

    async def zygote(self, environment: Mapping[str, object], accelerator: str) -> str:
        raise AssertionError("Ray Train needs no zygote")

    async def seize_cpus(self, owner: str, count: int) -> tuple[int, ...] | None:
        return None

    async def release_cpus(self, owner: str) -> None: ...


@dataclass
class Led:
    """What has become of an attempt."""

    happened: list[Happening]
    log: list[str]

    @property
    def ended(self) -> AttemptEnded:
        assert isinstance(self.happened[-1], AttemptEnded)
        return self.happened[-1]


def order(**changes: Any) -> AttemptOrder:
    values: dict[str, Any] = {
        "run_id": "run-1",
        "project": "default",
        "run_name": "run",
        "attempt": 1,
        "shares": (SHARE,),
        "spec": {"recipe": "digits_cnn", "launcher": "ray_train", "resources": {"workers": 2}},
        "checkpoint_root": "/checkpoints",
    }
    return AttemptOrder(**{**values, **changes})


class Lead:
    """Leads one attempt to its end; the driver is `driver`, a Python script."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, driver: str) -> None:
        script = directory / "driver.py"
        script.write_text(textwrap.dedent(driver))
        monkeypatch.setattr(ray_train, "DRIVER", (sys.executable, str(script)))
        self._dirs = NodeDirs(str(directory / "n"), "node-1")

    def __call__(self, the_order: AttemptOrder) -> Led:
        return asyncio.run(asyncio.wait_for(self._lead(the_order), PATIENCE_S))

    async def _lead(self, the_order: AttemptOrder) -> Led:
        host = Host(HostIdentity("gang-1/0", SHARE.host, SHARE.ip), self._dirs, NoServices(), unpack=lambda *_: None)
        bind = Bind(the_order, 0)
        await host.bind(bind)
        outbox = Outbox(self._dirs.attempt(the_order.run_id, the_order.attempt), the_order.run_id, the_order.attempt)
        story = GangStory(the_order, outbox)
        await RayTrainJob(bind, host, story, PLACED, leader="gang-1/0", gcs_address="127.0.0.1:1").run()
        report = await story.report(0, 0, 0.0)
        lines = await host.log_lines(0, 0, 1000, 0.0)
        outbox.close()
        await host.release()
        return Led([each.what for each in report.observations], [line.text for line in lines])


def test_a_line_of_any_length_is_cut_and_hinders_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    led = Lead(tmp_path, monkeypatch, "print('x' * 3_000_000); print('after'); raise SystemExit(3)")(order())
    assert [line[:5] for line in led.log] == ["xxxxx", "after"]
    assert led.log[0].endswith("line cut at 16384 bytes]")
    assert led.ended.outcome == "failed"


def test_an_error_of_our_own_ends_the_attempt_as_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody awaits the leader's task: an error that it raised would leave an attempt that never ends."""
    lead = Lead(tmp_path, monkeypatch, "")
    monkeypatch.setattr(ray_train, "DRIVER", (str(tmp_path / "nothing-there"),))
    ended = lead(order()).ended
    assert ended.outcome == "lost"
    assert ended.fence_s > 0
    assert ended.failure is not None
    assert "nothing-there" in ended.failure.message
