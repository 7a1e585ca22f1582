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
from interfiles.swarm import upload_queue
from interfiles.swarm.upload_queue import SLOTS
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


async def is_served(world: World, content: Content, log_records: LogRecords) -> None:
    """An honest fetcher gets everything, and the log has one line about the other."""
    assert await honest_copy(world, content) == content.data
    (line,) = served(log_records)
    assert line["level"] == "info"


BAD_FRAMES = {
    "a piece outside the file": encode_frame(m.Ask([0, 4])),
    "no pieces": frame(65, []),
    "more pieces than a message may list": frame(65, [0] * 257),
    "a negative piece": frame(65, [-1]),
    "a piece that is no number": frame(65, ["0"]),
    "a piece that is no list": frame(65, 0),
    "a request of old": frame(65, 0, 0, 1),
    "no field": frame(65),
    "a cancel outside the file": encode_frame(m.Cancel([4], True)),
    "a cancel of nothing": frame(66, []),
    "a cancel that is no list": frame(66, 0),
    "a complaint outside the file": encode_frame(m.Complaint(4)),
    "a complaint about what was not sent": encode_frame(m.Complaint(0)),
    "a second opening": encode_frame(m.Open(bytes(32), "normal")),
    "a second greeting": encode_frame(Hello("swarm", 1, 1, [])),
    "a server's message": encode_frame(m.Have([1])),
    "a master's message": encode_frame(master_messages.Heard(1)),
    "a command": encode_frame(c.Status()),
    "a payload where none belongs": frame(66, [0], payload_length=4) + b"rest",
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
    "a request": (m.Ask([0]), "remote-protocol"),
    "a cancel": (m.Cancel([0], True), "remote-protocol"),
    "a complaint": (m.Complaint(0), "remote-protocol"),
    "an unknown file": (m.Open(bytes(32), "normal"), "unknown-file"),
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
            await hostile.ask(*content.manifest.geometry.pieces())
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
            await hostile.ask(*content.manifest.geometry.pieces())
        began = trio.current_time()
        assert await honest_copy(world, content) == content.data
        waited_s = 2 * upload_queue.STUCK_S + 2  # all slots are taken from them twice
        assert trio.current_time() - began < waited_s < STALL_TIMEOUT_S / 2, "well before the stall time"


async def test_who_takes_a_byte_a_second_does_not_keep_its_slot(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    file_id = await world.seed(content)

    async def trickle(hostile: Fetcher) -> None:
        await hostile.ask(*content.manifest.geometry.pieces())
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
        await hostile.ask(*content.manifest.geometry.pieces())
        await trio.sleep(1)
        began = trio.current_time()
        assert await honest_copy(world, content) == content.data
        assert trio.current_time() - began < 1.05 * content.manifest.size / 1e6


# Fetchers that ask too much


async def test_a_flood_of_cancels_whose_answers_are_not_read_is_ended(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    ip = world.new_ip()
    async with world.leaving_nothing(within_s=5):
        async with fetching(world, file_id, ip=ip) as hostile:
            with pytest.raises(PeerGone):  # noqa: PT012 - at whatever message
                for _ in range(1_000_000):
                    await hostile.cancel(*[0, 1, 2, 3] * 64)
        assert world.network.bytes_sent(DAEMON_IP, ip) < HELD_BYTES + 2 * 65536
    await is_served(world, content, log_records)
    assert "were refused or dropped without being waited for" in served(log_records)[0]["reason"]


async def test_asking_for_the_same_again_and_again_holds_nothing_and_nobody_up(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    """What is asked for is a set: a flood of it is as good as one `Ask`, whether or not it is read."""
    file_id = await world.seed(content)
    async with fetching(world, file_id) as hostile, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await hostile.ask(*[0, 1, 2, 3] * 64)

        nursery.start_soon(flood)
        assert await honest_copy(world, content) == content.data
        nursery.cancel_scope.cancel()
    assert not served(log_records)


async def test_cancels_without_end_hold_nobody_up(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as hostile, trio.open_nursery() as nursery:

        async def flood() -> None:
            while True:
                await hostile.cancel(1)

        async def read() -> None:
            while True:
                message, _ = await hostile.receive()
                assert isinstance(message, m.Dropped)
                assert set(message.pieces) == {1}

        nursery.start_soon(flood)
        nursery.start_soon(read)
        assert await honest_copy(world, content) == content.data
        nursery.cancel_scope.cancel()
    assert not served(log_records)


async def test_a_host_that_opens_connections_without_end_keeps_nobody_out(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    ip = world.new_ip()
    held = [await world.network.host(ip).dial(DAEMON) for _ in range(MAX_PEER_CONNECTIONS + 100)]
    assert await honest_copy(world, content) == content.data
    for transport in held:
        transport.close()
