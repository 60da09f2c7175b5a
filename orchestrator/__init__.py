"""Evertrain: a training orchestrator. `from orchestrator import Client` talks to its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.api.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> object:
    """`Client` brings gRPC along: it is imported when somebody asks for it, not by every import of the package."""
    if name == "Client":
        from orchestrator.api.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
