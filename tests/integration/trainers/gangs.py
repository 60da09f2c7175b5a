"""Real gangs for tests: ranks forked from a clean process that has imported the trainers, as a zygote does."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pydoc_data.topics
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from trainers.contract import Admitted, Launch, Message, Restored, Step, decode

PATIENCE_S = 120.0  # a bound for hanging on a busy machine, not a measurement
LONG_PATIENCE_S = 280.0  # for trainings that take a quarter of it where nothing else runs
M = TypeVar("M")

Watch = Callable[["Gang", int, Message], None]


def digits_launch(root: Path, *, train: Mapping[str, Any] | None = None, **config: Any) -> Launch:
    """Two epochs of digits_cnn, ZeRO-2, unless told otherwise."""
    sections = {
        "data": {"source": "sklearn://digits"},
        "model": {"width": 8},
        "train": {"global_batch": 128, "epochs": 2, "lr": 2e-3, "seed": 3, **(train or {})},
        "parallelism": {"zero": 2},
        **config,
    }
    return Launch(
        run_id="run-test",
        run_name="test",
        attempt=1,
        incarnation=1,
        kind="recipe",
        target="digits_cnn",
        config=sections,
        checkpoint_root=str(root / "checkpoints"),
        staging_dir=str(root / "staging"),
    )


def text_launch(root: Path, *, model: Mapping[str, Any], train: Mapping[str, Any], **config: Any) -> Launch:
    """A small text_transformer on 12,000 characters of English."""
    root.mkdir(parents=True, exist_ok=True)
    text = root / "text"
    text.write_text("".join(pydoc_data.topics.topics.values())[:12_000])
    launch = digits_launch(
        root,
        data={"source": str(text), "split": [0.9, 0.05, 0.05]},
        model={"layers": 2, "heads": 4, "width": 32, "context": 16, **model},
        train={"epochs": None, "global_batch": 8, "lr": 5e-3, **train},
        **config,
    )
    return replace(launch, target="text_transformer")


def again(launch: Launch, **changes: Any) -> Launch:
    """The next incarnation of the same attempt, which may resume from all before it."""
    before = tuple(Admitted(launch.attempt, each) for each in range(1, launch.incarnation + 1))
    return replace(launch, incarnation=launch.incarnation + 1, admitted=before, **changes)


@dataclass
class Gang:
    """The ranks of one incarnation and all that they said."""

    ranks: list[BaseProcess] = field(default_factory=list)
    said: list[list[Message]] = field(default_factory=list)

    @property
    def codes(self) -> list[int | None]:
        return [each.exitcode for each in self.ranks]

    def of(self, kind: type[M], rank: int = 0) -> list[M]:
        return [each for each in self.said[rank] if isinstance(each, kind)]

    def one(self, kind: type[M], rank: int = 0) -> M:
        (message,) = self.of(kind, rank)
        return message

    def losses(self, rank: int = 0) -> dict[int, float | None]:
        """By step. All steps, as gangs here tell every one."""
        return {each.step: each.loss for each in self.of(Step, rank)}

    def kill(self, rank: int, number: int = signal.SIGKILL) -> None:
        pid = self.ranks[rank].pid
        assert pid is not None
        os.kill(pid, number)


def run_gang(
    launch: Launch,
    world_size: int = 2,
    watch: Watch | None = None,
    env: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
) -> Gang:
    """Run the ranks to their end. `watch` is called with each message as it arrives; `env` is added to theirs."""
    gang = Gang(said=[[] for _ in range(world_size)])
    listeners = [_listen(Path(launch.staging_dir).parent / f"r{rank}.sock") for rank in range(world_size)]
    readers = [threading.Thread(target=_read, args=(gang, rank, each, watch)) for rank, each in enumerate(listeners)]
    with _free_port() as port:
        for rank, listener in enumerate(listeners):
            mine = replace(launch, progress_socket=listener.getsockname())
            process = _context().Process(target=_live, args=(mine, rank, world_size, port, env or {}), daemon=True)
            gang.ranks.append(process)
            process.start()
        for reader in readers:
            reader.start()
        _join(gang, patience_s)
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
    for reader in readers:
        reader.join(PATIENCE_S)
    return gang


def run_function(function: Callable[..., None], world_size: int, *arguments: Any) -> None:
    """Call a module's function in as many ranks as asked, under torchrun's environment. Fails where one of them does."""
    with _free_port() as port:
        calls = [(function, rank, world_size, port, arguments) for rank in range(world_size)]
        ranks = [_context().Process(target=_call, args=each, daemon=True) for each in calls]
        for each in ranks:
            each.start()
        _join(Gang(ranks, [[] for _ in ranks]), PATIENCE_S)
    assert [each.exitcode for each in ranks] == [0] * world_size


def _call(function: Callable[..., None], rank: int, world_size: int, port: int, arguments: tuple[Any, ...]) -> None:
    os.environ.update(_torchrun(rank, world_size, port))
    function(*arguments)
    os._exit(0)


def _torchrun(rank: int, world_size: int, port: int) -> dict[str, str]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}


def _join(gang: Gang, patience_s: float) -> None:
    deadline_s = time.monotonic() + patience_s
    for each in gang.ranks:
        each.join(max(0.0, deadline_s - time.monotonic()))
    stuck = [rank for rank, each in enumerate(gang.ranks) if each.is_alive()]
    for rank in stuck:
        gang.ranks[rank].kill()
        gang.ranks[rank].join()
    assert not stuck, f"ranks {stuck} did not end; the last words: {[each[-1:] for each in gang.said]}"


def _live(launch: Launch, rank: int, world_size: int, port: int, env: Mapping[str, str]) -> None:
    os.environ.update(env, **_torchrun(rank, world_size, port))
    from trainers.train import run_rank

    os._exit(run_rank(launch, every_step=True))


def _read(gang: Gang, rank: int, listener: socket.socket, watch: Watch | None) -> None:
    with contextlib.suppress(OSError):  # shut down when the ranks have ended
        while True:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    message = decode(line)
                    gang.said[rank].append(message)
                    if watch is not None:
                        watch(gang, rank, message)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    return listener


@contextlib.contextmanager
def _free_port() -> Iterator[int]:
    """A port that nobody else is given: it stays bound, and who listens there says, as we do, that he shares it."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def _context() -> ForkServerContext:
    # The server process imports once, single-threaded, so that forks of it can compute.
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", DS_ACCELERATOR="cpu")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.integration.trainers.as_in_a_zygote"])
    return context


def restored_step(gang: Gang) -> int:
    return gang.one(Restored).step
