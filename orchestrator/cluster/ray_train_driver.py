"""The Ray driver of one attempt under `launcher: ray_train`: reads its job as one line of JSON, runs a TorchTrainer.

python -m orchestrator.cluster.ray_train_driver LEADER_PID < job

It lives no longer than the process that leads the attempt, and Ray ends the workers of a driver that is gone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.cluster import memory_watch

NAMESPACE = "evertrain"
_WHY_LENGTH = 500
_LINE_BYTES = 2**20
_PR_SET_PDEATHSIG = 1


def main() -> int:
    die_with(int(sys.argv[1]))
    job = json.loads(sys.stdin.readline())
    import ray
    import ray.train
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import WorkerGroupError

    failure_config: Any = ray.train.FailureConfig  # typed as its first version, which lacks the limit
    on_gpu = bool(job["resources"]["GPU"])
    # Ray Train's own actors look for Ray's address: with two clusters on a host they would find neither.
    env = {**job["accelerator_env"], "OMP_NUM_THREADS": "1", "RAY_ADDRESS": os.environ["RAY_ADDRESS"]}
    ray.init(namespace=NAMESPACE, runtime_env={"env_vars": env})
    trainer = TorchTrainer(
        train_rank,
        train_loop_config=job,
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=job["workers"],
            use_gpu=on_gpu,
            resources_per_worker={name: amount for name, amount in job["resources"].items() if amount},
            placement_strategy=job["placement"],
            accelerator_type=job["accelerator"],
        ),
        run_config=RunConfig(
            name=job["name"],
            storage_path=job["storage"],
            # The gang's coordinator judges each failure, within the run's budgets; Ray's own limits default to for ever.
            failure_config=failure_config(max_failures=0, controller_failure_limit=0, max_preemption_failures=0),
        ),
    )
    try:
        trainer.fit()
    except WorkerGroupError as error:
        leader: Any = ray.get_actor(job["leader"], NAMESPACE)
        why = {rank: _shorten(each) for rank, each in error.worker_failures.items()}
        ray.get(leader.train_failed.remote(job["incarnation"], why))
        raise
    return 0


def _shorten(error: Exception) -> str:
    return " ".join(str(error).split())[:_WHY_LENGTH]


def die_with(leader_pid: int) -> None:
    """Be killed with the leader, whose child this process is: nobody else would end it, or hear of it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != leader_pid:  # it died before the kernel knew of our wish
        os._exit(1)


def train_rank(job: dict[str, Any]) -> None:
    """One worker of Ray Train: the life of a rank, its words sent to the attempt's leader."""
    import ray
    import ray.train

    from orchestrator.bundle import unpack
    from trainers.contract import Launch
    from trainers.train import run_rank

    rank = ray.train.get_context().get_world_rank()
    incarnation = job["incarnation"]
    node_id = ray.get_runtime_context().get_node_id()
    leader: Any = ray.get_actor(job["leader"], NAMESPACE)
    with tempfile.TemporaryDirectory(prefix="et-") as directory:
        code_dir = None
        if job["bundle"]:
            bundle: bytes = ray.get(leader.train_bundle.remote())
            code_dir = str(Path(directory) / "code")
            unpack(bundle, Path(code_dir))
        path = os.path.join(directory, "p")
        forwarding = Forwarder(path, lambda line: ray.get(leader.train_said.remote(incarnation, rank, line)))
        document, env = ray.get(
            leader.train_join.remote(incarnation, rank, os.getpid(), node_id, directory, path, code_dir)
        )
        os.environ.update(env)
        if job["memory_limit"]:
            over = functools.partial(leader.train_over_memory.remote, incarnation, rank)
            hold_to_memory(job["memory_limit"], lambda evidence: ray.get(over(evidence)))
        code = run_rank(Launch.from_json(document))
        forwarding.close()
        ray.get(leader.train_left.remote(incarnation, rank, int(code)))
    if code != 0:
        raise RuntimeError(f"rank {rank} ended with exit code {code}")


def hold_to_memory(limit_bytes: int, tell: Callable[[str], None]) -> None:
    """End this process, once told why, when it uses more: to Ray the limit is only a number to place workers by."""

    limit = memory_watch.LimitWatch(limit_bytes)

    def watch() -> None:
        while not (found := limit.over({0: os.getpid()})):
            time.sleep(memory_watch.INTERVAL_S)
        try:
            tell(found[0])
        finally:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="memory", daemon=True).start()


class Forwarder:
    """Serves a rank's progress socket in a thread and passes every line on, in order."""

    def __init__(self, path: str, take: Any) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._take = take
        self._thread = threading.Thread(target=self._serve, name="progress", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pass on what the rank sent before it closed its side."""
        self._thread.join(10.0)
        self._listener.close()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as lines, contextlib.suppress(OSError):
            while line := lines.readline(_LINE_BYTES):
                self._take(line)


if __name__ == "__main__":
    sys.exit(main())
