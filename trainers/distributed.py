"""How a rank finds its peers: the torchrun environment, or nothing at all when it is alone.

DeepSpeed chooses GPU or CPU when it is imported: DS_ACCELERATOR in the environment, else what it finds.
"""

from __future__ import annotations

import os
import random
import warnings
from dataclasses import dataclass
from typing import Any

import deepspeed.comm
import numpy as np
import torch
import torch.distributed
from deepspeed.accelerator.real_accelerator import get_accelerator
from deepspeed.ops.op_builder.cpu.comm import ShareMemCommBuilder
from torch._C._distributed_c10d import HashStore


@dataclass(frozen=True)
class World:
    """This rank's place among its peers."""

    rank: int
    size: int
    device: torch.device


def join(threads: int) -> World:
    """Join the process group, NCCL on GPUs and gloo else. Returns when every peer is there.

    Raises torch.distributed.DistError when a peer cannot be reached.
    """
    torch.set_num_threads(threads)
    # DeepSpeed calls what torch renames; every rank would warn of it in its log, and nobody there can help it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\..*")
    # Only inference collectives use this op, and DeepSpeed would compile it here, inside the run.
    deepspeed.ops.__compatible_ops__[ShareMemCommBuilder.NAME] = False
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    accelerator: Any = get_accelerator  # untyped
    on_gpu = accelerator().device_name() == "cuda"
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    backend = "nccl" if on_gpu else "gloo"
    if "MASTER_ADDR" not in os.environ:  # no launcher: alone, and no port to open
        os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed insists
        torch.distributed.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    deepspeed.comm.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
    return World(rank, size, device)


def joined() -> World:
    """What `join` returned, for whoever was not told; alone on a CPU where nothing was joined."""
    if not torch.distributed.is_initialized():
        return World(0, 1, torch.device("cpu"))
    on_gpu = torch.distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    return World(torch.distributed.get_rank(), torch.distributed.get_world_size(), device)


def seed_generators(seed: int, rank: int) -> None:
    """For what draws numbers between the batches; those drawn for a batch belong to its samples (data/loader.py)."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def leave() -> None:
    """Give the process group back. Never after a lost peer: it would wait for it."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
