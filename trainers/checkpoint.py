"""Sealed checkpoints: DeepSpeed's shards and every rank's random state, made to exist by a manifest written last.

    <checkpoint_root>/fence.json                                    {"attempt": the highest attempt seen}
    <checkpoint_root>/attempt-0001/incarnation-0002/step-000000000300/
        mp_rank_00_model_states.pt ...                              DeepSpeed's own files: also zero_pp_rank_*, layer_*
        rank-00000.rng.pt                                           one rank's random generators
        ...                                                         and what `trainers.beside` tells of
        manifest.json                                               sizes, checksums, cursor: the seal

Every method is collective. A failure on one rank is every rank's, so nothing is half sealed and nobody waits for ever.
"""

from __future__ import annotations

import os
import platform
import posixpath
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import deepspeed
import torch
from deepspeed.runtime.engine import DeepSpeedEngine

from trainers import random_state
from trainers.archive import Archive
from trainers.beside import STATE_SUFFIX, Beside
from trainers.contract import (
    MANIFEST_NAME,
    Launch,
    Listed,
    Manifest,
    ManifestFile,
    Sealed,
    Skipped,
    apart,
    file_problem,
    found,
    incarnation_dir,
    step_dir,
)
from trainers.errors import BadConfig, StorageError
from trainers.exchange import Exchange
from trainers.layout import DEGREES
from trainers.models.divided import Split
from trainers.optimizers import Rates
from trainers.storage import Storage, digest, open_storage
from trainers.weights_only import WeightsOnlyEngine, read_file, stranger_in


