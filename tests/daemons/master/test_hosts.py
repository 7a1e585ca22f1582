"""Hosts join, register, report and leave."""

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from daemons.master import fleet as serving
from daemons.master.handouts import SHORTEST_COALESCE_S
from interfiles.errors import NoSpace, PeerGone, Refused, RemoteProtocolError, UsageError
from interfiles.placement.zones import GATEWAYS
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.master.scripted import MASTER, Client, Fleet, holding, manifest, peers


class TestJoining:
    async def test_the_printed_line_lets_a_host_in(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        assert fleet.token.masters == (f"{MASTER}:4850",)
        client = await fleet.join("render-01", zone="rack-a")
        assert len(client.host_id) == 32
        assert client.registered == m.Registered("render-01", "10.0.0.2:4851", 10.0, 3)
        row = (await client.hosts())["render-01"]
        assert (row.zone, row.address, row.state, row.used, row.free) == ("rack-a", "10.0.0.2:4851", "live", 100, 900)

    async def test_two_hosts_of_one_name_get_two(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        assert [(await fleet.join("render")).name for _ in range(3)] == ["render", "render-2", "render-3"]


class TestRegistration:
    async def test_a_host_comes_back_by_its_certificate(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        first = await fleet.join("render")
        first.close()
        again = await fleet.rejoin(first)
        assert again.name == "render"
        assert list(await again.hosts()) == ["render"]

    async def test_a_host_may_say_where_it_is_reached_and_where_it_stands(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.enrol("render")
        await client.register(name="other", zone="rack-b", advertise="files.example.net:9000")
        row = (await client.hosts())["other"]
        assert (row.address, row.zone) == ("files.example.net:9000", "rack-b")

    @pytest.mark.parametrize(
        ("advertise", "port", "complaint"),
        [
            ("a:99999", 4851, "port 99999 in 'a:99999' is over 65535"),
            ("", 0, "nobody can dial port 0 of 10.0.0.2"),
            ("0.0.0.0:4851", 4851, "nobody can dial 0.0.0.0:4851; name this host's own address"),
        ],
    )
    async def test_an_address_that_nobody_could_dial_is_refused(
        self, fleet: Fleet, autojump_clock: MockClock, advertise: str, port: int, complaint: str
    ) -> None:
        client = await fleet.enrol("render")
        with pytest.raises(UsageError, match=complaint):
            await client.register(advertise=advertise, port=port)

    async def test_a_newer_connection_replaces_the_older_one(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        older = await fleet.join("render")
        newer = await fleet.rejoin(older)
        with pytest.raises(
            Refused, match=r"render connected anew from 10\.0\.0\.3:4851; if its state directory was copied"
        ):
            await older.receive()
        assert (await newer.hosts())["render"].state == "live"

    async def test_whoever_neither_enrols_nor_registers_is_cut_off(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client = await fleet.dial()
        with trio.fail_after(11), pytest.raises(PeerGone):
            await client.receive()


class TestHeartbeats:
    async def test_a_silent_host_is_suspect_then_cut_off_then_gone(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        silent, watcher = await fleet.join("silent"), await fleet.join("watcher")
        seen = {}
        for _ in range(14):
            await trio.sleep(10)
            await watcher.announce()
            row = (await watcher.hosts())["silent"]
            seen[round(row.last_seen_s)] = row.state
        assert [seconds for seconds, state in seen.items() if state == "live"] == [10, 20]
        assert [seconds for seconds, state in seen.items() if state == "suspect"] == list(range(30, 130, 10))
        assert [seconds for seconds, state in seen.items() if state == "gone"] == [130, 140]
        with pytest.raises(PeerGone):
            await silent.receive()

    async def test_a_silent_host_is_cut_off_after_three_heartbeats(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        silent = await fleet.join("silent")
        began = trio.current_time()
        with pytest.raises(PeerGone):
            await silent.receive()
        assert trio.current_time() - began == pytest.approx(31, abs=1.01)  # it is looked for every two seconds

    async def test_while_the_masters_disk_is_slow_the_silent_are_cut_off_and_those_who_wait_are_not(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, silent, stored = await fleet.join("host"), await fleet.join("silent"), serving.Fleet.stored

        async def slowly(*args: Any, **kwargs: Any) -> Any:
            await trio.sleep(60)
            return await stored(*args, **kwargs)

        monkeypatch.setattr(serving.Fleet, "stored", slowly)
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host.announce, holding(b"f" * 32))
            with pytest.raises(PeerGone):
                await silent.receive()
            assert trio.current_time() - began == pytest.approx(31, abs=1.01)
        assert trio.current_time() - began == 60

    async def test_a_host_whose_connection_breaks_is_suspect_at_once(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host, watcher = await fleet.join("host"), await fleet.join("watcher")
        host.close()
        await trio.testing.wait_all_tasks_blocked()
        assert (await watcher.hosts())["host"].state == "suspect"
        await fleet.rejoin(host)
        assert (await watcher.hosts())["host"].state == "live"

    async def test_a_shorter_grace_time_asks_for_more_heartbeats(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        await fleet.stop()
        fleet.grace_s = 6.0
        await fleet.start()
        client = await fleet.join("render")
        assert client.registered is not None
        assert client.registered.heartbeat_s == 1.0

    async def test_more_holdings_than_allowed_end_the_connection(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("interfiles.placement.registry.MAX_HOLDINGS", 2)
        client = await fleet.join("greedy")
        with pytest.raises(RemoteProtocolError, match="greedy announces more than 2 files"):
            await client.announce(*(holding(bytes([number]) * 32) for number in range(3)))

    async def test_a_restarted_master_learns_everything_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, gone = await fleet.join("host"), await fleet.join("gone")
        published = manifest()
        await host.publish(published)
        await host.announce(holding(published.file_id))
        await trio.sleep(70)  # when it was seen last is written down once a minute
        await fleet.crash()
        await fleet.start()
        assert "2 hosts belong to it" in fleet.said[-1]
        host = await fleet.rejoin(host, holdings=[holding(published.file_id)])
        page = await host.holders(published.file_id)
        assert (page.complete, page.info.name) == (1, "weights")
        rows = await host.hosts()
        assert rows["gone"].state in ("suspect", "gone")
        assert rows["gone"].last_seen_s == pytest.approx(70, abs=30)
        assert gone.name in rows

    async def test_a_full_disk_does_not_stop_the_master(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log_records: LogRecords
    ) -> None:
        def full(*_: object) -> None:
            raise NoSpace("the catalogue cannot be written: its disk is full; free some room")

        host = await fleet.join("host")
        monkeypatch.setattr("interfiles.storage.members.Members.touch", full)
        for _ in range(8):
            await trio.sleep(10)
            await host.announce()
        warnings = [record["event"] for record in log_records.records if record["level"] == "warning"]
        assert warnings == ["cannot write down when hosts were seen"]

    async def test_a_failing_disk_is_told_to_whoever_would_join(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise NoSpace("the catalogue cannot be written: its disk is full; free some room")

        monkeypatch.setattr("interfiles.storage.members.Members.enrol", full)
        with pytest.raises(NoSpace, match="its disk is full"):
            await fleet.enrol("host")


async def last_told(fetchers: list[Client]) -> dict[str, m.Handout]:
    """What each was handed out last."""
    await trio.sleep(1)
    for fetcher in fetchers:
        await fetcher.announce()
    return {fetcher.host_id: fetcher.told(m.Handout)[-1] for fetcher in fetchers}


class TestHandouts:
    async def test_whoever_fetches_is_told_of_the_others_as_they_come_and_go(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        await fetcher.announce(holding(file_id, "waiting", 0))
        handout = await fetcher.handout()
        assert peers(handout) == {"seeder": True}
        assert (handout.file_id, handout.peers[0].address) == (file_id, "10.0.0.2:4851")
        other = await fleet.join("other")
        await other.announce(holding(file_id, "fetching", 1))
        assert peers(await fetcher.handout()) == {"seeder": True, "other": False}
        assert peers(await other.handout()) == {"seeder": True, "fetcher": False}
        await other.announce(holding(file_id, "complete"))
        assert peers(await fetcher.handout()) == {"seeder": True, "other": True}
        seeder.close()
        assert peers(await fetcher.handout()) == {"other": True}

    async def test_a_few_of_each_zone_are_told_of_other_zones_and_all_who_these_are(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        file_id = manifest().file_id
        seeder = await fleet.join("seeder", zone="a")
        await seeder.announce(holding(file_id))
        fetchers = [await fleet.join(f"fetcher-{number}", zone="b") for number in range(6)]
        for fetcher in fetchers:
            await fetcher.announce(holding(file_id, "waiting", 0))
        told = await last_told(fetchers)
        knowing = {host for host, handout in told.items() if "seeder" in peers(handout)}
        assert len(knowing) == GATEWAYS
        assert all(set(handout.gateways) == knowing for handout in told.values())
        gone = next(fetcher for fetcher in fetchers if fetcher.host_id in knowing)
        gone.close()
        told = await last_told([fetcher for fetcher in fetchers if fetcher is not gone])
        assert sum("seeder" in peers(handout) for handout in told.values()) == GATEWAYS

    async def test_progress_alone_pushes_nothing(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        for pieces in (1, 2, 3):
            await fetcher.announce(holding(file_id, "fetching", pieces))
            await trio.sleep(1)
        await fetcher.announce()
        assert len(fetcher.told(m.Handout)) == 1

    async def test_changes_that_come_together_are_told_together(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        fetcher = await fleet.join("fetcher")
        others = [await fleet.join(f"other-{number}") for number in range(8)]
        await fetcher.announce(holding(file_id, "fetching", 0))
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for other in others:
                nursery.start_soon(other.announce, holding(file_id))
        await trio.sleep(1)
        await fetcher.announce()
        told = [len(message.peers) for message in fetcher.told(m.Handout)]
        assert told[0] == 0
        assert told[-1] == 8
        assert len(told) <= 3

    async def test_a_swarm_waits_for_no_other_that_changes_all_the_time(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        busy = manifest().file_id
        seeder, fetcher, other = [await fleet.join(name) for name in ("seeder", "fetcher", "other")]
        await other.announce(holding(busy, "fetching", 0))
        states: list[m.HoldingState] = ["complete", "none", "complete", "none"]
        for number, state in enumerate(states):
            quiet = bytes([number]) * 32
            await seeder.announce(holding(quiet), holding(busy, state))
            await trio.sleep(SHORTEST_COALESCE_S / 4)
            began = trio.current_time()
            await fetcher.announce(holding(quiet, "fetching", 0))
            assert peers(await fetcher.handout()) == {"seeder": True}
            assert trio.current_time() - began < SHORTEST_COALESCE_S / 4
        await trio.sleep(1)
        await other.announce()
        assert peers(other.told(m.Handout)[-1]) == {}

    async def test_nobody_that_is_up_has_it(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        seeder.close()
        await trio.sleep(5)
        await fetcher.announce(holding(file_id, "waiting", 0))
        handout = await fetcher.handout()
        assert peers(handout) == {}
        assert [(holder.name, round(holder.last_seen_s)) for holder in handout.absent] == [("seeder", 5)]

    async def test_who_fetches_a_file_again_is_told_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        for state in ("fetching", "none", "fetching", "paused", "fetching"):
            await fetcher.announce(holding(file_id, state, 0))
            if state == "fetching":
                assert peers(await fetcher.handout()) == {"seeder": True}
            await trio.sleep(1)

    async def test_a_host_that_connects_anew_is_told_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        await fetcher.announce(holding(file_id, "fetching", 0))
        await fetcher.handout()
        again = await fleet.rejoin(fetcher, holdings=[holding(file_id, "fetching", 0)])
        assert peers(await again.handout()) == {"seeder": True}
