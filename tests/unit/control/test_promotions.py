"""Which version serves: by proof, by hand, and back again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.control.ancestry import ancestry
from orchestrator.control.promotions import Promotions, policy_of
from orchestrator.core.records import ModelVersion
from orchestrator.errors import Conflict, NotFound, Refused
from orchestrator.ports import Change
from orchestrator.spec.monitor import Promote
from orchestrator.store import MemoryStore
from tests import builders, proofs


class Clock:
    def now(self) -> float:
        return 50.0

    def monotonic_ns(self) -> int:
        return 0


@dataclass
class Registry:
    """Versions of one model, registered one after another."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        self.promotions = Promotions(self.store, Clock())

    def register(self, fact: Mapping[str, Any] | None = None, **spec: Any) -> ModelVersion:
        number = len(self.store.models("default", "digits")) + 1
        submission = builders.submission(run_id=f"run-{number:010d}", name="digits", spec=spec)
        (answer,) = self.store.submit([submission])
        facts = {"proof": fact} if fact is not None else {}
        draft = ModelVersion("default", "digits", 0, answer.run.id, f"/seal-{number}", {"test_accuracy": 0.9}, 1.0)
        self.store.apply([Change(answer.run, model=draft, facts=facts)])
        return self.store.models("default", "digits")[0]

    def promote(self, version: ModelVersion, **how: Any) -> None:
        self.promotions.promote(version, by="ann", **how)

    def roll_back(self, **how: Any) -> None:
        self.promotions.roll_back("default", "digits", **{"by": "ann", "reason": "it lied", **how})

    @property
    def champion(self) -> int:
        return self.store.standing("default", "champion").get("digits", 0)


@pytest.fixture
def registry() -> Registry:
    return Registry()


def test_where_nothing_serves_any_version_may(registry: Registry) -> None:
    registry.promote(registry.register())

    (move,) = registry.store.alias_history("default", "digits")
    assert (move.version, move.before, move.by, move.at) == (1, 0, "ann", 50.0)
    assert move.reason == "nothing stood there before"


def test_a_proven_challenger_takes_the_champions_place_and_the_history_keeps_the_judgement(registry: Registry) -> None:
    registry.promote(registry.register())
    registry.promote(registry.register(proofs.better(champion=1)), reason="retrained")

    newest = registry.store.alias_history("default", "digits")[0]
    assert registry.champion == 2
    assert newest.reason.startswith("retrained; better than version 1: accuracy 0.")
    assert newest.report["promote"] is True
    assert [each["what"] for each in newest.report["findings"]] == [
        "gain",
        "reference",
        "slice",
        "calibration",
        "latency",
    ]


@pytest.mark.parametrize(
    ("proof", "words"),
    [
        (proofs.equal(champion=1), "digits@2 is not promoted over version 1: .* there is no gain"),
        (proofs.better(champion=7), "proven against version 7, and 1 stands there by now"),
        ({"format": 1, "champion": 1, "problem": "not compared: the bucket is gone"}, "the bucket is gone"),
        ({"format": 9, "champion": 1}, "the proof has format 9"),
        (None, "nothing is proven against version 1"),
    ],
)
def test_without_a_proof_that_holds_nothing_is_promoted(
    registry: Registry, proof: Mapping[str, Any] | None, words: str
) -> None:
    registry.promote(registry.register())
    challenger = registry.register(proof)

    with pytest.raises(Refused, match=words):
        registry.promote(challenger)
    with pytest.raises(Refused, match="needs a reason"):
        registry.promote(challenger, anyway=True)
    assert registry.champion == 1

    registry.promote(challenger, anyway=True, reason="the old one must go")
    assert registry.champion == 2
    reason = registry.store.alias_history("default", "digits")[0].reason
    assert reason.startswith("the old one must go, in spite of its proof: not promoted")


def test_a_promotion_repeated_is_one_promotion(registry: Registry) -> None:
    registry.promote(registry.register())
    challenger = registry.register(proofs.better(champion=1))
    registry.promote(challenger)
    registry.promote(challenger)
    assert len(registry.store.alias_history("default", "digits")) == 2


