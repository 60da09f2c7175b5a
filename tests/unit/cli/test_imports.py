"""The command line starts quickly because of what it does not import."""

from __future__ import annotations

import subprocess
import sys

SLOW = ("ray", "torch", "deepspeed", "numpy", "grpc", "sqlalchemy", "google.protobuf")


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys; import orchestrator.cli.app as app; sys.argv = ['evertrain', '--help']\n"
        "try: app.main()\nexcept SystemExit: pass\n"
        f"print([each for each in {SLOW!r} if each in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == "[]"
    for verb in ("up", "down", "submit", "plan", "list", "describe", "logs", "watch", "cancel", "checkpoint", "schema"):
        assert verb in done.stdout
