"""Who is told of its turn in the line of those who fetch, at the moment when it comes."""

import trio
from trio.testing import MockClock

from daemons.client.rate_gate import RateGate
from daemons.client.upload_line import UploadLine
from interfiles.geometry import MIB
from interfiles.priority import Priority
from interfiles.swarm.upload_queue import HOLD_S, SentCounts

ALL = (1 << 8) - 1


def join(line: UploadLine, **priorities: Priority) -> None:
    """Downloads of one host that want everything."""
    for name, priority in priorities.items():
        line.join(name, SentCounts(8), MIB, host="one", priority=priority)
        line.ask(name, ALL)


async def test_who_gives_way_is_told_at_once_when_the_other_takes_all_back(autojump_clock: MockClock) -> None:
    line = UploadLine(RateGate(None))
    join(line, first="normal", heavy="high", last="normal")
    assert [line.next("first"), line.next("first")] == [0, None]
    assert [line.next("heavy"), line.next("heavy")] == [0, None]
    assert line.is_waiting("first")
    line.cancel("heavy", ALL)
    assert not line.is_waiting("first")
    assert line.next("first") == 1


async def test_who_gives_way_is_told_at_once_when_the_other_weighs_as_much(autojump_clock: MockClock) -> None:
    line = UploadLine(RateGate(None))
    join(line, low="low", high="high")
    assert [line.next("low"), line.next("low")] == [0, None]
    assert line.next("high") == 0
    assert line.is_waiting("low")
    line.prefer("high", "low")
    assert not line.is_waiting("low")


async def test_who_gives_way_to_one_that_takes_nothing_does_not_wait_for_long(autojump_clock: MockClock) -> None:
    line = UploadLine(RateGate(None))
    join(line, low="low", high="high")
    assert [line.next("low"), line.next("low"), line.next("high")] == [0, None, 0]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run)
        await trio.sleep(2 * HOLD_S + 0.01)
        assert not line.is_waiting("low")
        nursery.cancel_scope.cancel()
