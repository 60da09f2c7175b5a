"""All that the orchestrator may know of a rank: standard library only.

A rank is started with a `Launch` (what to do, where checkpoints live, which of them it may resume from) and the
torchrun environment (`RANK`, `LOCAL_RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`). While it lives it writes
`Message`s, one JSON object a line, to the unix stream socket named in `Launch.progress_socket`, on which its host may
say `Profile`. It ends with an `ExitCode`. Nothing else passes between the two sides.

Times named `_ns` are `time.monotonic_ns()` of the rank's host: comparable on that host only.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

LAUNCH_ENV = "EVERTRAIN_LAUNCH"
"""Environment variable that holds the path of the launch document (JSON, mode 0600)."""

MESSAGE_BYTES = 2**20
"""Longest line of a message: the host closes a connection that sends a longer one."""

FACTS_BYTES = MESSAGE_BYTES // 2
"""Longest facts of a result, as JSON: the rest of the message must have room beside them."""

MANIFEST_NAME = "manifest.json"
MANIFEST_FORMAT = 1
FENCE_NAME = "fence.json"  # in `Launch.checkpoint_root` from the first restore on: names the newest attempt


class ExitCode(enum.IntEnum):
    """How a rank of ours ends. Anything else is a script's own code or, when negative, the signal that ended it."""

    OK = 0
    APPLICATION = 1  # an uncaught exception; `Failed` was sent with its traceback
    BAD_CONFIG = 78  # the launch or the run file cannot work: restarting does not help
    LOST_PEER = 75  # a collective failed because another rank went away: secondary by definition
    OUT_OF_MEMORY = 77  # torch or DeepSpeed said so itself
    STORAGE = 74  # a checkpoint could not be written or read (disk full, bucket gone)
    BAD_LOSS = 79  # the loss became NaN or infinite
    STOPPED = 80  # ended in order after SIGTERM
    FENCED = 81  # a newer attempt owns the checkpoint directory


Phase = Literal["starting", "restoring", "training", "recomputing", "checkpoint", "evaluating", "idle", "stopping"]
"""What a rank spends its time on; the classes of the goodput ledger that only a rank can tell."""


@dataclass(frozen=True)
class Admitted:
    """One incarnation whose seals may be resumed from; incarnation 0: all of that attempt."""

    attempt: int
    incarnation: int = 0


@dataclass(frozen=True)
class Launch:
    """What one rank is asked to do. The same document serves every rank of an incarnation on one host."""

    run_id: str
    run_name: str
    attempt: int
    incarnation: int
    kind: Literal["recipe", "entrypoint", "script"]
    target: str  # recipe name, "package.module:make_task", or a script's path
    config: Mapping[str, Any]  # the run file's sections: data, model, train, init_from, parallelism, deepspeed, ...
    checkpoint_root: str  # fsspec URL or local path; seals live under attempt / incarnation / step
    staging_dir: str  # local disk of the host, for files on their way to `checkpoint_root`
    args: tuple[str, ...] = ()
    code_dir: str | None = None  # unpacked code bundle; becomes the working directory and heads sys.path
    seed: int = 0
    threads: int = 1  # intra-op threads of this rank
    admitted: tuple[Admitted, ...] = ()  # whose seals may be resumed from
    furthest_step: int = 0  # highest optimizer step that any earlier incarnation reached; up to it work is recomputed
    sealed_step: int | None = None  # newest step known to be sealed, 0: some step; None: as far as known, nothing is
    progress_socket: str | None = None  # unix stream socket; None: progress goes to standard output
    memory_bytes: int = 0  # most resident memory of this rank; 0: no limit
    gate: str | None = None  # a FIFO: the rank gets ready, and takes one byte of it before it restores and trains

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Launch:
        raw = json.loads(text)
        raw["args"] = tuple(raw.get("args", ()))
        raw["admitted"] = tuple(Admitted(**each) for each in raw.get("admitted", ()))
        return cls(**raw)


# ---- messages of a rank ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello:
    """First line on every connection."""

    kind: ClassVar[str] = "hello"
    rank: int
    pid: int


