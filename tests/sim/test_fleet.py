"""What a fleet must live through, told in virtual time."""

import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import ContentChanged, NoSource, UnknownFile
from interfiles.geometry import MIB, MIN_PIECE_BYTES
from interfiles.transport.memory_links import Link
from interfiles.wire import control_messages as c
from interfiles.wire.reports import RemoveReport, StatReport, TransferStateReport
from tests.sim.fleet import MASTER, Fleet, Host, running_fleet

RATE = 2e6  # bytes a second, each way of each host


def slow() -> Link:
    return Link(uplink_bytes_per_s=RATE, downlink_bytes_per_s=RATE, latency_s=0.0005)


def got(host: Host, content: Path) -> bytes:
    return (host.directory / "got" / content.name).read_bytes()


def on_disk(host: Host, content: Path) -> set[int]:
    """The pieces whose bytes are in a host's part."""
    found = list((host.directory / "got").glob("*"))
    there, wanted, size = found[0].read_bytes() if found else b"", content.read_bytes(), MIN_PIECE_BYTES
    return {i for i in range(-(-len(wanted) // size)) if there[i * size :][:size] == wanted[i * size :][:size]}


async def until(condition, *, within_s: float = 60.0, every_s: float = 0.01) -> None:  # type: ignore[no-untyped-def]
    """Wait in virtual time until the condition (sync or async) holds."""
    with trio.fail_after(within_s):
        while True:
            value = condition()
            if (await value) if hasattr(value, "__await__") else value:
                return
            await trio.sleep(every_s)


async def download_all(hosts: list[Host], tracker: bytes) -> None:
    async with trio.open_nursery() as nursery:
        for host in hosts:
            nursery.start_soon(host.download, tracker)


async def test_a_file_reaches_three_hosts_and_they_share_it(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c d") as (fleet, [a, *others]):
        for host in (a, *others):
            fleet.network.set_link(host.ip, slow())
        report, tracker = await a.upload(content)
        await download_all(others, tracker)
        assert [got(host, content) for host in others] == [content.read_bytes()] * 3
        sent_by_a = sum(fleet.network.bytes_sent(a.ip, host.ip) for host in others)
        assert sent_by_a < 2.2 * report.size, "the others served each other"
        await until(lambda: complete_copies(a, report.id, 4))


async def _connected(host: Host) -> bool:
    return (await host.status()).master_state == "connected"


async def complete_copies(host: Host, file_id: str, count: int) -> bool:
    return (await host.stat(file_id)).replicas.complete == count


async def test_a_download_by_prefix_and_by_name(tmp_path: Path, content: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c") as (_, [a, b, host_c]):
        report, _ = await a.upload(content)
        await b.download(report.id[:8])
        await host_c.download(content.name)
        assert got(b, content) == got(host_c, content) == content.read_bytes()
        with pytest.raises(UnknownFile):
            await b.download("nothing-like-it")


async def test_the_master_dies_and_transfers_go_on(tmp_path: Path, content: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        report, tracker = await a.upload(content)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(b.download, tracker)
            await until(lambda: _fetched(b, 3))
            await fleet.crash_master()
        assert got(b, content) == content.read_bytes()
        assert (await b.status()).master_state == "connecting"
        await fleet.start_master()
        await until(lambda: complete_copies(b, report.id, 2), within_s=20)  # two heartbeats


async def _fetched(host: Host, pieces: int) -> bool:
    return any(t.bytes_done >= pieces * MIN_PIECE_BYTES for t in (await host.status()).transfers)


async def test_a_restarted_master_knows_its_catalogue_and_hands_out_peers_again(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        report, _ = await a.upload(content)
        await fleet.crash_master()
        await trio.sleep(30)
        await fleet.start_master()
        await until(lambda: complete_copies(a, report.id, 1), within_s=20)
        await until(lambda: _connected(b), within_s=20)
        await b.download(content.name)
        assert got(b, content) == content.read_bytes()


async def test_an_upload_while_the_master_is_away_is_published_when_it_is_back(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        await fleet.crash_master()
        report, _ = await a.upload(content)
        assert not report.published
        await fleet.start_master()
        await until(lambda: complete_copies(a, report.id, 1), within_s=20)
        await until(lambda: _connected(b), within_s=20)
        await b.download(report.id)
        assert got(b, content) == content.read_bytes()


async def test_a_crashed_client_goes_on_and_fetches_only_what_it_lacked(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        report, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _fetched(b, 8))
        sent_before = fleet.network.bytes_sent(a.ip, b.ip)
        await fleet.crash(b)
        await fleet.restart(b)
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()
        sent_after = fleet.network.bytes_sent(a.ip, b.ip) - sent_before
        assert sent_after < report.size - 8 * MIN_PIECE_BYTES + MIB


async def test_a_client_restarted_while_the_master_is_away_finds_its_peers(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _fetched(b, 2))
        await fleet.crash_master()
        await fleet.crash(b)
        await fleet.restart(b)
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()


@pytest.mark.parametrize("silent", [False, True], ids=["killed", "power lost"])
async def test_the_source_dies_when_the_others_hold_every_piece_between_them(
    tmp_path: Path, content: Path, autojump_clock: MockClock, silent: bool
) -> None:
    async with running_fleet(tmp_path, "a b c d") as (fleet, [a, *others]):
        for host in (a, *others):
            fleet.network.set_link(host.ip, slow())
        report, tracker = await a.upload(content)
        async with trio.open_nursery() as nursery:
            for host in others:
                nursery.start_soon(host.download, tracker)
            await until(lambda: sum(fleet.network.bytes_sent(a.ip, o.ip) for o in others) >= report.size)
            await until(lambda: len(set[int]().union(*(on_disk(o, content) for o in others))) == report.pieces)
            assert any(len(on_disk(o, content)) < report.pieces for o in others), "somebody is not done yet"
            await fleet.crash(a, silent=silent)
        assert [got(host, content) for host in others] == [content.read_bytes()] * 3


async def test_a_seeder_that_falls_silent_costs_a_stall_and_no_more(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        for host in (a, b):
            fleet.network.set_link(host.ip, slow())
        _, tracker = await a.upload(content)
        await b.download(tracker)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(host_c.download, tracker)
            await until(lambda: _fetched(host_c, 4))
            began = trio.current_time()
            fleet.network.partition(b.ip, host_c.ip)
        assert got(host_c, content) == content.read_bytes()
        assert trio.current_time() - began < 12


async def test_an_edit_that_hides_its_time_is_found_by_the_first_receiver(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (_, [a, b]):
        report, tracker = await a.upload(content)
        before = content.stat()
        with open(content, "r+b") as file:
            file.seek(3 * MIB)
            file.write(b"edited")
        os.utime(content, ns=(before.st_atime_ns, before.st_mtime_ns))
        with pytest.raises(NoSource):
            await b.download(tracker, timeout_s=60.0)
        local = (await a.stat(report.id)).local
        assert local.state == "partial"
        assert "does not match" in local.note
        assert (await b.stat(report.id)).local.pieces == report.pieces - 1


async def test_a_changed_file_is_withdrawn_and_reported(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (_, [a, b]):
        report, tracker = await a.upload(content)
        content.write_bytes(b"something else")
        with pytest.raises(NoSource):
            await b.download(tracker, timeout_s=5.0)
        stat = await a.stat(report.id)
        assert stat.local.state == "none"
        assert "weights.bin" in stat.local.note
        await until(lambda: complete_copies(b, report.id, 0))


async def test_a_changed_file_that_nobody_asks_for_is_found_by_the_sweep(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a") as (_, [a]):
        report, _ = await a.upload(content)
        content.write_bytes(b"something else")
        await trio.sleep(65)
        assert (await a.stat(report.id)).local.state == "none"


async def test_no_source_says_what_it_waits_for_and_goes_on_by_itself(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        report, tracker = await a.upload(content)
        await until(lambda: complete_copies(a, report.id, 1))
        await fleet.crash(a)
        await trio.sleep(1)
        with pytest.raises(NoSource, match="a has it, last seen"):
            await b.download(tracker, timeout_s=5.0)
        await fleet.restart(a)
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()


async def test_fourteen_hosts_that_wait_for_a_source_find_it_when_it_is_back(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    """Each held connections to twelve others that had nothing either, and never dialled the source."""
    names = "source " + " ".join(f"h{number:02}" for number in range(14))
    async with running_fleet(tmp_path, names) as (fleet, [source, *others]):
        _, tracker = await source.upload(content)
        await fleet.crash(source)
        for host in others:
            await host.download(tracker, detach=True)
        await trio.sleep(30)
        await fleet.restart(source)
        with trio.fail_after(120):
            await download_all(others, tracker)
        assert [got(host, content) for host in others] == [content.read_bytes()] * len(others)


async def test_pause_stops_a_download_and_resume_ends_it(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        report, tracker = await a.upload(content)
        await b.download(tracker, detach=True)
        await until(lambda: _fetched(b, 3))
        assert (await b.ask(c.Pause(report.id), TransferStateReport)).state == "paused"
        sent = fleet.network.bytes_sent(a.ip, b.ip)
        await trio.sleep(30)
        assert fleet.network.bytes_sent(a.ip, b.ip) - sent < MIB
        await b.ask(c.Resume(report.id), TransferStateReport)
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()


@pytest.mark.parametrize("pause_s", [0.0, 0.04, 0.15, 3.0])
async def test_a_file_taken_off_and_fetched_anew_finds_its_peers(
    tmp_path: Path, content: Path, pause_s: float, autojump_clock: MockClock
) -> None:
    """However little of it the master hears: to it, the host may have been waiting all the while."""
    async with running_fleet(tmp_path, "a b") as (_, [a, b]):
        _, tracker = await a.upload(content)
        for _ in range(3):
            await b.download(tracker, detach=True)
            await until((b.directory / "got" / content.name).exists, every_s=0.001)
            assert got(b, content) == content.read_bytes()
            await b.ask(c.Remove("", True, True), RemoveReport, content=tracker)
            await trio.sleep(pause_s)


async def test_rm_takes_a_file_out_of_the_fleet_and_a_host_that_was_away_forgets_it_too(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        report, tracker = await a.upload(content)
        await b.download(tracker)
        await host_c.download(tracker)
        await fleet.crash(host_c)
        await a.ask(c.Remove(report.id, local=False, delete=False), RemoveReport)
        await until(lambda: _nothing_of(b, tracker))
        await fleet.restart(host_c)
        await until(lambda: _nothing_of(host_c, tracker))
        assert got(b, content) == got(host_c, content) == content.read_bytes(), "content at destinations stays"


async def test_what_was_removed_and_is_uploaded_again_stays(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        report, _ = await a.upload(content)
        await a.ask(c.Remove(report.id, local=False, delete=False), RemoveReport)
        await fleet.crash_master()
        await a.upload(content)
        await fleet.start_master()
        await until(lambda: complete_copies(a, report.id, 1), within_s=20)
        await until(lambda: _connected(b), within_s=20)
        await b.download(report.id)
        assert got(b, content) == content.read_bytes()


async def _nothing_of(host: Host, tracker: bytes) -> bool:
    return (await host.ask(c.Stat(""), StatReport, content=tracker)).local.state == "none"


async def test_sixteen_hosts_share_the_work(tmp_path: Path, content: Path, autojump_clock: MockClock) -> None:
    names = " ".join(f"h{i}" for i in range(16))
    async with running_fleet(tmp_path, names) as (fleet, [source, *others]):
        for host in (source, *others):
            fleet.network.set_link(host.ip, slow())
        report, tracker = await source.upload(content)
        began = trio.current_time()
        await download_all(others, tracker)
        took = trio.current_time() - began
        assert all(got(host, content) == content.read_bytes() for host in others)
        bound = report.size / RATE
        assert took < 5 * bound, f"{took / bound:.2f} times what the source takes to send it once; alone it would be 15"
        assert sum(fleet.network.bytes_sent(source.ip, host.ip) for host in others) < 8 * report.size


async def trace_of(directory: Path, seed: int) -> list[tuple[str, int]]:
    directory.mkdir()
    content = directory / "data.bin"
    content.write_bytes(random.Random(seed).randbytes(3 * MIB))
    async with running_fleet(directory, "a b c", seed=seed) as (fleet, [a, *others]):
        for host in (a, *others):
            fleet.network.set_link(host.ip, slow())
        _, tracker = await a.upload(content)
        await download_all(others, tracker)
        pairs = [(x, y) for x in fleet_ips(fleet, a, *others) for y in fleet_ips(fleet, a, *others)]
        sent = [(f"{x}>{y}", fleet.network.bytes_sent(x, y)) for x, y in pairs]
        return [*sent, ("ended at us", round(trio.current_time() * 1e6))]


def fleet_ips(fleet: Fleet, *hosts: Host) -> list[str]:
    return [MASTER, *(host.ip for host in hosts)]


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    def run(name: str, seed: int) -> list[tuple[str, int]]:
        trio._core._run._r.seed(seed)
        return trio.run(trace_of, tmp_path / name, seed, clock=MockClock(autojump_threshold=0))

    assert run("first", 3) == run("again", 3)
    assert run("other", 4) != run("first2", 3)


async def test_a_file_that_vanishes_while_it_is_uploaded_is_refused(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a") as (_, [a]):
        content.unlink()
        with pytest.raises(Exception, match=r"weights\.bin") as caught:
            await a.upload(content)
        assert not isinstance(caught.value, ContentChanged)
