"""Messages over a transport: payloads however they are cut, and peers that stall, trickle, leave or lie."""

import random
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import ContentChanged, LocalProtocolError, PeerGone, PeerSilent, RemoteProtocolError
from interfiles.transport import message_stream
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import MessageStream
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.master_messages import FROM_CLIENT, Heartbeat, Holding, Publish
from tests.transport.setups import (
    Memory,
    Setup,
    Tcp,
    TlsOverMemory,
    TlsOverTcp,
    Unix,
    connected,
    ends,
    fetching,
    receive_exactly,
)

Clock = trio.testing.MockClock
Stream = MessageStream[Message]

STAGE = message_stream._STAGE_BYTES
BLOCK = random.Random(3).randbytes(1 << 20)
LARGEST = Heartbeat(
    1, 0, 0, True, [Holding(bytes([n] * 32), "fetching", 1, 1, 1, "\U0010ffff" * 200, True) for n in range(128)]
)


class TestPayloads:
    @pytest.mark.parametrize("setup_type", [Tcp, Unix, Memory, TlsOverTcp, TlsOverMemory])
    @pytest.mark.parametrize("length", [0, 1, STAGE - 20, STAGE, STAGE + 1, 1 << 20])
    async def test_messages_and_payloads_of_all_sizes_go_through(
        self, tmp_path: Path, setup_type: Callable[[Path], Setup], length: int
    ) -> None:
        dialled, accepted = await connected(setup_type(tmp_path))
        sender, receiver = Stream(dialled, m.FROM_FETCHER), Stream(accepted, m.FROM_SERVER)

        async def send() -> None:
            for piece in range(3):
                await sender.send(m.Piece(piece, length), memoryview(BLOCK)[:length])
                await sender.send(m.Have([piece]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for piece in range(3):
                assert await receiver.receive() == m.Piece(piece, length)
                assert receiver.payload_left == length
                assert await receiver.receive_payload() == BLOCK[:length]
                assert receiver.payload_left == 0
                assert await receiver.receive() == m.Have([piece])
        sender.close()
        receiver.close()

    @settings(max_examples=25)  # many of them one byte at a time
    @given(
        payloads=st.lists(st.integers(0, 3 * STAGE), max_size=4),
        cuts=st.lists(st.integers(1, 2 * STAGE), min_size=1, max_size=5),
        reads=st.lists(st.integers(1, 2 * STAGE), min_size=1, max_size=5),
    )
    def test_however_the_stream_is_cut_and_read_it_is_the_same(
        self, payloads: list[int], cuts: list[int], reads: list[int]
    ) -> None:
        async def run() -> None:
            peer, stream = await fetching()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send_in_cuts, peer, payloads, cuts)
                turn = 0
                for piece, length in enumerate(payloads):
                    assert await stream.receive() == m.Piece(piece, 0)
                    got = bytearray(length)
                    view = memoryview(got)
                    while stream.payload_left:
                        part = min(reads[turn % len(reads)], stream.payload_left)
                        turn += 1
                        await stream.receive_payload_into(view[:part])
                        view = view[part:]
                    assert got == BLOCK[:length]

        trio.run(run)

    async def test_a_payload_longer_than_the_stage_goes_straight_into_the_callers_buffer(self) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Piece(0, 0), 200_000) + BLOCK[:100])
        assert await stream.receive() == m.Piece(0, 0)
        buffer = memoryview(bytearray(200_000))
        assert await stream.receive_some_payload_into(buffer) == 100, "what came with the header"
        await peer.send_all(BLOCK[100:200_000])
        assert await stream.receive_some_payload_into(buffer[100:]) == 200_000 - 100, "all that has come, at once"
        assert bytes(buffer) == BLOCK[:200_000]

    async def test_files_are_sent_one_after_the_other_as_one_payload(self, tmp_path: Path) -> None:
        peer, stream = await fetching()
        sender = Stream(peer, m.FROM_FETCHER)
        (tmp_path / "one").write_bytes(BLOCK)
        (tmp_path / "two").write_bytes(BLOCK[::-1])
        with (tmp_path / "one").open("rb") as one, (tmp_path / "two").open("rb") as two:
            spans = [(one.fileno(), 10, 1000), (two.fileno(), 0, 50_000), (one.fileno(), 5, 0), (one.fileno(), 0, 3)]
            await sender.send_files(m.Piece(0, 0), spans)
        assert await stream.receive() == m.Piece(0, 0)
        assert await stream.receive_payload() == BLOCK[10:1010] + BLOCK[::-1][:50_000] + BLOCK[:3]

    async def test_a_file_that_became_shorter_ends_the_stream(self, tmp_path: Path) -> None:
        peer, stream = await fetching()
        (tmp_path / "one").write_bytes(BLOCK[:1000])
        with (tmp_path / "one").open("rb") as one, pytest.raises(ContentChanged):
            await Stream(peer, m.FROM_FETCHER).send_files(m.Piece(0, 0), [(one.fileno(), 0, 1001)])
        peer.close()
        await stream.receive()
        with pytest.raises(PeerGone, match="in the middle of a payload"):
            await stream.receive_payload()

    async def test_a_payload_can_be_skipped(self) -> None:
        peer, stream = await fetching()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, encode_frame(m.Piece(0, 0), 1 << 20) + BLOCK + encode_frame(m.Have([1])))
            await stream.receive()
            await stream.skip_payload()
            assert await stream.receive() == m.Have([1])

    async def test_a_message_is_not_received_over_a_payload_that_was_left(self) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Piece(0, 0), 5) + b"12345")
        await stream.receive()
        await stream.receive_payload_into(memoryview(bytearray(3)))
        with pytest.raises(LocalProtocolError, match="2 payload bytes were left on the stream"):
            await stream.receive()

    @pytest.mark.parametrize("length", [0, 6])
    async def test_more_than_the_payload_or_nothing_cannot_be_asked_for(self, length: int) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Piece(0, 0), 5) + b"12345")
        await stream.receive()
        with pytest.raises(LocalProtocolError, match="of a payload with 5 left"):
            await stream.receive_some_payload_into(memoryview(bytearray(length)))

    @pytest.mark.parametrize(
        "send",
        [
            lambda stream: stream.send(m.Piece(0, 0), bytes((1 << 20) + 1)),
            lambda stream: stream.send(m.Have([1]), b"x"),
            lambda stream: stream.send(m.Have([-1])),
            lambda stream: stream.send_files(m.Piece(0, 0), [(0, 0, 1 << 20), (0, 0, 1)]),
        ],
        ids=["payload", "no payload", "bounds", "files"],
    )
    async def test_what_breaks_a_limit_is_not_sent_at_all(self, send: Callable[[Stream], Awaitable[None]]) -> None:
        peer, own = await ends()
        with pytest.raises(LocalProtocolError):
            await send(Stream(own, m.FROM_FETCHER))
        own.close()
        assert await receive_exactly(peer, 1) == b""


