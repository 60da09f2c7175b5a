"""A process with torch and DeepSpeed already imported, from which ranks are forked in milliseconds.

    python -m trainers.zygote --socket PATH --accelerator cpu|cuda

It has one thread, has touched neither CUDA nor a tensor, and never runs user code: that happens in its forks. It ends,
and ends every rank with it, when its standard input reaches its end (the owner died), on SIGTERM, or when killed. From
then on it takes no lease.

The protocol
------------
PATH is a unix SOCK_SEQPACKET socket, mode 0600. It exists once the zygote is ready. One connection is one lease: it
holds the ranks of one gang on this node, and closing it, however that comes about, kills them with SIGKILL, their
process groups and their orphaned descendants included. Every packet is one JSON object of at most `PACKET_BYTES`.

Requests, in the order they are sent; nothing is answered out of order except `exited`:

    {"op": "fork", "rank": 0, "launch": PATH, "env": {...}, "cwd": PATH,
     "threads": 1, "cpus": [0, 1] | null, "seed": 0}          with two descriptors: standard output, standard error
        -> {"event": "forked", "rank": 0, "pid": 123}         with one descriptor: a pidfd
        -> {"event": "refused", "rank": 0, "why": "..."}
     Instead of "launch" a request may say "call": "module:function", "args": [...]: any JSON values; the result is the
     exit status (None is 0). `env` replaces the environment, its PYTHONPATH is put before sys.path.
    {"op": "signal", "signal": 15, "rank": 0 | null}          null: every rank of the lease; not answered

Events, as they happen:

    {"event": "exited", "rank": 0, "pid": 123, "status": 0 | null, "signal": null | 9,
     "max_rss_bytes": 1, "oom_kills": 0}
     `oom_kills` counts the kernel's out-of-memory kills in the zygote's cgroup (or host) during the rank's life: a
     SIGKILL with none of them was not the kernel's.

A rank number may be used again in a lease once its former process has exited. A request that cannot be understood
closes its lease.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import io
import json
import os
import pkgutil
import random
import select
import signal
import socket
import stat
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Never

from trainers.contract import LAUNCH_ENV, Launch

PACKET_BYTES = 192 * 1024
"""Largest packet: what Linux lets through a unix socket with its default buffer."""

PRELOADED = (
    "torch",
    "torch._dynamo",
    "torch._inductor",
    "torch.distributed",
    "torch.utils.data",
    "deepspeed",
    # `deepspeed.initialize` imports these; the first brings all of torch's compiler along, seconds of it.
    "deepspeed.runtime.zero.muon.muon_optimizer",
    "deepspeed.module_inject.auto_ep_layer",
    "deepspeed.comm.mori",
    "torch.utils.serialization",
    "fsspec.implementations.local",
    "xxhash",
)

# Libraries read these when they are loaded, so they hold before the interpreter starts (`_insist_on_environment`).
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Tensors come and go each step: in huge pages that costs a step of a small transformer 6 page faults, not 5,500.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow brings that jemalloc along
}

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_ENDING_S = 5.0  # how long ranks that were killed may take to go when the zygote ends


@dataclass(frozen=True)
class ForkRequest:
    """A request to fork, checked."""

    rank: int
    env: Mapping[str, str]
    cwd: str
    launch: str | None
    call: str | None
    args: tuple[Any, ...]
    threads: int
    cpus: tuple[int, ...] | None
    seed: int

    @classmethod
    def from_packet(cls, raw: Mapping[str, Any]) -> ForkRequest:
        """Raises ValueError with the reason when the request cannot be served."""
        try:
            request = cls(
                rank=int(raw["rank"]),
                env={str(key): str(value) for key, value in raw["env"].items()},
                cwd=str(raw["cwd"]),
                launch=raw.get("launch"),
                call=raw.get("call"),
                args=tuple(raw.get("args", ())),
                threads=int(raw.get("threads", 1)),
                cpus=None if raw.get("cpus") is None else tuple(int(cpu) for cpu in raw["cpus"]),
                seed=int(raw.get("seed", 0)),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"incomplete request: {type(error).__name__} {error}") from error
        if (request.launch is None) == (request.call is None):
            raise ValueError("a request names either `launch` or `call`")
        if request.threads < 1:
            raise ValueError(f"threads is {request.threads}: at least 1 is needed")
        return request


@dataclass(frozen=True)
class _Rank:
    rank: int
    pid: int
    pidfd: int
    oom_kills_before: int


@dataclass
class _Lease:
    connection: socket.socket
    ranks: dict[int, _Rank] = field(default_factory=dict)


class Zygote:
    """The loop of the parent: it forks, watches and reaps. One thread, one poll, no tensor."""

    def __init__(self, listener: socket.socket, owner_fd: int) -> None:
        self._listener = listener
        self._leases: dict[int, _Lease] = {}  # by the connection's descriptor
        self._owner: dict[int, _Lease] = {}  # by pidfd; a rank outlives a closed lease until it is reaped
        self._orphans: set[int] = set()  # pids that were killed and are not reaped yet
        self._ending = False
        self._pid = os.getpid()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._poll = select.poll()
        self._wake, self._wake_in = socket.socketpair()
        self._wake.setblocking(False)
        self._wake_in.setblocking(False)
        self._watch(listener.fileno(), self._accept)
        self._watch(owner_fd, lambda: self._owner_spoke(owner_fd))
        self._watch(self._wake.fileno(), lambda: self._wake.recv(4096))
        signal.set_wakeup_fd(self._wake_in.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._end_soon)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the owner's terminal: the owner decides

    def serve(self) -> None:
        """Return when the owner is gone or SIGTERM came, with no rank left alive."""
        while not self._ending:
            self._turn(timeout_s=None)
        # First of all: whoever loses a lease below asks for another zygote at once, and must not get this one again.
        self._unwatch(self._listener.fileno())
        self._listener.close()
        for lease in list(self._leases.values()):
            self._close_lease(lease)
        deadline = time.monotonic() + _ENDING_S
        while (self._owner or self._orphans) and time.monotonic() < deadline:
            self._turn(timeout_s=0.1)

    def _turn(self, timeout_s: float | None) -> None:
        for descriptor, _ in self._poll.poll(None if timeout_s is None else timeout_s * 1000):
            handler = self._handlers.get(descriptor)
            if handler is not None:  # an earlier handler of this turn may have closed it
                handler()

    def _watch(self, descriptor: int, handler: Callable[[], object]) -> None:
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _unwatch(self, descriptor: int) -> None:
        del self._handlers[descriptor]
        self._poll.unregister(descriptor)

    def _end_soon(self, *_: object) -> None:
        self._ending = True

    def _owner_spoke(self, owner_fd: int) -> None:
        if not os.read(owner_fd, 4096):
            print("zygote: standard input has ended, so its owner has: ending", file=sys.stderr, flush=True)
            self._unwatch(owner_fd)
            self._ending = True

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        lease = _Lease(connection)
        self._leases[connection.fileno()] = lease
        self._watch(connection.fileno(), lambda: self._receive(lease))

    # ---- requests -------------------------------------------------------------------------------------------------

    def _receive(self, lease: _Lease) -> None:
        try:
            packet, descriptors, flags, _ = socket.recv_fds(lease.connection, PACKET_BYTES, 2)
        except BlockingIOError:
            return
        except OSError:
            self._close_lease(lease)
            return
        try:
            if not packet or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._close_lease(lease)
                return
            self._obey(lease, json.loads(packet), descriptors)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            print(f"zygote: closing a lease after a request that makes no sense: {error}", file=sys.stderr, flush=True)
            self._close_lease(lease)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _obey(self, lease: _Lease, raw: Mapping[str, Any], descriptors: list[int]) -> None:
        if raw["op"] == "signal":
            self._signal(lease, int(raw["signal"]), raw.get("rank"))
        elif raw["op"] == "fork":
            try:
                self._fork(lease, ForkRequest.from_packet(raw), descriptors)
            except (ValueError, OSError, RuntimeError) as error:
                self._tell(lease, {"event": "refused", "rank": raw.get("rank"), "why": str(error)})
        else:
            raise ValueError(f"unknown op {raw['op']!r}")

    def _signal(self, lease: _Lease, number: int, rank: int | None) -> None:
        for each in lease.ranks.values():
            if rank is None or each.rank == rank:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(each.pidfd, number)

    def _fork(self, lease: _Lease, request: ForkRequest, descriptors: list[int]) -> None:
        if len(descriptors) != 2:
            raise ValueError(f"got {len(descriptors)} descriptors, need two: standard output and standard error")
        if request.rank in lease.ranks:
            raise ValueError(f"rank {request.rank} of this lease still lives as pid {lease.ranks[request.rank].pid}")
        insist_on_one_thread()
        oom_kills_before = _oom_kills()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal that came between fork and the child's own dispositions would be taken for the zygote's.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if pid == 0:
                self._be_the_child(request, descriptors)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        rank = _Rank(request.rank, pid, os.pidfd_open(pid), oom_kills_before)
        lease.ranks[rank.rank] = rank
        self._owner[rank.pidfd] = lease
        self._watch(rank.pidfd, lambda: self._reap(rank))
        self._tell(lease, {"event": "forked", "rank": rank.rank, "pid": pid}, [rank.pidfd])

    def _be_the_child(self, request: ForkRequest, descriptors: list[int]) -> Never:
        """Never returns into the loop, whatever happens."""
        try:
            _die_with(self._pid)
            signal.set_wakeup_fd(-1)
            for each in (self._listener, self._wake, self._wake_in, *(one.connection for one in self._leases.values())):
                each.detach()  # a forgotten socket object would later close a descriptor that is someone else's by then
            become_rank(request, stdout=descriptors[0], stderr=descriptors[1])
        except BaseException:  # nothing may travel up into the parent's loop
            traceback.print_exc()
        finally:
            os._exit(1)

    # ---- endings --------------------------------------------------------------------------------------------------

    def _reap(self, rank: _Rank) -> None:
        # Before the wait the pid is still the rank's own, so its group cannot be a stranger's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(rank.pid, signal.SIGKILL)
        oom_kills = _oom_kills() - rank.oom_kills_before
        _, wait_status, usage = os.wait4(rank.pid, 0)
        self._unwatch(rank.pidfd)
        os.close(rank.pidfd)
        lease = self._owner.pop(rank.pidfd)
        del lease.ranks[rank.rank]
        self._kill_orphans()
        code = os.waitstatus_to_exitcode(wait_status)
        self._tell(
            lease,
            {
                "event": "exited",
                "rank": rank.rank,
                "pid": rank.pid,
                "status": code if code >= 0 else None,
                "signal": -code if code < 0 else None,
                "max_rss_bytes": usage.ru_maxrss * 1024,
                "oom_kills": oom_kills,
            },
        )

    def _kill_orphans(self) -> None:
        """End what a dead rank left behind in sessions of its own.

        Every rank is the subreaper of its descendants and the zygote is the ranks': a child of ours that is not a rank
        has lost its rank.
        """
        ranks = {each.pid for lease in self._owner.values() for each in lease.ranks.values()}
        for pid in _children():
            if pid not in ranks and pid not in self._orphans:
                os.kill(pid, signal.SIGKILL)
                self._orphans.add(pid)
                self._watch_orphan(pid, os.pidfd_open(pid))

    def _watch_orphan(self, pid: int, pidfd: int) -> None:
        def reap() -> None:
            os.waitpid(pid, 0)
            self._unwatch(pidfd)
            os.close(pidfd)
            self._orphans.discard(pid)
            self._kill_orphans()  # its own children are ours now

        self._watch(pidfd, reap)

    def _close_lease(self, lease: _Lease) -> None:
        if self._leases.pop(lease.connection.fileno(), None) is None:
            return
        self._unwatch(lease.connection.fileno())
        lease.connection.close()
        for rank in lease.ranks.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(rank.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):  # it may not lead a group yet
                signal.pidfd_send_signal(rank.pidfd, signal.SIGKILL)

    def _tell(self, lease: _Lease, event: Mapping[str, Any], descriptors: list[int] | None = None) -> None:
        if lease.connection.fileno() < 0:
            return
        try:
            socket.send_fds(lease.connection, [json.dumps(event).encode()], descriptors or [])
        except OSError as error:  # gone, or so far behind that its buffer is full: it has lost track either way
            print(f"zygote: closing a lease that takes no events: {error}", file=sys.stderr, flush=True)
            self._close_lease(lease)


# ---- the child ----------------------------------------------------------------------------------------------------


def become_rank(request: ForkRequest, *, stdout: int, stderr: int) -> Never:
    """Turn a fresh fork into the process that the request describes, run it, and exit with its status."""
    _take_stdio(stdout, stderr)
    _reset_signals()
    _take_name(f"rank {request.rank}" if request.launch is not None else (request.call or "").rpartition(":")[2])
    os.environ.clear()
    os.environ.update(request.env)
    if request.launch is not None:
        os.environ[LAUNCH_ENV] = request.launch
    time.tzset()
    sys.path[:0] = [each for each in request.env.get("PYTHONPATH", "").split(os.pathsep) if each]
    os.chdir(request.cwd)
    if request.cpus:
        os.sched_setaffinity(0, request.cpus)
    _start_afresh(request)
    if os.environ.get("DS_ACCELERATOR") == "cuda":
        _open_nvml()
    _leave(_run(request))


def _die_with(zygote_pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != zygote_pid:  # it died before the kernel knew of our wish
        os._exit(1)
    os.setsid()
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _take_name(name: str) -> None:
    """What `ps` and `top` call the process. Its command line stays the zygote's, by which our processes are found."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _take_stdio(stdout: int, stderr: int) -> None:
    # Copies first: the two may sit on 0, 1 or 2 themselves.
    streams = [os.open(os.devnull, os.O_RDONLY), os.dup(stdout), os.dup(stderr)]
    for target, source in enumerate(streams):
        os.dup2(source, target, inheritable=True)
    # A fork without exec keeps close-on-exec descriptors: other gangs' leases and pidfds are among them.
    for descriptor in os.listdir("/proc/self/fd"):
        if int(descriptor) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(descriptor))
    # New objects: the zygote's own may remember the position in a file, which a pipe does not have.
    sys.stdout, sys.stderr = (_line_stream(descriptor) for descriptor in (1, 2))
    faulthandler.enable(file=2, all_threads=True)


