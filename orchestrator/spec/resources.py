"""What every worker of a run gets, and how many workers there are."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from orchestrator.spec.quantities import Size, parse_gpu
from orchestrator.spec.section import Number, Section, Whole

_SMALLEST_MEMORY = 64 * 2**20


def _plausible(value: int) -> int:
    if 0 < value < _SMALLEST_MEMORY:
        raise ValueError("must be at least 64MiB: write a unit, such as 2GiB")
    return value


def _gpu_number(value: Any) -> Any:
    return parse_gpu(value)[0] if isinstance(value, str) else value


class Resources(Section):
    """Per worker; a worker is one rank."""

    workers: Annotated[Whole, Field(ge=1, le=4096, description="Number of ranks, placed all or none.")] = 1
    cpu: Annotated[Number, Field(gt=0, le=4096, description="CPU cores of each worker.")] = 1.0
    gpu: Annotated[
        Whole,
        BeforeValidator(_gpu_number),
        Field(ge=0, le=64, description="GPUs of each worker; with an accelerator: H100:8."),
        WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}, mode="validation"),
    ] = 0
    accelerator: Annotated[str | None, Field(description="Only nodes that have this one; `gpu: H100:8` sets it.")] = (
        None
    )
    memory: Annotated[Size, AfterValidator(_plausible), Field(description="Memory of each worker; 0: no limit.")] = 0
    placement: Annotated[
        Literal["pack", "spread"], Field(description="pack: as few nodes as possible; spread: as many.")
    ] = "pack"

    @model_validator(mode="before")
    @classmethod
    def _split_accelerator(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or not isinstance(raw.get("gpu"), str):
            return raw
        try:
            number, accelerator = parse_gpu(raw["gpu"])
        except ValueError:
            return raw  # the field itself then says what is wrong, under its own path
        return {"accelerator": accelerator, **raw, "gpu": number}


class Elastic(Section):
    """The world sizes that the run may be moved to; of them only those that divide the global batch are used."""

    min_workers: Annotated[Whole, Field(ge=1, le=4096, description="Never fewer workers than this.")]
    max_workers: Annotated[Whole, Field(ge=1, le=4096, description="Never more workers than this.")]
