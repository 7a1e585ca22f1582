"""Content that goes bad or goes away while it is served, and complaints about it."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.library import SWEEP_S
from interfiles.errors import ContentChanged, PeerGone, UnknownFile
from interfiles.storage.piece_store import PieceStore
from interfiles.transport import tls
from interfiles.wire import peer_messages as m
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import Failure
from tests.conftest import LogRecords
from tests.daemons.client.peers import fetching, honest_copy
from tests.daemons.client.setting import DAEMON_IP, link, until
from tests.daemons.client.test_serve_session import is_served, served
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, path_of, uploaded

# Complaints


async def hashed_bytes(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what is hashed from disk from now on."""
    hashed: list[int] = []
    check = PieceStore.check

    def counting(store, pieces, *, progress, cancelled):  # type: ignore[no-untyped-def]
        hashed.extend(store.manifest.geometry.piece_length(piece) for piece in pieces)
        return check(store, pieces, progress=progress, cancelled=cancelled)

    monkeypatch.setattr(PieceStore, "check", counting)
    return hashed


async def test_complaints_cost_no_more_hashing_than_was_sent(
    world: World, content: Content, log_records: LogRecords, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    hashed = await hashed_bytes(world, monkeypatch)
    async with fetching(world, file_id) as hostile:
        for _ in range(3):
            await hostile.ask(0)
            await hostile.receive()
        for _ in range(4):
            await hostile.stream.send(m.Complaint(0))
            await trio.sleep(1)
        assert await hostile.failure() == "remote-protocol"
    assert sum(hashed) == 3 * PIECE
    await is_served(world, content, log_records)
    assert not await _note(world, content)


async def _note(world: World, content: Content) -> str:
    return (await world.daemon.stat(content.manifest)).local.note


async def test_complaints_that_come_together_are_checked_once(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    hashed = await hashed_bytes(world, monkeypatch)
    async with fetching(world, file_id) as hostile:
        for _ in range(10):
            await hostile.ask(0)
            await hostile.receive()
        await hostile.transport.send_all(encode_frame(m.Complaint(0)) * 10)
        await trio.sleep(1)
    assert sum(hashed) < 10 * PIECE


async def test_a_justified_complaint_has_the_piece_withdrawn(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    edit_secretly(content, PIECE + 7)
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(1)
        _, data = await fetcher.receive()
        assert data != content.piece(1)
        await fetcher.stream.send(m.Complaint(1))
        await trio.sleep(0.1)
        await fetcher.ask(1)
        assert isinstance((await fetcher.receive())[0], m.NotFound)
        await fetcher.ask(2)
        assert (await fetcher.receive())[1] == content.piece(2), "the rest is still good"
    stat = await world.daemon.stat(content.manifest)
    assert (stat.local.state, stat.local.pieces, stat.local.doing) == ("partial", 3, "damaged")
    await until(lambda: world.master.holdings[content.manifest.file_id].state == "damaged")
    assert stat.local.note == "1 piece on disk does not match its hash (1)"


def edit_secretly(content: Content, offset: int) -> None:
    """Change a byte, and put the file's time back."""
    before = content.root.stat()
    with open(content.root, "r+b") as file:
        file.seek(offset)
        file.write(bytes([content.data[offset] ^ 1]))
    os.utime(content.root, ns=(before.st_atime_ns, before.st_mtime_ns))


# What happens to the file meanwhile


async def test_a_paused_file_stays_paused_though_it_changes_and_is_put_back(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    aside = content.root.with_name("aside")
    await world.daemon.pause(content.manifest)
    for restart in (False, True):
        content.root.rename(aside)
        if restart:
            await world.daemon.restart()
        await trio.sleep(SWEEP_S + 1)
        with pytest.raises(ContentChanged, match="is no longer served: "):
            await world.daemon.verify(content.manifest)
        aside.rename(content.root)
        await trio.sleep(SWEEP_S + 1)
        assert (await world.daemon.verify(content.manifest)).bad_pieces == []
        assert (await world.daemon.transfer()).state == "paused"
        with pytest.raises(AssertionError, match="paused"):
            await honest_copy(world, content)
    await world.daemon.resume(content.manifest)
    assert await honest_copy(world, content) == content.data


async def test_a_paused_file_that_changed_cannot_be_resumed_until_it_is_put_back(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.pause(content.manifest)
    aside = content.root.with_name("aside")
    content.root.rename(aside)
    with pytest.raises(ContentChanged, match="is no longer served: "):
        await world.daemon.resume(content.manifest)
    aside.rename(content.root)
    await trio.sleep(SWEEP_S + 1)
    assert await honest_copy(world, content) == content.data


async def test_a_file_that_is_removed_or_paused_is_withdrawn_from_who_fetches_it(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as fetcher:
        await world.daemon.pause(content.manifest)
        assert await fetcher.end() == [m.Withdrawn("the file is paused on this host")]
    with pytest.raises(UnknownFile, match="paused"):
        await _open(world, file_id)
    await world.daemon.resume(content.manifest)
    async with fetching(world, file_id) as fetcher:
        await world.daemon.remove(content.manifest)
        assert await fetcher.end() == [m.Withdrawn("the file was removed from this host")]
    with pytest.raises(UnknownFile):
        await _open(world, file_id)


async def _open(world: World, file_id: bytes) -> None:
    """Open a file on a connection of one's own, and raise the refusal."""
    async with fetching(world) as fetcher:
        await fetcher.stream.send(m.Open(file_id, "normal"))
        (refusal,) = [message for message in await fetcher.end() if isinstance(message, Failure)]
        assert refusal.code == "unknown-file"
        raise UnknownFile(refusal.text)


async def test_content_that_changes_between_two_blocks_is_withdrawn(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        assert (await fetcher.receive())[1] == content.piece(0)
        content.root.write_bytes(b"something else")
        await fetcher.ask(0)
        (withdrawn,) = await fetcher.end()
        assert isinstance(withdrawn, m.Withdrawn)
        assert "weights.bin has changed since" in withdrawn.reason
    assert await _note(world, content) == withdrawn.reason
    assert (await world.daemon.stat(content.manifest)).local.state == "none"
    await until(lambda: file_id in world.master.holdings)
    assert world.master.holdings[file_id].state == "none"


async def test_content_that_is_cut_in_the_middle_of_a_block_ends_the_connection(
    world: World,
    content: Content,
    log_records: LogRecords,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(tls, "CIPHERTEXT_BYTES", 64 << 10)  # so that one of these blocks takes several reads
    file_id = await world.seed(content)
    world.network.set_link(DAEMON_IP, link(rate=100_000))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        await trio.sleep(0.5)
        os.truncate(content.root, 70_000)
        message = await fetcher.stream.receive()
        assert message == m.Piece(0, 0)
        with pytest.raises(PeerGone, match="in the middle of a payload"):
            await fetcher.stream.receive_payload()
    await until(lambda: served(log_records))
    said = f"{content.root} has changed since it was hashed; put it back, or upload or download it again"
    assert served(log_records)[0]["reason"] == said
    assert await _note(world, content) == said
    assert (await world.daemon.stat(content.manifest)).local.state == "none"
    with pytest.raises(UnknownFile):
        await _open(world, file_id)


async def test_a_file_that_is_gone_is_withdrawn(world: World, content: Content, autojump_clock: MockClock) -> None:
    file_id = await world.seed(content)
    content.root.unlink()
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        (withdrawn,) = await fetcher.end()
        assert isinstance(withdrawn, m.Withdrawn)
        assert "weights.bin is gone; put it back" in withdrawn.reason


async def test_a_piece_that_the_disk_does_not_give_is_withdrawn_and_the_others_are_served(
    world: World, content: Content, failing: Failing, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    failing("pread", 5, when=lambda fd, _, offset: offset < PIECE and path_of(fd) == str(content.root))
    failing("preadv", 5, when=lambda fd, _, offset, *_flags: offset < PIECE and path_of(fd) == str(content.root))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(2)
        assert (await fetcher.receive())[1] == content.piece(2)
        await fetcher.ask(0)
        await fetcher.end()
    assert len(served(log_records)) == 1
    stat = await world.daemon.stat(content.manifest)
    assert (stat.local.state, stat.local.pieces) == ("partial", 3)


async def test_a_file_that_may_not_be_read_any_more(
    world: World, content: Content, failing: Failing, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    failing("open", errno.EACCES, when=lambda path, *_, **__: os.fsencode(path).endswith(b"weights.bin"))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        assert isinstance((await fetcher.receive())[0], m.NotFound)
    stat = await world.daemon.stat(content.manifest)
    assert (stat.local.state, stat.local.pieces) == ("partial", 3)


async def test_a_tree_of_many_small_files_is_read_in_threads(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    root = tmp_path / "original" / "many"
    root.mkdir(parents=True)
    for number in range(200):
        (root / f"{number:03}").write_bytes(bytes([number]) * 1000)
    content = uploaded(root)
    file_id = await world.seed(content)
    assert await honest_copy(world, content) == content.data
    (root / "150").write_bytes(b"changed")
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        (withdrawn,) = await fetcher.end()
        assert isinstance(withdrawn, m.Withdrawn)
        assert "150" in withdrawn.reason


async def test_a_replaced_file_tells_those_who_fetch_it(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as fetcher:
        await world.seed(content)
        with trio.fail_after(1):
            (withdrawn,) = await fetcher.end()
        assert isinstance(withdrawn, m.Withdrawn)
    assert await honest_copy(world, content) == content.data
