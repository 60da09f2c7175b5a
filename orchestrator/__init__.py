"""Evertrain: a training orchestrator. `from orchestrator import Client` talks to its server; `Observer` is for what serves a
model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.api.client import Client
    from orchestrator.api.observer import Observer

__all__ = ["Client", "Observer"]


def __getattr__(name: str) -> object:
    """Both bring gRPC along: they are imported when somebody asks for them, not by every import of the package."""
    if name == "Client":
        from orchestrator.api.client import Client

        return Client
    if name == "Observer":
        from orchestrator.api.observer import Observer

        return Observer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
