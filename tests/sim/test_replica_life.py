"""What becomes of replicas on the hosts that hold them: taken over, given up, repaired, removed; in virtual time."""

import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.replicas import LOOK_AGAIN_S
from interfiles.errors import ContentChanged
from interfiles.geometry import MIN_PIECE_BYTES
from interfiles.transport.memory_links import Link
from interfiles.wire import control_messages as c
from interfiles.wire.reports import RemoveReport, TransferStateReport
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_replicas import content, holders, until_copies

GRACE_S = 30.0
TRIM_S = 5 * GRACE_S


def host_of(hosts: list[Host], path: Path) -> Host:
    return next(host for host in hosts if path.is_relative_to(host.directory))


def sent_by(fleet: Fleet, host: Host, hosts: list[Host]) -> int:
    return sum(fleet.network.bytes_sent(host.ip, other.ip) for other in hosts)


async def leave_over(uploader: Host, directory: Path) -> tuple[Path, str]:
    """Upload a file, and have the copy that host b made of it left over there; return its path and id."""
    path = content(uploader)
    report, _ = await uploader.upload(path)
    await until_copies(uploader, report.id, 2)
    await uploader.upload(path, replicas=1)
    await trio.sleep(TRIM_S + 30)
    assert list(directory.glob("b/state/leftovers/*"))
    return path, report.id


async def test_a_download_where_a_replica_is_takes_it_over(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        path = content(hosts[0])
        report, tracker = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 2)
        (replica,) = holders(fleet, report.id)
        host, inode = host_of(hosts, replica), replica.stat().st_ino
        sent = sent_by(fleet, hosts[0], hosts)
        await host.download(tracker)
        got = host.directory / "got" / "weights"
        assert (got.read_bytes(), got.stat().st_ino) == (path.read_bytes(), inode), "it was moved"
        assert sent_by(fleet, hosts[0], hosts) == sent, "nothing is fetched again"
        await trio.sleep(60)
        assert holders(fleet, report.id) == [], "the person's copy counts"
        stat = await hosts[0].stat(report.id)
        assert stat.replicas.complete == 2
        assert [holder.ordered for holder in stat.hosts if holder.name == host.name] == [False]


async def test_a_download_takes_over_a_replica_on_its_way(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        fleet.network.set_link(a.ip, Link(uplink_bytes_per_s=5e5, downlink_bytes_per_s=5e5, latency_s=0.001))
        path = content(a)
        report, tracker = await a.upload(path)
        await trio.sleep(4)
        assert holders(fleet, report.id) == []
        assert (await b.status()).transfers[0].bytes_done >= MIN_PIECE_BYTES
        done = await b.download(tracker)
        assert (b.directory / "got" / "weights").read_bytes() == path.read_bytes()
        assert sum(done.bytes_from_peers.values()) == report.size
        assert sent_by(fleet, a, [b]) < 1.2 * report.size, "what had come was kept"
        assert not list((b.directory / "state" / "replicas").glob("*/*"))


async def test_surplus_copies_are_trimmed_late_and_taken_back(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3, grace_s=GRACE_S) as (fleet, hosts):
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 3)
        await hosts[0].upload(path, replicas=1)
        await trio.sleep(TRIM_S - 10)
        assert len(holders(fleet, report.id)) == 2, "not before the grace is over"
        await trio.sleep(30)
        assert holders(fleet, report.id) == []
        assert path.exists(), "the uploader's own file stays"
        assert len(list(tmp_path.glob("*/state/leftovers/*"))) == 2
        sent = sent_by(fleet, hosts[0], hosts)
        await hosts[0].upload(path, replicas=3)
        await until_copies(hosts[0], report.id, 3)
        assert len(holders(fleet, report.id)) == 2
        assert sent_by(fleet, hosts[0], hosts) - sent < report.size / 10, "what was left over is taken back"


async def test_rm_takes_what_is_left_over_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2, grace_s=GRACE_S) as (_, [a, _b]):
        _, file_id = await leave_over(a, tmp_path)
        await a.ask(c.Remove(file_id, local=False, delete=False), RemoveReport)
        await trio.sleep(5)
        assert not list(tmp_path.glob("b/state/leftovers/*"))


async def test_what_is_left_over_on_a_host_that_was_away_goes_too(tmp_path: Path, autojump_clock: MockClock) -> None:
    """The master has forgotten by then who gave the copy up."""
    async with running_fleet(tmp_path, "a b", replicas=2, grace_s=GRACE_S) as (fleet, [a, b]):
        _, file_id = await leave_over(a, tmp_path)
        await fleet.crash(b)
        await fleet.crash_master()
        await fleet.start_master()
        await trio.sleep(30)
        await a.ask(c.Remove(file_id, local=False, delete=False), RemoveReport)
        await fleet.restart(b)
        await trio.sleep(2 * LOOK_AGAIN_S)
        assert not list(tmp_path.glob("b/state/leftovers/*"))


async def test_a_leftover_that_went_bad_is_fetched_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2, grace_s=GRACE_S) as (fleet, [a, _]):
        path, file_id = await leave_over(a, tmp_path)
        (leftover,) = tmp_path.glob("b/state/leftovers/*/weights")
        flip(leftover, 12345)
        await a.upload(path, replicas=2)
        await until_copies(a, file_id, 2)
        (replica,) = holders(fleet, file_id)
        assert replica.read_bytes() == path.read_bytes()