@dataclass(frozen=True)
class PhaseChanged:
    """From `at_ns` on, the rank's time belongs to `phase`. Told again, it is a sign of life from within."""

    kind: ClassVar[str] = "phase"
    phase: Phase
    at_ns: int


@dataclass(frozen=True)
class Step:
    """Optimizer step `step` is done. Sent for an incarnation's first step, then at most every 100 ms, and for the last."""

    kind: ClassVar[str] = "step"
    step: int  # optimizer steps since the beginning of the run, counted from 1
    epoch: int  # counted from 0
    at_ns: int
    loss: float | None = None
    samples: int = 0  # consumed by all ranks since the beginning of the run
    samples_per_s: float = 0.0  # of all ranks, over the time since the message before
    step_s: float = 0.0  # mean seconds of a step over the same time
    learning_rate: float | None = None
    total_steps: int | None = None  # planned end, for an ETA
    total_epochs: int | None = None


@dataclass(frozen=True)
class EpochEnded:
    kind: ClassVar[str] = "epoch"
    epoch: int
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # e.g. val_loss, val_accuracy


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was newer than the one resumed from, and why it was not taken."""

    checkpoint: str
    why: str


@dataclass(frozen=True)
class Restored:
    """Rank 0 tells where the incarnation starts: `step` 0 and no checkpoint is a fresh start."""

    kind: ClassVar[str] = "restored"
    step: int
    checkpoint: str | None
    skipped: tuple[Skipped, ...] = ()
    weights: str | None = None  # what `init_from` names: what a fresh start began with, in place of random numbers


@dataclass(frozen=True)
class Sealed:
    """Rank 0 tells that a checkpoint's manifest is committed."""

    kind: ClassVar[str] = "sealed"
    checkpoint: str  # URL of the directory
    step: int
    size_bytes: int
    stall_s: float  # how long the training loop waited for it: `seconds`, and the removal of older seals
    seconds: float  # from the first byte to the committed manifest
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: bool = False  # best so far by the early-stopping metric


@dataclass(frozen=True)
class Failed:
    """The rank's own account of its end, sent before it exits."""

    kind: ClassVar[str] = "failed"
    code: int  # ExitCode
    message: str  # one line: what was wrong and what to do
    traceback: str = ""
    step: int = 0
    secondary: bool = False  # a communication error: the first cause is another rank


@dataclass(frozen=True)
class Done:
    """Rank 0's result of a finished run."""

    kind: ClassVar[str] = "done"
    step: int
    metrics: Mapping[str, float] = field(default_factory=dict)  # e.g. test_accuracy
    checkpoint: str | None = None  # the best sealed checkpoint, or the last one where `note` says why
    stopped_early: str | None = None  # the reason, where early stopping ended the run
    note: str | None = None  # what else whoever uses the result must know: why it is not the best checkpoint's
    facts: Mapping[str, Any] = field(default_factory=dict)  # kept with the model version, by name: JSON values


@dataclass(frozen=True)
class Preparing:
    """What is being done to data that are made ready before there is any rank: `done` of `of` pieces of the source."""

    kind: ClassVar[str] = "preparing"
    words: str
    done: int = 0
    of: int = 0
    on_ray: bool = False  # the pieces are shared out as a Ray Data job, which needs CPUs of Ray's


@dataclass(frozen=True)
class Prepared:
    """The data are ready, made now or before."""

    kind: ClassVar[str] = "prepared"
    directory: str
    rows: Mapping[str, int] = field(default_factory=dict)  # by part


@dataclass(frozen=True)
class Profiled:
    """The answer to a `Profile`."""

    kind: ClassVar[str] = "profiled"
    id: str
    message: str  # what was traced, or why nothing was: goes on after "rank 0: "
    trace: str | None = None  # URL of a trace in Chrome's format; None: there is none
    table: str = ""  # the operators that took most time


Message = Hello | PhaseChanged | Step | EpochEnded | Restored | Sealed | Failed | Done | Preparing | Prepared | Profiled
_BY_KIND: dict[str, type[Any]] = {
    each.kind: each
    for each in (Hello, PhaseChanged, Step, EpochEnded, Restored, Sealed, Failed, Done, Preparing, Prepared, Profiled)
}


