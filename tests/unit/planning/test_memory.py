"""What a rank holds, by part. That real ranks hold as much: tests/integration/trainers/test_planned_memory.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.planning.memory import Memory, Setting, memory_per_rank
from trainers.layout import Layout
from trainers.shapes import BY_TENSOR, Layer, ModelShape, Rows, Tensor

MIB = 2**20
# 64 Mi elements in blocks that everything divides, 8 Mi before and 8 Mi after them.
SHAPE = ModelShape(
    (
        Layer("first", (Tensor(8 * MIB),), saved=1024, output=1024),
        Layer("block", (Tensor(8 * MIB, BY_TENSOR),), saved=8192, saved_split=4096, output=1024, count=8),
        Layer("last", (Tensor(8 * MIB),), saved_fp32=1024, output=1024),
    ),
    blocks=8,
    context=64,
)
N = 80 * MIB
SETTING = Setting(micro_batch=4)


def of(layout: Layout, setting: Setting = SETTING) -> Memory:
    return memory_per_rank(SHAPE, layout, setting)


@pytest.mark.parametrize(
    ("layout", "precision", "parameters", "gradients", "optimizer"),
    [
        (Layout(workers=4), "fp32", 4 * N, 4 * N, 8 * N),
        (Layout(workers=4, zero=1), "fp32", 4 * N, 4 * N, 12 * N / 4),
        (Layout(workers=4, zero=2), "fp32", 4 * N, 4 * 24 * MIB, 12 * N / 4),
        (Layout(workers=4, zero=3), "fp32", 4 * N / 4, 4 * N / 4, 12 * N / 4),
        (Layout(workers=4), "bf16", 2 * N, 2 * N, 12 * N),
        (Layout(workers=4, zero=1), "bf16", 2 * N, 2 * N, 12 * N / 4),
        (Layout(workers=4, zero=2), "bf16", 2 * N, 2 * 24 * MIB, 12 * N / 4),
        (Layout(workers=4, zero=3), "bf16", 2 * N / 4, 2 * N / 4, 12 * N / 4),
        (Layout(workers=4, tensor=2), "fp32", 4 * 48 * MIB, 4 * 48 * MIB, 8 * 48 * MIB),
        (Layout(workers=4, zero=3, tensor=2), "fp32", 4 * 24 * MIB, 4 * 24 * MIB, 12 * 24 * MIB),
        (
            Layout(workers=4, zero=2, sequence=4),
            "fp32",
            4 * N,
            4 * 24 * MIB,
            12 * N / 4,
        ),  # ZeRO divides over those, too
        (Layout(workers=4, pipeline=4), "fp32", 4 * 24 * MIB, 4 * 24 * MIB, 8 * 24 * MIB),  # two blocks and an end
    ],
)
def test_model_state_is_divided_as_the_layout_says(
    layout: Layout, precision: str, parameters: float, gradients: float, optimizer: float
) -> None:
    memory = of(layout, replace(SETTING, precision=precision))  # type: ignore[arg-type]
    assert (memory.parameters, memory.gradients, memory.optimizer) == (parameters, gradients, optimizer)
    assert memory.model_state == parameters + gradients + optimizer


def test_experts_are_divided_and_then_what_zero_leaves() -> None:
    shape = ModelShape(
        (Layer("experts", (Tensor(8 * MIB, frozenset(("expert",)), number=8), Tensor(8 * MIB))),), experts=8
    )
    memory = memory_per_rank(shape, Layout(workers=4, zero=1, expert=2), SETTING)
    assert memory.parameters == 4 * (32 + 8) * MIB
    assert memory.optimizer == 12 * (32 / 2 + 8 / 4) * MIB


@pytest.mark.parametrize("zero", range(4))
def test_rows_are_dealt_out_over_all_workers_whatever_the_layout(zero: int) -> None:
    with_rows = replace(SHAPE, rows=Rows(1001, 33))
    more = memory_per_rank(with_rows, Layout(workers=4, zero=zero), SETTING)
    plain = of(Layout(workers=4, zero=zero))
    assert more.parameters - plain.parameters == 4 * 251 * 33
    assert more.optimizer - plain.optimizer == 4 * 251
    assert more.gradients == plain.gradients


def test_what_is_kept_once_does_not_grow_with_the_micro_batch() -> None:
    once = replace(SHAPE, layers=(replace(SHAPE.layers[0], saved_once=500), *SHAPE.layers[1:]))
    for size in (1, 64):
        setting = replace(SETTING, micro_batch=size)
        more = memory_per_rank(once, Layout(workers=1), setting).activations
        assert more - of(Layout(workers=1), setting).activations == 4 * 500


@pytest.mark.parametrize(
    ("optimizer", "momentum", "bytes_each"), [("adam", 0.9, 8), ("sgd", 0.9, 4), ("sgd", 0.0, 0), ("lion", 0.9, 4)]
)
def test_optimizers_differ_in_what_they_keep(optimizer: str, momentum: float, bytes_each: int) -> None:
    assert of(Layout(workers=2), replace(SETTING, optimizer=optimizer, momentum=momentum)).optimizer == bytes_each * N


def test_activations_follow_the_micro_batch_and_what_divides_them() -> None:
    one = 4 * (1024 + 8 * 8192) + 4 * 1024
    assert of(Layout(workers=1)).activations == 4 * one
    assert of(Layout(workers=1), replace(SETTING, micro_batch=8)).activations == 8 * one
    assert of(Layout(workers=2, tensor=2)).activations == 4 * (4 * (1024 + 8 * 6144) + 4 * 1024)
    assert of(Layout(workers=2, sequence=2)).activations == 4 * one // 2
    half = of(Layout(workers=1), replace(SETTING, precision="bf16")).activations
    assert half == 4 * (2 * (1024 + 8 * 8192) + 4 * 1024)  # what the loss is computed from stays fp32


def test_checkpointing_keeps_what_layers_hand_on_and_one_layer() -> None:
    memory = of(Layout(workers=1), replace(SETTING, activation_checkpointing=True))
    assert memory.activations == 4 * (4 * 10 * 1024 + 4 * 8192)


def test_a_pipeline_has_several_micro_batches_under_way() -> None:
    def first_stage(accumulation: int) -> int:
        return of(Layout(workers=2, pipeline=2), replace(SETTING, accumulation=accumulation)).activations

    assert first_stage(8) == 2 * first_stage(1)


def test_accumulation_costs_zero_2_a_second_share_of_gradients() -> None:
    assert of(Layout(workers=4, zero=2), replace(SETTING, accumulation=2)).gradients == 2 * 4 * 24 * MIB


@pytest.mark.parametrize(("ranks", "blocks"), [(1, 10), (2, 5), (5, 2), (4, 3), (3, 4), (10, 1), (20, 1), (4096, 1)])
def test_zero_2_keeps_whole_gradients_of_what_reaches_beyond_a_ranks_part(ranks: int, blocks: int) -> None:
    """Of ten parameters alike: a third is three and a third of the fourth, so in the middle parts of four are kept."""
    assert of(Layout(workers=ranks, zero=2)).gradients == 4 * blocks * 8 * MIB


def test_a_rank_that_shares_with_nobody_holds_nothing_twice() -> None:
    kept = replace(SETTING, zero={"stage3_param_persistence_threshold": 8 * MIB})
    assert of(Layout(workers=1, zero=3), kept).parameters == 4 * N
    assert of(Layout(workers=2, zero=3, tensor=2), kept).parameters == 4 * 48 * MIB


def test_zero_3_keeps_small_parameters_and_gathers_the_large_ones() -> None:
    kept = replace(SETTING, zero={"stage3_param_persistence_threshold": 8 * MIB})
    assert of(Layout(workers=4, zero=3), kept).parameters == 4 * (N / 4 + N)
    busy = replace(SETTING, micro_batch=1000)  # more in the backward pass than at the step
    far, near = (
        of(Layout(workers=4, zero=3), replace(busy, zero={"stage3_max_reuse_distance": reach, **NO_PREFETCH}))
        for reach in (10**9, 0)
    )
    assert far.buffers - near.buffers == 4 * (N - 8 * MIB)


NO_PREFETCH = {"stage3_prefetch_bucket_size": 0}


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_an_accelerator_pays_for_a_whole_bucket_and_a_host_for_what_is_written(zero: int) -> None:
    setting = replace(SETTING, micro_batch=1000, zero=NO_PREFETCH | {"stage3_max_reuse_distance": 0})
    host, device = (of(Layout(workers=4, zero=zero), replace(setting, device=each)) for each in ("cpu", "gpu"))  # type: ignore[arg-type]
    assert device.buffers - host.buffers == 4 * (500_000_000 - N)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_an_offloaded_optimizer_is_its_hosts(zero: int) -> None:
    offload = {"offload_optimizer": {"device": "cpu"}}
    device = replace(SETTING, device="gpu", precision="bf16")  # type: ignore[arg-type]
    plain, offloaded = (of(Layout(workers=4, zero=zero), replace(device, zero=each)) for each in ({}, offload))
    assert plain.host == 0
    assert offloaded.host >= 12 * N / 4
    assert offloaded.model_state < plain.model_state
    on_disk = of(Layout(workers=4, zero=zero), replace(device, zero={"offload_optimizer": {"device": "nvme"}}))
    assert on_disk.host == offloaded.host - 12 * N / 4


def test_without_an_accelerator_offloading_moves_nothing_away() -> None:
    offload = {"offload_optimizer": {"device": "cpu"}}
    plain, offloaded = (of(Layout(workers=4, zero=2), replace(SETTING, zero=each)) for each in ({}, offload))
    assert offloaded.host == 0
    assert offloaded.total >= plain.total


def test_offloaded_parameters_leave_the_device() -> None:
    device = replace(SETTING, device="gpu", precision="bf16")  # type: ignore[arg-type]
    offloaded = of(Layout(workers=4, zero=3), replace(device, zero={"offload_param": {"device": "cpu"}}))
    assert offloaded.parameters == 0
    assert offloaded.host == 2 * N / 4


def test_the_total_is_the_sum_of_the_parts() -> None:
    memory = of(Layout(workers=4, zero=2))
    parts = (memory.parameters, memory.gradients, memory.optimizer, memory.activations, memory.buffers, memory.runtime)
    assert memory.total == sum(parts)


def test_a_model_of_a_million_layers_is_reckoned_as_one_of_them() -> None:
    deep = replace(SHAPE, layers=(replace(SHAPE.layers[1], count=2**20),), blocks=2**20)
    assert memory_per_rank(deep, Layout(workers=2), SETTING).parameters == 4 * 2**20 * 8 * MIB
