"""A host that fails again and again, as people are shown it: in `hosts`, `ls`, `stat` and `events`, on the wire."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import trio
from trio.testing import MockClock

from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, holding, manifest

FILE = manifest("a").file_id
FULL = "the disk of /srv is full"
TRIED_AGAIN = "1 host with room failed lately; taker is tried again in"


@dataclass
class Taker:
    """A host with much room whose disk is full for the orders of these numbers, and which obeys the others."""

    client: Client
    declines: set[int]
    orders: list[m.Order] = field(default_factory=list)
    coming: list[m.Order] = field(default_factory=list)

    async def run(self) -> None:
        """Beat every ten seconds, and answer orders meanwhile; what comes is complete with the next beat."""
        while True:
            await self._beat(*[m.Holding(order.file_id, "complete", 2, 0, 0, "", True) for order in self.coming])
            self.coming.clear()
            with trio.move_on_after(10):
                while True:
                    message, _ = await self.client.receive()
                    if isinstance(message, m.Order):
                        await self._answer(message)

    async def _answer(self, order: m.Order) -> None:
        self.orders.append(order)
        if len(self.orders) in self.declines:
            await self.client.send(m.Declined(order.file_id, "no-space", FULL, 0.0, True))
        else:
            self.coming.append(order)
            await self._beat(m.Holding(order.file_id, "fetching", 0, 0, 0, "", True))

    async def _beat(self, *holdings: m.Holding) -> None:
        self.client.beats += 1
        await self.client.send(m.Heartbeat(self.client.beats, 0, 1 << 40, False, list(holdings)))


async def until(asker: Client, is_so: Callable[[], Awaitable[bool]]) -> None:
    """Beat until something is so."""
    with trio.fail_after(150):
        while not await is_so():
            await asker.announce()
            await trio.sleep(1)


async def until_ordered(asker: Client, taker: Taker, count: int) -> None:
    """Beat until a host was given so many orders, and has answered the last of them."""

    async def is_ordered() -> bool:
        return len(taker.orders) >= count

    await until(asker, is_ordered)
    await trio.sleep(5)  # it rests for as much less


async def until_complete(asker: Client, file_id: bytes) -> None:
    """Beat until a file has both its copies."""

    async def is_complete() -> bool:
        return (await asker.holders(file_id)).complete == 2

    await until(asker, is_complete)
    await trio.sleep(1)  # it is looked at


async def note(asker: Client) -> str:
    """What `hosts` says of the host that fails."""
    return (await asker.hosts())["taker"].note


async def why_not(asker: Client) -> list[str]:
    """What `ls` and `stat` say of the first file."""
    (file, *_), holders = (await asker.files()).files, await asker.holders(FILE)
    assert (file.info.file_id, file.complete, file.under_way) == (FILE, holders.complete, holders.under_way)
    return [file.why_not, holders.why_not]


async def test_a_host_that_fails_again_and_again_is_shown_as_such_until_it_completes_an_order(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    asker, taker = await fleet.join("asker"), Taker(await fleet.join("taker"), {1, 2, 4})
    await asker.publish(manifest("a"), replicas=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.run)
        await until_ordered(asker, taker, 1)
        failed = await note(asker)
        assert re.fullmatch(r"it failed and is given no copies for 5[3-5] s", failed)
        assert await why_not(asker) == [f"{TRIED_AGAIN} {failed.rpartition('for ')[2]}"] * 2

        await until_ordered(asker, taker, 2)
        failed = await note(asker)
        assert re.fullmatch(r"it failed 2 times and is given no copies for 1 min 5[3-5] s", failed)
        assert await why_not(asker) == [f"{TRIED_AGAIN} {failed.rpartition('for ')[2]}"] * 2

        await until_ordered(asker, taker, 3)
        await until_complete(asker, FILE)
        assert (await note(asker), await why_not(asker)) == ("", ["", ""])
        await asker.publish(manifest("b", seed=1), replicas=2)
        await until_ordered(asker, taker, 4)
        assert re.fullmatch(r"it failed and is given no copies for 5[3-5] s", await note(asker)), "it is counted anew"
        nursery.cancel_scope.cancel()
    told = [event for event in (await fleet.admin.events(last=256)).events if event.file_name == "a"]
    why = "2 copies are wanted, 1 is there"
    ordered, declined, complete = ("ordered", why), ("failed", FULL), ("complete", "")
    assert [(event.kind, event.reason) for event in told[1:]] == [*[ordered, declined] * 2, ordered, complete]
    assert {(event.host_name, event.file) for event in told[1:]} == {("taker", FILE.hex())}


async def test_a_host_that_completes_an_order_rests_no_more(fleet: Fleet, autojump_clock: MockClock) -> None:
    asker, taker = await fleet.join("asker"), Taker(await fleet.join("taker"), {1})
    for number, name in enumerate("ab"):
        await asker.publish(manifest(name, seed=number), replicas=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.run)
        await until_ordered(asker, taker, 2)
        assert re.fullmatch(r"it failed and is given no copies for 5[3-5] s", await note(asker))
        await until_complete(asker, taker.orders[1].file_id)
        assert await note(asker) == ""
        nursery.cancel_scope.cancel()


async def test_a_file_that_was_published_a_moment_ago_is_said_to_be_next(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    asker = await fleet.join("asker")
    await asker.publish(manifest("a"), replicas=2)
    assert re.fullmatch(r"no other host could hold one \(1 live host, .*\)", (await asker.holders(FILE)).why_not)
    taker = Taker(await fleet.join("taker"), set())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.run)
        assert await why_not(asker) == ["the next one waits for its turn", "the next one is about to be ordered"]
        await until_complete(asker, FILE)
        assert await why_not(asker) == ["", ""]
        nursery.cancel_scope.cancel()


async def test_a_file_whose_holder_is_not_back_since_the_master_started_is_not_said_to_be_nowhere(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    holder, asker = await fleet.join("holder"), await fleet.join("asker")
    await holder.publish(manifest("a"), replicas=1)
    await holder.announce(holding(FILE))
    await fleet.stop()
    await fleet.start()
    asker = await fleet.rejoin(asker)
    for _ in range(30):  # longer than the grace time
        await asker.announce()
        await trio.sleep(5)
    why = "no host has all of it; holder has not said what is there since the master started"
    assert await why_not(asker) == [why, why]
    await fleet.rejoin(holder, holdings=[holding(FILE)])
    assert await why_not(asker) == ["", ""]


async def test_a_host_without_room_is_shown_as_such(fleet: Fleet, autojump_clock: MockClock) -> None:
    full = await fleet.join("full")
    await full.send(m.Heartbeat(full.beats + 1, 100, 0, False, []))
    await trio.sleep(1)
    why = "it has no room for copies; its client's --quota and --keep-free say how much there may be"
    assert (await full.hosts())["full"].note == why
