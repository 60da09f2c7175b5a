"""The order of the examples, and who computes which."""

from __future__ import annotations

import tracemalloc
from math import gcd
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.config import Train, plan_batch
from trainers.data.loader import Loader, Tensors
from trainers.data.sampler import Permutations, Sampler, shuffled
from trainers.data.sources import read_labelled, read_text, split_indices
from trainers.errors import BadConfig
from trainers.layout import BatchPlan
from trainers.tasks.language_modelling import Windows

CPU = torch.device("cpu")


def loader(world_size: int, rank: int, *, global_batch: int = 12, micro_batch: int | None = None) -> Loader:
    plan = plan_batch(Train(global_batch=global_batch, micro_batch=micro_batch), world_size)
    return Loader(plan, rank, CPU, torch.float32)


def numbers(size: int) -> Tensors:
    return Tensors({"n": torch.arange(size), "x": torch.arange(size).float()})


@given(st.integers(1, 500), st.integers(0, 2**63))
def test_a_shuffle_is_a_permutation(size: int, seed: int) -> None:
    assert sorted(shuffled(size, seed)) == list(range(size))


def test_the_order_is_the_same_in_every_version() -> None:
    # Fixed for ever: another order would make the checkpoints of older versions resume over other samples.
    assert shuffled(8, 1).tolist() == [2, 4, 7, 0, 6, 5, 3, 1]
    assert Sampler(8, 4, 3).stream(0, 16).tolist() == [3, 2, 6, 1, 4, 0, 5, 7, 4, 3, 7, 5, 1, 2, 0, 6]
    assert Sampler(10**9, 128, 3).batch(10**9 + 6)[:3].tolist() == [649166338, 100947478, 801584159]
    assert Sampler(8, 4, 3).keys(4).tolist() == [
        -41515858474078655,
        -840727573498715400,
        579758482527327118,
        -8403795781967151753,
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("micro_batch", [None, 1, 2])
def test_the_order_does_not_depend_on_the_world_size(world_size: int, micro_batch: int | None) -> None:
    sampler = Sampler(size=50, global_batch=12, seed=5)
    for consumed in range(0, 12 * 10, 12):
        parts = [
            batch
            for rank in range(world_size)
            for batch in loader(world_size, rank, micro_batch=micro_batch).training(numbers(50), sampler, consumed)
        ]
        assert torch.cat([each["n"] for each in parts]).tolist() == sampler.batch(consumed).tolist()
        assert torch.cat([each["keys"] for each in parts]).tolist() == sampler.keys(consumed).tolist()


@settings(max_examples=40, deadline=None)
@given(
    size=st.integers(12, 60),
    global_batch=st.sampled_from([1, 2, 6, 12]),
    seed=st.integers(0, 2**32 - 1),
    incarnations=st.lists(st.tuples(st.sampled_from([1, 2, 3, 6]), st.integers(1, 9)), min_size=1, max_size=5),
)
def test_over_an_epoch_every_sample_is_seen_once_across_restarts_and_world_sizes(
    size: int, global_batch: int, seed: int, incarnations: list[tuple[int, int]]
) -> None:
    seen: list[int] = []
    consumed, epochs = 0, 2
    total_steps = Sampler(size, global_batch, seed).steps_of(epochs)
    for world_size, steps in [*incarnations, (1, total_steps)]:
        sampler = Sampler(size, global_batch, seed)
        consumed = sampler.resume(Sampler(size, global_batch, seed).cursor(consumed))
        world_size = gcd(world_size, global_batch)  # so many can share the batch
        ranks = [loader(world_size, rank, global_batch=global_batch) for rank in range(world_size)]
        for _ in range(steps):
            for rank in ranks:
                seen += [int(n) for batch in rank.training(numbers(size), sampler, consumed) for n in batch["n"]]
            consumed += global_batch
    for epoch in range(epochs):
        assert sorted(seen[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_end_with_the_step_that_consumes_their_last_sample() -> None:
    sampler = Sampler(size=50, global_batch=12, seed=5)
    ends = [step for step in range(1, 14) if sampler.ends_epoch(step * 12)]
    assert ends == [5, 9, 13] == [sampler.steps_of(epochs) for epochs in (1, 2, 3)]
    assert sampler.steps_per_epoch == 5
    assert [sampler.epoch_of(each) for each in (0, 49, 50, 99, 100)] == [0, 0, 1, 1, 2]


def test_epochs_have_different_orders() -> None:
    sampler = Sampler(size=1000, global_batch=10, seed=5)
    first, second = sampler.stream(0, 1000), sampler.stream(1000, 1000)
    assert (first == second).sum() < 10
    assert (first == np.arange(1000)).sum() < 10


@given(size=st.integers(1, 2**62), seed=st.integers(0, 2**64 - 1), epoch=st.integers(0, 2**20), data=st.data())
def test_permutations_of_any_size_map_places_to_different_numbers(
    size: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    count = min(size, 50)
    start = data.draw(st.integers(0, size - count))
    places = np.arange(start, start + count, dtype=np.uint64)
    found = Permutations(size, seed).at(np.full(count, epoch, dtype=np.uint64), places)
    assert len(set(found.tolist())) == count
    assert int(found.max()) < size


def test_every_permutation_of_five_is_about_equally_likely() -> None:
    which = np.repeat(np.arange(12_000, dtype=np.uint64), 5)
    orders = Permutations(5, seed=1).at(which, np.tile(np.arange(5, dtype=np.uint64), 12_000)).reshape(-1, 5)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 120
    assert ((counts - 100) ** 2 / 100).sum() < 189  # chi-squared with 119 degrees of freedom: 0.9999 of all seeds


def test_a_billion_samples_take_no_memory_for_their_order() -> None:
    tracemalloc.start()
    sampler = Sampler(size=10**9 + 7, global_batch=128, seed=0)
    batch = sampler.batch(sampler.resume(sampler.cursor(10**9)))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(batch.tolist())) == 128
    assert peak_bytes < 4 * 2**20


def test_a_new_sampler_goes_on_from_the_cursor() -> None:
    sampler = Sampler(size=50, global_batch=12, seed=5)
    resumed = Sampler(size=50, global_batch=12, seed=5)
    consumed = resumed.resume(sampler.cursor(84))
    assert resumed.batch(consumed).tolist() == sampler.batch(84).tolist()


@pytest.mark.parametrize(
    ("other", "path"),
    [
        (Sampler(51, 12, 5), "data.source"),
        (Sampler(50, 6, 5), "train.global_batch"),
        (Sampler(50, 12, 6), "train.seed"),
    ],
)
def test_a_cursor_over_another_order_is_refused(other: Sampler, path: str) -> None:
    with pytest.raises(BadConfig) as refused:
        other.resume(Sampler(size=50, global_batch=12, seed=5).cursor(12))
    assert refused.value.path == path


def test_a_cursor_of_a_version_with_another_order_is_refused() -> None:
    sampler = Sampler(size=50, global_batch=12, seed=5)
    with pytest.raises(BadConfig, match="another order of the data"):
        sampler.resume({"samples": 12, "size": 50, "global_batch": 12, "seed": 5})


def test_less_data_than_one_batch_is_refused() -> None:
    with pytest.raises(BadConfig, match="must not exceed the 11 training examples"):
        Sampler(size=11, global_batch=12, seed=0)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [1, 11, 12, 13, 40])
def test_evaluation_counts_every_example_once(world_size: int, size: int) -> None:
    counts = torch.zeros(size)
    batches_of_ranks = []
    for rank in range(world_size):
        batches = list(loader(world_size, rank).evaluation(numbers(size)))
        batches_of_ranks.append(len(batches))
        for batch in batches:
            counts.index_add_(0, batch["n"], batch["weight"])
    assert counts.tolist() == [1.0] * size
    assert len(set(batches_of_ranks)) == 1  # each is a collective under ZeRO-3


def test_inputs_take_the_precision_and_labels_keep_theirs() -> None:
    half = Loader(BatchPlan(4, 4, 1, 1), 0, CPU, torch.bfloat16)
    batch = next(half.evaluation(numbers(4)))
    assert (batch["x"].dtype, batch["n"].dtype, batch["weight"].dtype) == (torch.bfloat16, torch.int64, torch.float32)


def test_random_numbers_between_batches_belong_to_the_samples() -> None:
    sampler = Sampler(size=50, global_batch=12, seed=5)

    def draw(consumed: int) -> float:
        next(loader(1, 0).training(numbers(50), sampler, consumed))
        return float(torch.rand(()))

    first, second = draw(12), draw(24)
    assert draw(12) == first != second


def test_splits_are_disjoint_complete_and_constant() -> None:
    parts = split_indices(1797, (0.70, 0.15, 0.15))
    assert [len(each) for each in parts] == [1258, 269, 270]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))
    assert all((one == other).all() for one, other in zip(parts, split_indices(1797, (0.70, 0.15, 0.15)), strict=True))


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits

    ours, theirs = read_labelled("sklearn://digits"), load_digits()
    assert np.array_equal(ours.inputs * 16, theirs.images)
    assert np.array_equal(ours.targets, theirs.target)