@dataclass(frozen=True)
class Resume:
    """Where to go on. `checkpoint` None is a fresh start, from step 0."""

    step: int = 0
    epoch: int = 0
    cursor: Mapping[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None  # URL of the directory
    skipped: tuple[Skipped, ...] = ()  # newer ones that were not taken, and why
    taken_over: bool = False  # the checkpoint is another run's


@dataclass(frozen=True)
class LoadedWeights:
    """Of one seal: what was measured when it was sealed, or what is wrong with it."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    problem: str | None = None


class Companion(Protocol):
    """What is kept beside the weights, in DeepSpeed's file of the model: tensors and plain values."""

    name: str

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Checkpoints:
    """One rank's hand on its run's checkpoints. `keep`: how many of the last seals are kept, beside the best.

    `layout`: degrees of parallelism by name, without ZeRO's stage; None for data parallelism alone.
    `alive` is called whenever a part of a file was written, read, hashed or carried.
    """

    def __init__(
        self,
        launch: Launch,
        *,
        rank: int,
        world_size: int,
        keep: int,
        layout: Mapping[str, int] | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._launch = launch
        self._rank = rank
        self._world_size = world_size
        self._layout = layout or {"data": world_size, **dict.fromkeys(DEGREES, 1)}
        self._local_rank = int(os.environ.get("LOCAL_RANK", rank))
        self._alive = alive
        self._beside = Beside()
        self._storage = open_storage(launch.checkpoint_root, alive)
        self._archive = Archive(self._storage, launch, keep, alive)  # rank 0's alone
        self._exchange = Exchange(rank, world_size)
        self._staging = Path(launch.staging_dir) / f"rank-{rank:05d}"
        self._fetched = Path(launch.staging_dir) / "fetched"  # files from an object store, for all ranks of the host
        self._companions: list[Companion] = []

    def accompany(self, companion: Companion) -> None:
        """Save it with the weights and load it with them, from now on. It must be the same on every rank."""
        self._companions.append(companion)

    def seal_beside(self, beside: Beside) -> None:
        """Seal this with the engine, and restore it with it, from now on."""
        self._beside = beside
        for helper in beside.helpers.values():
            self._adopt(helper)

    def noted(self) -> dict[str, Any]:
        """What the newest admitted seal keeps in `extra`, before any of its files is believed; {} without a seal.

        Raises Fenced and StorageError.
        """
        return dict(self._exchange.decided(self._newest_notes))

    def restore(self, engine: DeepSpeedEngine) -> Resume:
        """Load model, optimizer, schedule and random state from the newest admitted seal that verifies.

        Raises Fenced when a newer attempt has been here, BadConfig when the newest good seal needs another world size or
        ZeRO stage, and StorageError when the storage cannot be read.
        """
        self._adopt(engine)
        self._exchange.decided(self._archive.open)
        verdicts: dict[str, str | None] = {}
        while True:
            offer = self._exchange.decided(lambda: self._offer(verdicts))
            if offer["path"] is None:
                break
            path, manifest = offer["path"], Manifest.from_json(offer["manifest"])
            self._insist_on_layout(self._storage.url(path), manifest, engine)
            directory, verdicts[path] = self._fetch(self._storage, path, manifest)
            if verdicts[path] is None:
                break
        self._exchange.decided(lambda: self._archive.settle(verdicts))
        skipped = tuple(Skipped(**each) for each in offer["skipped"])
        if offer["path"] is None:
            return Resume(skipped=skipped)
        self._load(engine, directory, manifest, restart=True)
        self._give_back(self._storage)
        url = self._storage.url(path)
        return Resume(manifest.step, manifest.epoch, manifest.cursor, dict(manifest.extra), url, skipped)

    def take_over(self, engine: DeepSpeedEngine, checkpoint: str) -> Resume:
        """Load all that a seal of another run holds, by its URL; rates stay as this run file says them.

        Raises BadConfig when it is no seal, or one of another layout, and StorageError when it is damaged or cannot be
        read.
        """
        rates = [(each, Rates(each)) for each in (engine, *self._beside.helpers.values())]
        root, path = apart(checkpoint)
        storage = open_storage(root, self._alive)
        seal = self._exchange.decided(lambda: _described(storage, path))
        if seal["problem"] is not None:
            raise BadConfig("init_from.checkpoint", checkpoint, f"cannot be gone on from: {seal['problem']}")
        manifest = Manifest.from_json(seal["manifest"])
        self._insist_on_layout(checkpoint, manifest, engine)
        directory, problem = self._fetch(storage, path, manifest)
        if problem is not None:
            raise StorageError(f"init_from.checkpoint {checkpoint} is damaged: {problem}")
        self._load(engine, directory, manifest, restart=True)
        self._give_back(storage)
        plateau = manifest.extra.get("plateau")
        for each, own in rates:
            own.put(each, plateau["ratio"] if plateau is not None and each is engine else 1.0)
        return Resume(manifest.step, manifest.epoch, manifest.cursor, dict(manifest.extra), checkpoint, taken_over=True)

    def save(
        self,
        engine: DeepSpeedEngine,
        *,
        step: int,
        epoch: int,
        cursor: Mapping[str, Any],
        metrics: Mapping[str, float],
        best: bool,
        extra: Mapping[str, Any],
    ) -> Sealed | None:
        """Seal the state after optimizer step `step`. Rank 0 gets the account of it, the others None.

        Raises StorageError on every rank when any rank could not write, and Fenced when a newer attempt has taken over;
        then nothing of this save is left and earlier seals are untouched.
        """
        started_s = time.monotonic()
        path = f"{incarnation_dir(self._launch.attempt, self._launch.incarnation)}/{step_dir(step)}"
        files, problem = self._write(engine, path)
        reports = self._exchange.all({"files": [asdict(each) for each in files], "problem": problem})
        problems = [f"rank {rank}: {each['problem']}" for rank, each in enumerate(reports) if each["problem"]]
        manifest = Manifest(
            run_id=self._launch.run_id,
            attempt=self._launch.attempt,
            incarnation=self._launch.incarnation,
            step=step,
            epoch=epoch,
            world_size=self._world_size,
            layout={"zero": int(engine.zero_optimization_stage()), **self._layout},
            cursor=cursor,
            files=tuple(ManifestFile(**each) for report in reports for each in report["files"]),
            metrics=metrics,
            best=best,
            versions=_versions(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            extra={**extra, "recipe": self._recipe(engine)},
        )
        self._exchange.decided(lambda: self._archive.seal(path, manifest, problems))
        if self._rank != 0:
            return None
        seconds = time.monotonic() - started_s
        self._archive.prune()
        return _account(self._storage.url(path), manifest, seconds, stall_s=time.monotonic() - started_s)

    def load_weights(self, engine: DeepSpeedEngine, checkpoint: str) -> LoadedWeights:
        """Put the weights of one seal of this run, by its URL, into the engine; random state and schedule stay.

        Answers the same on every rank; with a problem, the engine is as it was. Raises StorageError when the storage
        cannot be read and BadConfig when the seal was made for another layout.
        """
        self._adopt(engine)
        path = checkpoint.removeprefix(self._storage.url("")).strip("/")
        seal = self._exchange.decided(lambda: self._seal_at(path))
        if seal["problem"] is not None:
            return LoadedWeights(problem=str(seal["problem"]))
        manifest = Manifest.from_json(seal["manifest"])
        self._insist_on_layout(self._storage.url(path), manifest, engine)
        directory, problem = self._fetch(self._storage, path, manifest)
        if problem is None:
            self._load(engine, directory, manifest, restart=False)
        self._give_back(self._storage)
        return LoadedWeights(manifest.metrics, problem)

    def _adopt(self, engine: DeepSpeedEngine) -> WeightsOnlyEngine:
        """The engine's own reader and writer of files gives way to one that runs nothing."""
        if not isinstance(engine.checkpoint_engine, WeightsOnlyEngine):
            engine.checkpoint_engine = WeightsOnlyEngine(self._rank, self._alive)
            # A script to be run has no place among data, and copying it may fail on rank 0 alone.
            setattr(engine, "_copy_recovery_script", lambda _: None)  # noqa: B010
        writer: WeightsOnlyEngine = engine.checkpoint_engine
        return writer

    def _recipe(self, engine: DeepSpeedEngine) -> dict[str, Any]:
        """What an export needs: whose model this is, what it learned on, and which weights tensor ranks hold slices of."""
        splits: Mapping[str, Split] = getattr(engine.module, "splits", {}) if self._layout["tensor"] > 1 else {}
        return {
            "kind": self._launch.kind,
            "target": self._launch.target,
            "model": dict(self._launch.config.get("model") or {}),
            "data": dict(self._launch.config.get("data") or {}),
            "splits": {name: asdict(each) for name, each in splits.items()},
        }

    def _write(self, engine: DeepSpeedEngine, path: str) -> tuple[list[ManifestFile], str | None]:
        """This rank's files, brought to their place, and what went wrong. Leaves nothing on the staging disk."""
        writer = self._adopt(engine)
        tag = posixpath.basename(path)
        directory = self._staging / tag
        writer.begin()
        writer.makedirs(str(directory), exist_ok=True)
        try:
            kept = {each.name: each.state_dict() for each in self._companions}
            engine.save_checkpoint(str(self._staging), tag=tag, client_state=kept, save_latest=False)
            writer.save(random_state.capture(), str(directory / _random_name(self._rank)))
            self._beside.save(directory, self._rank, writer)
            written = [each for each in writer.written if not self._is_a_copy(each.path)]
            if writer.problem is None:
                for each in written:
                    self._storage.publish(directory / each.path, f"{path}/{each.path}")
                self._storage.sync(path)
        except StorageError as error:
            return [], str(error)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)
        return written, writer.problem

    def _is_a_copy(self, name: str) -> bool:
        """With experts, DeepSpeed lets all sequence ranks write what the first one writes."""
        return name.startswith("mp_rank_") and self._rank // self._layout["tensor"] % self._layout["sequence"] > 0

    def _offer(self, verdicts: Mapping[str, str | None]) -> dict[str, Any]:
        """Rank 0: the next checkpoint to verify, or none when there is none that was not skipped."""
        choice = self._archive.choose(verdicts)
        skipped = [{"checkpoint": self._storage.url(each.checkpoint), "why": each.why} for each in choice.skipped]
        if choice.undecided is None or choice.undecided.manifest is None:
            return {"path": None, "skipped": skipped}
        return {
            "path": choice.undecided.checkpoint,
            "manifest": choice.undecided.manifest.to_json(),
            "skipped": skipped,
        }

    def _newest_notes(self) -> dict[str, Any]:
        """Rank 0's."""
        self._archive.open()
        newest = self._archive.choose({}).undecided
        return dict(newest.manifest.extra) if newest is not None and newest.manifest is not None else {}

    def _seal_at(self, path: str) -> dict[str, Any]:
        """Rank 0: the manifest of one seal of this run, or why there is none to believe."""
        return _described_as(self._archive.find(path), "it is no checkpoint of this run")

    def _insist_on_layout(self, where: str, manifest: Manifest, engine: DeepSpeedEngine) -> None:
        """Parts fit only the layout that made them: ZeRO's also its stage and the world size, and ZeRO 0 has none."""
        zero, stage = manifest.layout["zero"], int(engine.zero_optimization_stage())
        for name in DEGREES:
            if (made := manifest.layout[name]) != (now := self._layout[name]):
                advice = f"{where} was made with {name} parallelism of {made} and resumes with that only"
                raise BadConfig(f"parallelism.{name}", now, advice)
        if zero != stage:
            raise BadConfig("parallelism.zero", stage, f"{where} was made with ZeRO {zero} and resumes with that only")
        if zero > 0 and manifest.world_size != self._world_size:
            made_by = f"{where} was made by {manifest.world_size} ranks with ZeRO {zero}"
            raise BadConfig("resources.workers", self._world_size, f"{made_by} and resumes with as many only")

    def _fetch(self, storage: Storage, path: str, manifest: Manifest) -> tuple[Path, str | None]:
        """Bring this host's files within reach and verify them, each rank those that it wrote.

        Returns the directory to load from and what any rank found wrong, the same on all. Raises StorageError on all
        when one could not read the storage.
        """
        problem, error = None, None
        try:
            for each in manifest.files:
                if problem is None and self._is_mine(each, manifest, storage):
                    file = storage.fetch(f"{path}/{each.path}", self._fetched)
                    problem = file_trouble(each, file, self._alive)
        except StorageError as caught:
            error = str(caught)
        reports = self._exchange.all({"problem": problem, "error": error})
        if errors := [each["error"] for each in reports if each["error"]]:
            raise StorageError("; ".join(errors))
        directory = Path(storage.url(path)) if storage.is_local else self._fetched / path
        return directory, "; ".join(each["problem"] for each in reports if each["problem"]) or None

    def _is_mine(self, file: ManifestFile, manifest: Manifest, storage: Storage) -> bool:
        """Whether this rank verifies a file, which on an object store also brings it to this host.

        Every rank may read what only one wrote, but for its random state and ZeRO's part of the optimizer; and, while the
        world size stays, what its task kept.
        """
        resized = manifest.world_size != self._world_size  # then every rank reads what all of them kept
        kept_by_all = resized and file.path.endswith(STATE_SUFFIX)
        ranks_own = file.path.startswith("rank-") and not kept_by_all
        own = ranks_own or ("zero_pp_rank_" in file.path and file.path.endswith("optim_states.pt"))
        if storage.is_local or own:
            return file.rank % self._world_size == self._rank
        return self._local_rank == 0

    def _load(self, engine: DeepSpeedEngine, directory: Path, manifest: Manifest, *, restart: bool) -> None:
        loaded = engine.load_checkpoint(str(directory.parent), tag=directory.name, load_lr_scheduler_states=restart)
        for each in self._companions:
            each.load_state_dict(loaded[1][each.name])
        self._beside.load(
            directory,
            self._staging,
            rank=self._rank,
            world_size=self._world_size,
            then=manifest.world_size,
            restart=restart,
        )
        random_file = directory / _random_name(self._rank)
        if restart and random_file.exists():
            random_state.restore(read_file(random_file, "cpu"))
        elif restart:  # ZeRO 0 on more ranks than before: this one has no past
            random_state.seed(self._launch.seed + self._rank)

    def _give_back(self, storage: Storage) -> None:
        """Remove what was fetched, once every rank of the host has read it."""
        if not storage.is_local:
            self._exchange.all(None)
            if self._local_rank == 0:
                shutil.rmtree(self._fetched, ignore_errors=True)


def _described(storage: Storage, path: str) -> dict[str, Any]:
    """The manifest of any run's seal, or why there is none to believe."""
    return _described_as(found(path, storage.read_text(f"{path}/{MANIFEST_NAME}")), "its path is not a checkpoint's")


def _described_as(listed: Listed | None, otherwise: str) -> dict[str, Any]:
    if listed is None or listed.manifest is None:
        return {"manifest": None, "problem": listed.problem if listed is not None else otherwise}
    return {"manifest": listed.manifest.to_json(), "problem": None}


def file_trouble(expected: ManifestFile, file: Path | None, alive: Callable[[], None]) -> str | None:
    """What is wrong with a file, size first: it costs nothing."""
    if file is None:
        return file_problem(expected, None, None)
    try:
        size_bytes = file.stat().st_size
        problem = file_problem(expected, size_bytes, None)
        if problem is None:
            problem = file_problem(expected, size_bytes, digest(file, alive))
    except OSError as error:
        return f"{expected.path} cannot be read: {error.strerror}"
    return problem or stranger_in(file)


def _account(checkpoint: str, manifest: Manifest, seconds: float, *, stall_s: float) -> Sealed:
    size_bytes = sum(each.size_bytes for each in manifest.files)
    return Sealed(checkpoint, manifest.step, size_bytes, stall_s, seconds, manifest.metrics, manifest.best)


def _random_name(rank: int) -> str:
    return f"rank-{rank:05d}.rng.pt"


def _versions() -> dict[str, str]:
    return {
        "torch": torch.__version__,
        "deepspeed": deepspeed.__version__,
        "python": platform.python_version(),
        "evertrain": metadata.version("evertrain"),
    }
