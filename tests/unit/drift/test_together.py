"""Features and embeddings as a whole, in a watch: what is found that no feature shows, and what is not taken for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from orchestrator.core.retraining import Cause
from orchestrator.drift.batches import Batch, read_batch, write_batch
from orchestrator.drift.rows import LEAST_ROWS, MOST_CELLS, Layout, RowSample
from orchestrator.drift.sketches import REFERENCE_K, Coded, SketchError, TableSummary
from orchestrator.drift.together import TOGETHER, Multivariate, RowReference
from orchestrator.drift.verdicts import Policy
from orchestrator.drift.watch import Judged, Reference, Rules, Watch
from orchestrator.drift.watch_state import restored, saved
from orchestrator.drift.windows import Cut
from tests.unit.drift.streams import START, batch, columns, labels_of, reference

TESTS: tuple[Multivariate, ...] = ("classifier", "mmd")
NAMES = tuple(f"x{place}" for place in range(6))
CUT = Cut("count", 400)
LATER = START + 1e6


def numbers(rows: int, seed: int, correlation: float = 0.9) -> dict[str, Any]:
    made = np.random.default_rng(seed).normal(size=(rows, len(NAMES)))
    made[:, 1] = correlation * made[:, 0] + np.sqrt(1 - correlation**2) * made[:, 1]
    return dict(zip(NAMES, made.T.copy(), strict=True))


def known(rows: int = 1_200, seed: int = 99) -> Reference:
    made, table = numbers(rows, seed), TableSummary(k=REFERENCE_K)
    table.update(made)
    return Reference(1, table, rows=RowReference(Layout(NAMES), Layout(NAMES).coded(made, np.arange(rows))))


def given(made: dict[str, Any], vectors: dict[str, Any] | None = None) -> Batch:
    rows = len(next(iter(made.values())))
    return Batch(rows, made, START + np.arange(rows), vectors=vectors or {})


def feed(watched: Watch, *batches: Batch) -> list[Judged]:
    return [each for one in batches for each in watched.rows(one, LATER, LATER)]


def watch(test: Multivariate = "classifier", of: Reference | None = None, **rules: Any) -> Watch:
    return Watch.begin(of or known(), Rules(**{"cut": CUT, "multivariate": test, **rules}), START)


def together(judged: Judged) -> dict[str, Any]:
    return dict(judged.judgement.evidence["together"][0])


def test_a_lost_correlation_is_drift_in_words_though_no_feature_moved() -> None:
    parts = [given(numbers(400, seed, 0.9 if seed < 2 else -0.5)) for seed in range(5)]
    judged = feed(watch(), *parts)
    assert [each.judgement.status for each in judged] == ["stable", "stable", "suspected", "drift", "drift"]
    words = judged[-1].judgement.words
    assert "all features together: a classifier tells rows from the reference's, area under its curve 0." in words
    assert "correlation of x0 and x1 0.9" in words
    assert {each["feature"] for each in judged[-1].judgement.evidence["findings"]} == {TOGETHER}
    assert judged[-1].triggers[0].cause is Cause.DRIFT
    assert together(judged[-1])["p"] < 1e-6 < together(judged[0])["p"]


@pytest.mark.parametrize("test", TESTS)
def test_a_level_that_moved_in_all_features_is_found_by_either_test(test: Multivariate) -> None:
    judged = feed(watch(test), *(given({k: v + 0.4 for k, v in numbers(400, seed).items()}) for seed in range(2)))
    assert together(judged[-1])["p"] < 1e-6
    assert judged[-1].judgement.status == "drift"


def test_false_alarms_stay_below_their_rate_with_the_joint_test_among_the_features() -> None:
    """Nothing but chance decides: no effect is too small, and one window is enough."""
    policy = Policy(alpha=0.2, persistence=1, least_rows=200, least_effect=0.0, least_share=0.0)
    alarmed = 0
    for seed in range(40):
        watched = watch(of=known(600, 7_000 + seed), cut=Cut("count", 200), policy=policy)
        judged = feed(watched, *(given(numbers(200, 10_000 + 10 * seed + place)) for place in range(3)))
        assert all("p" in together(each) for each in judged)
        alarmed += any(each.judgement.status != "stable" for each in judged)
    assert alarmed <= 15  # 8 are expected at most; more than 15 have a probability of 0.004


def mixed_reference() -> Reference:
    made = columns(1_500, seed=98)
    names = ("height", "weight", "constant", "nothing", "colour")
    layout = Layout(names, {"colour": ("red", "green", "blue")})
    return replace(reference(), rows=RowReference(layout, layout.coded(made, np.arange(1_500))))


@pytest.mark.parametrize("test", TESTS)
def test_constant_and_empty_features_are_no_drift_as_a_whole(test: Multivariate) -> None:
    judged = feed(watch(test, mixed_reference()), *(batch(400, seed) for seed in range(4)))
    assert {each.judgement.status for each in judged} == {"stable"}
    assert all("p" in together(each) for each in judged)


@pytest.mark.parametrize("test", TESTS)
def test_broken_data_stay_a_data_fault_with_the_joint_tests_on(test: Multivariate) -> None:
    def poisoned(seed: int) -> Batch:
        made = batch(400, seed)
        made.columns["height"][::100] = 1e300  # type: ignore[index]
        return made

    def without(seed: int, name: str) -> Batch:
        made = batch(400, seed)
        return replace(made, columns={key: each for key, each in made.columns.items() if key != name})

    def with_texts(seed: int) -> Batch:
        made = batch(400, seed)
        return replace(made, columns={**made.columns, "height": ["tall"] * 400})

    def empty(seed: int) -> Batch:
        made = batch(400, seed)
        return replace(made, columns={**made.columns, "weight": np.full(400, np.nan)})

    for broken in (poisoned, lambda seed: without(seed, "weight"), with_texts, empty):
        judged = feed(watch(test, mixed_reference()), *(broken(seed) for seed in range(3)))  # type: ignore[operator]
        assert judged[-1].judgement.status == "data_fault"
        assert {each["nature"] for each in judged[-1].judgement.evidence["findings"]} == {"data"}
        assert all(each.broken_data for each in judged[-1].triggers)
    judged = feed(watch(test, mixed_reference()), without(0, "weight"))
    assert "without weight" in together(judged[0])["words"]


def test_what_cannot_be_compared_says_why() -> None:
    old = replace(known(), rows=None)
    assert "holds no rows" in together(feed(watch(of=old), given(numbers(400, 0)))[0])["words"]
    summary = TableSummary()
    summary.update(numbers(400, 0))
    (judged,) = watch().sketch(summary, START, START)
    assert "replicas send summaries" in together(judged)["words"]
    few = replace(known(), rows=RowReference(Layout(NAMES), known().rows.rows[:50]))  # type: ignore[union-attr]
    assert (
        f"50 rows of the reference are kept as rows, at least {LEAST_ROWS}"
        in together(feed(watch(of=few), given(numbers(400, 0)))[0])["words"]
    )
    assert "together" not in feed(watch("none"), given(numbers(400, 0)))[0].judgement.evidence


def test_a_watch_goes_on_from_its_state_with_the_rows_of_an_open_window() -> None:
    parts = [given(numbers(300, seed, 0.9 if seed < 3 else 0.0)) for seed in range(8)]
    whole, broken = watch(), watch()
    expected, found = feed(whole, *parts), []
    for part in parts:
        found += feed(broken, part)
        broken = restored(json.loads(json.dumps(saved(broken))), broken.reference, broken.rules)
    assert [together(each) for each in found] == [together(each) for each in expected]
    assert [each.judgement.status for each in found] == [each.judgement.status for each in expected]


def as_format_1(state: dict[str, Any]) -> dict[str, Any]:
    """As the version before this one wrote it."""
    windows = state["windows"]
    old = {name: each for name, each in state.items() if name not in ("format", "seasons", "embedded")}
    opened = [[number, window[:3]] for number, window in windows["open"]]
    return {**old, "windows": {**{k: v for k, v in windows.items() if k != "offered"}, "open": opened}}


def test_a_state_of_before_is_read_and_goes_on() -> None:
    watched = watch(of=mixed_reference())
    feed(watched, batch(300, 0, labelled=True))
    state = as_format_1(json.loads(json.dumps(saved(watched))))
    again = restored(state, watched.reference, watched.rules)
    judged = feed(again, batch(300, 1, labelled=True), batch(300, 2))
    assert [each.judgement.status for each in judged] == ["stable", "stable"]
    assert again.counts.labels == 600


def test_a_state_of_a_later_version_is_refused() -> None:
    state = {**saved(watch()), "format": 3}
    with pytest.raises(SketchError, match="has format 3, this version reads up to 2"):
        restored(state, known(), Rules(CUT))


@pytest.mark.parametrize("concept", ["page_hinkley", "adwin", "hddm_a"])
def test_each_detector_tells_of_more_errors_by_its_name_across_restarts(concept: Any) -> None:
    watched = watch("none", reference(), cut=Cut("count", 50_000), concept=concept)
    judged: list[Judged] = []
    for seed in range(10):
        wrong = 0.3 if seed > 5 else 0.0
        feed(watched, batch(500, seed, wrong=wrong))
        judged += watched.labels(labels_of(500, seed, wrong=wrong), LATER, LATER)
        watched = restored(json.loads(json.dumps(saved(watched))), watched.reference, watched.rules)
    (told,) = judged[:1]
    name = {"page_hinkley": "Page-Hinkley", "adwin": "ADWIN", "hddm_a": "HDDM-A"}[concept]
    assert f"(by {name})" in told.judgement.words
    assert told.judgement.evidence["alarm"]["detector"] == concept
    assert told.triggers[0].cause is Cause.PERFORMANCE
    assert 3_000 < told.judgement.evidence["alarm"]["item"] < 3_500


def embedded(rows: int, seed: int, moved: float = 0.0) -> Batch:
    generator = np.random.default_rng(seed)
    hidden = generator.normal(size=(rows, 5)) + moved
    vectors = (hidden @ np.random.default_rng(5).normal(size=(5, 200))).astype(np.float32)
    return read_batch(write_batch({**numbers(rows, seed), "last layer": vectors}), START)


def test_an_embedding_is_judged_against_the_first_ones_that_came() -> None:
    watched, judged = watch(embeddings=("last layer",)), []
    for seed in range(8):
        judged += feed(watched, embedded(400, seed, 0.5 if seed > 5 else 0.0))
        watched = restored(json.loads(json.dumps(saved(watched))), watched.reference, watched.rules)
    of = [each.judgement.evidence["together"][1] for each in judged]
    assert {each["of"] for each in of} == {"embedding last layer"}
    assert "the first 1,000 rows are learned, 800 of them were seen" in of[2]["words"]
    assert [each.judgement.status for each in judged] == ["stable"] * 6 + ["suspected", "drift"]
    assert "embedding last layer: a classifier tells rows" in judged[-1].judgement.words


def test_vectors_reach_nothing_but_what_asks_for_them() -> None:
    judged = feed(watch(), *(embedded(400, seed) for seed in range(2)))
    assert {each.judgement.status for each in judged} == {"stable"}
    assert {each["feature"] for each in judged[0].judgement.evidence["features"]} == set(NAMES)


def test_a_sample_is_bounded_uniform_and_the_same_for_the_same_rows() -> None:
    wide = Layout(tuple(f"c{place}" for place in range(200)))
    assert wide.rows * 200 <= MOST_CELLS
    one = Layout(("x",))

    def sampled() -> RowSample:
        sample = RowSample(300)
        for place in range(40):
            made = {"x": np.arange(250.0) + 250 * place}
            sample.update(one, made, 250, (1, 250 * place))
        return sample

    sample = sampled()
    assert (len(sample.rows), sample.offered) == (300, 10_000)
    assert sample.rows.mean() == pytest.approx(5_000, abs=600)
    assert len(np.unique(sample.rows)) == 300
    assert (sampled().rows == sample.rows).all()


def test_categories_are_coded_alike_however_they_were_sent() -> None:
    layout = Layout(("colour",), {"colour": ("red", "blue")})
    texts = ["blue", "red", None, "pink"]
    coded = Coded(np.array([1, 0, -1, 2]), ["red", "blue", "pink"])
    for column in (texts, coded, np.array(texts, dtype=object)):
        assert layout.coded({"colour": column}, np.arange(4))[:, 0].tolist() == pytest.approx(
            [1, 0, np.nan, -1], nan_ok=True
        )
    rows = layout.coded({"colour": texts}, np.arange(4))
    assert layout.described(rows).tolist() == pytest.approx(
        np.array([[0, 1], [1, 0], [np.nan] * 2, [0, 0]]), nan_ok=True
    )
    assert layout.names() == ["colour red", "colour blue"]
