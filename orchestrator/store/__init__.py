"""The only truth: runs and all that belongs to them, on SQLite or PostgreSQL, and in memory for tests."""

from orchestrator.store.memory import MemoryStore
from orchestrator.store.store import SqlStore, open_store

__all__ = ["MemoryStore", "SqlStore", "open_store"]