async def send_in_cuts(peer: Transport, payloads: list[int], cuts: list[int]) -> None:
    frames = [encode_frame(m.Piece(piece, 0), length) + BLOCK[:length] for piece, length in enumerate(payloads)]
    left, turn = b"".join(frames), 0
    while left:
        cut = cuts[turn % len(cuts)]
        turn += 1
        await peer.send_all(left[:cut])
        left = left[cut:]


class TestHeaders:
    async def test_a_header_larger_than_the_stage_goes_through_and_leaves_no_large_stage(self) -> None:
        peer, own = await ends()
        stream = Stream(own, FROM_CLIENT)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(Stream(peer, FROM_CLIENT).send, LARGEST)
                assert await stream.receive() == LARGEST
            nursery.start_soon(Stream(peer, FROM_CLIENT).send, Heartbeat(2, 0, 0, False, []))
            assert await stream.receive() == Heartbeat(2, 0, 0, False, [])
        assert len(encode_frame(LARGEST)) > 100_000
        assert len(stream._stage) < 100, "no more than what came last"

    async def test_streams_that_wait_for_their_first_message_or_the_next_keep_no_buffer(self) -> None:
        peer, own = await ends()
        stream, sent = Stream(own, FROM_CLIENT), Heartbeat(1, 0, 0, False, [])
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(stream.receive)
                await trio.testing.wait_all_tasks_blocked()
                assert len(stream._stage) == 0
                await Stream(peer, FROM_CLIENT).send(sent)
                await trio.testing.wait_all_tasks_blocked()

    async def test_many_small_messages_in_one_read_are_received_one_by_one(self) -> None:
        peer, stream = await fetching()
        sent = [m.Have(list(range(number % 50 + 1))) for number in range(5000)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.send_all, b"".join(encode_frame(message) for message in sent))
            assert [await stream.receive() for _ in sent] == sent

    @pytest.mark.parametrize(
        "sent",
        [
            struct.pack(">II", 0, 0),
            struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
            struct.pack(">II", 1 << 31, 0),
            struct.pack(">II", (1 << 32) - 1, (1 << 32) - 1),
            struct.pack(">II", 10, 1 << 31),
            struct.pack(">II", 2, 0) + b"\xc1\xc1",
            encode_frame(m.Cancel([1], True)),
            encode_frame(m.Have([1]))[:4] + b"\x00\x00\x00\x01" + encode_frame(m.Have([1]))[8:],
            b"GET / HTTP/1.1\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        ],
        ids=lambda sent: repr(sent[:11]),
    )
    async def test_a_malformed_frame_is_refused_before_any_of_it_is_awaited(self, sent: bytes) -> None:
        peer, stream = await fetching()
        await peer.send_all(sent)
        with pytest.raises(RemoteProtocolError):
            await stream.receive()

    @pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, -1])
    async def test_a_peer_that_leaves_within_a_frame_is_gone(self, kept: int) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Have([1, 2, 3]))[:kept])
        peer.close()
        with pytest.raises(PeerGone, match="the peer closed the connection"):
            await stream.receive()