def _line_stream(descriptor: int) -> io.TextIOWrapper:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True)


def _reset_signals() -> None:
    kept = {signal.SIGKILL, signal.SIGSTOP, signal.SIGPIPE, signal.SIGXFSZ}  # Python itself ignores the last two
    faults = {signal.SIGSEGV, signal.SIGFPE, signal.SIGABRT, signal.SIGBUS, signal.SIGILL}  # faulthandler has these
    for number in signal.valid_signals() - kept - faults:
        with contextlib.suppress(OSError):  # the C library keeps some real-time signals to itself
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())


def _start_afresh(request: ForkRequest) -> None:
    """Thread counts by call (the variables were read long ago) and every generator from the request's own seed."""
    import numpy
    import torch

    torch.set_num_threads(request.threads)
    random.seed(request.seed)
    numpy.random.seed(request.seed % 2**32)
    torch.manual_seed(request.seed)


def _run(request: ForkRequest) -> int:
    try:
        if request.launch is not None:
            from trainers.train import run_rank

            return int(run_rank(Launch.from_json(Path(request.launch).read_text())))
        assert request.call is not None
        module, _, function = request.call.partition(":")
        return int(getattr(importlib.import_module(module), function)(*request.args) or 0)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter does at the top of a program
        traceback.print_exc()
        return 1


