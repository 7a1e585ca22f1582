"""What one host says of copies that nobody ordered of it, or does not say at all, is no harm to others."""

import trio
from trio.testing import MockClock

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
