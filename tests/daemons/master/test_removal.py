"""A host that is removed is out at once, here and at every host, and its place is free."""

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import NotAdmitted, PeerGone
from interfiles.units import DAY
from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet, SlowExecutor, holding, manifest

REMOVED = "this host is not of this fleet, or was removed from it; join it anew with a token"


async def revoked(client: Client) -> list[m.Revoked]:
    """All that has come of them, with this answer."""
    await client.announce()
    return client.told(m.Revoked)


class TestTheHost:
    async def test_it_is_cut_off_in_words_and_not_let_in_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, watcher = await fleet.join("render"), await fleet.join("watcher")
        report = await fleet.admin.remove_host("render")
        assert (report.name, report.host) == ("render", host.host_id)
        with pytest.raises(NotAdmitted, match=REMOVED):
            await host.expect(m.Handout)
        with pytest.raises(PeerGone):
            await host.receive()
        with pytest.raises(NotAdmitted, match=REMOVED):
            await fleet.rejoin(host)
        assert list(await watcher.hosts()) == ["watcher"]

    async def test_its_name_is_free_and_it_joins_anew_as_another(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        await fleet.admin.remove_host(host.host_id[:6])
        again = await fleet.join("render")
        assert (again.name, again.role) == ("render", "host")
        assert again.host_id != host.host_id
        with pytest.raises(NotAdmitted, match=REMOVED):
            await fleet.dial(host.credentials)

    async def test_it_does_not_register_if_it_is_removed_after_its_greeting(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host = await fleet.enrol("render")
        await fleet.admin.remove_host("render")
        with pytest.raises(NotAdmitted, match=REMOVED):
            await host.register()

    async def test_it_does_not_register_if_it_is_removed_meanwhile(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        await fleet.stop()
        fleet.executor = lambda _: SlowExecutor()
        await fleet.start()
        host, watcher = await fleet.enrol("render"), await fleet.join("watcher")
        outcomes: list[str] = []

        async def register() -> None:
            try:
                await host.register()
                outcomes.append("registered")
                await host.expect(m.Handout)
            except NotAdmitted as e:
                outcomes.append(str(e))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(register)
            nursery.start_soon(fleet.admin.remove_host, "render")
        assert REMOVED in outcomes[-1]
        assert list(await watcher.hosts()) == ["watcher"]

    async def test_what_it_held_is_not_counted_any_more(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, watcher = await fleet.join("render"), await fleet.join("watcher")
        published = manifest()
        await host.publish(published)
        await watcher.announce(holding(published.file_id, "fetching", 0))
        assert [peer.name for peer in (await watcher.handout()).peers] == ["render"]
        await fleet.admin.remove_host("render")
        assert (await watcher.handout()).peers == []
        page = await watcher.holders(published.file_id)
        assert [row.name for row in page.holders] == ["watcher"]


class TestTheOthers:
    async def test_every_host_that_is_up_is_told_at_once(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, *others = [await fleet.join(name) for name in ("render", "a", "b")]
        began = trio.current_time()
        await fleet.admin.remove_host("render")
        for other in others:
            assert await revoked(other) == [m.Revoked(True, []), m.Revoked(False, [host.host_id])]
        assert trio.current_time() - began < 1

    async def test_who_registers_is_told_of_all_before_anything_else(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        gone = [await fleet.join(name) for name in ("a", "b", "c")]
        for host in gone:
            await fleet.admin.remove_host(host.name)
        new = await fleet.enrol("new")
        await new.register()
        kinds = [type((await new.receive())[0]) for _ in range(2)]
        assert kinds == [m.Authorities, m.Revoked]
        later = await fleet.join("later")
        assert await revoked(later) == [m.Revoked(True, sorted(host.host_id for host in gone))]

    async def test_a_restarted_master_knows_them(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, other = await fleet.join("render"), await fleet.join("other")
        await fleet.admin.remove_host("render")
        await fleet.crash()
        await fleet.start()
        with pytest.raises(NotAdmitted, match=REMOVED):
            await fleet.dial(host.credentials)
        assert await revoked(await fleet.rejoin(other)) == [m.Revoked(True, [host.host_id])]

    @pytest.mark.parametrize(("count", "pages"), [(512, [512]), (513, [512, 1]), (1030, [512, 512, 6])])
    async def test_very_many_come_in_pages(
        self, fleet: Fleet, autojump_clock: MockClock, count: int, pages: list[int]
    ) -> None:
        await fleet.stop()
        ids = [f"{number:032x}" for number in range(count)]
        with fleet.catalogue() as catalogue, catalogue._database.transaction():
            for host_id in ids:
                catalogue._database.rows("INSERT INTO revoked VALUES (?, 'name', ?)", host_id, fleet.now() + DAY)
        await fleet.start()
        told = await revoked(await fleet.join("new"))
        assert [len(message.hosts) for message in told] == pages
        assert [message.replace for message in told] == [True] + [False] * (len(pages) - 1)
        assert [host_id for message in told for host_id in message.hosts] == ids

    async def test_those_whose_certificates_are_over_are_not_told_of_for_ever(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        early, other, late = [await fleet.join(name) for name in ("early", "other", "late")]
        await fleet.admin.remove_host("early")
        fleet.ahead_s += 32 * DAY
        await other.renew()
        await fleet.admin.remove_host("late")
        assert await revoked(await fleet.rejoin(other)) == [m.Revoked(True, [late.host_id])]
        with pytest.raises(NotAdmitted, match=REMOVED):
            await fleet.dial(early.credentials)