def test_rollbacks_go_back_one_version_at_a_time_and_no_further_than_the_first(registry: Registry) -> None:
    for _ in range(3):
        registry.promote(registry.register(), anyway=True, reason="by hand")
    registry.roll_back()
    assert registry.champion == 2
    registry.roll_back()
    assert registry.champion == 1
    with pytest.raises(Refused, match="stood on none before"):
        registry.roll_back()
    assert registry.store.alias_history("default", "digits")[0].reason == "version 2 taken back: it lied"


def test_an_alias_that_never_stood_cannot_be_rolled_back(registry: Registry) -> None:
    registry.register()
    with pytest.raises(NotFound, match="evertrain model history digits"):
        registry.roll_back()


def test_a_rollback_of_a_version_that_serves_no_more_does_nothing(registry: Registry) -> None:
    for _ in range(3):
        registry.promote(registry.register(), anyway=True, reason="by hand")
    with pytest.raises(Conflict, match="version 3 by now, not 2"):
        registry.roll_back(expected=2)
    assert registry.champion == 3


def test_a_version_that_was_taken_back_returns_by_hand_only(registry: Registry) -> None:
    registry.promote(registry.register())
    challenger = registry.register(proofs.better(champion=1))
    registry.promote(challenger)
    registry.roll_back()

    with pytest.raises(Refused, match="digits@2 was champion before and was taken back"):
        registry.promote(challenger)
    registry.promote(challenger, anyway=True, reason="its feed is mended")
    assert registry.champion == 2


class Racing(MemoryStore):
    """Somebody else rolls back between a promotion's judgement and its move."""

    racing = False

    def facts(self, project: str, name: str, version: int) -> Mapping[str, Any]:
        found = super().facts(project, name, version)
        if self.racing:
            Promotions(self, Clock()).roll_back(project, name, by="bob", reason="it lied")
        return found


def test_a_promotion_that_a_rollback_overtook_is_told_so_and_changes_nothing() -> None:
    store = Racing()
    registry = Registry(store)
    for _ in range(2):
        registry.promote(registry.register(), anyway=True, reason="by hand")
    challenger = registry.register(proofs.better(champion=2))
    store.racing = True

    with pytest.raises(Conflict, match="has moved from version 2 meanwhile"):
        registry.promote(challenger)
    assert registry.champion == 1


def test_what_a_run_file_asks_of_a_promotion_is_what_the_judge_holds_it_to() -> None:
    policy = policy_of(Promote(metric="loss", margin=0.01, slice_loss=None, slower=2.0, minimum=30))
    assert (policy.metric, policy.margin, policy.slice_loss, policy.slower) == ("loss", 0.01, None, 2.0)
    assert (policy.least_rows, policy.reference_loss, policy.confidence) == (30, 0.05, 0.95)


def test_a_lineage_goes_back_to_random_numbers(registry: Registry) -> None:
    registry.register(data={"source": "sklearn://digits"})
    begun = {"model": "digits@champion", "checkpoint": "/seal-1"}
    registry.register(data={"source": "/new.parquet"}, init_from=begun, proof={"champion": 1})
    newest = registry.register(
        data={"source": "/newer.parquet"}, init_from={"model": "digits@2", "checkpoint": "/seal-2"}
    )

    found = ancestry(registry.store, newest)

    assert [(each.version.version, each.data, each.weights, each.champion) for each in found] == [
        (3, "/newer.parquet", "digits@2", 0),
        (2, "/new.parquet", "digits@champion", 1),
        (1, "sklearn://digits", "", 0),
    ]


def test_a_scripts_version_says_why_nothing_is_proven_of_it(registry: Registry) -> None:
    registry.promote(registry.register())
    with pytest.raises(Refused, match="of a script, whose model nobody else can ask about the same rows"):
        registry.promote(registry.register(script="train.py"))
