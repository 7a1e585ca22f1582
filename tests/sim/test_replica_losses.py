"""Nothing of a replica is lost by what happens to its host, its directory or the commands of people there."""

import os
import shutil
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import daemons.client.downloads as downloads_module
from interfiles.errors import DestinationExists, InterFilesError, NoSpace
from interfiles.storage.jobs import JobStore
from interfiles.transport.memory_links import Link
from interfiles.wire import control_messages as c
from interfiles.wire.reports import RemoveReport, TransferStateReport
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_replica_life import flip
from tests.sim.test_replicas import content, holders, until_copies


def slow() -> Link:
    """A link of its own: it remembers until when it is busy."""
    return Link(uplink_bytes_per_s=5e5, downlink_bytes_per_s=5e5, latency_s=0.001)


def remains(host: Host) -> list[Path]:
    return [path for path in (host.directory / "state").rglob("weights*") if path.is_file()]


async def test_the_last_copy_is_not_deleted_because_of_a_stamp(tmp_path: Path, autojump_clock: MockClock) -> None:
    """A replica whose bytes are intact and whose mtime alone has changed is the last copy: it must not go."""
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        data = path.read_bytes()
        await fleet.crash(a)
        path.unlink()
        (replica,) = holders(fleet, report.id)
        os.utime(replica, ns=(0, 0))
        await trio.sleep(70)  # the sweep
        assert any(found.read_bytes() == data for found in remains(b)), "every byte of it was good"