def _leave(code: int) -> Never:
    """Exit as an interpreter does, but without its finalisation, which waits for threads and tears torch down."""
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF)


# ---- what the parent must be --------------------------------------------------------------------------------------


def insist_on_one_thread() -> None:
    """Raises RuntimeError when a second thread exists: its locks would be held for ever in every fork."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    if len(names) != 1:
        raise RuntimeError(
            f"the zygote has {len(names)} threads ({', '.join(names)}) and must have one: an imported module started "
            "them, or OMP_NUM_THREADS, OPENBLAS_NUM_THREADS, MKL_NUM_THREADS were not 1 when it started"
        )


def _children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _oom_kills() -> int:
    """The kernel's out-of-memory kills so far: in our cgroup where that is told, else on the whole host."""
    for source in _OOM_SOURCES:
        with contextlib.suppress(OSError):
            for line in source.read_text().splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
    return 0


def _oom_sources() -> tuple[Path, ...]:
    own = [line.split("::", 1)[1] for line in Path("/proc/self/cgroup").read_text().splitlines() if "::" in line]
    events = tuple(Path("/sys/fs/cgroup" + path) / "memory.events" for path in own)
    return (*events, Path("/proc/vmstat"))


_OOM_SOURCES = _oom_sources()


def _insist_on_environment(accelerator: str) -> None:
    """Start over under the variables that must hold before the interpreter starts, unless they do."""
    wanted = {**ENVIRONMENT, "DS_ACCELERATOR": accelerator}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted})


