"""A notice wakes whoever waits, and no change is missed between two looks."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from daemons.client.notice import Notice


async def test_every_waiter_hears_of_a_change(autojump_clock: MockClock) -> None:
    notice, heard = Notice(), list[int]()

    async def wait() -> None:
        heard.append(await notice.later_than(0))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not heard
        notice.tell()
    assert heard == [1, 1, 1]


async def test_a_change_before_the_wait_is_not_missed(autojump_clock: MockClock) -> None:
    notice = Notice()
    notice.tell()
    notice.tell()
    assert await notice.later_than(0) == 2
    assert await notice.later_than(1) == 2
    with trio.move_on_after(1) as scope:
        await notice.later_than(2)
    assert scope.cancelled_caught


async def test_a_cancelled_wait_leaves_the_others_alone(autojump_clock: MockClock) -> None:
    notice, heard = Notice(), list[int]()

    async def wait(seconds: float) -> None:
        with trio.move_on_after(seconds):
            heard.append(await notice.later_than(0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 10)
        await trio.sleep(2)
        notice.tell()
    assert heard == [1]