def test_npz_files_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "some.npz", x=np.ones((5, 4, 4)), y=np.arange(5))
    read = read_labelled(f"file://{tmp_path / 'some.npz'}")
    assert read.inputs.shape == (5, 4, 4)
    assert read.targets.tolist() == [0, 1, 2, 3, 4]


def test_text_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("grüße\n", encoding="utf-8")
    assert read_text(str(tmp_path / "some.txt")) == "grüße\n"
    assert len(read_text("text://pydoc_topics")) > 400_000


def bad_sources(directory: Path) -> dict[str, str]:
    np.savez(directory / "names.npz", a=np.ones(3))
    np.savez(directory / "lengths.npz", x=np.ones((3, 2)), y=np.ones(4))
    np.savez(directory / "pickle.npz", x=np.array([{}], dtype=object), y=np.ones(1))
    (directory / "torn.npz").write_bytes(b"PK\x03\x04 and no more")
    return {
        "s3://bucket/some.npz": "must be sklearn://digits",
        "/nowhere/some.npz": "no such file",
        "some.csv": "must be sklearn://digits or a .npz file",
        str(directory / "names.npz"): "with the arrays x and y",
        str(directory / "lengths.npz"): "must have one first dimension",
        str(directory / "pickle.npz"): "allow_pickle=False",
        str(directory / "torn.npz"): "must be a .npz file",
    }


def test_a_bad_source_is_told_with_its_path_value_and_remedy(tmp_path: Path) -> None:
    for source, words in bad_sources(tmp_path).items():
        with pytest.raises(BadConfig) as refused:
            read_labelled(source)
        assert str(refused.value).startswith(f"data.source: got '{source}'")
        assert words in str(refused.value)


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="must be a UTF-8 text file"):
        read_text(str(tmp_path / "some.txt"))


def test_windows_cover_the_text_and_share_one_token() -> None:
    windows = Windows(torch.arange(10), context=3)
    assert len(windows) == 3
    assert windows.take(np.array([0, 2]))["tokens"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert len(Windows(torch.arange(0), context=3)) == 0