def preload() -> None:
    """Import all that ranks need, and load what DeepSpeed compiled. Forks of this process then have it for nothing."""
    import trainers

    for name in PRELOADED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(trainers.__path__, "trainers."):
        if not module.name.endswith((".zygote", ".__main__")):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:  # an optional library; who needs it will say so, in a rank
                if (error.name or "").startswith("trainers"):
                    raise
    import deepspeed

    from trainers import build_ops

    _ = deepspeed.ops.__compatible_ops__  # found out on first use, with a compiler's help
    why_not = build_ops.preload()
    if why_not is not None:
        print(f"zygote: ranks will load DeepSpeed's communication op themselves: {why_not}", file=sys.stderr)
    gc.collect()
    gc.freeze()  # the forks' collections must not copy every page of what was imported


@contextlib.contextmanager
def _no_driver() -> Iterator[None]:
    """What asks for GPUs finds none and opens nothing. torch and DeepSpeed ask NVML where they are imported, and since driver
    580 its answer leaves a thread behind, which closing it does not end."""
    nvml, visible = _nvml(), os.environ.get("CUDA_VISIBLE_DEVICES")
    opening = nvml and nvml.nvmlInit
    if nvml:
        nvml.nvmlInit = lambda: None
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        yield
    finally:
        if nvml:
            nvml.nvmlInit = opening
        del os.environ["CUDA_VISIBLE_DEVICES"]
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible


