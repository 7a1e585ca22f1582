"""Whatever one fetcher does harms only itself: an honest one beside it is served at full speed."""

import random
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import msgpack
import pytest
import trio
from structlog.typing import EventDict
from trio.testing import MockClock

from daemons.client.app import MAX_PEER_CONNECTIONS
from interfiles.errors import PeerGone
from interfiles.geometry import BLOCK_BYTES, Block, PieceIndex
from interfiles.swarm import upload_queue
from interfiles.swarm.upload_queue import MAX_QUEUED, SLOTS
from interfiles.transport.memory_pipe import STALL_TIMEOUT_S
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, HEADER_TIMEOUT_S
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import Hello
from tests.conftest import LogRecords
from tests.daemons.client.certificates import host_credentials
from tests.daemons.client.peers import Fetcher, dialled, fetching, honest_copy
from tests.daemons.client.setting import DAEMON, DAEMON_IP, link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

HELD_BYTES = 256 << 10  # what a connection in memory holds between its ends


def served(records: LogRecords) -> list[EventDict]:
    """What the log says about connections that ended badly."""
    return [record for record in records.records if record.get("task") == "serving a peer"]


def frame(*fields: object, payload_length: int = 0) -> bytes:
    """A frame with a header of any fields, however wrong."""
    header = msgpack.packb(list(fields))
    return struct.pack(">II", len(header), payload_length) + header  # type: ignore[no-any-return]


def first_block(content: Content) -> Block:
    return Block(PieceIndex(0), 0, content.manifest.geometry.piece_length(PieceIndex(0)))


async def is_served(world: World, content: Content, log_records: LogRecords) -> None:
    """An honest fetcher gets everything, and the log has one line about the other."""
    assert await honest_copy(world, content) == content.data
    (line,) = served(log_records)
    assert line["level"] == "info"


BAD_FRAMES = {
    "a piece outside the file": encode_frame(m.Request(4, 0, 1)),
    "an offset outside the piece": encode_frame(m.Request(0, PIECE, 1)),
    "bytes beyond the last piece": encode_frame(m.Request(3, 0, 11)),
    "no bytes": frame(65, 0, 0, 0),
    "more than a block": frame(65, 0, 0, BLOCK_BYTES + 1),
    "a negative piece": frame(65, -1, 0, 1),
    "a piece that is no number": frame(65, "0", 0, 1),
    "a field too few": frame(65, 0, 0),
    "a cancel outside the file": encode_frame(m.Cancel(4)),
    "a complaint outside the file": encode_frame(m.Complaint(4)),
    "a complaint about what was not sent": encode_frame(m.Complaint(0)),
    "a second opening": encode_frame(m.Open(bytes(32))),
    "a second greeting": encode_frame(Hello("swarm", 1, 1, [])),
    "a server's message": encode_frame(m.Have([1])),
    "a master's message": encode_frame(master_messages.Heard(1)),
    "a command": encode_frame(c.Status()),
    "a payload where none belongs": frame(66, 0, payload_length=4) + b"rest",
    "no header": struct.pack(">II", 0, 0),
    "a header of 4 GB": struct.pack(">II", 2**32 - 1, 0),
    "a header over the limit": struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
    "no msgpack": struct.pack(">II", 4, 0) + b"\xc1\xc1\xc1\xc1",
    "noise": random.Random(3).randbytes(4096),
    "a browser": b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n",
}


