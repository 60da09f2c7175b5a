"""The preflight of a run file: what `plan` answers and what `submit` refuses, from the same functions.

Pure: the clusters as they were seen, earlier runs, prices, and facts that were found in files are arguments. What is said
here is said once; the command line, the API and a run's history carry these words on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_core import to_json

from orchestrator import spec as run_file
from orchestrator.core.money import NO_PRICES, Prices
from orchestrator.core.scheduling.admission import ClusterView
from orchestrator.core.scheduling.fit import GangShape, NeverFits, fit
from orchestrator.core.scheduling.plan import ClusterFit, cluster_fit
from orchestrator.errors import Problem
from orchestrator.planning.choice import Limit, Option, Question, choose, gib, reckoned, would_fit
from orchestrator.planning.incompatibilities import Request, doubtful, incompatible
from orchestrator.planning.memory import Memory, Setting
from orchestrator.planning.outlook import Outlook, Past, measured, outlook
from orchestrator.spec import RunSpec
from orchestrator.spec.agreement import disagreements
from orchestrator.spec.parallelism import Parallelism
from trainers.catalogue import RECIPES, RecipeCard
from trainers.layout import DEGREES, BatchPlan, Layout, share_batch
from trainers.shapes import NOTHING, Facts, ModelShape, Unknown

CERTAINTY = 0.85
"""Estimates are within 15 % of what ranks were measured to hold: what is over a limit even so is refused."""

_USABLE_GIB = {
    "A10G": 22,
    "A100": 39,
    "A100-40G": 39,
    "A100-80G": 79,
    "B200": 178,
    "H100": 79,
    "H20": 95,
    "H200": 140,
    "L4": 22,
    "L40S": 44,
    "P100": 16,
    "T4": 15,
    "V100": 16,
}
"""Memory of accelerators by the names that Ray gives them, where one name has several sizes the smallest."""


@dataclass(frozen=True)
class Model:
    """What is known of the model before it is built. `elements` None: nothing, for the reason in `words`."""

    elements: int | None
    words: str


@dataclass(frozen=True)
class Review:
    """What a run file means on its own, and on the clusters that there are."""

    spec: RunSpec  # with its layout resolved
    problems: tuple[Problem, ...] = ()  # why it can never work
    warnings: tuple[str, ...] = ()
    layout: Layout | None = None  # None for a script, which divides itself
    reason: str = ""  # why that layout; empty where the run file says which
    batch: BatchPlan | None = None
    model: Model | None = None
    memory: Memory | None = None  # None where the model's shape is not known
    limit: Limit | None = None  # what a rank may hold; None: nothing says


@dataclass(frozen=True)
class Plan:
    """What `plan` answers. `spec`: the run file with every default filled in and its layout resolved."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    clusters: tuple[ClusterFit, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    layout: str = ""
    reason: str = ""
    batch: BatchPlan | None = None
    model: Model | None = None
    memory: Memory | None = None
    limit: Limit | None = None
    outlook: Outlook | None = None

    @property
    def works(self) -> bool:
        """Whether it can ever start: with no cluster that is a question for later."""
        return not self.problems and (not self.clusters or any(each.verdict != "never" for each in self.clusters))


_LOOKED_AT = ("recipe", "entrypoint", "script", "data", "model", "parallelism", "deepspeed", "resources")
_SEARCHED = frozenset(
    ("lr", "weight_decay", "betas", "schedule", "seed", "early_stopping")
)  # nothing here depends on them


def looked_at(document: Mapping[str, Any]) -> bytes:
    """All that `review` looks at in a dumped run file: where these are equal, so are problems, warnings and layout."""
    train = {key: value for key, value in document["train"].items() if key not in _SEARCHED}
    return to_json([train, *(document[section] for section in _LOOKED_AT)])


