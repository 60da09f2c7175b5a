"""The training loop: steps, and what happens between them: agreement, checkpoints, evaluation, early stopping."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

from trainers.agreement import Agreed, Agreement
from trainers.bad_loss import RecentLosses, insist_on_finite_weights
from trainers.checkpoint import Checkpoints, Resume
from trainers.config import Settings
from trainers.contract import EpochEnded, Sealed, Step
from trainers.data.history import History
from trainers.data.loader import Loader
from trainers.data.sampler import Sampler
from trainers.ema import Ema
from trainers.engine import Engine
from trainers.errors import BadConfig, Stopped
from trainers.evaluation import evaluate
from trainers.judgement import Judgement
from trainers.optimizers import scale_learning_rates
from trainers.parallel import Place
from trainers.plateau import plateau_of
from trainers.profiling import Profiling
from trainers.progress import STEP_INTERVAL_S, Progress
from trainers.tasks.task import AnyTask, Collects, SteppingTask


@dataclass
class Loop:
    """One incarnation's training, from where it was resumed to its end. Every rank runs the same."""

    place: Place
    engine: Engine
    task: AnyTask
    settings: Settings
    loader: Loader
    sampler: Sampler
    checkpoints: Checkpoints
    progress: Progress
    profiling: Profiling
    total_steps: int
    history: History
    furthest_step: int  # up to it, steps are recomputed
    stop_asked: Callable[[], bool]
    ema: Ema | None = None
    found: Mapping[str, Any] = field(default_factory=dict)  # for what the run file says `auto`; kept in checkpoints
    helpers: Mapping[str, Engine] = field(default_factory=dict)  # of a task that takes its own steps
    step: int = 0
    samples: int = 0  # consumed by all ranks
    metrics: dict[str, float] = field(default_factory=dict)  # of the last epoch that ended
    epoch_loss_sum: float = 0.0  # of the steps of this epoch so far
    epoch_steps: int = 0
    collected: Mapping[str, float] = field(default_factory=dict)  # metrics of a task that makes its examples itself
    collected_epoch: int | None = None
    last_loss: float | None = None
    sealed_step: int | None = None
    sealed_checkpoint: str | None = None  # of that step; only rank 0 knows
    sealed_at_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        wanted = self.settings.train.early_stopping
        self.judgement = (
            Judgement(wanted.metric, wanted.mode, wanted.patience, target=wanted.target)
            if wanted
            else Judgement(self.task.judged_by, self.task.judged_mode)
        )
        self.plateau = plateau_of(self.settings.train.schedule, self.judgement.mode)
        self.recent_losses = RecentLosses()
        train = self.settings.train  # a dynamic loss scale is found by updates that overflow, and are skipped
        self.may_skip = train.precision == "fp16" and train.loss_scale == "dynamic"
        interval_s = min(self.progress.interval_s, STEP_INTERVAL_S)
        self.agreement = Agreement(self.loader.device, rank=self.place.rank, interval_s=interval_s)

    def resume(self, state: Resume) -> None:
        """Go on where a checkpoint was taken. Raises BadConfig when it was taken over other data."""
        if state.checkpoint is None:
            return
        self.step = self.sealed_step = state.step
        self.sealed_checkpoint = state.checkpoint
        self.samples = self.sampler.resume(state.cursor)
        self.history = self.history.resumed(state.cursor)
        self.metrics = dict(state.extra["metrics"])
        self.epoch_loss_sum = state.extra["epoch_loss_sum"]
        self.epoch_steps = state.extra["epoch_steps"]
        if not state.taken_over:  # another run's best is not this one's to keep
            self.judgement = self.judgement.resumed(state.extra["judgement"], state.checkpoint, state.step)
        if self.plateau is not None:  # what it did to the rates came back with the scheduler
            self.plateau = self.plateau.resumed(state.extra["plateau"])

    def run(self) -> None:
        """Train to the end. Raises Stopped after a SIGTERM, BadLoss, and what a lost peer or a full disk raises."""
        self.progress.begin(self.step, self.sampler.epoch_of(self.samples), self.samples)
        while self.step < self.total_steps and self.judgement.stop_reason is None:
            self.progress.phase("recomputing" if self.step < self.furthest_step else "training")
            self._collect()
            due = self._train_step()
            if self.profiling.tracing:
                self.profiling.stepped(self.step)
            epoch_ends = self.sampler.ends_epoch(self.samples) or self.step == self.total_steps
            if due or epoch_ends or self._step_to_save():
                self._between_steps(epoch_ends)
                self.profiling.look(self.step)
        if self.sealed_step != self.step:
            self._save(best=False)
        self.profiling.finish()

    def _train_step(self) -> bool:
        """One optimizer step; True when the ranks are due to agree."""
        skipped_before = self.engine.skipped_steps
        batches = self.loader.training(self.task.splits.train, self.sampler, self.samples)
        if isinstance(self.task, SteppingTask):
            losses = [self.task.step(self.engine, self.helpers, batches)]
        else:
            losses = self.place.train_step(self.engine, self.task, batches)
        if self.ema is not None:
            self.ema.update()
        self.step += 1
        self.epoch_steps += 1
        self.recent_losses.add(self.step, self.samples, losses)
        if self.engine.skipped_steps > skipped_before and not self.may_skip:  # the same on every rank
            raise self.recent_losses.explain(self.sampler, self.loader.plan, self.place)
        self.samples += self.sampler.global_batch
        return self.agreement.add(torch.stack(losses).sum() / len(losses))

    def _collect(self) -> None:
        epoch = self.sampler.epoch_of(self.samples)
        if epoch != self.collected_epoch and isinstance(self.task, Collects):
            self.collected = self.task.collect(self.engine, epoch)
        self.collected_epoch = epoch

    def _between_steps(self, epoch_ends: bool) -> None:
        agreed = self.agreement.reach(stop=self.stop_asked(), save=self._time_to_save())
        self._tell_step(agreed)
        if agreed.loss_sum - agreed.loss_sum != 0:  # NaN or infinite
            raise self.recent_losses.explain(self.sampler, self.loader.plan, self.place)
        self.recent_losses.clear()
        self.epoch_loss_sum += agreed.loss_sum
        save = agreed.save or self._step_to_save()
        if epoch_ends or save:
            with self.profiling.paused():
                if epoch_ends:
                    self._end_epoch(save=save or self._epoch_to_save())
                else:
                    self._save(best=False)
        if agreed.stop:
            self._stop()

    def _end_epoch(self, *, save: bool) -> None:
        epoch = self.sampler.epoch_of(self.samples - self.sampler.global_batch)
        with self.progress.during("evaluating"), self.averaged():
            validation = self.task.splits.validation
            judged = evaluate(self.place, self.engine, self.task, self.loader, validation, "val_", self.progress.alive)
        self.metrics = {"train_loss": self.epoch_loss_sum / self.epoch_steps, **self.collected, **judged}
        self.epoch_loss_sum, self.epoch_steps = 0.0, 0
        if self.place.rank == 0:
            self.progress.send(EpochEnded(epoch, self.step, self.metrics))
        self._judge()
        if best := self.judgement.best_step == self.step:
            self._save(best=best)
        elif save:
            self._save(best=False)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model computes with its averaged weights, where the run keeps them."""
        return self.ema.applied() if self.ema is not None else nullcontext()

    def _judge(self) -> None:
        if self.judgement.metric in self.metrics:
            self.judgement = self.judgement.after_epoch(self.metrics[self.judgement.metric], self.step)
            self._follow_plateau(self.metrics[self.judgement.metric])
        elif self.settings.train.early_stopping is not None:
            known = ", ".join(self.metrics)
            raise BadConfig("train.early_stopping.metric", self.judgement.metric, f"must be one of {known}")
        elif self.plateau is not None:
            raise BadConfig(
                "train.schedule.type", "plateau", f"follows {self.judgement.metric}, which was not measured"
            )

    def _follow_plateau(self, value: float) -> None:
        if self.plateau is not None:
            before, self.plateau = self.plateau, self.plateau.after_epoch(value)
            scale_learning_rates(self.engine, self.plateau.ratio / before.ratio)

    def _save(self, *, best: bool) -> None:
        insist_on_finite_weights(self.engine, self.step, self.sampler, self.samples, self.place.rank)
        with self.progress.during("checkpoint"):
            sealed = self.checkpoints.save(
                self.engine,
                step=self.step,
                epoch=self.sampler.epoch_of(self.samples),
                cursor={**self.sampler.cursor(self.samples), "history": self.history.until(self.samples)},
                metrics=self.metrics,
                best=best,
                extra={
                    "judgement": self.judgement.to_extra(),
                    "metrics": self.metrics,
                    "epoch_loss_sum": self.epoch_loss_sum,
                    "epoch_steps": self.epoch_steps,
                    "notes": dict(self.task.notes),
                    "plateau": self.plateau.to_extra() if self.plateau is not None else None,
                    "automatic": dict(self.found),
                },
            )
        self.sealed_step, self.sealed_at_s = self.step, time.monotonic()
        if sealed is not None:
            self._tell_sealed(sealed, best)

    def _tell_sealed(self, sealed: Sealed, best: bool) -> None:
        self.progress.send(sealed)
        self.sealed_checkpoint = sealed.checkpoint
        if best:
            self.judgement = self.judgement.sealed(sealed.checkpoint)

    def _time_to_save(self) -> bool:
        every_s = self.settings.checkpoint.every
        return every_s is not None and time.monotonic() - self.sealed_at_s >= every_s

    def _step_to_save(self) -> bool:
        every_steps = self.settings.checkpoint.every_steps
        return every_steps is not None and self.step % every_steps == 0

    def _epoch_to_save(self) -> bool:
        """Behind the last sample of an epoch."""
        every_epochs = self.settings.checkpoint.every_epochs
        ended = self.sampler.epoch_of(self.samples - self.sampler.global_batch) + 1
        return every_epochs is not None and ended % every_epochs == 0

    def _stop(self) -> None:
        self.progress.phase("stopping")
        if self.sealed_step != self.step:
            self._save(best=False)
        raise Stopped(f"stopped in order after step {self.step}, which is sealed")

    def _tell_step(self, agreed: Agreed) -> None:
        self.progress.step = self.step
        step = Step(
            step=self.step,
            epoch=self.sampler.epoch_of(self.samples - self.sampler.global_batch),
            at_ns=0,
            loss=agreed.loss,
            samples=self.samples,
            learning_rate=self.engine.get_lr()[0],
            total_steps=self.total_steps,
            total_epochs=self.settings.train.epochs,
        )
        self.progress.stepped(step, last=self.step == self.total_steps)
