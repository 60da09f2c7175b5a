"""When a challenger is better than the champion, and when it only looks so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from orchestrator.drift.proving import Judgement, Policy, ProofError, judge
from tests.proofs import fact, packed, part, right

USUAL = Policy()


def judged(found: dict[str, Any], policy: Policy = USUAL) -> Judgement:
    return judge(json.loads(json.dumps(found)), policy)


def refused(found: dict[str, Any], policy: Policy = USUAL) -> str:
    judgement = judged(found, policy)
    assert not judgement.promote
    assert judgement.words.startswith("not promoted")
    return judgement.words


def test_a_challenger_that_is_clearly_better_is_promoted_with_both_numbers_and_the_interval() -> None:
    champion = right(400, 0.8, 1)
    better = np.maximum(champion, right(400, 0.6, 2))

    judgement = judged(fact(part(champion, better)))

    assert judgement.promote
    assert judgement.words.startswith("better than version 3: accuracy 0.")
    gain = next(each for each in judgement.findings if each.what == "gain")
    assert gain.low is not None
    assert gain.high is not None
    assert 0 < gain.low < better.mean() - champion.mean() < gain.high
    assert json.loads(json.dumps(judgement.report()))["promote"] is True


def test_a_challenger_equal_to_the_champion_is_not_promoted() -> None:
    same = right(400, 0.9, 1)
    assert "there is no gain" in refused(fact(part(same, same)))


def test_a_challenger_that_only_differs_by_chance_is_promoted_as_seldom_as_the_level_says() -> None:
    promoted = [
        judged(fact(part(right(300, 0.9, seed), right(300, 0.9, 10_000 + seed)))).promote for seed in range(200)
    ]
    assert sum(promoted) <= 12  # 2.5 % of 200 are expected: 12 is three deviations above


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        champion, lucky = right(300, 0.8, seed), right(300, 0.5, 10_000 + seed)
        gain = judged(fact(part(champion, np.maximum(champion, lucky)))).findings[0]
        assert gain.low is not None
        assert gain.high is not None
        held += gain.low <= 0.1 <= gain.high  # a fifth is wrong, of which half is mended
    assert held >= 181  # 95 % are 190: 181 is three deviations below


def test_a_gain_below_the_margin_is_not_enough() -> None:
    champion = right(400, 0.8, 1)
    better = np.maximum(champion, right(400, 0.6, 2))
    assert "must lie above 0.2" in refused(fact(part(champion, better)), Policy(margin=0.2))


def test_a_slice_that_is_forgotten_holds_the_challenger_back_although_it_is_better_on_the_whole() -> None:
    labels = np.arange(600) % 3
    champion = right(600, 0.7, 1)
    better = np.where(labels == 2, right(600, 0.2, 2), 1.0)
    words = refused(fact(part(champion, better, labels)))
    assert "label 'owl' (recent) is worse" in words
    assert "'cat'" not in words


def test_a_slice_that_is_worse_by_chance_holds_nobody_back() -> None:
    labels = np.arange(600) % 3
    held_back = 0
    for seed in range(100):
        champion = right(600, 0.8, seed)
        better = np.where(labels == 0, right(600, 0.8, 10_000 + seed), 1.0)  # one slice as good as it was
        held_back += not judged(fact(part(champion, better, labels)), Policy(slice_loss=0.0)).promote
    assert held_back <= 12  # at most 5 %


def test_slices_with_few_rows_are_told_and_not_judged() -> None:
    labels = np.zeros(400)
    labels[:10] = 1
    champion = right(400, 0.7, 1)
    better = np.maximum(champion, right(400, 0.6, 2))
    better[:10] = 0
    judgement = judged(fact(part(champion, better, labels)))
    assert judgement.promote
    assert "1 more have too few rows to tell" in judgement.words


def test_what_was_known_of_the_old_data_must_not_be_lost() -> None:
    champion = right(400, 0.7, 1)
    better = np.maximum(champion, right(400, 0.6, 2))
    known = right(400, 0.95, 3)
    lost = part(known, known * right(400, 0.8, 4))
    words = refused(fact(part(champion, better), lost))
    assert "rows of the champion's own data, where a loss of 0.05 is allowed" in words
    assert judged(fact(part(champion, better), lost), Policy(reference_loss=None)).promote


def test_a_challenger_that_is_surer_than_right_is_held_back() -> None:
    champion = right(400, 0.7, 1)
    better = np.maximum(champion, right(400, 0.5, 2))
    sure = [np.full(400, champion.mean()), np.full(400, 0.999)]
    assert "calibration error 0.000 -> 0.1" in refused(fact(part(champion, better, sure=sure)))


def test_a_challenger_that_is_slow_is_held_back() -> None:
    champion = right(400, 0.7, 1)
    better = np.maximum(champion, right(400, 0.5, 2))
    slow = {"1": {"champion": 0.001, "challenger": 0.001}, "64": {"champion": 0.002, "challenger": 0.005}}
    words = refused(fact(part(champion, better), latency=slow))
    assert "latency 2 -> 5 ms for a batch of 64" in words
    assert judged(fact(part(champion, better), latency=slow), Policy(slower=3.0)).promote


def test_a_loss_is_better_when_it_falls_and_margins_are_shares_of_the_champions() -> None:
    generator = np.random.default_rng(0)
    before = generator.gamma(2.0, 10.0, 500)
    after = before * 0.9
    recent = part(before, after)
    recent["values"] = {"error": recent["values"]["accuracy"]}
    recent["slices"] = {}
    found = fact(recent, recent, modes={"error": "min"})
    assert judged(found, Policy(margin=0.05)).promote
    assert "there is no gain" not in refused(found, Policy(margin=0.2))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"problem": "not compared: its bucket is gone"}, "its bucket is gone"),
        ({"modes": {}}, "no metric was measured of both"),
        ({"latency": {}}, "its latency was not measured"),
    ],
)
def test_half_a_proof_promotes_nobody(changes: dict[str, Any], words: str) -> None:
    champion = right(400, 0.7, 1)
    assert words in refused(fact(part(champion, np.ones(400)), **changes))


@pytest.mark.parametrize("which", ["recent", "reference"])
def test_a_part_that_could_not_be_compared_promotes_nobody(which: str) -> None:
    champion = right(400, 0.7, 1)
    found = fact(part(champion, np.ones(400)))
    found["parts"][which] = {"source": "s3://gone", "of": 7, "problem": "there is no such bucket"}
    assert f"the {which} rows could not be compared: there is no such bucket" in refused(found)


def test_few_rows_promote_nobody() -> None:
    assert "only 50 recent rows" in refused(fact(part(np.zeros(50), np.ones(50))))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: found.update(format=2),
        lambda found: found.update(champion="x"),
        lambda found: found.pop("parts"),
        lambda found: found["parts"]["recent"].update(rows=10**9),
        lambda found: found["parts"]["recent"].update(rows=7),
        lambda found: found["parts"]["recent"]["values"]["accuracy"].update(champion="!"),
        lambda found: found["parts"]["recent"]["values"]["accuracy"].update(champion=packed(np.full(400, np.nan))),
        lambda found: found["parts"]["recent"]["slices"]["label"].update(words=[]),
        lambda found: found["latency"]["1"].update(champion=0),
        lambda found: found.update(latency=[]),
    ],
)
def test_a_fact_that_no_rank_wrote_is_refused(spoil: Any) -> None:
    found = fact(part(np.zeros(400), np.ones(400)))
    spoil(found)
    with pytest.raises(ProofError):
        judge(found, Policy())


def test_the_same_fact_and_seed_give_the_same_judgement() -> None:
    found = fact(part(right(400, 0.8, 1), right(400, 0.85, 2)))
    assert judge(found, Policy(), 5) == judge(found, Policy(), 5)
