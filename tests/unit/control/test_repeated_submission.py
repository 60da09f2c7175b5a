"""A submission that is sent again is answered with its run, whatever has changed since; capacity is in test_plane."""

from __future__ import annotations

import pytest

from orchestrator.errors import Refused
from tests.unit.control.plane import Plane


def test_its_secret_has_been_deleted_since() -> None:
    plane = Plane()
    plane.store.put_secret("default", "TOKEN", "x")
    first = plane.submit(key="once", secrets=["TOKEN"])
    plane.store.delete_secret("default", "TOKEN")
    assert plane.submit(key="once", secrets=["TOKEN"]).id == first.id
    with pytest.raises(Refused, match="TOKEN not known"):
        plane.submit(key="another", secrets=["TOKEN"])
