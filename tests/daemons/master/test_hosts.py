"""Hosts join, register, report and leave."""

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import InvalidToken, NoSpace, NotAdmitted, PeerGone, Refused, RemoteProtocolError, UsageError
from interfiles.identity.token import JoinToken
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.master.scripted import MASTER, Fleet, holding, manifest, peers


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

    async def test_a_wrong_secret_and_an_unknown_token_are_refused(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        right = fleet.token
        for wrong in (
            JoinToken(right.masters, right.token_id, bytes(16)),
            JoinToken(right.masters, bytes(8), right.secret),
        ):
            client = await fleet.dial()
            with pytest.raises(InvalidToken, match="this token is not one of this master's; get a new one with"):
                await client.enrol(wrong, "render")
            with pytest.raises(PeerGone):
                await client.receive()

    async def test_an_expired_token_is_refused_with_its_age(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        await trio.sleep(2 * 3600)
        client = await fleet.dial()
        with pytest.raises(InvalidToken, match=r"this token has expired \(made 2 h ago, good for 1 h\); get a new one"):
            await client.enrol(fleet.token, "render")

    async def test_a_token_for_one_host_lets_one_in_however_many_try_at_once(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        token = JoinToken.decode((await fleet.admin.make_token(ttl_s=60, uses=1)).token)
        outcomes: list[str] = []

        async def attempt() -> None:
            try:
                await (await fleet.dial()).enrol(token, "render")
                outcomes.append("in")
            except InvalidToken as e:
                outcomes.append(str(e))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(attempt)
        outcomes.sort()
        assert outcomes[0] == "in"
        assert all("this token is used up (it was good for 1 host); get a new" in words for words in outcomes[1:])

    async def test_secrets_are_not_in_the_log(
        self, fleet: Fleet, autojump_clock: MockClock, log_records: LogRecords
    ) -> None:
        client = await fleet.join("render")
        logged = repr(log_records.records)
        for secret in (fleet.token.secret, client.credential):
            assert secret.hex() not in logged
            assert repr(secret)[2:-1] not in logged
        assert fleet.token.encode() not in logged


class TestRegistration:
    async def test_a_host_comes_back_by_its_credential(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        first = await fleet.join("render")
        first.close()
        again = await fleet.rejoin(first)
        assert again.name == "render"
        assert list(await again.hosts()) == ["render"]

    async def test_another_fleets_host_is_told_so(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        with pytest.raises(RemoteProtocolError, match=r"fleet abcd is not this fleet, [0-9a-f]{4}"):
            await fleet.dial(fleet="abcd")

    @pytest.mark.parametrize("host_id", ["", "0" * 32])
    async def test_a_host_that_nobody_knows_is_told_what_to_do(
        self, fleet: Fleet, autojump_clock: MockClock, host_id: str
    ) -> None:
        client = await fleet.dial(host_id=host_id)
        client.credential = bytes(32)
        with pytest.raises(NotAdmitted, match=r"join it"):
            await client.register(name="render")

    async def test_a_wrong_credential_is_refused(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        known = await fleet.join("render")
        known.credential = bytes(32)
        with pytest.raises(NotAdmitted, match="credential is not the one that the master gave it"):
            await fleet.rejoin(known)

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

    async def test_a_removed_host_is_cut_off_and_its_name_is_free(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        client, watcher = await fleet.join("render"), await fleet.join("watcher")
        report = await fleet.admin.remove_host("render")
        assert (report.name, report.host) == ("render", client.host_id)
        with pytest.raises(NotAdmitted, match="was removed from the fleet; to bring it back, join it anew"):
            await client.receive()
        with pytest.raises(NotAdmitted, match="not of this fleet, or was removed"):
            await fleet.rejoin(client)
        assert list(await watcher.hosts()) == ["watcher"]
        assert (await fleet.join("render")).name == "render"


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
        assert trio.current_time() - began == pytest.approx(30, abs=1)

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
        def full(*_: object) -> None:
            raise NoSpace("the catalogue cannot be written: its disk is full; free some room")

        monkeypatch.setattr("interfiles.storage.members.Members.enrol", full)
        with pytest.raises(NoSpace, match="its disk is full"):
            await fleet.enrol("host")


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

    async def test_progress_alone_pushes_nothing(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        file_id = manifest().file_id
        seeder, fetcher = await fleet.join("seeder"), await fleet.join("fetcher")
        await seeder.announce(holding(file_id))
        for pieces in (1, 2, 3):
            await fetcher.announce(holding(file_id, "fetching", pieces))
            await trio.sleep(1)
        await fetcher.announce()
        assert [type(message) for message in fetcher.pushed] == [m.Handout]

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
        told = [len(message.peers) for message in fetcher.pushed if isinstance(message, m.Handout)]
        assert told[0] == 0
        assert told[-1] == 8
        assert len(told) <= 3

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
