"""How a model is divided over the ranks."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.spec.section import Section, Whole

Degree = Annotated[Whole, Field(ge=1, le=4096)]


class Parallelism(Section):
    """Degrees multiply up to the world size; what they leave over is data parallelism."""

    zero: Annotated[Whole, Field(ge=0, le=3, description="DeepSpeed ZeRO stage.")] = 0
    tensor: Annotated[Degree, Field(description="Tensor parallelism.")] = 1
    pipeline: Annotated[Degree, Field(description="Pipeline stages.")] = 1
    sequence: Annotated[Degree, Field(description="Sequence parallelism.")] = 1
    expert: Annotated[Degree, Field(description="Expert parallelism.")] = 1
