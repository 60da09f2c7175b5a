"""Work that needs torch, which this process never imports: a Python beside it does it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from orchestrator.errors import Refused


def by_trainers(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m trainers.MODULE`, run to its end, with what it printed. Raises Refused where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise Refused(f"trainers.{module} needs torch, which is not installed here: pip install 'evertrain[cluster]'")
    return subprocess.run([sys.executable, "-m", f"trainers.{module}", *arguments], capture_output=True, text=True)
