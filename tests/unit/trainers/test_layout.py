"""Which layouts fit a world and a model, and where each rank stands in one."""

from __future__ import annotations

import pytest

from trainers.layout import Coordinates, Degrees, coordinates, expert_rank, problems

SHAPE = {"layers": 4, "heads": 4, "width": 64, "context": 16}


def test_every_rank_has_coordinates_of_its_own_and_peers_are_neighbours() -> None:
    degrees = Degrees(tensor=2, sequence=3)
    places = [coordinates(rank, degrees, 12) for rank in range(12)]
    assert len(set(places)) == 12
    assert places[:3] == [Coordinates(0, 0, 0, 0), Coordinates(0, 0, 0, 1), Coordinates(0, 0, 1, 0)]
    assert [at.data for at in places] == [0] * 6 + [1] * 6


def test_stages_are_the_slowest_axis_as_in_deepspeeds_grid() -> None:
    places = [coordinates(rank, Degrees(pipeline=2, tensor=2), 8) for rank in range(8)]
    assert [at.stage for at in places] == [0] * 4 + [1] * 4
    assert [at.data for at in places] == [0, 0, 1, 1] * 2
    assert [at.tensor for at in places] == [0, 1] * 4


def test_experts_are_spread_over_ranks_with_the_same_slices() -> None:
    assert [expert_rank(rank, Degrees(tensor=2, expert=2)) for rank in range(8)] == [0, 0, 1, 1] * 2
    assert [expert_rank(rank, Degrees(expert=4)) for rank in range(8)] == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    ("degrees", "world_size", "model"),
    [
        (Degrees(zero=3, tensor=2, sequence=2), 8, {}),
        (Degrees(zero=1, tensor=4, pipeline=4), 16, {}),
        (Degrees(zero=1, pipeline=2, sequence=2, expert=2), 4, {"experts": 2}),
        (Degrees(zero=2, tensor=2, sequence=2, expert=4), 8, {"experts": 8}),
    ],
)
def test_what_divides_everything_is_right(degrees: Degrees, world_size: int, model: dict[str, int]) -> None:
    assert list(problems(degrees, world_size, "text_transformer", {**SHAPE, **model})) == []


@pytest.mark.parametrize(
    ("degrees", "world_size", "model", "path", "advice"),
    [
        (Degrees(tensor=2, pipeline=2), 6, {}, "resources.workers", "must be a multiple of 4 (tensor 2 x pipeline 2)"),
        (Degrees(expert=2), 3, {"experts": 4}, "parallelism.expert", "must divide the 3 ranks that experts are spread"),
        (Degrees(expert=2), 2, {}, "parallelism.expert", "must divide model.experts, 0"),
        (Degrees(expert=2), 2, {"experts": 3}, "parallelism.expert", "must divide model.experts, 3"),
        (Degrees(tensor=8), 8, {}, "parallelism.tensor", "must divide model.heads, 4"),
        (Degrees(tensor=3), 3, {"heads": 3, "width": 96}, "parallelism.tensor", "must divide the feed-forward width"),
        (Degrees(tensor=2, sequence=4), 8, {}, "parallelism.sequence", "must divide model.heads, 4 / 2 of each"),
        (Degrees(sequence=2), 2, {"context": 15}, "parallelism.sequence", "must divide model.context, 15"),
        (Degrees(pipeline=3), 3, {}, "parallelism.pipeline", "must divide model.layers, 4"),
        (Degrees(zero=2, pipeline=2), 2, {}, "parallelism.zero", "must be 0 or 1 where parallelism.pipeline"),
        (Degrees(zero=3), 2, {"experts": 4}, "parallelism.zero", "must be at most 2 where model.experts"),
    ],
)
def test_what_cannot_work_is_told_with_its_path_and_what_would_be_right(
    degrees: Degrees, world_size: int, model: dict[str, int], path: str, advice: str
) -> None:
    found = list(problems(degrees, world_size, "text_transformer", {**SHAPE, **model}))
    assert [each.path for each in found] == [path]
    assert found[0].advice.startswith(advice)


def test_a_pipeline_in_bf16_needs_zero_1() -> None:
    (wrong,) = problems(Degrees(pipeline=2), 2, "text_transformer", SHAPE, bf16=True)
    assert wrong.path == "parallelism.zero"
    assert list(problems(Degrees(zero=1, pipeline=2), 2, "text_transformer", SHAPE, bf16=True)) == []


def test_a_model_that_is_not_divided_names_one_that_is() -> None:
    (wrong,) = problems(Degrees(pipeline=2), 2, "digits_cnn", {})
    assert wrong == (
        "parallelism.pipeline",
        2,
        "must be 1: the model of digits_cnn is not divided so (that of text_transformer is)",
    )


def test_of_a_users_own_model_only_the_ranks_are_known() -> None:
    assert list(problems(Degrees(tensor=8), 8, None, {})) == []
    assert [each.path for each in problems(Degrees(tensor=8), 4, None, {})] == ["resources.workers"]