def plan(
    spec: RunSpec,
    clusters: Sequence[ClusterView],
    pasts: Sequence[Past] = (),
    prices: Prices = NO_PRICES,
    found: Facts = NOTHING,
) -> Plan:
    """`clusters`: those that the run may be placed on; `pasts`: earlier runs, newest first; `found`: what files say."""
    reviewed = review(spec, clusters, found, pasts)
    document = run_file.dump(reviewed.spec)
    shape = run_file.gang_shape(spec)
    expected = None
    if spec.kind != "script" and not reviewed.problems:
        examples = _examples(reviewed.spec, found)
        expected = outlook(document, pasts, examples=examples, shape=shape, prices=prices)
    return Plan(
        document,
        tuple(cluster_fit(shape, each) for each in clusters),
        reviewed.problems,
        (*reviewed.warnings, *_over_the_limits(reviewed.spec, expected)),
        str(reviewed.layout or ""),
        reviewed.reason,
        reviewed.batch,
        reviewed.model,
        reviewed.memory,
        reviewed.limit,
        expected,
    )


def review(
    spec: RunSpec, clusters: Sequence[ClusterView], found: Facts = NOTHING, pasts: Sequence[Past] = ()
) -> Review:
    """All that can be known without running. `clusters`: those that the run may be placed on; `found`: what files say of its
    model and data; `pasts`: earlier runs, newest first, which only `parallelism: auto` looks at."""
    if spec.kind == "script":
        return Review(spec)
    asked = _Asked(spec, found)
    if spec.parallelism.auto:
        return _chosen(asked, clusters, pasts)
    return _given(asked, clusters)


class _Asked:
    """A run file in the words of the other modules."""

    def __init__(self, spec: RunSpec, found: Facts) -> None:
        train = spec.train
        self.spec = spec
        self.card = RECIPES[spec.recipe] if spec.recipe is not None else None
        self.found = {**_resized(spec, self.card), **found}
        self.shape, self.model = _model(spec, self.card, self.found)
        self.passed = _passed(spec)
        # Whoever looks for the largest that fits finds one where a single sample does.
        self.micro_batch = 1 if train.micro_batch == "auto" else train.micro_batch
        self.setting = Setting(
            micro_batch=1,
            precision=train.precision,
            optimizer=train.optimizer,
            momentum=train.momentum,
            activation_checkpointing=train.activation_checkpointing,
            device="gpu" if spec.resources.gpu else "cpu",
            zero=Request(self.passed, _ALONE).zero,
        )

    def question(self, shape: ModelShape, limit: Limit | None, pasts: Sequence[Past] = ()) -> Question:
        return Question(
            recipe=self.spec.target,
            model=self.spec.model,
            shape=shape,
            workers=self.spec.resources.workers,
            degrees=frozenset(self.card.degrees if self.card is not None else ()),
            global_batch=self.spec.train.global_batch,
            micro_batch=self.micro_batch,
            setting=self.setting,
            passed=self.passed,
            clip=self.spec.train.clip,
            limit=limit,
            measured=measured(run_file.dump(self.spec), pasts) if pasts else {},
            allowed=self._allowed,
        )

    def _allowed(self, layout: Layout) -> bool:
        """Whether the run file's other sections agree with it."""
        return not disagreements(_divided(self.spec, layout))

    def layout(self) -> Layout:
        said = self.spec.parallelism
        return Layout(
            said.zero, said.tensor, said.pipeline, said.sequence, said.expert, workers=self.spec.resources.workers
        )

    def request(self, layout: Layout) -> Request:
        experts = self.shape is not None and self.shape.experts is not None
        return Request(self.passed, layout, self.setting.precision, self.spec.train.clip, experts)


_ALONE = Layout(workers=1)


def _passed(spec: RunSpec) -> Mapping[str, Any]:
    """DeepSpeed's keys as the ranks will pass them: `parallelism.offload` is said in its words."""
    if spec.parallelism.offload is None:
        return spec.deepspeed
    place = {"device": spec.parallelism.offload}
    ours = {"offload_optimizer": place, **({"offload_param": place} if spec.parallelism.zero == 3 else {})}
    theirs = spec.deepspeed.get("zero_optimization")
    return {**spec.deepspeed, "zero_optimization": {**ours, **(theirs if isinstance(theirs, Mapping) else {})}}


