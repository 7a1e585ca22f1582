"""The CA of a whole fleet changes, and certificates grow old, while files are on their way."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.membership import ROTATION_SPREAD_S, Membership
from interfiles.errors import Refused, RemoteProtocolError
from interfiles.identity.authority import read_certificate
from interfiles.storage.jobs import JobStore
from interfiles.storage.records import Identity
from interfiles.transport.memory_links import Link
from interfiles.units import DAY
from interfiles.wire.master_messages import Renewed
from tests.conftest import LogRecords
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_fleet import got, until
from tests.sim.test_joining import is_connected

CHECK_EVERY_S = 300.0  # as always an hour would be long to simulate with all its heartbeats


@pytest.fixture(autouse=True)
def _retiring_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemons.master.trust.CHECK_EVERY_S", CHECK_EVERY_S)


async def signed(fleet: Fleet) -> list[int]:
    """How many hosts each CA has certified, the newest first."""
    return [report.host_count for report in await fleet.admin.authorities()]


async def have_renewed(fleet: Fleet, count: int) -> bool:
    return await signed(fleet) == [count, 0]


async def has_retired(fleet: Fleet) -> bool:
    return len(await signed(fleet)) == 1


def events(records: LogRecords, name: str) -> int:
    return len([record for record in records.records if record["event"] == name])


def kept(host: Host) -> Identity:
    """What a host has kept, that is down."""
    jobs = JobStore(host.directory / "state" / "client.db")
    found = jobs.load_identity()
    jobs.close()
    assert found is not None
    return found


async def test_a_rotation_takes_a_minute_and_interrupts_no_transfer(
    tmp_path: Path, content: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c d") as (fleet, [a, *others]):
        content.write_bytes(content.read_bytes() * 3)
        fleet.network.set_link(a.ip, Link(uplink_bytes_per_s=0.2e6))  # it takes longer than the rotation
        report, tracker = await a.upload(content)
        async with trio.open_nursery() as nursery:
            for host in others:
                nursery.start_soon(host.download, tracker)
            await until(lambda: fleet.network.bytes_sent(a.ip, others[0].ip) > 300_000)
            first = (await fleet.admin.authorities())[0].digest
            await fleet.admin.rotate_authority()
            assert await signed(fleet) == [0, 4]
            began = trio.current_time()
            await until(lambda: have_renewed(fleet, 4), within_s=ROTATION_SPREAD_S + 2)
            assert trio.current_time() - began > ROTATION_SPREAD_S / 3, "not all at once"
            assert events(log_records, "complete") == 0, "all the while"
            assert await signed(fleet) == [4, 0]
        assert (await fleet.admin.authorities())[0].digest != first
        assert all(got(host, content) == content.read_bytes() for host in others)
        assert events(log_records, "registered") == 4, "no link to the master was made anew"
        ended = [record for record in log_records.records if str(record.get("task")).startswith("fetching from")]
        assert not [record for record in ended if "certificate" in record["reason"]], "and none between hosts for this"
        await until(lambda: has_retired(fleet), within_s=2 * CHECK_EVERY_S + 10, every_s=10)
        newcomer = await fleet.add_host("e", token=await fleet.make_token())
        await until(lambda: is_connected(newcomer))
        await newcomer.download(report.id)
        assert got(newcomer, content) == content.read_bytes()


async def test_a_host_that_was_away_comes_back_by_the_cross_certificate_and_only_then_the_older_ca_goes(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        _, tracker = await a.upload(content)
        await fleet.crash(host_c)
        await fleet.admin.rotate_authority()
        await trio.sleep(2 * ROTATION_SPREAD_S)
        assert await signed(fleet) == [2, 1]
        (_, older) = await fleet.admin.authorities()
        assert older.hosts == ["c"], "who still needs it is told"
        with pytest.raises(Refused, match="hosts still need the older one"):
            await fleet.admin.rotate_authority()
        await fleet.crash_master()
        await fleet.start_master()
        await fleet.restart(host_c)
        await until(lambda: is_connected(host_c))
        await host_c.download(tracker)
        assert got(host_c, content) == content.read_bytes(), "its older certificate is good for that"
        await until(lambda: have_renewed(fleet, 3), within_s=ROTATION_SPREAD_S + 2)
        await until(lambda: has_retired(fleet), within_s=2 * CHECK_EVERY_S + 10, every_s=10)
        await b.download(tracker)


async def test_a_host_that_never_comes_back_keeps_the_older_ca_until_it_is_removed(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [_, b]):
        await fleet.crash(b)
        await fleet.admin.rotate_authority()
        await trio.sleep(2 * ROTATION_SPREAD_S)
        assert await signed(fleet) == [1, 1]
        await fleet.admin.remove_host("b")
        await until(lambda: has_retired(fleet), within_s=2 * CHECK_EVERY_S + 10, every_s=10)


async def test_retired_by_force_the_host_that_was_away_joins_anew_and_keeps_its_files(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        _, tracker = await a.upload(content)
        await fleet.crash(a)
        await fleet.admin.rotate_authority()
        await trio.sleep(2 * ROTATION_SPREAD_S)
        await fleet.admin.retire_authority()
        await fleet.restart(a)
        await trio.sleep(30)
        assert "does not accept this end's certificate" in (await a.status()).master_note
        await fleet.crash(a)
        await fleet.restart(a, await fleet.make_token())
        await until(lambda: is_connected(a))
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()


async def test_retired_by_force_whoever_comes_by_the_older_ca_is_cut_off_in_the_middle_and_joins_anew(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, c]):
        on_renewed = Membership.on_renewed

        async def stay(self: Membership, answer: Renewed) -> None:
            if self.identity.name == "c":
                raise RemoteProtocolError("not good")
            await on_renewed(self, answer)

        monkeypatch.setattr(Membership, "on_renewed", stay)
        _, tracker = await a.upload(content)
        await fleet.admin.rotate_authority()
        await trio.sleep(ROTATION_SPREAD_S + 2)
        fleet.network.set_link(a.ip, Link(uplink_bytes_per_s=0.2e6))
        await c.download(tracker, detach=True)
        await until(lambda: fleet.network.bytes_sent(a.ip, c.ip) > 300_000)
        await fleet.admin.retire_authority()
        await trio.sleep(2)
        sent = fleet.network.bytes_sent(a.ip, c.ip)
        await trio.sleep(60)
        assert fleet.network.bytes_sent(a.ip, c.ip) - sent < 50_000, "no more than refusals"
        assert [await is_connected(host) for host in (a, b, c)] == [True, True, False]
        monkeypatch.setattr(Membership, "on_renewed", on_renewed)
        await fleet.crash(c)
        await fleet.restart(c, await fleet.make_token())
        await c.download(tracker)
        assert got(c, content) == content.read_bytes()


@pytest.mark.parametrize("last", [True, False], ids=["it is the last one", "others renew after it"])
async def test_a_host_that_dies_before_it_has_kept_its_new_certificate_comes_back_by_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        on_renewed, dying = Membership.on_renewed, trio.Event()

        async def die(self: Membership, answer: Renewed) -> None:
            if self.identity.name == "a":
                dying.set()
                await trio.sleep_forever()
            await on_renewed(self, answer)

        monkeypatch.setattr(Membership, "on_renewed", die)
        if last:
            await fleet.crash(b)
            await fleet.admin.remove_host("b")
        await fleet.admin.rotate_authority()
        await dying.wait()
        await fleet.crash(a)
        await trio.sleep(ROTATION_SPREAD_S)
        monkeypatch.setattr(Membership, "on_renewed", on_renewed)
        await fleet.restart(a)
        await until(lambda: is_connected(a), within_s=20)
        await until(lambda: has_retired(fleet), within_s=2 * CHECK_EVERY_S + 10, every_s=10)
        assert await is_connected(a)


async def test_a_renewal_whose_answer_is_lost_locks_nobody_out(
    tmp_path: Path, autojump_clock: MockClock, log_records: LogRecords
) -> None:
    async with running_fleet(tmp_path, "") as (fleet, _):
        lost: list[int] = []

        def cut_at_the_answer(data: bytes) -> bytes:
            if len(lost) < events(log_records, "renewed certificate") <= 3:
                lost.append(len(data))
                fleet.network.cut("10.0.0.254", "10.0.0.1")
            return data

        fleet.network.tap("10.0.0.254", lambda _: cut_at_the_answer)
        a = await fleet.add_host("a")
        await until(lambda: is_connected(a))
        await fleet.admin.rotate_authority()
        await until(lambda: len(lost) == 3, within_s=4 * ROTATION_SPREAD_S)
        assert events(log_records, "certificate renewed") == 0
        await until(lambda: events(log_records, "certificate renewed"), within_s=2 * ROTATION_SPREAD_S)
        assert await is_connected(a)


# Age


async def test_a_fleet_renews_for_a_year_and_files_go_round_all_the_time(
    tmp_path: Path, content: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        report, tracker = await a.upload(content)
        for month in range(12):
            fleet.clock_ahead_s += 25 * DAY
            await until(lambda: events(log_records, "certificate renewed") >= 2 * (month + 1), within_s=700, every_s=1)  # noqa: B023
            directory = tmp_path / f"month{month}"
            directory.mkdir()
            await b.download(tracker, directory=directory, overwrite=True)
        assert events(log_records, "registered") == 2, "over the same links"
        assert (await b.stat(report.id)).replicas.complete == 2


async def test_hosts_that_were_off_for_months_come_back_by_themselves(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        _, tracker = await a.upload(content)
        for host in (a, b):
            await fleet.crash(host)
        await fleet.crash_master()
        fleet.clock_ahead_s += 200 * DAY
        await fleet.start_master()
        for host in (a, b):
            await fleet.restart(host)
        await until(lambda: is_connected(b))
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()
        await fleet.crash(a)
        assert read_certificate(kept(a).chain).not_after > fleet.now + 29 * DAY


async def test_one_host_with_a_wrong_clock_harms_only_itself(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        _, tracker = await a.upload(content)
        await fleet.crash(b)
        b.clock_ahead_s = 40 * DAY
        await fleet.restart(b)
        await trio.sleep(30)
        note = (await b.status()).master_note
        assert "the certificate of the master" in note
        assert "set the clocks right" in note
        await host_c.download(tracker)
        b.clock_ahead_s = 0
        await until(lambda: is_connected(b), within_s=20)
        await b.download(tracker)
        assert got(b, content) == got(host_c, content) == content.read_bytes()