async def test_a_state_directory_restored_from_a_backup_keeps_replicas(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        await fleet.crash(a)
        path.unlink()
        await fleet.crash(b)
        state = b.directory / "state"
        state.rename(b.directory / "old")
        shutil.copytree(b.directory / "old", state)  # other inodes, same sizes and times
        await fleet.restart(b)
        await trio.sleep(70)
        assert remains(b), "it was intact, and the last one"


async def test_a_download_onto_other_content_is_refused_where_a_replica_is_coming(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        report, tracker = await a.upload(content(a))
        await trio.sleep(3)
        got = b.directory / "got"
        got.mkdir()
        (got / "weights").write_bytes(b"precious")
        with pytest.raises(DestinationExists):
            await b.download(tracker, detach=True)
        await trio.sleep(60)
        assert (await a.stat(report.id)).replicas.complete == 2, "the replica came all the same"


async def test_a_download_where_the_very_content_is_takes_it_though_a_replica_is_coming(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        path = content(a)
        _, tracker = await a.upload(path)
        await trio.sleep(3)
        got = b.directory / "got"
        got.mkdir()
        shutil.copy(path, got / "weights")
        await b.download(tracker, timeout_s=60)
        assert [found.name for found in got.iterdir()] == ["weights"]


async def test_a_download_that_is_refused_costs_no_replica(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another file system: what cannot be moved is thrown away before the place was looked at."""
    monkeypatch.setattr(downloads_module, "take_over", lambda *_: None)
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        fleet.network.set_link(a.ip, slow())
        _, tracker = await a.upload(content(a))
        await trio.sleep(4)
        before = (await b.status()).transfers[0].bytes_done
        got = b.directory / "got"
        got.mkdir()
        (got / "weights").write_bytes(b"precious")
        with pytest.raises(DestinationExists):
            await b.download(tracker, detach=True)
        await trio.sleep(1)  # what had come since the last sync is hashed again
        transfers = (await b.status()).transfers
        assert sum(transfer.bytes_done for transfer in transfers) >= before, (
            "it was refused, and yet all that had come is gone"
        )


async def test_a_crash_in_the_middle_of_a_repair_keeps_the_good_pieces(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replica is the last copy, one piece of it is bad; kill -9 comes between the rename and the record."""
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        await fleet.crash(a)
        path.unlink()
        (replica,) = holders(fleet, report.id)
        flip(replica, 5)
        reached = trio.Event()
        add = JobStore.add

        def dying(jobs: JobStore, record: object) -> None:
            reached.set()
            raise NoSpace("killed here")

        with monkeypatch.context() as patched:
            patched.setattr(JobStore, "add", dying)
            with pytest.raises(BaseException):  # noqa: B017, PT011, PT012
                # the daemon logs it as a bug; what is on the disk now is what kill -9 would leave
                await b.verify(report.id)
                await reached.wait()
                raise KeyboardInterrupt
            await fleet.crash(b)
        assert JobStore.add is add
        await fleet.restart(b)
        await trio.sleep(70)
        stat = (await b.status()).transfers
        assert sum(transfer.bytes_done for transfer in stat) > report.size // 2, "eleven of twelve pieces were good"


async def test_a_pause_during_a_repair_is_kept(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        report, _ = await a.upload(content(a))
        await until_copies(a, report.id, 2)
        (replica,) = holders(fleet, report.id)
        flip(replica, 5)
        await b.verify(report.id)
        await b.ask(c.Pause(report.id), TransferStateReport)
        await trio.sleep(60)
        (at_b,) = [holder for holder in (await a.stat(report.id)).hosts if holder.name == "b"]
        assert at_b.doing == "paused", at_b


async def test_leftovers_give_way_to_a_persons_download(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk would have room, if the leftover that nobody wants went."""
    async with running_fleet(tmp_path, "a b", replicas=2, grace_s=30) as (_, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        await a.upload(path, replicas=1)
        await trio.sleep(200)
        assert list(tmp_path.glob("b/state/leftovers/*"))
        _, tracker = await a.upload(content(a, "other", seed=9), replicas=1)

        real = os.fstatvfs

        class Small:
            def __init__(self, found: os.statvfs_result) -> None:
                self.f_frsize, self.f_files, self.f_favail = found.f_frsize, 0, 0
                used = sum(p.stat().st_size for p in (b.directory / "state" / "leftovers").rglob("*") if p.is_file())
                self.f_bavail = ((4 << 20) - used) // found.f_frsize  # a disk of 4 MiB beside

        monkeypatch.setattr("interfiles.storage.part_layout.os.fstatvfs", lambda fd: Small(real(fd)))
        try:
            await b.download(tracker, timeout_s=60)
        except InterFilesError as e:
            pytest.fail(f"refused: {e}")


async def test_own_copies_and_leftovers_stay_within_the_quota(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a", replicas=2, grace_s=30) as (fleet, [a]):
        b = await fleet.add_host("b", quota=4 << 20)
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        await a.upload(path, replicas=1)
        await trio.sleep(200)
        await b.upload(content(b, "mine", seed=3), copy=True, replicas=1)
        own = [p for p in (b.directory / "state").rglob("*") if p.is_file() and p.suffix not in (".db", ".db-wal")]
        assert sum(p.stat().st_size for p in own if p.stat().st_size > 100_000) <= 4 << 20


async def test_what_is_removed_by_hand_does_not_come_back_while_the_disk_removes_it(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To remove a large file takes seconds; the master hears of it before, and orders it here again."""
    from interfiles.storage.executor import InlineExecutor

    plain = InlineExecutor.run

    async def run(self: InlineExecutor, function, *args):  # type: ignore[no-untyped-def]
        if getattr(function, "__name__", "") == "remove_own_copy":
            await trio.sleep(3)
        return await plain(self, function, *args)

    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        report, _ = await a.upload(content(a))
        await until_copies(a, report.id, 2)
        monkeypatch.setattr(InlineExecutor, "run", run)
        await b.ask(c.Remove(report.id, local=True, delete=False), RemoveReport)
        await trio.sleep(60)
        assert holders(fleet, report.id) == [], "it was removed from this host by hand a minute ago"


async def test_empty_files_and_directories_with_links_are_copied_mended_and_taken_over(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        empty = a.directory / "empty"
        empty.touch()
        tree = a.directory / "weights"
        (tree / "sub" / "hollow").mkdir(parents=True)
        (tree / "sub" / "one").write_bytes(os.urandom(700_000))
        (tree / "two").write_bytes(os.urandom(900_000))
        (tree / "link").symlink_to("sub/one")
        (tree / "two").chmod(0o444)
        first, second = (await a.upload(empty))[0], await a.upload(tree)
        for one in (first.id, second[0].id):
            await until_copies(a, one, 2)
        (replica,) = holders(fleet, second[0].id)
        flip(replica / "two", 5)
        await b.verify(second[0].id)
        await trio.sleep(5)
        await until_copies(a, second[0].id, 2)
        assert (replica / "two").read_bytes() == (tree / "two").read_bytes()
        await b.download(second[1])
        assert (b.directory / "got" / "weights" / "link").is_symlink()


async def test_replicas_on_a_disk_of_their_own_are_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    """`replicas` is a link to a larger disk: what is released cannot be renamed into `leftovers`."""
    large = Path("/dev/shm/r2-review-replicas")
    shutil.rmtree(large, ignore_errors=True)
    large.mkdir()
    try:
        async with running_fleet(tmp_path, "a b", replicas=2, grace_s=30) as (fleet, [a, b]):
            (b.directory / "state" / "replicas").symlink_to(large)
            path = content(a)
            report, _ = await a.upload(path)
            await until_copies(a, report.id, 2)
            await a.upload(path, replicas=1)
            await trio.sleep(600)
            assert (await a.stat(report.id)).replicas.complete == 1
            assert holders(fleet, report.id) == []
    finally:
        shutil.rmtree(large)


async def test_a_state_directory_under_another_name_keeps_what_is_in_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """Started once by a link to the state directory, once by its own name: the same place, spelled otherwise."""
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        await fleet.crash(a)
        path.unlink()
        await fleet.crash(b)
        (tmp_path / "alias").symlink_to(tmp_path / "b")
        b.directory = tmp_path / "alias"
        await fleet.restart(b)
        await trio.sleep(5)
        assert remains(b)


async def kinds(fleet: Fleet) -> list[str]:
    return [event.kind for event in (await fleet.admin.events(last=100)).events]


async def test_uploading_the_same_again_orders_nothing(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d", replicas=2) as (fleet, [a, *_]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        for _ in range(5):
            await a.upload(path)
            await trio.sleep(1)
        assert (await kinds(fleet)).count("ordered") == 1
        assert len(holders(fleet, report.id)) == 1


async def test_a_copy_that_is_lost_is_told(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, _]):
        report, _ = await a.upload(content(a))
        await until_copies(a, report.id, 2)
        shutil.rmtree(holders(fleet, report.id)[0].parent)
        await trio.sleep(70)
        assert "lost" in await kinds(fleet)
        await until_copies(a, report.id, 2)


async def test_a_download_that_overwrites_takes_the_replica_over(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        path = content(a)
        report, tracker = await a.upload(path)
        await until_copies(a, report.id, 2)
        (b.directory / "got").mkdir()
        (b.directory / "got" / "weights").write_bytes(b"old")
        await b.download(tracker, overwrite=True)
        assert (b.directory / "got" / "weights").read_bytes() == path.read_bytes()
        assert holders(fleet, report.id) == []