def _given(asked: _Asked, clusters: Sequence[ClusterView]) -> Review:
    """With the layout that the run file says, which it was held to when it was read."""
    spec, layout = asked.spec, asked.layout()
    request = asked.request(layout)
    problems = [*incompatible(request), *_own_problems(asked)]
    warnings = [*_assumed(asked), *doubtful(request)]
    batch = share_batch(spec.train.global_batch, asked.micro_batch, layout.data, layout.pipeline)
    if asked.shape is None or problems:
        return Review(spec, tuple(problems), tuple(warnings), layout, "", batch, asked.model)
    question = asked.question(asked.shape, None)
    now = reckoned(layout, question)
    assert now is not None, "a run file whose ranks cannot share its batch is not read"
    limit = _limit(asked, clusters, now.memory.total)
    over = _over(now, replace(question, limit=limit), spec) if limit is not None else None
    if over is not None and CERTAINTY * (now.memory.total - now.memory.runtime) > over[0].size:
        problems.append(over[1])
    elif over is not None:
        warnings.append(f"it may not fit: {over[1].message}")
    return Review(spec, tuple(problems), tuple(warnings), layout, "", batch, asked.model, now.memory, limit)


def _chosen(asked: _Asked, clusters: Sequence[ClusterView], pasts: Sequence[Past]) -> Review:
    """With the cheapest layout that fits."""
    model = asked.model
    own = tuple(_own_problems(asked))
    if asked.shape is None:
        words = f"needs a model whose shape is known, and this one is not ({model.words}): say zero and the degrees"
        return Review(asked.spec, (*own, Problem("parallelism", "auto", words)), model=model)
    if own:
        return Review(asked.spec, own, model=model)
    limit = _limit(asked, clusters, None)
    best, why = choose(asked.question(asked.shape, limit, pasts))
    if best is None:
        return Review(asked.spec, (Problem("parallelism", "auto", why),), model=model, limit=limit)
    resolved = _divided(asked.spec, best.layout)
    warnings = (*_assumed(asked), *doubtful(asked.request(best.layout)))
    return Review(
        resolved, (), warnings, best.layout, f"parallelism auto: {why}", best.batch, model, best.memory, limit
    )


def _divided(spec: RunSpec, layout: Layout) -> RunSpec:
    degrees = {name: getattr(layout, name) for name in ("zero", *DEGREES)}
    return spec.model_copy(update={"parallelism": Parallelism(**degrees)})


# ---- the model ------------------------------------------------------------------------------------------------------


def _model(spec: RunSpec, card: RecipeCard | None, found: Facts) -> tuple[ModelShape | None, Model]:
    if card is None:
        return None, Model(None, f"it is made by {spec.entrypoint}, in code of your own")
    shape = card.shape_of(spec.model, spec.data.source, found)
    if isinstance(shape, Unknown):
        return None, Model(None, f"its size is not known: {shape.why}")
    words = f"{shape.elements:,} parameters"
    if shape.rows is not None:
        words += f" on every rank, and {shape.rows.number:,} rows of {shape.rows.width} dealt out over them"
    if "training" in found:
        words += ", for the data as they were prepared"
    return shape, Model(shape.elements, words)


def _resized(spec: RunSpec, card: RecipeCard | None) -> Facts:
    """What the run file itself says of images: arrays, which are all that is known beforehand, are not resized."""
    steps = spec.data.steps
    if card is None or steps is None or steps.resize is None or card.facts(spec.data.source) is not None:
        return NOTHING
    height, width = steps.resize
    return {"height": height, "width": width}


def _assumed(asked: _Asked) -> Iterator[str]:
    card, source = asked.card, asked.spec.data.source
    if card is None or asked.shape is None or card.facts(source) is not None or "training" in asked.found:
        return
    assumed = card.facts(card.source)
    if assumed is not None:
        yield (
            f"nothing is known of {source} before it is read: the model is reckoned as for {card.source} "
            f"({', '.join(_said(assumed))})"
        )


def _said(facts: Facts) -> Iterator[str]:
    for name, value in facts.items():
        if isinstance(value, tuple):
            yield f"{name} of {', '.join(map(str, value))} values" if value else f"no {name}"
        else:
            yield f"{value:,} {name}"


