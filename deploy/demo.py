"""`make demo`: the main job on this machine, from nothing to a registered model, with a rank killed in the middle.

Starts a stack of its own under .evertrain/demo, types the commands that a user would type, and ends all that it started.
Exits non-zero when anything it promises did not happen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from orchestrator import Client
from orchestrator.core.runs import Event

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".evertrain" / "demo"
RUN_FILE = Path("deploy/examples/digits_cnn.yaml")
ACCURACY = 0.97
VICTIM = 1  # rank


def evertrain(*words: str, check: bool = True) -> int:
    """Type one command, and show it as typed."""
    print(f"\n$ evertrain {' '.join(words)}", flush=True)
    command = [sys.executable, "-m", "orchestrator.cli.app", *words]
    return subprocess.run(command, cwd=ROOT, check=check).returncode


def kill_in_the_middle(client: Client, run_id: str) -> None:
    """SIGKILL one rank when half of the steps are done and a checkpoint is sealed."""
    sealed, pids, step, total_steps = False, [], 0, None
    for update in client.watch(run_id):
        for event in update.events:
            pids = list(event.data["pids"]) if event.kind == "ranks_started" else pids
            sealed = sealed or event.kind == "checkpoint_sealed"
            step = max(step, int(event.data.get("step", 0)))  # events come at once, progress once a second
        if update.progress is not None:
            step, total_steps = max(step, update.progress.step), update.progress.total_steps
        if sealed and total_steps and step >= total_steps // 2:
            print(f"\n>>> killing rank {VICTIM} (process {pids[VICTIM]}) with SIGKILL\n", flush=True)
            os.kill(pids[VICTIM], signal.SIGKILL)
            return


def check(client: Client, run_id: str) -> list[str]:
    """What was promised and did not happen."""
    run = client.get(run_id)
    events: list[Event] = list(client.events(run_id))
    accuracy = run.result.metrics.get("test_accuracy", 0.0) if run.result else 0.0
    promises = {
        f"the run succeeds (it is {run.state})": run.state == "SUCCEEDED",
        f"test accuracy is at least {ACCURACY} (it is {accuracy:.4f})": accuracy >= ACCURACY,
        "a rank was killed": any(each.kind == "rank_failed" for each in events),
        "it recovered in place": any(each.kind == "recovering" for each in events) and len(run.attempts) == 1,
        "a checkpoint was sealed": bool(client.checkpoints(run_id)),
        "a model version was registered": any(each.run_id == run_id for each in client.models(run.name)),
    }
    return [words for words, kept in promises.items() if not kept]


def story() -> int:
    evertrain("up", "--port", "0", "--http-port", "0")
    with Client() as client:
        evertrain("plan", str(RUN_FILE))
        run = client.submit(ROOT / RUN_FILE)
        print(f"\n$ evertrain submit {RUN_FILE}\n{run.id} ({run.name}) is {run.state}", flush=True)
        saboteur = threading.Thread(target=kill_in_the_middle, args=(client, run.id), daemon=True)
        saboteur.start()
        evertrain("watch", run.id, check=False)
        evertrain("describe", run.id)
        evertrain("checkpoint", "verify", run.id)
        evertrain("model", "list")
        broken = check(client, run.id)
    for words in broken:
        print(f"NOT as promised: {words}", file=sys.stderr)
    return 1 if broken else 0


def main() -> int:
    started = time.monotonic()
    os.environ["EVERTRAIN_HOME"] = str(HOME)
    status = 1
    try:
        status = story()
    finally:
        evertrain("down", check=False)
    if status == 0:
        print(
            f"\nAll of it in {time.monotonic() - started:.0f} s. Now your own:\n"
            "  . .venv/bin/activate\n"
            "  evertrain up\n"
            "  evertrain submit deploy/examples/digits_cnn.yaml --watch\n"
            "  evertrain logs digits-cnn --tail 20\n"
            "  evertrain schema > run-file.schema.json\n"
            "  evertrain down"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
