from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

from orchestrator.control.wakeups import LocalWakeups

FOREVER_S = 3600.0


class Waiter:
    """Counts how often it is woken."""

    def __init__(self, wakeups: LocalWakeups, timeout_s: float = FOREVER_S) -> None:
        self.wakes = 0
        self._wakeups, self._timeout_s = wakeups, timeout_s
        self._woken = asyncio.Event()

    async def __aenter__(self) -> Waiter:
        self._task = asyncio.create_task(self._wait())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def until(self, wakes: int) -> None:
        async with asyncio.timeout(20):
            while self.wakes < wakes:
                self._woken.clear()
                await self._woken.wait()

    async def _wait(self) -> None:
        async with aclosing(self._wakeups.wait("run:a", self._timeout_s)) as waiting:
            async for _ in waiting:
                self.wakes += 1
                self._woken.set()


async def idle() -> None:
    """Let every task go on as far as it can without anybody's help."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_the_first_look_needs_no_notification_and_the_second_does() -> None:
    async def story() -> int:
        async with Waiter(LocalWakeups()) as waiter:
            await waiter.until(1)
            await idle()
            return waiter.wakes

    assert asyncio.run(story()) == 1


def test_a_notification_from_another_thread_wakes_at_once() -> None:
    async def story() -> int:
        wakeups = LocalWakeups()
        async with Waiter(wakeups) as waiter:
            await waiter.until(1)
            threading.Thread(target=wakeups.notify, args=("run:a",)).start()
            await waiter.until(2)
            return waiter.wakes

    assert asyncio.run(story()) == 2


def test_what_is_notified_while_the_waiter_works_is_not_lost_and_counts_once() -> None:
    async def story() -> list[bool]:
        wakeups = LocalWakeups()
        async with aclosing(wakeups.wait("run:a", FOREVER_S)) as waiting:
            await anext(waiting)  # the waiter is at work from here on
            for _ in range(3):
                wakeups.notify("run:a")
            looks = [asyncio.ensure_future(anext(waiting))]
            await idle()
            if looks[0].done():
                looks.append(asyncio.ensure_future(anext(waiting)))
                await idle()
            done = [each.done() for each in looks]
            looks[-1].cancel()
            await asyncio.gather(*looks, return_exceptions=True)
            return done

    assert asyncio.run(story()) == [True, False]


def test_a_timeout_wakes_too() -> None:
    async def story() -> int:
        async with Waiter(LocalWakeups(), timeout_s=0.01) as waiter:
            await waiter.until(3)
            return waiter.wakes

    assert asyncio.run(story()) >= 3


def test_another_topic_wakes_nobody() -> None:
    async def story() -> list[int]:
        wakeups = LocalWakeups()
        async with Waiter(wakeups) as waiter:
            await waiter.until(1)
            wakeups.notify("run:b")
            await idle()
            wakes = [waiter.wakes]
            wakeups.notify("run:a")
            await waiter.until(2)
            return [*wakes, waiter.wakes]

    assert asyncio.run(story()) == [1, 2]


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
