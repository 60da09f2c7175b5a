"""A version that stands by serves once live labels show it better than the champion, and nothing is trained for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.control.recalls import Recalls
from orchestrator.control.wakeups import LocalWakeups
from orchestrator.core.aliases import CHAMPION
from orchestrator.core.records import AliasMove
from orchestrator.errors import Conflict
from tests.unit.control.watched import RETRAIN, RUN, Watching

RECALL = {"versions": 3, "rows": 40, "confidence": 0.9}
LABELS = [each % 2 for each in range(40)]
WRONG = [1 - each for each in LABELS]


class Following(Watching):
    """With three versions, of which the first serves."""

    async def begun(self, **retrain: Any) -> Following:
        await self.begin({"recall": RECALL} | retrain)
        for _ in range(2):
            await self.train(
                self.plane.submit("flights", **RUN, monitor={"retrain": RETRAIN | {"recall": RECALL} | retrain})
            )
        self.recalls = self.recalling()
        self.clock.forward(10)
        return self

    def recalling(self) -> Recalls:
        found = Recalls(self.store, self.promotions, self.observations, LocalWakeups())
        found.one_pass()
        return found

    def day(self, seq: int, answers: dict[int, Sequence[int]], *, champion: int = 1, rows: int = 40) -> None:
        """Rows that the champion answers, others beside it in shadow; then their labels."""
        requests = [f"{seq}-{each}" for each in range(rows)]
        for version, given in answers.items():
            columns: dict[str, Any] = {"(request)": requests, "(prediction)": list(given[:rows])}
            if version == champion:
                self.keep(10 * seq, "rows", rows, version, distance=[1.0] * rows, **columns)
            else:
                self.keep(10 * seq + version, "shadow", rows, version, **columns)
        self.keep(10 * seq + 9, "labels", rows, 0, **{"(request)": requests, "(label)": LABELS[:rows]})
        self.recalls.one_pass()

    @property
    def moves(self) -> list[AliasMove]:
        return self.store.alias_history("default", "flights", CHAMPION)


@pytest.fixture
async def following(tmp_path: Path) -> Following:
    return await Following(tmp_path).begun()


async def test_the_better_version_serves_with_the_reason_in_its_history(following: Following) -> None:
    following.day(1, {1: WRONG, 2: LABELS, 3: WRONG})
    move = following.moves[0]
    assert (move.version, move.before, move.by) == (2, 1, "recall")
    assert move.reason == (
        "version 2 serves in place of version 1: of the newest 40 labelled rows it alone had 40 right, the champion alone 0; "
        "of equals so many would be 9.1e-13 likely"
    )
    assert move.report == {}, "it rests on no proof"
    following.day(2, {2: WRONG, 1: LABELS}, champion=2)
    assert [each.version for each in following.moves] == [1, 2, 1]


async def test_nothing_moves_without_evidence_or_before_enough_labels(following: Following) -> None:
    following.day(1, {1: LABELS, 2: LABELS, 3: WRONG})
    following.day(2, {1: WRONG, 2: LABELS}, rows=39)
    assert following.moves[0].version == 1
    following.day(3, {1: WRONG, 2: LABELS}, rows=1)
    assert following.moves[0].version == 2


async def test_a_monitor_that_does_not_ask_for_it_recalls_nothing(tmp_path: Path) -> None:
    following = await Following(tmp_path).begun(recall=None)
    following.day(1, {1: WRONG, 2: LABELS})
    assert following.moves[0].version == 1


async def test_only_those_that_served_last_stand_by(tmp_path: Path) -> None:
    following = await Following(tmp_path).begun(recall=RECALL | {"versions": 2})
    following.day(1, {1: WRONG, 2: LABELS, 3: WRONG})
    assert following.moves[0].version == 1  # version 3 is newer, and two have room
    following.day(2, {1: WRONG, 3: LABELS})
    assert following.moves[0].version == 3


async def test_a_restart_goes_on_with_the_count(following: Following) -> None:
    following.day(1, {1: WRONG, 2: LABELS}, rows=30)
    following.recalls = following.recalling()
    following.day(2, {1: WRONG, 2: LABELS}, rows=9)
    assert following.moves[0].version == 1
    following.recalls = following.recalling()
    following.day(3, {1: WRONG, 2: LABELS}, rows=1)
    assert following.moves[0].version == 2


async def test_a_restart_repeats_no_comparison_and_joins_labels_that_were_awaited(following: Following) -> None:
    following.day(1, {1: LABELS, 2: LABELS}, rows=40)  # a comparison of equals
    awaited = {"(request)": [f"late-{each}" for each in range(40)]}
    following.keep(20, "rows", 40, 1, distance=[1.0] * 40, **{**awaited, "(prediction)": WRONG})
    following.keep(21, "shadow", 40, 2, **{**awaited, "(prediction)": LABELS})
    following.day(3, {1: LABELS, 2: LABELS}, rows=40)  # and another one, after these answers
    assert following.store.facts("default", "flights", 1)["recall"] == {"compared": 8}
    following.recalls = following.recalling()
    following.keep(40, "labels", 39, 0, **{"(request)": awaited["(request)"][:39], "(label)": LABELS[:39]})
    following.recalls.one_pass()
    assert following.moves[0].version == 1, "39 rows since the last comparison"
    following.keep(41, "labels", 1, 0, **{"(request)": awaited["(request)"][39:], "(label)": LABELS[39:]})
    following.recalls.one_pass()
    assert following.moves[0].version == 2


async def test_another_champion_begins_the_count_anew(following: Following) -> None:
    following.day(1, {1: WRONG, 2: LABELS}, rows=30)
    following.day(2, {1: LABELS, 2: LABELS}, rows=9)
    third = following.store.models("default", "flights")[0]
    following.promotions.promote(third, by="ada", reason="by hand", anyway=True)
    following.day(3, {3: WRONG, 2: LABELS}, champion=3, rows=30)
    assert following.moves[0].version == 3
    following.day(4, {3: WRONG, 2: LABELS}, champion=3, rows=10)
    assert following.moves[0].version == 2


async def test_a_champion_that_moved_meanwhile_is_left_where_it_stands(following: Following) -> None:
    second = following.store.models("default", "flights")[1]
    with pytest.raises(Conflict, match="champion of flights is version 1 by now, not 3: nothing was recalled"):
        following.promotions.recall(second, by="recall", reason="better", expected=3)
    assert following.moves[0].version == 1


async def test_answers_in_shadow_are_no_new_rows_to_train_on(following: Following) -> None:
    following.day(1, {1: LABELS, 2: LABELS, 3: LABELS})
    assert following.observations.rows("default", "flights") == 40
    record = following.drift()
    following.passes()
    assert following.now(record).data["rows"] == 40
