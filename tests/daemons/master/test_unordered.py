"""What one host says of copies that nobody ordered of it, or does not say at all, is no harm to others."""

import trio
from trio.testing import MockClock

from interfiles.placement.event_limit import MAX_EVENTS_A_MINUTE
from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, holding, manifest

FILE = manifest().file_id


async def note_orders(client: Client, orders: list[m.Order]) -> None:
    """Be a host with much room that beats every ten seconds, and does nothing else."""
    while True:
        with trio.move_on_after(10):
            while True:
                message, _ = await client.receive()
                if isinstance(message, m.Order):
                    orders.append(message)
        client.beats += 1
        await client.send(m.Heartbeat(client.beats, 0, 1 << 40, False, []))


async def test_one_host_that_fetches_many_files_does_not_keep_others_from_being_copied(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    client, liar, other = await fleet.join("a"), await fleet.join("liar"), await fleet.join("other")
    files = [manifest(f"f{number}", seed=number + 1) for number in range(40)]
    for file in files:
        await client.publish(file, replicas=2)
    await liar.announce(*[m.Holding(file.file_id, "fetching", 0, 0, 0, "", True) for file in files])
    await trio.sleep(5)
    await client.publish(manifest(), replicas=2)
    orders: list[m.Order] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(note_orders, other, orders)
        nursery.start_soon(note_orders, client, [])
        nursery.start_soon(note_orders, liar, [])
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert FILE in {order.file_id for order in orders}


async def test_a_new_host_that_says_nothing_does_not_hold_up_orders(fleet: Fleet, autojump_clock: MockClock) -> None:
    client, other = await fleet.join("a"), await fleet.join("b")
    await trio.sleep(5)
    mute = await fleet.enrol("mute")
    await mute.register()
    await client.publish(manifest(), replicas=2)
    await client.announce(holding(FILE), replace=True)
    other.beats += 1
    await other.send(m.Heartbeat(other.beats, 0, 1 << 40, False, []))
    with trio.fail_after(5):
        await other.next(m.Order)


async def test_what_was_not_ordered_of_a_host_it_cannot_decline(fleet: Fleet, autojump_clock: MockClock) -> None:
    client, liar = await fleet.join("a"), await fleet.join("liar")
    await client.publish(manifest(), replicas=3)
    await client.announce(holding(FILE), replace=True)
    await trio.sleep(1)
    for _ in range(50):
        await liar.send(m.Declined(FILE, "refused", "no", 0.0, False))
    await trio.sleep(1)
    assert "failed" not in {event.kind for event in (await fleet.admin.events(last=256)).events}


async def test_a_host_whose_files_go_bad_again_and_again_does_not_fill_the_events(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    liar = await fleet.join("liar")
    for _ in range(20):
        await liar.announce(*[holding(bytes([number]) * 32, "damaged") for number in range(100)])
        await liar.announce(*[holding(bytes([number]) * 32, "complete") for number in range(100)])
    await trio.sleep(20)
    await liar.announce()
    await trio.sleep(45)
    told = [event for event in (await fleet.admin.events(last=256)).events if event.kind == "corrupt"]
    assert len(told) == MAX_EVENTS_A_MINUTE + 1
    assert (told[-1].host_name, told[-1].file, told[-1].reason) == ("liar", "", "and 1,940 files more within a minute")
