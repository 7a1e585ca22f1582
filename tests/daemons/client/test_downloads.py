"""What a download makes of the place that it is to go to, and of what this host has already."""

import errno
import os
import stat
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import DestinationExists, NoSpace, NotPermitted, Refused
from interfiles.storage.jobs import JobStore
from interfiles.storage.part_store import part_path
from interfiles.wire import control_messages as c
from interfiles.wire.reports import DownloadReport
from tests.daemons.client.peers import Server, hand_out, honest_copy
from tests.daemons.client.setting import SlowExecutor, link, tracker_of, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file, tree_of

PIECES = 12


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE + 10)


@pytest.fixture
def server(world: World, content: Content) -> Server:
    """An honest server that needs three seconds for it all."""
    made = Server(world, content, "honest")
    world.network.set_link(made.ip, link(rate=1e6))
    return made


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another directory to download into."""
    made = tmp_path / "other"
    made.mkdir()
    return made


async def nothing_was_begun(world: World, *directories: Path) -> None:
    """No record, no part, no transfer."""
    assert not (await world.daemon.status()).transfers
    for directory in directories:
        assert not list(directory.glob("*.part"))


# Places


@pytest.mark.parametrize("place", ["absent", "absent/deeper", "file", "link-to-nothing", "loop"])
async def test_a_place_that_is_no_directory(
    world: World, content: Content, other: Path, place: str, autojump_clock: MockClock
) -> None:
    (other / "file").write_bytes(b"")
    (other / "link-to-nothing").symlink_to("nothing")
    (other / "loop").symlink_to("loop")
    with pytest.raises(Refused, match=place):
        await world.daemon.download(content.manifest, other / place)
    await nothing_was_begun(world, other)


async def test_a_directory_under_a_strange_name(
    world: World, content: Content, server: Server, other: Path, autojump_clock: MockClock
) -> None:
    strange = Path(os.fsdecode(os.fsencode(other) + b"/\xff\x1b[2J\n"))
    strange.mkdir()
    await world.daemon.download(content.manifest, strange, detach=True)
    assert (await world.daemon.transfer()).path.endswith("weights.bin")
    assert (await world.daemon.stat(content.manifest)).local.path.endswith("weights.bin")
    with pytest.raises(Refused, match=r"on its way to .*\\udcff\\x1b\[2J\\x0a"):
        await world.daemon.download(content.manifest, other)
    await hand_out(world, server)
    report = await world.daemon.wait(content.manifest)
    assert report.path.endswith("weights.bin")
    assert (strange / "weights.bin").read_bytes() == content.data
    assert (await world.daemon.verify(content.manifest)).bad_pieces == []
    assert (await world.daemon.remove(content.manifest)).path.endswith("weights.bin")


async def test_a_symlink_to_a_directory_is_followed_once(
    world: World, content: Content, server: Server, other: Path, autojump_clock: MockClock
) -> None:
    (other / "link").symlink_to(world.daemon.got)
    await world.daemon.download(content.manifest, other / "link", detach=True)
    assert (await world.daemon.transfer()).path == str(world.daemon.got / "weights.bin")
    (other / "link").unlink()
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data


async def test_a_directory_that_may_not_be_written_to(
    world: World, content: Content, other: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(os, "access", lambda path, _: path != other)
    with pytest.raises(NotPermitted, match=r"the daemon's user may not write to .*other; name another"):
        await world.daemon.download(content.manifest, other)
    await nothing_was_begun(world, other)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
async def test_a_place_that_refuses_to_be_written_to(
    world: World, content: Content, failing: Failing, number: int, autojump_clock: MockClock
) -> None:
    failing("open", number, when=lambda path, flags, *_, **__: flags & os.O_CREAT and b".part" in os.fsencode(path))
    with pytest.raises(NotPermitted, match="got"):
        await world.daemon.download(content.manifest)
    await nothing_was_begun(world, world.daemon.got)


async def test_a_disk_that_is_too_small(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    real = os.fstatvfs

    def nearly_full(descriptor: int) -> os.statvfs_result:
        found = list(real(descriptor))
        found[3] = found[4] = 100  # blocks free
        return os.statvfs_result(found)

    monkeypatch.setattr(os, "fstatvfs", nearly_full)
    with pytest.raises(NoSpace, match=r"free, weights\.bin needs 3\.1 MB"):
        await world.daemon.download(content.manifest)
    await nothing_was_begun(world, world.daemon.got)


async def test_a_database_without_room_leaves_no_part(
    world: World, content: Content, server: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object) -> None:
        raise NoSpace("the disk of the client's database is full")

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "add", fail)
        with pytest.raises(NoSpace, match="database is full"):
            await world.daemon.download(content.manifest)
    await nothing_was_begun(world, world.daemon.got)


# What stands at the destination already


async def test_the_same_content_is_taken_over_as_it_is(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    there = world.daemon.got / "weights.bin"
    there.write_bytes(content.data)
    before = there.stat()
    report = await world.daemon.download(content.manifest)
    assert (report.bytes_local, report.bytes_from_peers) == (content.manifest.size, {})
    assert there.stat() == before
    assert await honest_copy(world, content) == content.data
    await world.daemon.remove(content.manifest, delete=True)
    assert there.exists(), "it was the person's own"


@pytest.mark.parametrize("data", [b"", b"something else", b"\0" * (PIECES * PIECE + 10)])
async def test_another_content_stays_unless_it_may_be_replaced(
    world: World, content: Content, server: Server, data: bytes, autojump_clock: MockClock
) -> None:
    there = world.daemon.got / "weights.bin"
    there.write_bytes(data)
    with pytest.raises(DestinationExists, match="exists and differs; use --overwrite"):
        await world.daemon.download(content.manifest)
    await nothing_was_begun(world, world.daemon.got)
    await world.daemon.download(content.manifest, overwrite=True, detach=True)
    assert there.read_bytes() == data, "until the new one is whole"
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)
    assert there.read_bytes() == content.data
    assert os.listdir(world.daemon.got) == ["weights.bin"]


async def test_a_directory_is_replaced_as_a_whole(world: World, tree: Content, autojump_clock: MockClock) -> None:
    there = world.daemon.got / "tree"
    (there / "mine").mkdir(parents=True)
    (there / "mine" / "file").write_bytes(b"mine")
    with pytest.raises(DestinationExists):
        await world.daemon.download(tree.manifest)
    await world.daemon.download(tree.manifest, overwrite=True, detach=True)
    await hand_out(world, Server(world, tree, "honest"))
    await world.daemon.wait(tree.manifest)
    assert tree_of(there) == tree_of(tree.root)


@pytest.mark.parametrize("kind", ["symlink", "FIFO"])
async def test_what_is_neither_file_nor_directory_is_in_the_way(
    world: World, content: Content, other: Path, kind: str, autojump_clock: MockClock
) -> None:
    there = world.daemon.got / "weights.bin"
    if kind == "symlink":
        (other / "target").write_bytes(content.data)
        there.symlink_to(other / "target")
    else:
        os.mkfifo(there)
    with trio.fail_after(10):
        with pytest.raises(DestinationExists):
            await world.daemon.download(content.manifest)
    assert stat.S_IFMT(there.lstat().st_mode) in (stat.S_IFLNK, stat.S_IFIFO)


async def test_an_older_version_is_mended_and_not_fetched_whole(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    older = bytearray(content.data)
    older[5 * PIECE + 1] ^= 1
    (world.daemon.got / "weights.bin").write_bytes(older)
    await world.daemon.download(content.manifest, overwrite=True, detach=True)
    await hand_out(world, server)
    report = await world.daemon.wait(content.manifest)
    assert report.bytes_from_peers == {"honest": PIECE}
    assert report.bytes_local == content.manifest.size - PIECE
    assert server.answered == [5]


# A file that is here, or on its way, already


async def test_a_second_download_attaches_to_the_first(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    reports: list[DownloadReport] = []

    async def download() -> None:
        reports.append(await world.daemon.download(content.manifest))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(download)
        await until(lambda: _transfers(world, 1))
        await hand_out(world, server)
    assert len(reports) == 3
    assert {report.path for report in reports} == {str(world.daemon.got / "weights.bin")}
    assert len(server.answered) == content.manifest.piece_count, "it was fetched once"
    again = await world.daemon.download(content.manifest)
    assert again.state == "complete"
    assert len(server.answered) == content.manifest.piece_count


async def _transfers(world: World, count: int) -> bool:
    return len((await world.daemon.status()).transfers) == count


async def test_a_file_on_its_way_elsewhere_is_refused(
    world: World, content: Content, server: Server, other: Path, autojump_clock: MockClock
) -> None:
    outcomes: list[str] = []

    async def download(directory: Path) -> None:
        try:
            await world.daemon.download(content.manifest, directory)
            outcomes.append("done")
        except Refused as e:
            assert "is on its way to" in str(e)  # noqa: PT017 - either end is right
            outcomes.append("refused")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(download, world.daemon.got)
        nursery.start_soon(download, other)
        await until(lambda: outcomes == ["refused"])
        await hand_out(world, server)
    assert sorted(outcomes) == ["done", "refused"]
    assert len([*world.daemon.got.iterdir(), *other.iterdir()]) == 1, "the refused one left nothing"


async def test_a_paused_download_is_resumed_by_downloading_it(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await world.daemon.pause(content.manifest)
    report = await world.daemon.download(content.manifest)
    assert report.state == "complete"


@pytest.mark.parametrize("is_here", [False, True])
async def test_a_file_of_somebody_elses_with_the_name_of_a_part_is_in_the_way(
    world: World, content: Content, other: Path, is_here: bool, autojump_clock: MockClock
) -> None:
    if is_here:
        await world.seed(content)
    part = part_path(other, content.manifest)
    part.write_bytes(b"x")
    with pytest.raises(DestinationExists, match=r"\.part is in the way; remove it"):
        await world.daemon.download(content.manifest, other)
    assert part.read_bytes() == b"x"
    assert os.listdir(other) == [part.name]
    await nothing_was_begun(world)


async def test_a_withdrawn_file_is_fetched_again(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    content.root.rename(content.root.with_name("kept"))
    await world.daemon.restart()
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data
    assert await honest_copy(world, content) == content.data


async def test_a_damaged_download_is_mended_by_downloading_it_again(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)
    there = world.daemon.got / "weights.bin"
    before = there.stat()
    with open(there, "r+b") as file:
        file.seek(2 * PIECE)
        file.write(b"rotten")
    os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (await world.daemon.verify(content.manifest)).bad_pieces == [2]
    server.answered.clear()
    await world.daemon.download(content.manifest, detach=True)
    await world.master.hand_out(content.manifest.file_id, server.peer)
    report = await world.daemon.wait(content.manifest)
    assert server.answered == [2]
    assert report.bytes_from_peers == {"honest": PIECE}
    assert there.read_bytes() == content.data


async def test_a_destination_that_appears_meanwhile_can_be_allowed_to_go(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    (world.daemon.got / "weights.bin").write_bytes(b"mine")
    await hand_out(world, server)
    with pytest.raises(DestinationExists, match=r"exists; move it away, or .*; the download stays queued"):
        await world.daemon.wait(content.manifest)
    assert "exists; move it away" in (await world.daemon.transfer()).note
    with trio.fail_after(100):
        await world.daemon.download(content.manifest, overwrite=True)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data


# Callers that leave


async def test_a_caller_that_leaves_at_any_moment_finds_the_download_taken_on(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    world.daemon.disk = world.daemon.database = SlowExecutor(lambda: 0.1)
    await world.daemon.restart()
    await until(lambda: len(world.master.connections) > 1)
    for tenths in range(1, 8):
        request = c.Download("", os.fsencode(world.daemon.got), False, False, None, None)
        async with world.daemon.calling(request, tracker_of(content.manifest)):
            await trio.sleep(tenths / 10 + 0.05)
        await until(lambda: _transfers(world, 1), within_s=5)
        await world.daemon.remove(content.manifest)
        await nothing_was_begun(world, world.daemon.got)
        assert not list(world.daemon.got.iterdir())
