"""Whatever a server does, the download completes from an honest one beside it, and no piece counts before its hash."""

import re
from pathlib import Path

import pytest
import trio
from structlog.typing import EventDict
from trio.testing import MockClock

from daemons.client import fetch_session
from daemons.client.local_file import LocalFile
from daemons.client.peer_keeper import BAN_S, ban_s
from interfiles.piece_set import PieceSet
from interfiles.wire import peer_messages as m
from interfiles.wire.framing import encode_frame
from interfiles.wire.reports import DownloadReport
from tests.conftest import LogRecords
from tests.daemons.client.hostile_servers import HOSTILE, PIECES, ClosesAfterEachBlock
from tests.daemons.client.peers import Server, Stream, fetching, hand_out, serving
from tests.daemons.client.setting import link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file, checked


@pytest.fixture(autouse=True)
def only_good_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash every piece on disk at the moment when it begins to count."""
    add_verified = LocalFile.add_verified

    def add_checked(file: LocalFile, pieces: PieceSet) -> None:
        new = PieceSet.of(file.manifest.piece_count, pieces)
        assert file.store is not None
        assert checked(file.store, new) == new  # type: ignore[arg-type]
        add_verified(file, new)

    monkeypatch.setattr(LocalFile, "add_verified", add_checked)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE + 10)


@pytest.fixture
def honest(world: World, content: Content) -> Server:
    """A server that behaves, on a line that leaves others time to misbehave."""
    return slow_server(world, content, "honest")


def slow_server(world: World, content: Content, name: str) -> Server:
    server = Server(world, content, name)
    world.network.set_link(server.ip, link(rate=1e6))
    return server


async def fetch_from(world: World, *servers: Server) -> DownloadReport:
    """Download the servers' content from them, and check what came."""
    content = servers[0].content
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, *servers)
    with trio.fail_after(300):
        report = await world.daemon.wait(content.manifest)
    assert (world.daemon.got / content.manifest.name).read_bytes() == content.data
    assert list(world.daemon.got.iterdir()) == [world.daemon.got / content.manifest.name]
    return report


def fetched_from(records: LogRecords, name: str) -> list[EventDict]:
    """What the log says about sessions with a server that ended badly."""
    return [record for record in records.records if record.get("task") == f"fetching from {name}"]


async def test_an_honest_server_alone(
    world: World, content: Content, honest: Server, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    report = await fetch_from(world, honest)
    assert report.bytes_from_peers == {"honest": content.manifest.size}
    assert (report.pieces_rejected, report.bytes_local) == (0, 0)
    assert report.seconds == pytest.approx(content.manifest.size / 1e6, rel=0.1)
    assert not fetched_from(log_records, "honest")


@pytest.mark.parametrize(("hostile", "reason"), HOSTILE.items(), ids=[kind.__name__ for kind in HOSTILE])
async def test_an_honest_server_beside_a_hostile_one(
    world: World,
    content: Content,
    honest: Server,
    log_records: LogRecords,
    hostile: type[Server],
    reason: str,
    autojump_clock: MockClock,
) -> None:
    began = trio.current_time()
    report = await fetch_from(world, hostile(world, content, "hostile"), honest)
    assert trio.current_time() - began < 30
    assert report.pieces_rejected == 0
    assert report.bytes_from_peers["honest"] > 0
    lines = fetched_from(log_records, "hostile")
    assert all(line["level"] == "info" for line in lines)
    if reason:
        assert lines
        assert re.search(reason, lines[0]["reason"]), lines[0]["reason"]
    else:
        assert not lines


class EndsLate(Server):
    """Sends a byte at a time for a while, then the rest at once, all of it wrong."""

    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, data),) = self.blocks(piece)
        await stream.transport.send_all(encode_frame(message, len(data)))
        for _ in range(12):
            await stream.transport.send_all(b"?")
            await trio.sleep(0.5)
        await stream.transport.send_all(b"?" * (len(data) - 12))


async def test_what_comes_late_is_not_written_over_what_another_has_sent(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "three", size=3 * PIECE)
    late, honest = EndsLate(world, content, "late"), Server(world, content, "honest")
    world.network.set_link(honest.ip, link(rate=PIECE / 1.2))  # it sends the other two, and then is in the middle of it
    report = await fetch_from(world, late, honest)  # which looks at what is on the disk
    assert late.answered, "in the middle of the download"
    assert report.pieces_rejected == 0
    assert report.bytes_from_peers["honest"] == content.manifest.size


