"""Whether a retraining could come to anything: rows that a proof needs, by what is held out."""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.core.prospects import Proof, held_out_share
from trainers.data.preparing.splitting import assign

SPLIT = (0.7, 0.15, 0.15)


@pytest.mark.parametrize("strata", [1, 2, 10])
def test_so_many_rows_hold_enough_out_however_classes_fall_and_a_tenth_less_do_not(strata: int) -> None:
    """As the ranks split them."""
    generator = np.random.default_rng(3)
    proof = Proof(100, held_out_share(SPLIT), strata)

    def held_out(rows: int) -> int:
        classes = generator.choice(strata, rows, p=generator.dirichlet(np.ones(strata))).astype(np.uint64)
        return int((assign(generator.random(rows), classes, SPLIT) == 2).sum())

    assert min(held_out(proof.rows_needed) for _ in range(200)) >= 100
    assert max(held_out(int(proof.rows_needed * 0.9)) for _ in range(20)) < 100
    assert not proof.lacking(proof.rows_needed)
    assert proof.lacking(proof.rows_needed - 1)


def test_the_proof_is_of_the_test_part_or_of_validation_where_there_is_none() -> None:
    assert [held_out_share(split) for split in (SPLIT, (0.8, 0.2, 0.0), (1.0, 0.0, 0.0))] == [0.15, 0.2, 0.0]


def test_what_is_lacking_is_told_in_numbers_and_with_where_they_are_set() -> None:
    assert Proof(100, 0.15).doubts(300) == (
        "; what it makes could only be promoted by hand: of 300 rows about 45 would be held out for the proof (data.split), "
        "which needs 100 (monitor.promote.minimum): 667 rows are needed"
    )
    assert Proof(100, 0.15, reference_rows=100).doubts(667) == ""
    assert "the champion's own data have 85 rows held out" in Proof(100, 0.15, reference_rows=85).doubts(10_000)