def _open_nvml() -> None:
    """As DeepSpeed believes it to be since it was imported; where it cannot be, DeepSpeed does without."""
    from deepspeed.accelerator import cuda_accelerator

    nvml = _nvml()
    if nvml:
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            cuda_accelerator.pynvml = None


def _nvml() -> Any:
    """The bindings that DeepSpeed uses where somebody has installed them (nvidia-ml-py), else None."""
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None


def _insist_on_untouched_cuda() -> None:
    import torch

    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("an imported module initialised CUDA: no fork of this process could use it")


def _clear(path: Path) -> None:
    """Remove a dead zygote's socket. Raises OSError when a living one serves it."""
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            if probe.connect_ex(str(path)) == 0:
                raise OSError(f"another zygote serves {path}")
        path.unlink()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise OSError(f"cannot listen at {path} ({len(str(path))} characters; Linux allows 107): {error}") from error
    finally:
        os.umask(before)
    listener.listen(64)
    return listener


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainers.zygote", description="fork ranks from a warm process")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--accelerator", choices=("cpu", "cuda"), required=True, help="what the forks compute on")
    options = parser.parse_args(argv)
    _clear(options.socket)
    _insist_on_environment(options.accelerator)
    with _no_driver():
        preload()
    _insist_on_untouched_cuda()
    insist_on_one_thread()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    listener = _listen(options.socket)
    try:
        Zygote(listener, sys.stdin.fileno()).serve()
    finally:
        options.socket.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
