"""The run file, from its text to a checked value and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.core.runs import Budgets
from orchestrator.core.scheduling.fit import GangShape
from orchestrator.errors import InvalidSpec, Problem
from orchestrator.spec.characters import uncarried
from orchestrator.spec.data import Data
from orchestrator.spec.partial import all_problems
from orchestrator.spec.problems import problems_of
from orchestrator.spec.reading import MAX_TEXT_BYTES, read_mapping, shorten
from orchestrator.spec.resources import Resources
from orchestrator.spec.run import BUNDLE_PREFIX, RunSpec
from orchestrator.spec.search import PROOF
from trainers.catalogue import RECIPES

__all__ = [
    "BUNDLE_PREFIX",
    "MAX_TEXT_BYTES",
    "PROOF",
    "RunSpec",
    "budgets",
    "dump",
    "gang_shape",
    "json_schema",
    "load",
    "parse",
    "prepares_data",
    "read_mapping",
    "stored_shape",
]


def parse(text: str, *, source: str = "run file") -> RunSpec:
    """A run file as the server takes it: what lies on the client's disk (`code: ./src`, `deepspeed: ds.json`) was shipped
    before and stands here as `code: bundle:<sha256>` and as a mapping. Raises InvalidSpec with every problem found.
    """
    document = read_mapping(text, source=source)
    advice = "is written by the server alone, for a run whose model has a champion: remove it"
    return _load(document, [Problem(PROOF, shorten(document[PROOF]), advice)] if PROOF in document else [])


def load(document: Mapping[str, Any]) -> RunSpec:
    """The reverse of `dump`; also takes the mapping of a run file, and the document of a stored run. Raises InvalidSpec with
    every problem found.
    """
    return _load(document, [])


def _load(document: Mapping[str, Any], known: list[Problem]) -> RunSpec:
    document = {key: value for key, value in document.items() if key != PROOF}
    if unwritable := uncarried(document):
        raise InvalidSpec([*known, *unwritable])
    unshipped = _unshipped(document)
    unread = {(each.path,) for each in unshipped}
    shipped = {key: value for key, value in document.items() if (key,) not in unread}
    try:
        spec = RunSpec.model_validate(shipped)
    except ValidationError:
        raise InvalidSpec([*known, *unshipped, *all_problems(RunSpec, shipped, unread)]) from None
    if known or unshipped:
        raise InvalidSpec([*known, *unshipped])
    return spec


def _unshipped(document: Mapping[str, Any]) -> list[Problem]:
    """The places that name a file or directory of the client's machine, which nobody else can read."""
    problems = []
    for key, what in (("code", "directory"), ("deepspeed", "file")):
        value = document.get(key)
        if isinstance(value, str) and not value.startswith(BUNDLE_PREFIX):
            advice = f"names a {what} of the submitting machine: submit by `evertrain submit FILE`, which ships it"
            problems.append(Problem(key, shorten(value), advice))
    return problems


def dump(spec: RunSpec) -> dict[str, Any]:
    """Plain JSON values with every default filled in: durations in float seconds, sizes in bytes."""
    return spec.model_dump(mode="json")


def json_schema() -> dict[str, Any]:
    """The schema that editors check run files with."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **RunSpec.model_json_schema()}


def gang_shape(spec: RunSpec) -> GangShape:
    return _shape(spec.resources)


def stored_shape(document: Mapping[str, Any]) -> GangShape:
    """The shape in what `dump` wrote, without reading the rest of it. A sweep itself holds nothing: its trials do.

    Raises InvalidSpec.
    """
    if document.get("search") is not None:
        return GangShape(workers=1, cpu=0.0)
    resources = document.get("resources", {})
    try:
        return _shape(Resources.model_validate(resources))
    except ValidationError as error:
        raise InvalidSpec(problems_of(error, Resources, resources)) from None


def _shape(asked: Resources) -> GangShape:
    return GangShape(
        workers=asked.workers,
        cpu=asked.cpu,
        gpu=float(asked.gpu),
        memory=asked.memory,
        spread=asked.placement == "spread",
        accelerator=asked.accelerator,
    )


def prepares_data(document: Mapping[str, Any]) -> bool:
    """Whether the run of what `dump` wrote trains on data that are prepared, which needs no worker of its gang."""
    card = RECIPES.get(str(document.get("recipe")))
    if card is None or not card.prepares_data:
        return False
    data = Data.model_validate(document.get("data") or {})
    return card.prepares(data.source or card.source, bool(data.preparation))


def budgets(spec: RunSpec) -> Budgets:
    return Budgets(
        application=spec.retry.max_restarts,
        infrastructure=spec.retry.max_infrastructure,
        preemption=spec.retry.max_preemptions,
    )