@pytest.mark.parametrize("sent", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_what_breaks_the_rules_ends_its_connection_with_the_reason(
    world: World, content: Content, log_records: LogRecords, sent: bytes, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing():
        async with fetching(world, file_id) as hostile:
            await hostile.transport.send_all(sent)
            assert await hostile.failure() == "remote-protocol"
    await is_served(world, content, log_records)


BAD_OPENINGS: dict[str, tuple[Message, str]] = {
    "a request": (m.Request(0, 0, 1), "remote-protocol"),
    "a cancel": (m.Cancel(0), "remote-protocol"),
    "a complaint": (m.Complaint(0), "remote-protocol"),
    "an unknown file": (m.Open(bytes(32)), "unknown-file"),
}


@pytest.mark.parametrize(("opening", "code"), BAD_OPENINGS.values(), ids=BAD_OPENINGS)
async def test_a_connection_begins_with_a_file_that_is_here(
    world: World, content: Content, log_records: LogRecords, opening: Message, code: str, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing():
        async with fetching(world) as hostile:
            await hostile.stream.send(opening)
            assert await hostile.failure() == code
    await is_served(world, content, log_records)


# Silence, at each stage


@pytest.mark.parametrize(
    ("stage", "patience_s"),
    [("greeting", HANDSHAKE_TIMEOUT_S), ("opening", HANDSHAKE_TIMEOUT_S), ("conversation", HEADER_TIMEOUT_S)],
)
async def test_half_a_message_and_then_silence_is_given_up(
    world: World, content: Content, log_records: LogRecords, stage: str, patience_s: float, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing(), AsyncExitStack() as stack:
        if stage == "greeting":
            transport = await dialled(world, shown=host_credentials("fetcher"))
            stack.callback(transport.close)
        else:
            named = file_id if stage == "conversation" else None
            transport = (await stack.enter_async_context(fetching(world, named))).transport  # type: ignore[assignment]
        began = trio.current_time()
        await transport.send_all(struct.pack(">II", 40, 0) + b"\x94")
        while await _some(transport.receive_some_into):
            pass
        assert trio.current_time() - began == pytest.approx(patience_s, abs=2.5)
    await is_served(world, content, log_records)


async def _some(receive: Callable[[memoryview], Awaitable[int]]) -> int:
    try:
        return await receive(memoryview(bytearray(65536)))
    except PeerGone:
        return 0


async def test_a_byte_at_a_time_is_given_up_too(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as hostile:
        began = trio.current_time()
        with pytest.raises(PeerGone):  # noqa: PT012 - at whatever byte
            for byte in struct.pack(">II", MAX_HEADER_BYTES, 0) + bytes(MAX_HEADER_BYTES):
                await hostile.transport.send_all(bytes([byte]))
                await trio.sleep(1)
        assert trio.current_time() - began < HEADER_TIMEOUT_S + 3
    await is_served(world, content, log_records)


async def test_a_fetcher_that_asks_for_nothing_may_wait_for_ever(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as waiting:
        await trio.sleep(3600)
        assert await waiting.fetch(content) == content.data
    assert not served(log_records)


# Fetchers that do not read


async def test_who_does_not_read_holds_little_and_is_dropped_after_the_stall_time(
    world: World, tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)
    await honest_copy(world, content)
    ip = world.new_ip()
    async with world.leaving_nothing():
        async with fetching(world, file_id, ip=ip) as hostile:
            for piece in content.manifest.geometry.pieces():
                await hostile.request(Block(piece, 0, PIECE))
            began = trio.current_time()
            await until(lambda: served(log_records), within_s=STALL_TIMEOUT_S + 5)
            assert trio.current_time() - began > STALL_TIMEOUT_S - 1
            assert world.network.bytes_sent(DAEMON_IP, ip) < HELD_BYTES + 2 * 65536
    assert "took nothing for 60 s" in served(log_records)[0]["reason"]


async def test_those_who_do_not_read_do_not_keep_the_upload_slots(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)
    async with AsyncExitStack() as stack:
        for _ in range(2 * SLOTS):
            hostile = await stack.enter_async_context(fetching(world, file_id))
            for piece in content.manifest.geometry.pieces():
                await hostile.request(Block(piece, 0, PIECE))
        began = trio.current_time()
        assert await honest_copy(world, content) == content.data
        assert trio.current_time() - began < upload_queue.STUCK_S + 5, "well before the stall time"


async def test_who_takes_a_byte_a_second_does_not_keep_its_slot(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)

    async def trickle(hostile: Fetcher) -> None:
        for piece in content.manifest.geometry.pieces():
            await hostile.request(Block(piece, 0, PIECE))
        while True:
            await hostile.transport.receive_some_into(memoryview(bytearray(1)))
            await trio.sleep(1)

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for _ in range(2 * SLOTS):
            nursery.start_soon(trickle, await stack.enter_async_context(fetching(world, file_id)))
        assert await honest_copy(world, content) == content.data
        nursery.cancel_scope.cancel()


async def test_a_slow_fetcher_gets_all_in_the_end(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    content = a_file(tmp_path / "original" / "large", size=6 * PIECE)
    file_id = await world.seed(content)
    ip = world.new_ip()
    world.network.set_link(ip, link(rate=10_000))
    async with fetching(world, file_id, ip=ip) as slow:
        assert await slow.fetch(content) == content.data


async def test_others_are_served_at_full_speed_beside_one_that_does_not_read(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)
    world.network.set_link(DAEMON_IP, link(rate=1e6))
    async with fetching(world, file_id) as hostile:
        for piece in content.manifest.geometry.pieces():
            await hostile.request(Block(piece, 0, PIECE))
        await trio.sleep(1)
        began = trio.current_time()
        assert await honest_copy(world, content) == content.data
        assert trio.current_time() - began < 1.05 * content.manifest.size / 1e6


# Fetchers that ask too much


async def test_a_flood_of_requests_is_refused_and_then_ended(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    ip = world.new_ip()
    async with world.leaving_nothing(within_s=5):
        async with fetching(world, file_id, ip=ip) as hostile:
            with pytest.raises(PeerGone):  # noqa: PT012 - at whatever request
                for _ in range(100_000):
                    await hostile.request(first_block(content))
        assert world.network.bytes_sent(DAEMON_IP, ip) < HELD_BYTES + 2 * 65536
    await is_served(world, content, log_records)
    assert "without being waited for" in served(log_records)[0]["reason"]


async def test_requests_beyond_the_queue_are_told_to_come_back(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as greedy:
        for _ in range(MAX_QUEUED + 20):
            await greedy.request(first_block(content))
        answers = [(await greedy.receive())[0] for _ in range(MAX_QUEUED + 20)]
    refused = [answer for answer in answers if isinstance(answer, m.Busy)]
    assert 0 < len(refused) < 21
    assert all(answer.retry_after_ms > 0 for answer in refused)


async def test_cancels_without_end_hold_nobody_up(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as hostile, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await hostile.stream.send(m.Cancel(1))

        nursery.start_soon(flood)
        assert await honest_copy(world, content) == content.data
        nursery.cancel_scope.cancel()
    assert not served(log_records)


async def test_a_cancelled_piece_is_not_sent(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)
    async with fetching(world, file_id) as fetcher:
        for piece in (0, 5, 6, 7):
            await fetcher.request(Block(PieceIndex(piece), 0, PIECE))
            await fetcher.request(Block(PieceIndex(piece), 0, 1))
        await fetcher.stream.send(m.Cancel(6))
        await trio.sleep(1)
        came = [(await fetcher.receive())[0] for _ in range(6)]
    assert [answer.piece for answer in came if isinstance(answer, m.Piece)] == [0, 0, 5, 5, 7, 7]


async def test_busy_slots_are_told_and_freed(world: World, content: Content, autojump_clock: MockClock) -> None:
    file_id = await world.seed(content)
    world.network.set_link(DAEMON_IP, link(rate=1e6))
    async with AsyncExitStack() as stack:
        fetchers = [await stack.enter_async_context(fetching(world, file_id)) for _ in range(SLOTS + 1)]
        for fetcher in fetchers:
            await fetcher.request(first_block(content))
            await trio.sleep(0.001)
        answers = [(await fetcher.receive())[0] for fetcher in fetchers]
        assert [type(answer) for answer in answers] == [m.Piece] * SLOTS + [m.Busy]
        await trio.sleep(0.2)
        await fetchers[-1].request(first_block(content))
        assert isinstance((await fetchers[-1].receive())[0], m.Piece)


async def test_a_host_that_opens_connections_without_end_keeps_nobody_out(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    ip = world.new_ip()
    held = [await world.network.host(ip).dial(DAEMON) for _ in range(MAX_PEER_CONNECTIONS + 100)]
    assert await honest_copy(world, content) == content.data
    for transport in held:
        transport.close()
