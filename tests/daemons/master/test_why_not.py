"""A host that fails again and again, as people are shown it: in `hosts`, `ls`, `stat` and `events`, on the wire."""

import re
from dataclasses import dataclass, field

import trio
from trio.testing import MockClock

from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, holding, manifest

FILE = manifest().file_id
FULL = "the disk of /srv is full"


@dataclass
class Taker:
    """A host with much room whose disk is full for the first `declines` orders, and which obeys the others."""

    client: Client
    declines: int
    orders: list[m.Order] = field(default_factory=list)

    async def run(self) -> None:
        """Beat every ten seconds, and answer orders meanwhile."""
        while True:
            await self._beat()
            with trio.move_on_after(10):
                while True:
                    message, _ = await self.client.receive()
                    if isinstance(message, m.Order):
                        await self._answer(message)

    async def _answer(self, order: m.Order) -> None:
        self.orders.append(order)
        if len(self.orders) <= self.declines:
            await self.client.send(m.Declined(order.file_id, "no-space", FULL, 0.0, True))
        else:
            await self._beat(m.Holding(order.file_id, "fetching", 0, 0, 0, "", True))
            await self._beat(m.Holding(order.file_id, "complete", 2, 0, 0, "", True))

    async def _beat(self, *holdings: m.Holding) -> None:
        self.client.beats += 1
        await self.client.send(m.Heartbeat(self.client.beats, 0, 1 << 40, False, list(holdings)))


async def until_ordered(asker: Client, taker: Taker, count: int) -> None:
    """Beat until a host was given so many orders, and has answered the last of them."""
    with trio.fail_after(150):
        while len(taker.orders) < count:
            await asker.announce()
            await trio.sleep(1)
    await trio.sleep(5)  # it rests for as much less


async def shown(asker: Client) -> tuple[str, str, str]:
    """What `hosts` says of the host that fails, and `ls` and `stat` of the file."""
    (file,) = (await asker.files()).files
    holders = await asker.holders(FILE)
    assert (file.complete, file.under_way) == (holders.complete, holders.under_way)
    return (await asker.hosts())["taker"].note, file.why_not, holders.why_not


async def test_a_host_that_fails_twice_is_shown_as_such_until_it_has_completed_an_order(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    asker, taker = await fleet.join("asker"), Taker(await fleet.join("taker"), declines=2)
    await asker.publish(manifest(), replicas=2)
    await asker.announce(holding(FILE), replace=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(taker.run)
        await until_ordered(asker, taker, 1)
        note, *why = await shown(asker)
        assert re.fullmatch(r"it failed and is given no copies for 5[3-5] s", note)
        assert why == ["1 host with room failed lately; taker is tried again in " + note.rpartition("for ")[2]] * 2

        await until_ordered(asker, taker, 2)
        note, *why = await shown(asker)
        assert re.fullmatch(r"it failed 2 times and is given no copies for 1 min 5[3-5] s", note)
        assert why == ["1 host with room failed lately; taker is tried again in " + note.rpartition("for ")[2]] * 2
        assert (await asker.holders(FILE)).complete == 1

        await until_ordered(asker, taker, 3)
        assert await shown(asker) == ("", "", "")
        assert (await asker.holders(FILE)).complete == 2
        nursery.cancel_scope.cancel()
    told = [event for event in (await fleet.admin.events(last=256)).events if event.file and event.kind != "published"]
    ordered, failed = ("ordered", "2 copies are wanted"), ("failed", FULL)
    assert [(event.kind, event.reason) for event in told] == [
        ordered,
        failed,
        ordered,
        failed,
        ordered,
        ("complete", ""),
    ]
    assert {(event.host_name, event.file, event.file_name) for event in told} == {("taker", FILE.hex(), "weights")}
