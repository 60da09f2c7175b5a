"""How a model is divided over the ranks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ModelWrapValidatorHandler, SerializerFunctionWrapHandler, model_serializer, model_validator
from pydantic.json_schema import SkipJsonSchema

from orchestrator.spec.section import Section, Whole
from trainers.layout import Degrees

AUTO = "auto"

Degree = Annotated[Whole, Field(ge=1, le=4096)]


class Parallelism(Section):
    """Pipeline, sequence and tensor divide the workers; what they leave over is data parallelism. `auto` in place of the
    section lets the planner choose: the stored run file says what it chose."""

    zero: Annotated[Whole, Field(ge=0, le=3, description="DeepSpeed ZeRO stage.")] = 0
    tensor: Annotated[Degree, Field(description="Tensor parallelism.")] = 1
    pipeline: Annotated[Degree, Field(description="Pipeline stages.")] = 1
    sequence: Annotated[Degree, Field(description="Sequence parallelism.")] = 1
    expert: Annotated[Degree, Field(description="Expert parallelism.")] = 1
    offload: Annotated[Literal["cpu"] | None, Field(description="Where ZeRO keeps its parts, if not on the GPU.")] = (
        None
    )
    auto: SkipJsonSchema[bool] = False  # the word stood in place of the section

    @model_validator(mode="wrap")
    @classmethod
    def _read_auto(cls, raw: Any, read: ModelWrapValidatorHandler[Parallelism]) -> Parallelism:
        if raw == AUTO:
            return cls.model_construct(auto=True)
        if isinstance(raw, str) or (isinstance(raw, dict) and AUTO in raw):
            raise ValueError("must be auto alone, or a mapping such as {zero: 2}")
        return read(raw)

    @model_serializer(mode="wrap")
    def _write_auto(self, write: SerializerFunctionWrapHandler) -> Any:
        return AUTO if self.auto else {key: value for key, value in write(self).items() if key != "auto"}

    @property
    def degrees(self) -> Degrees:
        return Degrees(self.zero, self.tensor, self.pipeline, self.sequence, self.expert)

    @property
    def division(self) -> Degrees:
        """The degrees without ZeRO, which divides no ranks."""
        return Degrees(tensor=self.tensor, pipeline=self.pipeline, sequence=self.sequence, expert=self.expert)