@dataclass(frozen=True)
class Profile:
    """All that a host says to a rank: trace the next `steps` optimizer steps, as many as are done by `until_ns`."""

    kind: ClassVar[str] = "profile"
    id: str
    steps: int
    until_ns: int


def encode(message: Message | Profile) -> bytes:
    """One line, newline included."""
    return json.dumps({"kind": message.kind, **dataclasses.asdict(message)}).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """Raises ValueError on anything that `encode` did not write.

    Text is answered so that any wire and any store can keep it: a file name of other bytes than UTF-8, or a NUL, in an
    exception's words must not take the whole message with it.
    """
    try:
        raw = _keepable(json.loads(line))
        cls = _BY_KIND[raw.pop("kind")]
        if cls is Restored:
            raw["skipped"] = tuple(Skipped(**each) for each in raw.get("skipped", ()))
        message: Message = cls(**raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a message of a rank: {line[:200]!r}: {error}") from error
    return message


def decode_profile(line: bytes) -> Profile:
    """What a host said. Raises ValueError on anything else."""
    try:
        raw = json.loads(line)
        if raw.pop("kind") != Profile.kind:
            raise ValueError("of another kind")
        return Profile(**raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a host's word: {line[:200]!r}: {error}") from error


def _keepable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")
    if isinstance(value, dict):
        return {_keepable(key): _keepable(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_keepable(each) for each in value]
    return value


# ---- sealed checkpoints ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ManifestFile:
    path: str  # relative to the checkpoint's directory
    size_bytes: int
    xxh3: str  # 16 hex digits, XXH3 64 bit
    rank: int = 0  # the rank that wrote it


@dataclass(frozen=True)
class Manifest:
    """Written last, by one PUT or one rename: only it makes a checkpoint exist."""

    run_id: str
    attempt: int
    incarnation: int
    step: int
    epoch: int
    world_size: int
    layout: Mapping[str, int]  # zero, data, tensor, pipeline, sequence, expert
    cursor: Mapping[str, Any]  # what trainers.data.sampler needs to go on: samples consumed, epoch, seed
    files: tuple[ManifestFile, ...]  # the expected shard set
    metrics: Mapping[str, float]
    best: bool
    versions: Mapping[str, str]  # torch, deepspeed, python, evertrain
    created: str  # ISO 8601 UTC, for people
    format: int = MANIFEST_FORMAT
    extra: Mapping[str, Any] = field(default_factory=dict)  # the trainer's own notes; JSON

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Raises ValueError when the text is not a manifest of a known format."""
        try:
            raw = json.loads(text)
            if raw["format"] != MANIFEST_FORMAT:
                raise ValueError(f"manifest format {raw['format']}, this version reads {MANIFEST_FORMAT}")
            raw["files"] = tuple(ManifestFile(**each) for each in raw["files"])
            for each in raw["files"]:
                if each.path != posixpath.basename(each.path) or each.path in ("", ".", "..", MANIFEST_NAME):
                    raise ValueError(f"a manifest names plain files only, this one {each.path!r}")
            return cls(**raw)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a checkpoint manifest: {error}") from error


def attempt_dir(attempt: int) -> str:
    """Where the incarnations of one attempt live, relative to `Launch.checkpoint_root`."""
    return f"attempt-{attempt:04d}"


def incarnation_dir(attempt: int, incarnation: int) -> str:
    """Where the seals of one incarnation live, relative to `Launch.checkpoint_root`."""
    return f"{attempt_dir(attempt)}/incarnation-{incarnation:04d}"


def step_dir(step: int) -> str:
    return f"step-{step:012d}"


@dataclass(frozen=True)
class Listed:
    """A checkpoint's directory as it was found, before anything in it is believed."""

    checkpoint: str  # URL of the directory, or its path relative to the root: whatever its reader understands
    attempt: int
    incarnation: int
    step: int
    manifest: Manifest | None = None
    problem: str | None = None  # why there is no manifest to believe
    unsealed: bool = False  # there is none at all: a save that never ended

    @property
    def order(self) -> tuple[int, int, int]:
        """Sorts the newest last: the furthest step, and of two such the later incarnation's."""
        return (self.step, self.attempt, self.incarnation)


@dataclass(frozen=True)
class Choice:
    """Which checkpoint to resume from. While `undecided` is set, verify that one and choose again."""

    taken: Listed | None
    undecided: Listed | None
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class Drop:
    """A checkpoint that retention gives up."""

    listed: Listed
    why: str


_POSITION = re.compile(r"(?:^|/)attempt-(\d{4,})/incarnation-(\d{4,})/step-(\d{12,})$")


def apart(checkpoint: str) -> tuple[str, str]:
    """A checkpoint's URL as its run's root and the path below it; the root is empty where that is no checkpoint's path."""
    match = _POSITION.search(checkpoint.rstrip("/"))
    return ("", checkpoint) if match is None else (checkpoint[: match.start()].rstrip("/"), match[0].strip("/"))


def found(checkpoint: str, manifest_text: str | None) -> Listed | None:
    """What the directory `checkpoint` is, by its path and its manifest's text (None: it has none).

    None when the path is not a checkpoint's.
    """
    match = _POSITION.search(checkpoint.rstrip("/"))
    if match is None:
        return None
    attempt, incarnation, step = (int(each) for each in match.groups())
    listed = Listed(checkpoint, attempt, incarnation, step)
    if manifest_text is None:
        return dataclasses.replace(listed, problem="it has no manifest: its save never ended", unsealed=True)
    try:
        manifest = Manifest.from_json(manifest_text)
    except ValueError as error:
        return dataclasses.replace(listed, problem=f"its manifest cannot be read: {error}")
    named = (manifest.attempt, manifest.incarnation, manifest.step)
    if named != (attempt, incarnation, step):
        problem = f"its manifest is another one's: attempt, incarnation and step are {named}"
        return dataclasses.replace(listed, problem=problem)
    return dataclasses.replace(listed, manifest=manifest)


def choose(listed: Iterable[Listed], verdicts: Mapping[str, str | None]) -> Choice:
    """The newest checkpoint that verifies, and why each newer one was skipped.

    `verdicts` holds, by checkpoint, what is wrong with those verified so far, or None where all is well.
    """
    skipped: list[Skipped] = []
    for each in sorted(listed, key=lambda one: one.order, reverse=True):
        why = each.problem
        if why is None:
            if each.checkpoint not in verdicts:
                return Choice(None, each, tuple(skipped))
            why = verdicts[each.checkpoint]
        if why is None:
            return Choice(each, None, tuple(skipped))
        skipped.append(Skipped(each.checkpoint, why))
    return Choice(None, None, tuple(skipped))


def retire(listed: Iterable[Listed], *, keep: int, current: Admitted) -> tuple[Drop, ...]:
    """What the current incarnation deletes: all but the last `keep` and the best, and remains of interrupted saves.

    A seal whose manifest cannot be read is left for people to look at.
    """
    newest_first = sorted(listed, key=lambda one: one.order, reverse=True)
    sealed = [each for each in newest_first if each.manifest is not None]
    best = next((each for each in sealed if each.manifest is not None and each.manifest.best), None)
    drops = [Drop(each, f"older than the last {keep} and not the best") for each in sealed[keep:] if each is not best]
    now = (current.attempt, current.incarnation)
    for each in newest_first:
        of_now = (each.attempt, each.incarnation) == now
        if each.unsealed and (not of_now or (sealed and each.step < sealed[0].step)):
            drops.append(Drop(each, "its save never ended"))
    return tuple(drops)


def file_problem(expected: ManifestFile, size_bytes: int | None, xxh3: str | None) -> str | None:
    """What is wrong with one file as it was found: `size_bytes` None is a missing one, `xxh3` None one not read."""
    if size_bytes is None:
        return f"{expected.path} is missing"
    if size_bytes != expected.size_bytes:
        return f"{expected.path} has {size_bytes} bytes where {expected.size_bytes} were sealed"
    if xxh3 is not None and xxh3 != expected.xxh3:
        return f"{expected.path} is corrupted: its xxh3 is {xxh3}, {expected.xxh3} was sealed"
    return None
