"""Pieces of several blocks: they come whole, in order, from one server each."""

import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.geometry import MIB
from interfiles.wire import peer_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out
from tests.daemons.client.setting import DAEMON_IP
from tests.daemons.client.test_fetch_session import fetch_from, fetched_from, slow_server
from tests.daemons.client.world import World
from tests.storage.contents import Content, noise, uploaded


@pytest.fixture
def large(tmp_path: Path) -> Content:
    """Three pieces of two and a bit, the last of one and a half blocks."""
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(7 * MIB + MIB // 2, 5))
    return uploaded(path, piece_size=4 * MIB)


class SendsBackwards(Server):
    """The last block of a piece first."""

    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in reversed(self.blocks(piece)):
            await stream.send(message, data)


class LeavesABlockOut(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in self.blocks(piece):
            if message.offset != MIB:
                await stream.send(message, data)


class SendsABlockTwice(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in self.blocks(piece):
            await stream.send(message, data)
            await stream.send(message, data)


class MixesPieces(Server):
    """The first block of a piece, then another piece's."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(*self.blocks(piece)[0])


MIXED: dict[type[Server], str] = {
    SendsBackwards: r"byte 3\d+ of piece \d came, which was not asked for",
    LeavesABlockOut: r"byte 2097152 of piece \d came out of order, 1048576 was due",
    SendsABlockTwice: r"byte 0 of piece \d came out of order, 1048576 was due",
    MixesPieces: r"byte 0 of piece \d came, which was not asked for",
}


@pytest.mark.parametrize(("hostile", "reason"), MIXED.items(), ids=[kind.__name__ for kind in MIXED])
async def test_blocks_of_a_piece_come_in_order_and_together(
    world: World,
    large: Content,
    log_records: LogRecords,
    hostile: type[Server],
    reason: str,
    autojump_clock: MockClock,
) -> None:
    report = await fetch_from(world, hostile(world, large, "hostile"), slow_server(world, large, "honest"))
    assert re.search(reason, fetched_from(log_records, "hostile")[0]["reason"])
    assert report.bytes_from_peers == {"honest": large.manifest.size}
    assert report.pieces_rejected == 0


class IsBusyUnasked(Server):
    """Says it at once, and again between two blocks."""

    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.Busy())

    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in self.blocks(piece):
            await stream.send(message, data)
            await stream.send(m.Busy())


async def test_a_server_may_say_at_any_time_that_it_is_busy(
    world: World, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    server = IsBusyUnasked(world, large, "busy")
    report = await fetch_from(world, server)
    assert report.bytes_from_peers == {"busy": large.manifest.size}
    assert not fetched_from(log_records, "busy")
    assert sorted(server.asked) == list(large.manifest.geometry.pieces()), "what was asked for stands"


class SendsAWrongBlock(Server):
    """The second block of the first piece is wrong."""

    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in self.blocks(piece):
            await stream.send(message, data if piece or message.offset != MIB else bytes(len(data)))


async def test_one_wrong_block_spoils_its_piece_alone(
    world: World, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    hostile = SendsAWrongBlock(world, large, "hostile")
    report = await fetch_from(world, hostile, slow_server(world, large, "honest"))
    assert report.pieces_rejected == 1
    assert hostile.complaints == [0]


@pytest.mark.parametrize("silence_s", [3.0, 8.0, 30.0])
async def test_a_line_that_is_dead_for_a_while_is_nobodys_fault(
    world: World, large: Content, log_records: LogRecords, silence_s: float, autojump_clock: MockClock
) -> None:
    server = slow_server(world, large, "honest")
    await world.daemon.download(large.manifest, detach=True)
    await hand_out(world, server)
    for _ in range(3):
        await trio.sleep(1.7)
        world.network.partition(server.ip, DAEMON_IP)
        await trio.sleep(silence_s)
        world.network.heal(server.ip, DAEMON_IP)
    report = await world.daemon.wait(large.manifest)
    assert (world.daemon.got / "large").read_bytes() == large.data
    assert report.pieces_rejected == 0
    assert not [line for line in fetched_from(log_records, "honest") if "order" in line["reason"]]
