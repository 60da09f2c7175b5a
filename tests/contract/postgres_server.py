"""A real PostgreSQL server for a test session: Debian's binaries, a data directory of its own, a unix socket only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_START_LIMIT_S = 60.0


def binaries() -> Path | None:
    """Directory of the newest installed server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def running(programs: Path) -> Iterator[str]:
    """Start it, answer its URL, and end it by its process id."""
    home = Path(tempfile.mkdtemp(prefix="evertrain-pg-"))
    server: subprocess.Popen[bytes] | None = None
    try:
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(home, "postgres", "postgres")
        data = home / "data"
        subprocess.run(
            [*as_owner(), str(programs / "initdb"), "-D", str(data), "-U", "evertrain", "-A", "trust", "-E", "UTF8"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        options = ["-c", "listen_addresses=", "-c", "fsync=on", "-c", "max_connections=200"]
        with (home / "server.log").open("wb") as log:
            server = subprocess.Popen(
                [*as_owner(), str(programs / "postgres"), "-D", str(data), "-k", str(home), *options],
                stdout=log,
                stderr=log,
            )
        _wait_until_ready(programs, home, server)
        yield f"postgresql://evertrain@/postgres?host={home}"
    finally:
        if server is not None:
            server.send_signal(signal.SIGINT)  # fast shutdown: open sessions are ended
            server.wait(timeout=60)
        shutil.rmtree(home, ignore_errors=True)


def as_owner() -> list[str]:
    """setpriv executes the program in its own place, so that the process id is the server's."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]


def _wait_until_ready(programs: Path, home: Path, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    asked = [str(programs / "pg_isready"), "-q", "-h", str(home), "-U", "evertrain", "-d", "postgres"]
    while subprocess.run(asked, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {(home / 'server.log').read_text()[-2000:]}")
        time.sleep(0.05)
