"""What ranks started ends with their zygote, however far it went away from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

# Stands for a keeper: `parent` for its zygote, which is killed; the sleepers for what its ranks started.
STORY = """
import os, subprocess, sys
from pathlib import Path
from orchestrator.cluster.orphans import adopt_orphans, end_orphans

adopt_orphans()
sleep = ["sleep", "600"]
ours, zygote = subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)
start = "import subprocess, time; print(subprocess.Popen(%r, start_new_session=%s).pid, flush=True); time.sleep(600)"
orphans = []
for command in ([sys.executable, "-c", start % (sleep, False)], [sys.executable, "-c", start % (sleep, True)]):
    parent = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    orphans.append(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
segment = Path("/dev/shm") / f"torch_{orphans[0]}_of_the_test"
segment.touch()
assert end_orphans({zygote.pid}, 10.0) == []
print([os.path.exists(f"/proc/{pid}") for pid in orphans], segment.exists(), ours.poll(), zygote.poll())
ours.kill(), zygote.kill()
"""


def test_orphans_end_and_nothing_else_does() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STORY], capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}, timeout=60
    )
    assert done.stdout.strip() == "[False, False] False None None", done.stderr