class SendsWrongBytes(Server):
    """The right block with a byte changed."""

    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, right),) = self.blocks(piece)
        data = bytearray(right)
        data[len(data) // 2] ^= 1
        await stream.send(message, bytes(data))


async def test_a_wrong_piece_is_blamed_on_its_sender_and_comes_from_another(
    world: World, content: Content, honest: Server, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    hostile = SendsWrongBytes(world, content, "hostile")
    world.network.set_link(hostile.ip, link(rate=1e6))
    report = await fetch_from(world, hostile, honest)
    meanwhile = int(fetch_session.LINGER_S * 1e6 / PIECE)
    assert 1 <= report.pieces_rejected == len(hostile.complaints) <= 1 + meanwhile, "what comes until it is left"
    assert sorted(hostile.complaints) == sorted(set(hostile.answered))[: len(hostile.complaints)]
    assert len(hostile.opened_at) == 1, "it is left alone for a while"
    assert not honest.complaints
    (line,) = fetched_from(log_records, "hostile")
    assert re.fullmatch(r"hostile sent piece \d+ with a wrong hash", line["reason"])
    assert not fetched_from(log_records, "honest")


async def test_a_lone_server_of_wrong_pieces_is_asked_less_and_less(
    world: World, content: Content, honest: Server, autojump_clock: MockClock
) -> None:
    hostile = SendsWrongBytes(world, content, "hostile")
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, hostile)
    await until(lambda: len(hostile.opened_at) == 5, within_s=600)
    waited = [after - before for before, after in zip(hostile.opened_at, hostile.opened_at[1:], strict=False)]
    assert waited == pytest.approx([BAN_S, 2 * BAN_S, 4 * BAN_S, 8 * BAN_S], rel=0.2)
    await trio.sleep(3)
    transfer = await world.daemon.transfer()
    assert (transfer.bytes_done, transfer.state) == (0, "waiting")
    await serving(world, honest)
    await world.master.hand_out(content.manifest.file_id, hostile.peer, honest.peer)
    report = await world.daemon.wait(content.manifest)
    assert report.pieces_rejected == len(hostile.complaints) >= 5
    assert (world.daemon.got / content.manifest.name).read_bytes() == content.data


def test_a_ban_grows_to_its_limit_and_no_further() -> None:
    assert [ban_s(times) for times in (0, 1, 2, 3, 6, 7, 100_000)] == [0, 10, 20, 40, 300, 300, 300]


class LiesHalf(Server):
    """Claims everything, and holds the even or the odd pieces."""

    def __init__(self, world: World, content: Content, name: str, *, odd: bool) -> None:
        super().__init__(world, content, name)
        self.odd = odd

    async def answer(self, stream: Stream, piece: int) -> None:
        if piece % 2 == self.odd:
            await super().answer(stream, piece)
        else:
            await stream.send(m.NotFound([piece]))


async def test_servers_that_claim_too_much_are_corrected_piece_by_piece(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    servers = [LiesHalf(world, content, "odd", odd=True), LiesHalf(world, content, "even", odd=False)]
    report = await fetch_from(world, *servers)
    assert set(report.bytes_from_peers) == {"odd", "even"}
    for server in servers:
        lacked = [piece for piece in server.answered if piece % 2 != server.odd]
        assert len(lacked) == len(set(lacked)), "nobody is asked twice for what it lacks"
        assert lacked


class GainsOneByOne(Server):
    """Begins with nothing and gains a piece a second."""

    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), PieceSet(self.content.manifest.piece_count).to_bytes())

    async def converse(self, stream: Stream) -> None:
        async def gain() -> None:
            for piece in range(self.content.manifest.piece_count):
                await trio.sleep(1)
                await stream.send(m.Have([piece]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gain)
            await super().converse(stream)


async def test_what_a_server_gains_is_asked_for_at_once(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = GainsOneByOne(world, content, "gaining")
    await fetch_from(world, server)
    assert trio.current_time() < server.opened_at[0] + content.manifest.piece_count + 3
    assert len(server.opened_at) == 1


async def test_a_server_that_closes_after_each_block_is_enough(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = ClosesAfterEachBlock(world, content, "hasty")
    report = await fetch_from(world, server)
    assert report.bytes_from_peers == {"hasty": content.manifest.size}


class WithdrawsAfterThree(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        if len(self.answered) > 3:
            await stream.send(m.Withdrawn("the file is paused on this host"))
            stream.close()
        else:
            await super().answer(stream, piece)


async def test_a_withdrawn_file_is_asked_for_again_later(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    server = WithdrawsAfterThree(world, content, "pausing")
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await trio.sleep(100)
    assert len(server.opened_at) > 3
    assert fetched_from(log_records, "pausing")[0]["reason"] == (
        "pausing stops serving it: the file is paused on this host"
    )
    server.answered.clear()
    server.answer = super(WithdrawsAfterThree, server).answer  # type: ignore[method-assign]
    await world.daemon.wait(content.manifest)


async def test_a_peer_handed_out_no_more_is_not_dialled_again(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = ClosesAfterEachBlock(world, content, "gone")
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await until(lambda: len(server.opened_at) == 2)
    await world.master.hand_out(content.manifest.file_id)
    await trio.sleep(1)
    seen = len(server.opened_at)
    await trio.sleep(100)
    assert len(server.opened_at) == seen


async def test_a_key_that_is_used_up_is_followed_by_another(
    world: World, content: Content, honest: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(fetch_session, "MAX_KEY_BYTES", content.manifest.piece_size)
    report = await fetch_from(world, honest)
    assert report.pieces_rejected == 0
    assert len(honest.opened_at) > 1


async def test_what_is_fetched_is_served_at_once(
    world: World, content: Content, honest: Server, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, honest)
    await until(lambda: _done(world))
    async with fetching(world, content.manifest.file_id) as fetcher:
        assert fetcher.bitfield is not None
        gained = set(PieceSet.from_bytes(content.manifest.piece_count, fetcher.bitfield))
        assert 0 < len(gained) < content.manifest.piece_count
        while len(gained) < content.manifest.piece_count:
            message, _ = await fetcher.receive()
            assert isinstance(message, m.Have)
            gained.update(map(content.manifest.geometry.piece, message.pieces))
        assert await fetcher.fetch(content) == content.data
    await world.daemon.wait(content.manifest)


async def _done(world: World) -> int:
    return (await world.daemon.transfer()).bytes_done
