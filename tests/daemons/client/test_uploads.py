"""Uploading: from a path to a seed that the master knows, or to nothing at all."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.uploads import PUBLISH_TIMEOUT_S
from interfiles.errors import ContentChanged, InterFilesError, NoSpace, PathNotFound, Refused
from interfiles.storage.jobs import JobStore
from interfiles.tracker_file import TrackerFile
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.reports import UploadReport, decode_report
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out, honest_copy
from tests.daemons.client.setting import EPOCH, FLEET, MASTER, SlowExecutor, link, until
from tests.daemons.client.world import World, result_of
from tests.storage.contents import PIECE, Content, Failing, a_file, tree_of


def copies(world: World) -> list[str]:
    """What is in the directory of own copies."""
    directory = world.daemon.state / "copies"
    return os.listdir(directory) if directory.exists() else []


async def nothing_was_kept(world: World) -> None:
    assert (await world.daemon.status()).files == 0
    assert not (await world.daemon.status()).transfers
    assert not copies(world)
    assert not world.master.messages(m.Publish)


async def test_an_upload_is_hashed_seeded_and_published(world: World, tree: Content, autojump_clock: MockClock) -> None:
    before = tree_of(tree.root)
    async with world.daemon.calling(c.Upload(os.fsencode(tree.root), 5, False, None)) as stream:
        report = decode_report(await result_of(stream), UploadReport)
        assert isinstance(await stream.receive(), c.TrackerContent)
        tracker = TrackerFile.decode(await stream.receive_payload())
    assert report.id == tree.manifest.file_id.hex()
    assert (report.name, report.size, report.pieces) == ("tree", tree.manifest.size, tree.manifest.piece_count)
    assert (report.published, report.replicas_wanted) == (True, 3), "the master says how many"
    assert tracker.manifest == tree.manifest
    assert (tracker.masters, tracker.uploaded_by, tracker.fleet) == ((str(MASTER),), "tested", FLEET)
    assert tracker.uploaded_at - EPOCH < 10
    (publish,) = world.master.messages(m.Publish)
    assert isinstance(publish, m.Publish)
    assert (publish.file_id, publish.replicas) == (tree.manifest.file_id, 5)
    assert await honest_copy(world, tree) == tree.data
    assert tree_of(tree.root) == before
    await until(lambda: tree.manifest.file_id in world.master.holdings)
    assert world.master.holdings[tree.manifest.file_id].state == "complete"


async def test_an_upload_while_the_master_is_away_is_published_when_it_is_back(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    world.master.scope.cancel()
    await trio.sleep(1)
    began = trio.current_time()
    assert not (await world.daemon.upload(content.root)).published
    assert trio.current_time() - began < 1, "nobody is waited for who is not there"
    await world.nursery.start(world.master.run)
    await until(lambda: content.manifest.file_id in world.master.catalogue, within_s=20)


async def test_a_master_that_takes_its_time_is_not_waited_for_without_end(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    async def say_nothing(stream: Stream, message: Message) -> bool:
        return isinstance(message, m.Publish)

    world.master.answer = say_nothing
    began = trio.current_time()
    assert not (await world.daemon.upload(content.root)).published
    assert trio.current_time() - began == pytest.approx(PUBLISH_TIMEOUT_S, abs=1)
    assert await honest_copy(world, content) == content.data
    world.master.answer = None
    await until(lambda: content.manifest.file_id in world.master.catalogue, within_s=90)


async def test_a_master_that_refuses_is_asked_again_now_and_then(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async def refuse(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.Publish):
            await stream.send(m.RequestFailed(message.request, "no-space", "the master's disk is full"))
        return isinstance(message, m.Publish)

    world.master.answer = refuse
    assert not (await world.daemon.upload(content.root)).published
    await trio.sleep(100)
    assert 3 <= len(world.master.messages(m.Publish)) <= 15
    assert len(world.master.connections) == 1
    world.master.answer = None
    await until(lambda: content.manifest.file_id in world.master.catalogue)
    refusals = [r for r in log_records.records if r.get("reason") == "the master's disk is full"]
    assert refusals


async def test_one_refused_file_does_not_hold_up_the_others(
    world: World, content: Content, tree: Content, autojump_clock: MockClock
) -> None:
    async def refuse(stream: Stream, message: Message) -> bool:
        refused = isinstance(message, m.Publish) and message.file_id == content.manifest.file_id
        if refused:
            await stream.send(m.RequestFailed(message.request, "refused", "not this one"))  # type: ignore[attr-defined]
        return refused

    world.master.answer = refuse
    assert not (await world.daemon.upload(content.root)).published
    assert (await world.daemon.upload(tree.root)).published


PATHS: dict[str, tuple[str, type[Exception]]] = {
    "absent": ("absent", PathNotFound),
    "a FIFO": ("fifo", PathNotFound),
    "a FIFO within": ("within", PathNotFound),
    "a symlink to nothing": ("nowhere", PathNotFound),
    "a symlink that escapes": ("escaping", Refused),
    "the root": ("/", InterFilesError),
}


@pytest.mark.parametrize(("name", "error"), PATHS.values(), ids=PATHS)
async def test_a_path_that_cannot_be_sent(
    world: World, tmp_path: Path, name: str, error: type[Exception], autojump_clock: MockClock
) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "within").mkdir()
    os.mkfifo(tmp_path / "within" / "fifo")
    (tmp_path / "nowhere").symlink_to("nothing")
    (tmp_path / "escaping").mkdir()
    (tmp_path / "escaping" / "link").symlink_to("../../etc/passwd")
    with trio.fail_after(10):
        with pytest.raises(error):
            await world.daemon.upload(tmp_path / name)
    await nothing_was_kept(world)


async def test_a_file_that_changes_while_it_is_hashed(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    real, seen = os.preadv, 0

    def change_once(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal seen
        seen += 1
        if seen == 2:
            with open(content.root, "r+b") as file:
                file.write(b"changed")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", change_once)
    with pytest.raises(ContentChanged, match=r"weights\.bin"):
        await world.daemon.upload(content.root)
    await nothing_was_kept(world)


async def test_a_database_without_room_leaves_nothing(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object) -> None:
        raise NoSpace("the disk of the client's database is full")

    monkeypatch.setattr(JobStore, "add", fail)
    for copy in (False, True):
        with pytest.raises(NoSpace):
            await world.daemon.upload(content.root, copy=copy)
        await nothing_was_kept(world)


# A file that is here already


async def test_an_upload_again_is_the_same_file(world: World, content: Content, autojump_clock: MockClock) -> None:
    first = await world.daemon.upload(content.root)
    content.root.rename(content.root.with_name("moved"))
    (content.root.parent / "elsewhere").mkdir()
    moved = content.root.parent / "elsewhere" / "weights.bin"
    content.root.with_name("moved").rename(moved)
    second = await world.daemon.upload(moved)
    assert first.id == second.id
    assert (await world.daemon.status()).files == 1
    assert await honest_copy(world, content) == content.data


@pytest.mark.parametrize("paused", [False, True])
async def test_a_file_that_is_being_downloaded_is_refused(
    world: World, tmp_path: Path, paused: bool, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "weights.bin", size=12 * PIECE)
    server = Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=1e6))
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    if paused:
        await world.daemon.pause(content.manifest)
    for copy in (False, True):
        with pytest.raises(Refused, match="is being downloaded here"):
            await world.daemon.upload(content.root, copy=copy)
    assert not copies(world)
    if paused:
        await world.daemon.resume(content.manifest)
    await world.daemon.wait(content.manifest)
    assert os.listdir(world.daemon.got) == ["weights.bin"]
    await world.daemon.upload(content.root)
    assert (await world.daemon.stat(content.manifest)).local.path == str(content.root)


# Own copies


async def test_an_own_copy_outlives_the_original(world: World, tree: Content, autojump_clock: MockClock) -> None:
    await world.daemon.upload(tree.root, copy=True)
    (place,) = copies(world)
    assert tree_of(world.daemon.state / "copies" / place / "tree") == tree_of(tree.root)
    tree.root.rename(tree.root.with_name("gone"))
    await world.daemon.restart()
    assert await honest_copy(world, tree) == tree.data


async def test_an_own_copy_takes_the_place_of_the_one_before(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.upload(content.root, copy=True)
    first = copies(world)
    await world.daemon.upload(content.root, copy=True)
    second = copies(world)
    assert len(second) == 1
    assert first != second
    assert await honest_copy(world, content) == content.data
    await world.daemon.upload(content.root)
    assert not copies(world)
    assert await honest_copy(world, content) == content.data


async def test_the_quota_holds_for_all_own_copies_together(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    files = [a_file(tmp_path / "original" / f"file{n}", size=PIECE, seed=n) for n in range(3)]
    world.daemon.quota = 2 * PIECE + 10
    await world.daemon.restart()
    await world.daemon.upload(files[0].root, copy=True)
    await world.daemon.upload(files[1].root, copy=True)
    with pytest.raises(NoSpace, match=r"quota of 524 kB has 524 kB in use, a copy of file2 needs 262 kB"):
        await world.daemon.upload(files[2].root, copy=True)
    assert len(copies(world)) == 2
    assert (await world.daemon.status()).free <= 10
    await world.daemon.upload(files[2].root)
    await world.daemon.remove(files[0].manifest)
    await world.daemon.upload(files[2].root, copy=True)
    assert len(copies(world)) == 2


async def test_the_quota_holds_for_copies_that_are_made_at_once(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    files = [a_file(tmp_path / "original" / f"file{n}", size=PIECE, seed=n) for n in range(4)]
    world.daemon.quota, world.daemon.disk = 2 * PIECE, SlowExecutor(lambda: 1.0)
    await world.daemon.restart()
    refused = 0

    async def upload(content: Content) -> None:
        nonlocal refused
        try:
            await world.daemon.upload(content.root, copy=True)
        except NoSpace:
            refused += 1

    async with trio.open_nursery() as nursery:
        for content in files:
            nursery.start_soon(upload, content)
    assert refused == 2
    assert len(copies(world)) == 2


async def test_a_copy_that_fails_leaves_nothing(
    world: World, tree: Content, failing: Failing, autojump_clock: MockClock
) -> None:
    failing("copy_file_range", errno.ENOSPC)
    with pytest.raises(NoSpace):
        await world.daemon.upload(tree.root, copy=True)
    await nothing_was_kept(world)


async def test_a_state_directory_that_cannot_be_written(
    world: World, content: Content, failing: Failing, autojump_clock: MockClock
) -> None:
    failing("mkdir", errno.EROFS)
    with pytest.raises(InterFilesError, match="Read-only"):
        await world.daemon.upload(content.root, copy=True)


# Callers that leave


@pytest.mark.parametrize("copy", [False, True])
async def test_a_caller_that_leaves_at_any_moment_leaves_nothing_or_a_seed(
    world: World, tree: Content, copy: bool, autojump_clock: MockClock
) -> None:
    world.daemon.disk = world.daemon.database = SlowExecutor(lambda: 1.0)
    await world.daemon.restart()
    await until(lambda: len(world.master.connections) > 1)
    abandoned = 0
    for seconds in range(12):
        async with world.daemon.calling(c.Upload(os.fsencode(tree.root), None, copy, None)):
            await trio.sleep(seconds + 0.5)
        await trio.sleep(5)
        if (await world.daemon.status()).files:
            assert await honest_copy(world, tree) == tree.data
            await world.daemon.remove(tree.manifest)
        else:
            abandoned += 1
        assert not copies(world)
        assert await world.daemon.status()
    assert 3 <= abandoned <= 10
