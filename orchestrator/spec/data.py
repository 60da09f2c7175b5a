"""The samples: where they come from, what they must be, and what is done to them before training."""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orchestrator.spec.problems import without_credentials
from orchestrator.spec.section import Count, Number, Section, of_numbers

Share = Annotated[Number, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]


def _whole_of_one(split: tuple[float, float, float]) -> tuple[float, float, float]:
    if not math.isclose(sum(split), 1.0, abs_tol=1e-6):
        raise ValueError(f"must add up to 1 (training, validation, test), adds up to {sum(split):g}")
    if split[0] <= 0:
        raise ValueError("must leave something to train on: its first part is above 0")
    return split


class Column(Section):
    """What every value of a column must be."""

    type: Annotated[
        Literal["number", "integer", "string", "boolean", "time"] | None, Field(description="Its kind of values.")
    ] = None
    min: Annotated[Number | None, Field(description="The least value.")] = None
    max: Annotated[Number | None, Field(description="The greatest value.")] = None
    values: Annotated[
        tuple[int | float | str | bool, ...] | None, Field(min_length=1, description="All values that are allowed.")
    ] = None
    nulls: Annotated[Share | None, Field(description="Largest share of missing values.")] = None

    @model_validator(mode="after")
    def _in_order(self) -> Column:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self


class Checks(Section):
    """What the whole table must hold to; a check that fails stops the run before it trains, and names rows."""

    rows: Annotated[Count, Field(ge=1, description="So many rows at least.")] = 1
    duplicates: Annotated[Share, Field(description="Largest share of rows that repeat an earlier one.")] = 1.0
    balance: Annotated[Share, Field(description="Smallest share of the rarest class.")] = 0.0


class Clean(Section):
    """What becomes of values that cannot be trained on. `refuse` stops the run and names the rows."""

    nulls: Annotated[
        Literal["refuse", "drop", "mean", "median", "zero"],
        Field(description="Missing values and NaN: drop the row, or fill with a statistic of the training part."),
    ] = "refuse"
    infinite: Annotated[Literal["refuse", "drop", "missing"], Field(description="Infinite numbers.")] = "refuse"
    duplicates: Annotated[Literal["keep", "drop"], Field(description="Rows that repeat an earlier one.")] = "keep"
    outliers: Annotated[
        Literal["keep", "clip"], Field(description="Numbers beyond three interquartile ranges around the middle half.")
    ] = "keep"
    corrupt: Annotated[Literal["refuse", "drop"], Field(description="Images that cannot be decoded.")] = "refuse"


class Tokenize(Section):
    """Text to numbers, by the vocabulary of the training part."""

    length: Annotated[Count, Field(ge=1, description="Tokens of every row; longer texts are cut.")]
    unit: Annotated[Literal["character", "word", "byte"], Field(description="What gets a number each.")] = "character"
    vocabulary: Annotated[Count, Field(ge=3, description="Most frequent units that are kept.")] = 30_000


class Augment(Section):
    """Random variants of images, in training only."""

    flip: Annotated[bool, Field(description="Left to right, every other time.")] = False
    shift: Annotated[Count, Field(ge=0, description="Pixels, at most, each way.")] = 0
    noise: Annotated[Number, Field(ge=0, description="Standard deviation, on prepared values.")] = 0.0


class Steps(Section):
    """From values to what a model takes, in this order."""

    resize: Annotated[
        tuple[Count, Count] | None,
        BeforeValidator(lambda value: None if value is None else _height_and_width(value)),
        Field(description="Height and width of images."),
    ] = None
    normalize: Annotated[
        Literal["standard", "range", "none"],
        Field(description="By the training part: to mean 0 and deviation 1, or to 0 and 1."),
    ] = "standard"
    tokenize: Annotated[Tokenize | None, Field(description="How text becomes numbers.")] = None
    augment: Annotated[Augment | None, Field(description="How images vary in training.")] = None


def _height_and_width(value: object) -> object:
    if not isinstance(value, list | tuple) or len(value) != 2 or min(value) < 1:
        raise ValueError("must be a list of 2 numbers (height and width) of at least 1")
    return value


class SplitBy(Section):
    """The column that decides to which part a row falls; without it, a hash of the row does."""

    stratify: Annotated[Name | None, Field(description="Every part has the same shares of its values.")] = None
    group: Annotated[Name | None, Field(description="Rows with one of its values stay together.")] = None
    time: Annotated[Name | None, Field(description="Training is the oldest, test the newest.")] = None

    @model_validator(mode="after")
    def _one_way(self) -> SplitBy:
        if sum(each is not None for each in (self.stratify, self.group, self.time)) != 1:
            raise ValueError("must name one column, under stratify, group or time")
        return self


class Data(Section):
    """Where the samples come from. `source` defaults to the recipe's own data; an entrypoint may do without."""

    source: Annotated[
        str,
        AfterValidator(partial(without_credentials, "data.source")),
        Field(
            description="sklearn://NAME, text://pydoc_topics, or the path or URL of parquet, CSV, JSONL, text, npz, "
            "safetensors or Arrow files, a folder of image folders, or a saved Hugging Face data set; * for many files."
        ),
    ] = ""
    split: Annotated[
        tuple[Share, Share, Share],
        of_numbers(3, "the parts for training, validation and test"),
        AfterValidator(_whole_of_one),
        Field(description="Parts for training, validation and test."),
    ] = (0.70, 0.15, 0.15)
    split_by: Annotated[SplitBy | None, Field(description="What decides the part of a row.")] = None
    label: Annotated[
        Name | None,
        Field(description="To be predicted: a class, or a number where its type is; default: label, target or y."),
    ] = None
    features: Annotated[
        tuple[Name, ...] | None, Field(min_length=1, description="Columns to predict from; default: all others.")
    ] = None
    columns: Annotated[
        dict[Name, Column], Field(description="What the values of columns must be.", default_factory=dict)
    ]
    checks: Annotated[Checks, Field(description="What the whole table must hold to.")] = Checks()
    clean: Annotated[Clean, Field(description="What becomes of bad values.")] = Clean()
    steps: Annotated[Steps | None, Field(description="From values to what a model takes.")] = None
    prepared: Annotated[
        str | None,
        AfterValidator(lambda path: path if path is None else without_credentials("data.prepared", path)),
        Field(description="Directory of prepared data, on every node the same; later runs use it again."),
    ] = None

    @property
    def preparation(self) -> list[str]:
        """The keys that say something which only preparing can do."""
        fields = {key: each for key, each in type(self).model_fields.items() if key not in ("source", "split")}
        return [
            key for key, each in fields.items() if getattr(self, key) != each.get_default(call_default_factory=True)
        ]
