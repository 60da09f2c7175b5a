"""What the zygote's children run in `test_zygote.py`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path


def say(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def say_packages() -> None:
    say(packages=sorted({name.partition(".")[0] for name in sys.modules}))


def wait_for_ever() -> None:
    say(pid=os.getpid())
    while True:
        signal.pause()


def end_with(status: int) -> int:
    return status


def leave_with_a_sentence() -> None:
    sys.exit("the data path does not exist")


def fail() -> None:
    raise RuntimeError("a fault of the user's code")


def dereference_null() -> None:
    import ctypes

    ctypes.string_at(0)


def describe() -> None:
    """What a child finds itself to be."""
    import numpy
    import torch

    say(
        fds=sorted(int(each) for each in os.listdir("/proc/self/fd") if _is_open(int(each))),
        session=os.getsid(0) == os.getpid(),
        name=Path("/proc/self/comm").read_text().strip(),
        is_the_zygotes_by_command="trainers.zygote" in Path("/proc/self/cmdline").read_text(),
        environment=sorted(os.environ),
        cwd=os.getcwd(),
        cpus=sorted(os.sched_getaffinity(0)),
        torch_threads=torch.get_num_threads(),
        interruptible=signal.getsignal(signal.SIGINT) is signal.default_int_handler,
        terminable=signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
        blocked=len(signal.pthread_sigmask(signal.SIG_BLOCK, set())),
        draws=[random.random(), float(numpy.random.rand()), float(torch.rand(()))],
    )


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def all_reduce(store: str) -> None:
    import torch
    from torch import distributed

    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    value = torch.full((4,), float(rank + 1))
    distributed.all_reduce(value)
    say(sum=value.tolist())


def multiply_in_threads() -> None:
    """Everything that a fork of a process with threads or a used tensor library would hang in."""
    import torch
    from torch.utils.data import DataLoader

    left = torch.rand(400, 400, requires_grad=True)
    (left @ left).sum().backward()  # type: ignore[no-untyped-call]
    thread = threading.Thread(target=lambda: torch.rand(200, 200) @ torch.rand(200, 200))
    thread.start()
    thread.join()
    batches = list(DataLoader(list(range(8)), batch_size=4, num_workers=1))  # type: ignore[arg-type]
    say(batches=[each.tolist() for each in batches])


def leave_offspring(note: str) -> None:
    """End while a child in a session of its own and a child in this group go on."""
    own_session = subprocess.Popen(["sleep", "600"], start_new_session=True)
    own_group = subprocess.Popen(["sleep", "600"])
    Path(note).write_text(json.dumps([own_session.pid, own_group.pid]))


def name_loaded_ops() -> None:
    from deepspeed.ops.op_builder.builder import OpBuilder

    say(ops=sorted(OpBuilder._loaded_ops))


def live_and_name_imports(launch: str) -> int:
    """A whole rank's life, and what it had to import for it."""
    from trainers.contract import Launch
    from trainers.train import run_rank

    before = set(sys.modules)
    code = run_rank(Launch.from_json(Path(launch).read_text()))
    Path(launch).with_name(f"imports-{os.environ['RANK']}").write_text(json.dumps(sorted(set(sys.modules) - before)))
    return code
