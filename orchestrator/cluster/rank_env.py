"""The environment and the launch document of a rank, built from the order. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.cluster.gang_messages import Bind, StartRanks
from orchestrator.core.orders import AttemptOrder
from trainers.contract import Launch

CONFIG_SECTIONS = ("data", "model", "train", "parallelism", "deepspeed", "checkpoint", "init_from", "proof")
Accelerator = Literal["cpu", "cuda"]
_KINDS: tuple[Literal["recipe", "entrypoint", "script"], ...] = ("recipe", "entrypoint", "script")
# Ours, Ray's and the thread counts of the actor: none of them is the business of a rank, nor of its zygote.
WITHHELD_PREFIXES = ("RAY_", "EVERTRAIN_", "OMP_", "MKL_", "OPENBLAS_", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Place:
    """Where on the host a rank lives."""

    rank: int
    local_rank: int
    local_world_size: int
    interface: str | None  # of the address the gang meets at


def rank_env(base: Mapping[str, str], bind: Bind, start: StartRanks, place: Place) -> dict[str, str]:
    """The whole environment of one rank: the node's, our defaults, the run's, its secrets; GPUs and torchrun's on top."""
    order = bind.order
    env = {name: value for name, value in base.items() if not name.startswith(WITHHELD_PREFIXES)}
    threads = str(threads_of(order.spec))
    env.update({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"})
    env.update(run_env(order))
    env.update(
        {
            **accelerator_env(order.spec),
            "RANK": str(place.rank),
            "LOCAL_RANK": str(place.local_rank),
            "WORLD_SIZE": str(bind.world_size),
            "LOCAL_WORLD_SIZE": str(place.local_world_size),
            "GROUP_RANK": str(bind.index),
            "GROUP_WORLD_SIZE": str(len(order.shares)),
            "MASTER_ADDR": start.master_addr,
            "MASTER_PORT": str(start.master_port),
            # The store is served beside the ranks, and the prefix keeps incarnations apart.
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            "TORCHELASTIC_RESTART_COUNT": str(start.incarnation),
            "TORCHELASTIC_RUN_ID": f"{order.run_id}-{order.attempt}",
        }
    )
    if place.interface is not None:
        env.setdefault("GLOO_SOCKET_IFNAME", place.interface)
        env.setdefault("NCCL_SOCKET_IFNAME", place.interface)
    return env


def run_env(order: AttemptOrder) -> dict[str, str]:
    """What the run file and its secrets put into the environment of every rank."""
    return {str(name): str(value) for name, value in (order.spec.get("env") or {}).items()} | dict(order.secrets)


def launch_of(bind: Bind, start: StartRanks, *, staging_dir: str, code_dir: str | None, socket: str) -> Launch:
    """What the ranks of one incarnation on this host are asked to do. Raises ValueError for an order without a target."""
    order = bind.order
    spec = order.spec
    kind = next((each for each in _KINDS if spec.get(each)), None)
    if kind is None:
        raise ValueError(f"run {order.run_id} names none of {', '.join(_KINDS)}: there is nothing to start")
    return Launch(
        run_id=order.run_id,
        run_name=order.run_name,
        attempt=order.attempt,
        incarnation=start.incarnation,
        kind=kind,
        target=str(spec[kind]),
        config={name: spec[name] for name in CONFIG_SECTIONS if spec.get(name) is not None},
        checkpoint_root=order.checkpoint_root,
        staging_dir=staging_dir,
        args=tuple(str(each) for each in spec.get("args") or ()),
        code_dir=code_dir,
        seed=int((spec.get("train") or {}).get("seed") or 0),
        threads=threads_of(spec),
        admitted=start.admitted,
        furthest_step=start.furthest_step,
        sealed_step=start.sealed_step,
        progress_socket=socket,
        memory_bytes=memory_of(spec),
    )


def resources_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """`resources` of the run file: cpu, gpu and memory (bytes) of one worker."""
    found: Mapping[str, Any] = spec.get("resources") or {}
    return found


def accelerator_of(spec: Mapping[str, Any]) -> Accelerator:
    """What the ranks compute on: what the run asked for and was given, never what a node happens to have."""
    return "cuda" if resources_of(spec).get("gpu") else "cpu"


def accelerator_env(spec: Mapping[str, Any]) -> dict[str, str]:
    """DeepSpeed's choice of accelerator, and no GPU in sight of a run that was given none.

    Ray hides the GPUs of others only from who was given some itself.
    """
    accelerator = accelerator_of(spec)
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if accelerator == "cpu" else {}
    return {"DS_ACCELERATOR": accelerator, **hidden}


def threads_of(spec: Mapping[str, Any]) -> int:
    """Of one rank within an operator: what the run file's `env` says, else one for each CPU."""
    said = str((spec.get("env") or {}).get("OMP_NUM_THREADS", ""))
    if said.isdecimal() and int(said) > 0:
        return int(said)
    return max(1, int(resources_of(spec).get("cpu", 1) or 1))


def memory_of(spec: Mapping[str, Any]) -> int:
    """Bytes that one worker may use; 0: no limit."""
    return int(resources_of(spec).get("memory") or 0)


def whole_cpus_of(spec: Mapping[str, Any]) -> int:
    """How many CPUs each worker may have for itself alone; 0 where it asked for parts of one."""
    cpu = float(resources_of(spec).get("cpu", 1) or 0)
    return int(cpu) if cpu >= 1 and cpu == int(cpu) else 0
