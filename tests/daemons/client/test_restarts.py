"""A daemon that is killed and started again, whatever it was doing and whatever happened to its files meanwhile."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.download import SOME_PEER
from daemons.client.library import SWEEP_S, Library
from interfiles.errors import NoSpace, UnknownFile
from interfiles.piece_set import PieceSet
from interfiles.storage import finishing
from interfiles.storage.records import FileRecord
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, fetching, hand_out, honest_copy
from tests.daemons.client.setting import link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file, make_tree, noise, tree_of, uploaded

PIECES = 12


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE + 10)


def slow(world: World, content: Content) -> Server:
    """An honest server that needs three seconds for a megabyte."""
    made = Server(world, content, "honest")
    world.network.set_link(made.ip, link(rate=300_000))
    return made


async def begin(world: World, server: Server, pieces: int = 3) -> None:
    """Download until some pieces are there."""
    await world.daemon.download(server.content.manifest, detach=True)
    await hand_out(world, server)
    await until(lambda: _bytes_done(world, pieces * PIECE))


async def _bytes_done(world: World, count: int) -> bool:
    return (await world.daemon.transfer()).bytes_done >= count


def record(world: World) -> FileRecord:
    """What the daemon, which is not running, remembers of its only file."""
    jobs = world.daemon.records()
    (found,) = jobs.load_all()
    jobs.close()
    return found


async def is_right(world: World, content: Content) -> None:
    await world.daemon.wait(content.manifest)
    assert tree_of(world.daemon.got / content.manifest.name) == tree_of(content.root)
    assert os.listdir(world.daemon.got) == [content.manifest.name]
    assert await honest_copy(world, content) == content.data


async def test_a_download_goes_on_with_the_peers_that_it_knew(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = slow(world, content)
    await begin(world, server, 6)
    await world.daemon.crash()
    durable = set(PieceSet.from_bytes(content.manifest.piece_count, record(world).durable))
    assert durable
    server.answered.clear()
    world.master.scope.cancel()
    await world.daemon.start()
    await is_right(world, content)
    assert not durable & set(server.answered), "what is durable is not fetched again"


async def test_what_was_verified_and_not_yet_recorded_is_hashed_and_not_fetched_again(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def forget(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    server = slow(world, content)
    with monkeypatch.context() as patched:
        patched.setattr(Library, "record_progress", forget)
        await begin(world, server, 6)
        await world.daemon.crash()
    assert not PieceSet.from_bytes(content.manifest.piece_count, record(world).durable)
    server.answered.clear()
    await world.daemon.start()
    await is_right(world, content)
    assert len(set(server.answered)) <= content.manifest.piece_count - 6
    report = await world.daemon.wait(content.manifest)
    assert report.bytes_local == 0, "it did come from peers"
    assert report.bytes_from_peers[SOME_PEER] >= 6 * PIECE
    assert sum(report.bytes_from_peers.values()) == report.size


async def test_a_download_that_was_being_finished_is_finished(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NoSpace("not now")

    server = Server(world, content, "honest")
    with monkeypatch.context() as patched:
        patched.setattr(finishing, "finish", fail)
        await world.daemon.download(content.manifest, detach=True)
        await hand_out(world, server)
        await until(lambda: _note(world, "not now"))
        await world.daemon.crash()
    assert record(world).state == "finishing"
    server.answered.clear()
    await world.daemon.start()
    await is_right(world, content)
    assert not server.answered


async def _note(world: World, note: str) -> bool:
    return (await world.daemon.transfer()).note == note


async def test_a_finished_download_whose_record_was_lost_in_the_crash_is_found(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def fail(*_: object) -> None:
        raise NoSpace("not now")

    with monkeypatch.context() as patched:
        patched.setattr(Library, "complete", fail)
        await world.daemon.download(content.manifest, detach=True)
        await hand_out(world, Server(world, content, "honest"))
        await until((world.daemon.got / "weights.bin").exists)
        await world.daemon.crash()
    assert record(world).state == "finishing"
    await world.daemon.start()
    await is_right(world, content)


async def test_a_paused_download_stays_paused(world: World, content: Content, autojump_clock: MockClock) -> None:
    server = slow(world, content)
    await begin(world, server)
    await world.daemon.pause(content.manifest)
    await world.daemon.restart()
    server.answered.clear()
    await trio.sleep(100)
    assert not server.answered
    assert (await world.daemon.transfer()).state == "paused"
    assert await world.daemon.resume(content.manifest) == "downloading"
    await is_right(world, content)


async def test_a_complete_file_is_served_at_once(world: World, content: Content, autojump_clock: MockClock) -> None:
    await world.seed(content)
    await world.daemon.restart()
    assert await honest_copy(world, content) == content.data
    await until(lambda: world.master.holdings)
    assert world.master.holdings[content.manifest.file_id].state == "complete"


async def test_a_paused_seed_stays_paused_and_is_resumed(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.pause(content.manifest)
    await world.daemon.restart()
    assert (await world.daemon.transfer()).state == "paused"
    assert await world.daemon.resume(content.manifest) == "complete"
    assert await honest_copy(world, content) == content.data


CHANGES = {
    "removed": lambda path: path.unlink(),
    "replaced": lambda path: path.write_bytes(b"something else"),
    "truncated": lambda path: os.truncate(path, PIECE),
    "grown": lambda path: os.truncate(path, 100 * PIECE),
    "touched": os.utime,
    "a directory now": lambda path: (path.unlink(), path.mkdir()),
    "its directory removed": lambda path: (path.unlink(), path.parent.rmdir()),
    "a FIFO now": lambda path: (path.unlink(), os.mkfifo(path)),  # type: ignore[func-returns-value]
    "a symlink now": lambda path: (path.rename(path.with_suffix(".old")), path.symlink_to(path.with_suffix(".old"))),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_a_seed_that_changed_while_the_daemon_was_down_is_withdrawn(  # type: ignore[no-untyped-def]
    world: World,
    content: Content,
    change,
    log_records: LogRecords,
    autojump_clock: MockClock,
) -> None:
    await world.seed(content)
    await world.daemon.crash()
    change(content.root)
    await world.daemon.start()
    await until(lambda: _is_gone(world, content), within_s=1)
    for _ in range(2):
        local = (await world.daemon.stat(content.manifest)).local
        assert (local.state, local.pieces) == ("none", 0)
        assert "weights.bin" in local.note
        assert (await world.daemon.status()).used == 0
        await until(lambda: world.master.holdings)
        assert world.master.holdings[content.manifest.file_id].state == "none"
        world.master.holdings.clear()
        await world.daemon.restart()
    assert len([r for r in log_records.records if r["event"] == "withdrawn"]) == 1


async def _is_gone(world: World, content: Content) -> bool:
    return (await world.daemon.stat(content.manifest)).local.state == "none"


async def test_a_seed_that_was_put_back_is_served_again(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    aside = content.root.with_name("aside")
    content.root.rename(aside)
    await trio.sleep(SWEEP_S + 1)
    assert await _is_gone(world, content)
    aside.rename(content.root)
    await trio.sleep(SWEEP_S + 1)
    assert await honest_copy(world, content) == content.data
    await world.daemon.restart()
    assert await honest_copy(world, content) == content.data


# The part, and where it is


async def test_a_part_that_vanished_is_begun_anew(world: World, content: Content, autojump_clock: MockClock) -> None:
    server = slow(world, content)
    await begin(world, server)
    await world.daemon.crash()
    (part,) = world.daemon.got.iterdir()
    part.unlink()
    await world.daemon.start()
    await is_right(world, content)


async def test_a_part_that_was_cut_is_hashed_and_completed(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = slow(world, content)
    await begin(world, server, 8)
    await world.daemon.crash()
    (part,) = world.daemon.got.iterdir()
    os.truncate(part, 6 * PIECE)
    await world.daemon.start()
    await is_right(world, content)


async def test_something_else_in_the_parts_place_is_left_alone(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = slow(world, content)
    await begin(world, server)
    await world.daemon.crash()
    (part,) = world.daemon.got.iterdir()
    part.unlink()
    part.mkdir()
    (part / "mine").write_bytes(b"mine")
    await world.daemon.start()
    await until(lambda: _has_note(world, "in the way"))
    assert (part / "mine").read_bytes() == b"mine"
    (part / "mine").unlink()
    part.rmdir()
    await is_right(world, content)


async def _has_note(world: World, words: str) -> bool:
    return words in (await world.daemon.transfer()).note


async def test_a_directory_that_vanished_is_waited_for(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = slow(world, content)
    await begin(world, server)
    await world.daemon.crash()
    aside = world.daemon.got.with_name("aside")
    world.daemon.got.rename(aside)
    await world.daemon.start()
    await until(lambda: _has_note(world, str(world.daemon.got)))
    aside.rename(world.daemon.got)
    await is_right(world, content)


async def test_what_appeared_at_the_destination_is_not_replaced(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = slow(world, content)
    await begin(world, server)
    await world.daemon.crash()
    destination = world.daemon.got / "weights.bin"
    destination.write_bytes(b"mine")
    await world.daemon.start()
    await until(lambda: _has_note(world, "exists"))
    assert destination.read_bytes() == b"mine"
    destination.unlink()
    await is_right(world, content)


async def test_a_parent_swapped_for_a_symlink_is_not_followed_out(
    world: World, tree: Content, tmp_path: Path, autojump_clock: MockClock
) -> None:
    server = slow(world, tree)
    await begin(world, server, 1)
    await world.daemon.crash()
    (part,) = world.daemon.got.iterdir()
    outside = tmp_path / "outside"
    (part / "a").rename(outside)
    (part / "a").symlink_to(outside)
    before = tree_of(outside)
    await world.daemon.start()
    await until(lambda: _has_note(world, "in the way"))
    await trio.sleep(60)
    assert tree_of(outside) == before


# Contents of every kind


async def test_a_tree_with_everything_in_it(world: World, tree: Content, autojump_clock: MockClock) -> None:
    server = slow(world, tree)
    await begin(world, server, 1)
    await world.daemon.restart()
    await is_right(world, tree)
    await world.daemon.restart()
    assert await honest_copy(world, tree) == tree.data
    assert len(server.answered) < 2 * tree.manifest.piece_count - 2, "pieces of zeros are never asked for"


def empty_file(root: Path) -> None:
    root.parent.mkdir(parents=True)
    root.write_bytes(b"")


def empty_directory(root: Path) -> None:
    root.mkdir(parents=True)


def files_of_nothing(root: Path) -> None:
    make_tree(root, {"a/empty": b"", "b": b""}, executable=("b",), links={"c": "b"}, empty=("d/e",))


@pytest.mark.parametrize("make", [empty_file, empty_directory, files_of_nothing])
async def test_a_content_of_no_bytes_needs_nobody(  # type: ignore[no-untyped-def]
    world: World,
    tmp_path: Path,
    make,
    autojump_clock: MockClock,
) -> None:
    root = tmp_path / "original" / "nothing"
    make(root)
    content = uploaded(root)
    report = await world.daemon.download(content.manifest)
    assert (report.size, report.state) == (0, "complete")
    assert tree_of(world.daemon.got / "nothing") == tree_of(root)
    await world.daemon.restart()
    stat = await world.daemon.stat(content.manifest)
    assert stat.local.state == "complete"
    async with fetching(world, content.manifest.file_id) as fetcher:
        assert fetcher.bitfield == b""
    await world.daemon.upload(root)
    assert (await world.daemon.verify(content.manifest)).bad_pieces == []


async def test_a_content_of_zeros_needs_nobody(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    root = tmp_path / "original" / "zeros"
    root.parent.mkdir()
    root.write_bytes(bytes(5 * PIECE))
    content = uploaded(root)
    await world.daemon.download(content.manifest)
    assert (world.daemon.got / "zeros").read_bytes() == bytes(5 * PIECE)


async def test_a_lone_removed_file_is_unknown_after_a_restart(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.remove(content.manifest)
    await world.daemon.restart()
    with pytest.raises(UnknownFile, match="nothing of"):
        await world.daemon.verify(content.manifest)


async def test_noise_in_the_copies_directory_is_cleared_at_the_start(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.upload(content.root, copy=True)
    await world.daemon.crash()
    left = world.daemon.state / "copies" / "00ff" / "half-made"
    left.parent.mkdir()
    left.write_bytes(noise(1000))
    await world.daemon.start()
    assert not left.parent.exists()
    assert await honest_copy(world, content) == content.data
