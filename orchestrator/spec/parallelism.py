"""How a model is divided over the ranks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.spec.section import Section, Whole
from trainers.layout import Degrees

Degree = Annotated[Whole, Field(ge=1, le=4096)]


class Parallelism(Section):
    """Pipeline, sequence and tensor divide the workers; what they leave over is data parallelism."""

    zero: Annotated[Whole, Field(ge=0, le=3, description="DeepSpeed ZeRO stage.")] = 0
    tensor: Annotated[Degree, Field(description="Tensor parallelism.")] = 1
    pipeline: Annotated[Degree, Field(description="Pipeline stages.")] = 1
    sequence: Annotated[Degree, Field(description="Sequence parallelism.")] = 1
    expert: Annotated[Degree, Field(description="Expert parallelism.")] = 1
    offload: Annotated[Literal["cpu"] | None, Field(description="Where ZeRO keeps its parts, if not on the GPU.")] = (
        None
    )

    @property
    def degrees(self) -> Degrees:
        return Degrees(self.zero, self.tensor, self.pipeline, self.sequence, self.expert)