def _own_problems(asked: _Asked) -> Iterator[Problem]:
    """What the recipe's model and data cannot be built from, whatever the layout."""
    for key, got, right in asked.shape.wrong if asked.shape is not None else ():
        yield Problem(f"model.{key}", str(got), right)
    examples, batch = _examples(asked.spec, asked.found), asked.spec.train.global_batch
    if examples is not None and examples < batch:
        yield Problem("train.global_batch", str(batch), f"must not exceed the {examples} training examples")


def _examples(spec: RunSpec, found: Facts) -> int | None:
    if spec.recipe is None:
        return None
    return RECIPES[spec.recipe].training_examples(spec.model, spec.data.source, spec.data.split[0], found)


# ---- what a rank may hold -------------------------------------------------------------------------------------------


def _limit(asked: _Asked, clusters: Sequence[ClusterView], needed: int | None) -> Limit | None:
    """None where nothing says. `needed`: an amount that need not be looked at closer where a cluster has it."""
    resources = asked.spec.resources
    if asked.setting.device == "gpu":
        return _accelerator_limit(resources.accelerator, clusters)
    if resources.memory:
        return Limit(resources.memory, f"resources.memory is {gib(resources.memory)}")
    connected = [each for each in clusters if each.connected and each.nodes]
    shape = run_file.gang_shape(asked.spec)
    if needed is not None and any(
        not isinstance(fit(replace(shape, memory=needed), each.nodes), NeverFits) for each in connected
    ):
        return None
    limits = [
        Limit(size, f"cluster {each.name} has {gib(size)} for each")
        for each in connected
        if (size := _room(shape, each))
    ]
    return max(limits, key=lambda each: each.size, default=None)


def _room(shape: GangShape, cluster: ClusterView) -> int:
    """The most memory that every worker could have there, to the MiB; 0 where the gang does not fit anyway."""
    low, high = 0, max(node.memory for node in cluster.nodes) // 2**20 + 1
    if isinstance(fit(shape, cluster.nodes), NeverFits):
        return 0
    while high - low > 1:
        middle = (low + high) // 2
        fits = not isinstance(fit(replace(shape, memory=middle * 2**20), cluster.nodes), NeverFits)
        low, high = (middle, high) if fits else (low, middle)
    return low * 2**20


def _accelerator_limit(asked: str | None, clusters: Sequence[ClusterView]) -> Limit | None:
    seen = {node.accelerator for each in clusters if each.connected for node in each.nodes if node.gpu}
    names = [asked] if asked is not None else sorted(name for name in seen if name is not None)
    known = [(_USABLE_GIB[name], name) for name in names if name in _USABLE_GIB]
    if not known or len(known) < len(names):
        return None
    size, name = max(known)
    return Limit(size * 2**30, f"a {name} has {size} GiB")


def _over(now: Option, question: Question, spec: RunSpec) -> tuple[Limit, Problem] | None:
    """The limit that the layout is over, and the sentence about it."""
    limit = question.limit
    if limit is None or now.fits(limit):
        return None
    path = "resources.memory" if spec.resources.memory and not spec.resources.gpu else "parallelism"
    words = f"does not fit: {now.layout} takes about {gib(now.memory.total)} per rank, but {limit.words}"
    got = gib(spec.resources.memory) if path == "resources.memory" else str(now.layout)
    return limit, Problem(path, got, f"{words}; {would_fit(now, question)}")


# ---- what it will take ----------------------------------------------------------------------------------------------


def _over_the_limits(spec: RunSpec, expected: Outlook | None) -> Iterator[str]:
    if expected is None:
        return
    if spec.max_duration is not None and (expected.duration_s or 0) > spec.max_duration:
        yield f"max_duration: {spec.max_duration:g} s would end it, {expected.duration_s:.0f} s are expected"
    cost, most = expected.cost, spec.max_cost
    if cost is not None and most is not None and cost.currency == most.currency and cost.amount > most.amount:
        yield f"max_cost: {most.amount:g} {most.currency} would end it, {cost.amount:.2f} are expected"