class TestSlowPeers:
    async def test_between_messages_a_peer_may_be_silent_for_ever(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                assert await stream.receive() == m.Have([1])

            nursery.start_soon(receive)
            await trio.sleep(80_000)
            await peer.send_all(encode_frame(m.Have([1])))

    @pytest.mark.parametrize("sent", [1, 7, 8, 9])
    async def test_a_header_begun_must_end_in_time(self, autojump_clock: Clock, sent: int) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Have([1]))[:sent])
        with pytest.raises(PeerSilent, match="not finished within 30 s"):
            await stream.receive()
        assert trio.current_time() == 30

    async def test_a_header_that_trickles_is_cut_off_too(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                for byte in encode_frame(m.Have(list(range(200)))):
                    await peer.send_all(bytes([byte]))
                    await trio.sleep(1)

            nursery.start_soon(trickle)
            with pytest.raises(PeerSilent):
                await stream.receive()
            assert trio.current_time() == 30
            nursery.cancel_scope.cancel()

    async def test_a_header_has_its_whole_time_in_each_message(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        frame = encode_frame(m.Have([1]))
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for _ in range(3):
                    await peer.send_all(frame[:9])
                    await trio.sleep(29)
                    await peer.send_all(frame[9:])

            nursery.start_soon(send)
            assert [await stream.receive() for _ in range(3)] == [m.Have([1])] * 3

    @pytest.mark.parametrize("take", [Stream.receive_payload, Stream.skip_payload])
    @pytest.mark.parametrize("bytes_per_s", [0, 10_000])
    async def test_a_payload_that_comes_too_slowly_is_given_up(
        self, autojump_clock: Clock, take: Callable[[Stream], Awaitable[object]], bytes_per_s: int
    ) -> None:
        peer, stream = await fetching()
        async with trio.open_nursery() as nursery:

            async def trickle() -> None:
                await peer.send_all(encode_frame(m.Piece(0, 0), 1 << 20))
                while True:
                    await peer.send_all(bytes(bytes_per_s))
                    await trio.sleep(1)

            nursery.start_soon(trickle)
            await stream.receive()
            with pytest.raises(PeerSilent, match="a payload did not come within 94 s"):
                await take(stream)
            assert trio.current_time() == 30 + 64
            nursery.cancel_scope.cancel()

    async def test_an_announced_payload_takes_no_memory_before_it_comes(
        self, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        peer, own = await ends()
        stream = Stream(own, FROM_CLIENT)
        await peer.send_all(encode_frame(Publish(1, bytes(32), 0, 0, 0, False), Publish.max_payload))
        await stream.receive()
        taken: list[int] = []

        def take(count: int) -> bytearray:
            taken.append(count)
            return bytearray(count)

        monkeypatch.setattr(message_stream, "bytearray", take, raising=False)
        with pytest.raises(PeerSilent):
            await stream.receive_payload()
        assert sum(taken) <= 1 << 20

    async def test_a_flood_of_messages_leaves_the_loop_its_turns(self) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Have([1])) * 1000)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            for _ in range(1000):
                await stream.receive()
            nursery.cancel_scope.cancel()
        assert turns > 500


class TestCancellation:
    @pytest.mark.parametrize("sent", [0, 3, 8, 10])
    async def test_a_cancelled_receive_loses_nothing_and_the_header_is_still_timed(
        self, autojump_clock: Clock, sent: int
    ) -> None:
        peer, stream = await fetching()
        frame = encode_frame(m.Have([1]))
        await peer.send_all(frame[:sent])
        with trio.move_on_after(5):
            await stream.receive()
        await peer.send_all(frame[sent:] + frame[:8])
        assert await stream.receive() == m.Have([1])
        with trio.move_on_after(5):
            await stream.receive()
        with pytest.raises(PeerSilent):
            await stream.receive()
        assert trio.current_time() == 40

    async def test_a_cancelled_payload_goes_on_where_it_was(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        await peer.send_all(encode_frame(m.Piece(0, 0), 10) + b"0123")
        await stream.receive()
        buffer = memoryview(bytearray(10))
        with trio.move_on_after(1):
            await stream.receive_payload_into(buffer)
        assert stream.payload_left == 6
        await peer.send_all(b"456789")
        await stream.receive_payload_into(buffer[4:])
        assert bytes(buffer) == b"0123456789"
