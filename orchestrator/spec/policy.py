"""What surrounds the training: restarts, and the Python that the ranks run in."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from orchestrator.spec.section import Section, Whole

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][^\n\r]*")
_RESERVED = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "LOCAL_SIZE",
    "CUDA_VISIBLE_DEVICES",
    "DS_ACCELERATOR",
}
_RESERVED_PREFIXES = ("MASTER_", "EVERTRAIN_", "TORCHELASTIC_", "RAY_")


def check_env_name(name: str) -> str:
    """Raises ValueError for what cannot be, or must not be, set by a run file."""
    if not _ENV_NAME.fullmatch(name):
        raise ValueError("must be named with letters, digits and underscores, not beginning with a digit")
    if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
        raise ValueError(f"{name} is reserved: Evertrain sets it for each rank, and another value would break the gang")
    return name


def _requirement(text: str) -> str:
    # Also keeps options of the installer (`--index-url ...`) out of its command line.
    if not _REQUIREMENT.fullmatch(text):
        raise ValueError("must be one requirement, such as einops==0.8.2")
    return text


class Retry(Section):
    """Restarts allowed, each kind of cause with a budget of its own."""

    max_restarts: Annotated[Whole, Field(ge=0, le=10_000, description="After errors of the user's code.")] = 5
    max_infrastructure: Annotated[Whole, Field(ge=0, le=10_000, description="After lost hosts and killed ranks.")] = 20
    max_preemptions: Annotated[Whole, Field(ge=0, le=10_000, description="After being preempted.")] = 100


class Environment(Section):
    """The Python of the ranks: a cached virtual environment per node, or one that is there."""

    requirements: Annotated[
        tuple[Annotated[str, AfterValidator(_requirement)], ...],
        Field(max_length=200, description="Installed beside what the node has, once per node."),
    ] = ()
    python: Annotated[str | None, Field(pattern=r"^/", description="Absolute path of an interpreter on the nodes.")] = (
        None
    )

    @model_validator(mode="before")
    @classmethod
    def _exactly_one(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and bool(raw.get("requirements")) == bool(raw.get("python")):
            raise ValueError("needs exactly one of requirements and python")
        return raw
