"""A disk that can be filled: a tmpfs of 16 MiB. Needs root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def mount(disk: Path) -> str:
    """Why there cannot be one; empty when there is."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return "" if mounted.returncode == 0 else mounted.stderr.strip() or f"mount ended with {mounted.returncode}"


def unmount(disk: Path) -> None:
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path, *, leave_bytes: int) -> Path:
    """The file that takes the room: remove it to give the room back."""
    free = os.statvfs(disk)
    with open(disk / "ballast", "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, free.f_bavail * free.f_frsize - leave_bytes)
    return disk / "ballast"