def flip(path: Path, at: int) -> None:
    """Let a bit rot: the time of the last change stays."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_a_bad_piece_of_a_replica_is_fetched_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        (replica,) = holders(fleet, report.id)
        flip(replica, 2 * MIN_PIECE_BYTES + 5)
        sent = sent_by(fleet, a, [b])
        found = await b.verify(report.id)
        assert (found.bad_pieces, found.ordered) == ([2], True)
        await until_copies(a, report.id, 2)
        assert replica.read_bytes() == path.read_bytes()
        assert sent_by(fleet, a, [b]) - sent < 2 * MIN_PIECE_BYTES, "only the bad piece"
        kinds = [event.kind for event in (await fleet.admin.events(last=50)).events]
        assert "corrupt" in kinds


async def test_a_bad_piece_of_a_replica_has_no_other_copy_made(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d", replicas=2) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await until_copies(hosts[0], report.id, 2)
        (replica,) = holders(fleet, report.id)
        flip(replica, 2 * MIN_PIECE_BYTES + 5)
        await host_of(hosts, replica).verify(report.id)
        await trio.sleep(100)
        assert holders(fleet, report.id) == [replica]
        kinds = [event.kind for event in (await fleet.admin.events(last=50)).events if event.file]
        assert kinds == ["published", "ordered", "complete", "corrupt", "complete"]
        assert (await hosts[0].stat(report.id)).replicas.complete == 2


async def test_a_replica_that_somebody_changed_is_made_anew(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, _]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        (replica,) = holders(fleet, report.id)
        replica.write_bytes(b"not what it was")
        await trio.sleep(70)  # the sweep
        await until_copies(a, report.id, 2)
        assert replica.read_bytes() == path.read_bytes()


async def test_verify_of_a_changed_replica_had_people_mend_what_mends_itself(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        (replica,) = holders(fleet, report.id)
        replica.write_bytes(b"not what it was")
        with pytest.raises(ContentChanged, match="it is the fleet's copy, and is made anew by itself"):
            await b.verify(report.id)
        await trio.sleep(70)
        await until_copies(a, report.id, 2)
        assert (await b.verify(report.id)).bad_pieces == []


async def test_what_is_removed_here_is_not_ordered_here_again(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await until_copies(hosts[0], report.id, 2)
        (replica,) = holders(fleet, report.id)
        await host_of(hosts, replica).ask(c.Remove(report.id, local=True, delete=False), RemoveReport)
        await trio.sleep(60)
        (other,) = holders(fleet, report.id)
        assert other != replica
        events = [event for event in (await fleet.admin.events(last=50)).events if event.file]
        assert [event.kind for event in events] == [
            "published",
            *["ordered", "complete"],
            "lost",
            "ordered",
            "complete",
        ]


async def test_rm_takes_replicas_everywhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3) as (fleet, hosts):
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 3)
        await hosts[1].ask(c.Remove(report.id, local=False, delete=False), RemoveReport)
        await trio.sleep(5)
        assert holders(fleet, report.id) == []
        assert not list(tmp_path.glob("*/state/replicas/*"))
        assert path.exists()


async def test_what_is_removed_here_by_hand_goes_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await until_copies(hosts[0], report.id, 2)
        host = host_of(hosts, holders(fleet, report.id)[0])
        await host.ask(c.Remove(report.id, local=True, delete=False), RemoveReport)
        await trio.sleep(5)
        await until_copies(hosts[0], report.id, 2, within_s=120)
        (replica,) = holders(fleet, report.id)
        assert host_of(hosts, replica) is not host
        await fleet.crash(host_of(hosts, replica))
        await trio.sleep(600)
        assert (await hosts[0].stat(report.id)).replicas.complete == 1, "nor is it asked again"


async def test_a_paused_replica_counts_no_more(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await until_copies(hosts[0], report.id, 2)
        host = host_of(hosts, holders(fleet, report.id)[0])
        await host.ask(c.Pause(report.id), TransferStateReport)
        await trio.sleep(5)
        await until_copies(hosts[0], report.id, 2)
        assert len(holders(fleet, report.id)) == 2


async def test_a_crash_at_any_moment_of_an_order_leaves_nothing_astray(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    rng = random.Random(5)
    async with running_fleet(tmp_path, "a b", replicas=2, grace_s=GRACE_S) as (fleet, [a, b]):
        fleet.network.set_link(a.ip, Link(uplink_bytes_per_s=1e6, downlink_bytes_per_s=1e6, latency_s=0.001))
        for seed in range(4):
            report, _ = await a.upload(content(a, f"weights{seed}", seed=seed))
            await trio.sleep(rng.uniform(0, 3))
            await fleet.crash(b)
            await trio.sleep(rng.uniform(0, 5))
            await fleet.restart(b)
            await until_copies(a, report.id, 2, within_s=120)
        names = {path.name for path in (b.directory / "state" / "replicas").glob("*/*")}
        assert names == {f"weights{seed}" for seed in range(4)}


async def test_rot_is_found_by_a_challenge(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3) as (fleet, [a, *_]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 3)
        replica = holders(fleet, report.id)[0]
        for piece in range(report.pieces):
            flip(replica, piece * report.piece_size)
        await trio.sleep(900)
        assert replica.read_bytes() == path.read_bytes()
        await until_copies(a, report.id, 3)
        reasons = [event.reason for event in (await fleet.admin.events(last=100)).events if event.kind == "corrupt"]
        assert any("does not match its hash" in reason for reason in reasons)
