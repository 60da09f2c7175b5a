"""Which version of a registered model is meant."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.core.aliases import CHAMPION
from orchestrator.core.records import ModelVersion
from orchestrator.core.words import in_project
from orchestrator.errors import NotFound


def find_version(versions: Sequence[ModelVersion], project: str, name: str, wanted: str) -> ModelVersion:
    """By number, alias, or, with "", the newest. `versions` are those of the model `name`. Raises NotFound."""
    if not versions:
        raise NotFound(f"no model {name!r}{in_project(project)}: `evertrain model list` shows those there are")
    newest_first = sorted(versions, key=lambda version: -version.version)
    for each in newest_first:
        if not wanted or wanted in each.aliases or wanted == str(each.version):
            return each
    known = ", ".join(str(each.version) for each in newest_first[:10])
    raise NotFound(f"model {name!r} has no version or alias {wanted!r}; its newest versions: {known}")


def champion_of(versions: Sequence[ModelVersion]) -> ModelVersion | None:
    """The one that serves, among the versions of one model."""
    return next((each for each in versions if CHAMPION in each.aliases), None)
