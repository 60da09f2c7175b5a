from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

from orchestrator.control.wakeups import LocalWakeups

FOREVER_S = 3600.0


async def next_wake(waiting: object) -> None:
    await asyncio.wait_for(anext(waiting), 20)  # type: ignore[call-overload]


def test_the_first_look_needs_no_notification() -> None:
    async def story() -> None:
        async with aclosing(LocalWakeups().wait("run:a", FOREVER_S)) as waiting:
            await next_wake(waiting)

    asyncio.run(story())


def test_a_notification_from_another_thread_wakes_at_once() -> None:
    async def story() -> None:
        wakeups = LocalWakeups()
        async with aclosing(wakeups.wait("run:a", FOREVER_S)) as waiting:
            await next_wake(waiting)
            threading.Thread(target=wakeups.notify, args=("run:a",)).start()
            await next_wake(waiting)

    asyncio.run(story())


def test_what_is_notified_while_the_waiter_works_is_not_lost() -> None:
    async def story() -> None:
        wakeups = LocalWakeups()
        async with aclosing(wakeups.wait("run:a", FOREVER_S)) as waiting:
            await next_wake(waiting)
            for _ in range(3):
                wakeups.notify("run:a")
            await asyncio.sleep(0)
            await next_wake(waiting)

    asyncio.run(story())


def test_a_timeout_wakes_too() -> None:
    async def story() -> None:
        async with aclosing(LocalWakeups().wait("run:a", 0.01)) as waiting:
            await next_wake(waiting)
            await next_wake(waiting)

    asyncio.run(story())


def test_another_topic_wakes_nobody() -> None:
    async def story() -> None:
        wakeups = LocalWakeups()
        async with aclosing(wakeups.wait("run:a", FOREVER_S)) as waiting:
            await next_wake(waiting)
            again = asyncio.ensure_future(anext(waiting))
            wakeups.notify("run:b")
            for _ in range(10):
                await asyncio.sleep(0)
            assert not again.done()
            wakeups.notify("run:a")
            await asyncio.wait_for(again, 20)

    asyncio.run(story())


def test_a_thousand_waiters_hold_no_thread_and_all_wake() -> None:
    async def story() -> None:
        wakeups, before = LocalWakeups(), threading.active_count()
        waiters = [wakeups.wait("run:a", FOREVER_S) for _ in range(1000)]
        for each in waiters:
            await anext(each)
        woken = [asyncio.ensure_future(anext(each)) for each in waiters]
        await asyncio.sleep(0)
        assert threading.active_count() <= before
        wakeups.notify("run:a")
        await asyncio.wait_for(asyncio.gather(*woken), 20)
        for each in waiters:
            await each.aclose()
        assert wakeups.waiting("run:a") == 0

    asyncio.run(story())


def test_a_waiter_that_was_closed_is_forgotten_even_after_its_loop() -> None:
    wakeups = LocalWakeups()

    async def leave_it_open() -> object:
        waiting = wakeups.wait("run:a", FOREVER_S)
        await anext(waiting)
        return waiting

    loop = asyncio.new_event_loop()
    kept = loop.run_until_complete(leave_it_open())
    loop.close()
    wakeups.notify("run:a")  # raises nothing
    assert kept is not None
