"""Copies, at a second place, of what this host has already: right or absent, and through a kill."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import NoSpace, Refused
from interfiles.storage.part_store import part_path
from interfiles.storage.records import CopyRecord
from interfiles.wire.reports import DownloadReport
from tests.conftest import LogRecords
from tests.daemons.client.peers import honest_copy
from tests.daemons.client.setting import SlowExecutor, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file, tree_of


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=12 * PIECE + 10)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another directory to download into."""
    made = tmp_path / "other"
    made.mkdir()
    return made


def remembered(world: World) -> list[CopyRecord]:
    """The copies that the daemon, which is not running, would go on with."""
    jobs = world.daemon.records()
    found = jobs.load_copies()
    jobs.close()
    return found


async def crash_while_copying(world: World, content: Content, to: Path, *, overwrite: bool = False) -> None:
    """Kill the daemon as soon as a copy's part is there, and leave it down."""
    part = part_path(to, content.manifest)

    async def is_there() -> bool:
        return part.exists()

    await world.seed(content)
    await world.daemon.stop()
    world.daemon.disk = SlowExecutor(lambda: 0.1)
    await world.daemon.start()
    async with trio.open_nursery() as caller:
        caller.start_soon(lambda: world.daemon.download(content.manifest, to, overwrite=overwrite))
        await until(is_there)
        caller.cancel_scope.cancel()
    await world.daemon.crash()
    assert part.exists()
    assert [copy.part for copy in remembered(world)] == [os.fsencode(part)]


async def test_what_is_here_is_copied_to_another_place_and_served_from_the_first(
    world: World, tree: Content, other: Path, autojump_clock: MockClock
) -> None:
    await world.seed(tree)
    report = await world.daemon.download(tree.manifest, other)
    assert (report.path, report.bytes_local, report.bytes_from_peers) == (
        str(other / "tree"),
        tree.manifest.size,
        {},
    )
    assert tree_of(other / "tree") == tree_of(tree.root)
    assert (await world.daemon.stat(tree.manifest)).local.path == str(tree.root)
    await world.daemon.download(tree.manifest, other)
    assert os.listdir(other) == ["tree"]


async def test_what_is_here_but_changed_is_not_copied(
    world: World, content: Content, other: Path, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    before = content.root.stat()
    with open(content.root, "r+b") as file:
        file.write(b"edited")
    os.utime(content.root, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Exception, match="changed while it was copied; run interfiles verify"):
        await world.daemon.download(content.manifest, other)
    assert not list(other.iterdir())


async def test_a_copy_that_does_not_fit_leaves_nothing(
    world: World, content: Content, other: Path, failing: Failing, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    failing("pwrite", errno.ENOSPC)
    with pytest.raises(NoSpace):
        await world.daemon.download(content.manifest, other)
    assert not list(other.iterdir())
    assert await honest_copy(world, content) == content.data


@pytest.fixture
async def copying(world: World, content: Content, other: Path, autojump_clock: MockClock) -> DownloadReport:
    """A copy to `other` that has just begun; it takes a second."""
    await world.seed(content)
    await world.daemon.stop()
    world.daemon.disk = SlowExecutor(lambda: 0.2)
    await world.daemon.start()
    return await world.daemon.download(content.manifest, other, detach=True)


async def test_a_copy_is_a_job_that_is_shown_and_waited_for(
    world: World, content: Content, other: Path, copying: DownloadReport
) -> None:
    assert (copying.state, copying.path) == ("detached", str(other / "weights.bin"))
    transfer = await world.daemon.transfer()
    assert (transfer.state, transfer.path, transfer.size) == ("copying", copying.path, content.manifest.size)
    assert not (other / "weights.bin").exists()
    report = await world.daemon.wait(content.manifest)
    assert (report.state, report.path, report.bytes_local) == ("complete", copying.path, content.manifest.size)
    assert (other / "weights.bin").read_bytes() == content.data
    assert not (await world.daemon.status()).transfers


async def test_a_copy_asked_for_twice_is_made_once(
    world: World, content: Content, other: Path, copying: DownloadReport
) -> None:
    report = await world.daemon.download(content.manifest, other)
    assert (report.state, report.bytes_local) == ("complete", content.manifest.size)
    assert os.listdir(other) == ["weights.bin"]


async def test_removing_the_file_ends_its_copies(
    world: World, content: Content, other: Path, copying: DownloadReport
) -> None:
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(Refused, match="was stopped: the file was removed"):
                await world.daemon.wait(content.manifest)

        nursery.start_soon(wait)
        await trio.sleep(0.1)  # it has asked by then, and the copy takes longer
        await world.daemon.remove(content.manifest)
    assert not os.listdir(other)
    assert content.root.read_bytes() == content.data
    await world.daemon.stop()
    assert not remembered(world)


@pytest.mark.parametrize("overwrite", [False, True])
async def test_a_copy_goes_on_after_a_crash(
    world: World, content: Content, other: Path, overwrite: bool, autojump_clock: MockClock
) -> None:
    if overwrite:
        (other / "weights.bin").write_bytes(b"something else")
    await crash_while_copying(world, content, other, overwrite=overwrite)
    await world.daemon.start()
    await trio.sleep(5)
    assert (other / "weights.bin").read_bytes() == content.data
    assert os.listdir(other) == ["weights.bin"]
    await world.daemon.stop()
    assert not remembered(world)


async def test_a_copy_asked_for_again_after_a_crash_is_made_once(
    world: World, content: Content, other: Path, autojump_clock: MockClock
) -> None:
    await crash_while_copying(world, content, other)
    await world.daemon.start()
    report = await world.daemon.download(content.manifest, other)
    assert report.state == "complete"
    assert os.listdir(other) == ["weights.bin"]
    await world.daemon.stop()
    assert not remembered(world)


async def test_a_copy_whose_file_is_gone_after_a_crash_is_given_up(
    world: World, content: Content, other: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await crash_while_copying(world, content, other)
    jobs = world.daemon.records()
    jobs.remove(content.manifest.file_id)
    jobs.close()
    await world.daemon.start()
    await trio.sleep(5)
    assert not os.listdir(other)
    (told,) = [record for record in log_records.records if record["event"] == "copy given up"]
    assert told["reason"] == "this host does not have the whole file any more"
    await world.daemon.stop()
    assert not remembered(world)


async def test_what_came_to_stand_at_the_place_of_a_copy_stays(
    world: World, content: Content, other: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await crash_while_copying(world, content, other)
    (other / "weights.bin").write_bytes(b"another's")
    await world.daemon.start()
    await trio.sleep(5)
    assert (other / "weights.bin").read_bytes() == b"another's"
    assert os.listdir(other) == ["weights.bin"]
    (told,) = [record for record in log_records.records if record["event"] == "copy given up"]
    assert told["reason"].endswith("weights.bin exists already")
    await world.daemon.stop()
    assert not remembered(world)
