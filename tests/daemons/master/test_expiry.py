"""Files whose time is over leave the fleet, and only these."""

import trio
from trio.testing import MockClock

from interfiles.manifest import Manifest
from interfiles.wire import master_messages as m
from interfiles.wire.admin_reports import EventReport
from tests.daemons.master.scripted import Client, Fleet, SlowExecutor, manifest


async def publish(client: Client, file: Manifest, expires_at: int) -> None:
    def make(number: int) -> m.Publish:
        return m.Publish(number, file.file_id, 1_700_000_000, 1, expires_at, False)

    await client.ask(m.Published, make, file.encode())


async def test_a_file_that_is_given_more_time_while_others_are_removed_stays(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    """The master looks up what has expired, and removes one file after another, a second each."""
    await fleet.stop()
    fleet.executor = lambda _: SlowExecutor()
    await fleet.start()
    client = await fleet.join("a")
    files = {file.file_id.hex(): file for file in (manifest(f"f{number}", seed=number) for number in range(12))}
    over_at = int(fleet.now()) + 100
    for file in files.values():
        await publish(client, file, over_at)

    async def expired() -> list[EventReport]:
        await client.announce()
        return [event for event in (await fleet.admin.events(last=50)).events if event.kind == "expired"]

    with trio.fail_after(120):
        while True:
            if told := await expired():
                break
            await trio.sleep(0.1)
    left = files.keys() - {event.file for event in told}
    late = files[max(left)]
    await publish(client, late, over_at + 100_000)
    await trio.sleep(25)
    assert {event.file for event in await expired()} == files.keys() - {late.file_id.hex()}
    with fleet.catalogue() as catalogue:
        assert catalogue.names(list(map(bytes.fromhex, files))) == {late.file_id: late.name}
