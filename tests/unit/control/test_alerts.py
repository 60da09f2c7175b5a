"""What is known of alerts beyond the process that took them."""

from __future__ import annotations

from orchestrator.control.alerts import Alerts
from orchestrator.core.alerts import Alert
from tests.unit.control.plane import Plane


def test_a_server_that_starts_while_alertmanager_is_down_knows_when_it_was_last_heard() -> None:
    plane = Plane()
    before = Alerts(plane.store, plane.commands, plane.clock)
    assert before.heard_at is None
    watchdog = Alert("*", "EvertrainWatchdog", "f0", 900.0, True, {})
    for _ in range(2):
        plane.clock.forward(300.0)
        before.take([watchdog], by="alertmanager")
    told_at = plane.clock.now()
    plane.clock.forward(86_400.0)
    again = Plane(plane.store, plane.clock)
    assert Alerts(again.store, again.commands, again.clock).heard_at == told_at
