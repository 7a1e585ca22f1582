"""A host is removed from a whole fleet, with transfers running in both directions."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import NoSource, NotAdmitted, UnknownFile
from interfiles.transport.base import Address
from interfiles.wire import control_messages as c
from interfiles.wire.reports import HostListReport, RemoveReport
from tests.conftest import LogRecords
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_fleet import got, slow, until
from tests.sim.test_joining import is_connected

CUT_WITHIN_S = 2.0


async def bytes_done(host: Host) -> int:
    return sum(transfer.bytes_done for transfer in (await host.status()).transfers)


async def nothing_flows(fleet: Fleet, sender: Host, receiver: Host, *, for_s: float = 30.0) -> bool:
    """Whether no more than refusals pass between two hosts for a while."""
    before = fleet.network.bytes_sent(sender.ip, receiver.ip)
    await trio.sleep(for_s)
    return fleet.network.bytes_sent(sender.ip, receiver.ip) - before < 10_000 * for_s / 5


async def until_cut(fleet: Fleet, a: Host, b: Host) -> float:
    """How long the connections between two hosts live on."""
    began = trio.current_time()
    await until(lambda: not [pipe for pipe in fleet.network._pipes_between(a.ip, b.ip) if not pipe.is_done])
    return trio.current_time() - began


async def test_a_host_that_fetches_is_cut_off_within_two_seconds(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _has_some(b))
        await fleet.admin.remove_host("b")
        assert await until_cut(fleet, a, b) < CUT_WITHIN_S
        had = await bytes_done(b)
        assert await nothing_flows(fleet, a, b)
        assert await bytes_done(b) <= had + 2**18
        status = await b.status()
        assert status.master_state == "connecting"
        assert "this host is not of this fleet, or was removed from it; join it anew" in status.master_note
        with pytest.raises(NotAdmitted, match="or was removed from it"):
            await b.ask(c.ListHosts(), HostListReport)


async def _has_some(host: Host) -> bool:
    return await bytes_done(host) > 0


async def test_a_host_that_serves_is_cut_off_and_the_others_go_on(
    tmp_path: Path, content: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        report, tracker = await a.upload(content)
        await b.download(tracker)
        for host in (a, b):
            fleet.network.set_link(host.ip, slow())
        await host_c.download(tracker, detach=True)
        await until(lambda: fleet.network.bytes_sent(a.ip, host_c.ip) > 300_000)
        await fleet.admin.remove_host("a")
        assert await until_cut(fleet, a, host_c) < CUT_WITHIN_S
        finished = await host_c.download(tracker)
        assert got(host_c, content) == content.read_bytes()
        assert finished.bytes_from_peers["b"] > finished.bytes_from_peers["a"]
        assert (await b.stat(report.id)).replicas.complete == 2, "the removed one counts no more"
        assert [row.name for row in (await b.hosts()).hosts] == ["b", "c"]


async def test_it_stays_out_while_the_master_is_down_and_daemons_restart(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        fleet.network.set_link(a.ip, slow())
        fleet.network.set_link(host_c.ip, slow())
        _, tracker = await a.upload(content)
        for host in (b, host_c):
            await host.download(tracker, detach=True)
        await until(lambda: _has_some(b))
        await until(lambda: _has_some(host_c))
        await fleet.admin.remove_host("b")
        await trio.sleep(1)
        await fleet.crash_master()
        for host in (a, b, host_c):
            await fleet.crash(host)
        for host in (a, b, host_c):
            await fleet.restart(host)
        assert await nothing_flows(fleet, a, b)
        await host_c.download(tracker)
        assert got(host_c, content) == content.read_bytes(), "by the peers that it remembers"
        with pytest.raises(NoSource):
            await b.download(tracker, timeout_s=20)


async def test_one_that_was_away_when_it_was_removed_is_refused_by_all_when_it_is_back(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _has_some(b))
        await fleet.crash(b)
        await fleet.admin.remove_host("b")
        await fleet.restart(b)
        assert await nothing_flows(fleet, a, b)
        assert "was removed from it; join it anew" in (await b.status()).master_note


async def test_who_was_away_when_another_was_removed_refuses_it_too(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _has_some(b))
        await fleet.crash(a)
        await fleet.admin.remove_host("b")
        await fleet.restart(a)
        await until(lambda: is_connected(a))
        assert await nothing_flows(fleet, a, b)


async def test_a_link_that_is_parted_hears_of_it_once_it_is_whole(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _has_some(b))
        fleet.network.partition(a.ip, "10.0.0.254")
        await fleet.admin.remove_host("b")
        await trio.sleep(0.3)
        fleet.network.heal(a.ip, "10.0.0.254")
        assert await until_cut(fleet, a, b) < CUT_WITHIN_S


async def test_all_of_its_connections_end_at_the_master_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        await until(lambda: is_connected(a))
        began = trio.current_time()
        await fleet.admin.remove_host("a")
        await until(lambda: _is_away(a))
        assert trio.current_time() - began < CUT_WITHIN_S
        assert [row.name for row in (await b.hosts()).hosts] == ["b"]
        stranger = fleet.network.host(a.ip)
        transport = await stranger.dial(Address("10.0.0.254", 4850))
        transport.close()


async def _is_away(host: Host) -> bool:
    return not await is_connected(host)


async def test_what_was_removed_meanwhile_does_not_come_back_with_a_host_that_joins_anew(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3) as (fleet, [a, b, other]):
        path = b.directory / "weights"
        path.write_bytes(bytes(range(256)) * 2048)
        report, _ = await b.upload(path)
        await trio.sleep(10)
        await fleet.admin.remove_host("b")
        await fleet.crash(b)
        await a.ask(c.Remove(report.id, False, False), RemoveReport)
        await fleet.restart(b, await fleet.make_token())
        await trio.sleep(60)
        for host in (a, b, other):
            with pytest.raises(UnknownFile):
                await host.stat(report.id)
        assert path.exists(), "the person's own file stays"
        assert not list(tmp_path.glob("*/state/replicas/*/weights"))
