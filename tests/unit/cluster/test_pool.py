"""Which idle gang an attempt gets, and for which one that is coming it waits."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.cluster.pool import Pool
from orchestrator.cluster.ray_cluster import Gang, Shape

ONE, TWO = (Shape((("node-1", "10.0.0.1", cpus, 0.0, 0),)) for cpus in (1.0, 2.0))
MINE, OTHERS = ("run-1", 1), ("run-2", 1)
NO_CLUSTER: Any = None  # nothing here is removed
NO_GROUP: Any = None


def gang(name: str, shape: Shape = TWO) -> Gang:
    return Gang(name, shape, NO_GROUP, (), ())


def pool_of(*idle: tuple[Gang, tuple[str, int] | None]) -> Pool:
    pool = Pool(NO_CLUSTER)
    for each, ready in idle:
        pool.put(each, ready)
    return pool


def taken(found: Gang | None) -> str:
    return "none" if found is None else found.id


async def test_an_attempt_gets_the_gang_in_which_its_ranks_wait_and_no_other_gets_that() -> None:
    pool = pool_of((gang("mine"), MINE), (gang("others"), OTHERS))
    assert pool.waits_for(MINE)
    assert taken(await pool.take_held(TWO, MINE)) == "mine"
    assert not pool.waits_for(MINE)
    assert await pool.take_held(TWO, MINE) is None


async def test_an_attempt_without_one_gets_a_plain_one_then_anothers() -> None:
    pool = pool_of((gang("plain"), None), (gang("others"), OTHERS), (gang("narrow", ONE), None))
    assert [taken(await pool.take(TWO)) for _ in range(2)] == ["plain", "others"]
    assert await pool.take(TWO) is None


async def test_what_is_ready_for_another_shape_is_of_no_use() -> None:
    assert await pool_of((gang("narrow", ONE), MINE)).take_held(TWO, MINE) is None


async def test_who_gets_ready_takes_only_what_is_ready_for_nobody() -> None:
    pool = pool_of((gang("others"), OTHERS), (gang("plain"), None))
    assert taken(await pool.take_idle(TWO)) == "plain"
    assert await pool.take_idle(TWO) is None
    assert pool.take_ready(ONE, OTHERS) is None
    assert taken(pool.take_ready(TWO, OTHERS)) == "others"


async def test_an_attempt_waits_for_the_gang_that_gets_ready_for_it_even_where_another_idles() -> None:
    pool = pool_of((gang("plain"), None))
    with pool.clearing_up(TWO, MINE):
        assert pool.waits_for(MINE)
        taking = asyncio.create_task(pool.take_held(TWO, MINE))
        assert await pool.take_held(TWO, OTHERS) is None
        await asyncio.sleep(0)
        assert not taking.done()
        pool.put(gang("mine"), MINE)
    assert taken(await taking) == "mine"


async def test_a_gang_that_is_cleared_up_is_waited_for_where_none_idles() -> None:
    pool = pool_of()
    with pool.clearing_up(TWO):
        taking = [asyncio.create_task(each) for each in (pool.take(TWO), pool.take_idle(ONE))]
        await asyncio.sleep(0)
        pool.put(gang("back"))
    assert [taken(await each) for each in taking] == ["back", "none"]
