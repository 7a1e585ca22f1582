"""Frames: any cut of a stream gives the same frames; no length passes its limit."""

import struct
from collections.abc import Iterator

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import LocalProtocolError, RemoteProtocolError
from interfiles.manifest import MAX_MANIFEST_BYTES
from interfiles.tracker_file import MAX_TRACKER_BYTES
from interfiles.wire.codec import Codec, Message, encode
from interfiles.wire.control_messages import Download, TrackerContent
from interfiles.wire.framing import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Frame, FrameDecoder, encode_frame
from interfiles.wire.master_messages import Publish
from interfiles.wire.peer_messages import FROM_SERVER, Cancel, Piece
from tests.wire.values import any_message, message_types, smallest

EVERYTHING: Codec[Message] = Codec(*message_types())
PIECE = Piece(3, 1 << 20)


def decoded(stream: bytes, codec: Codec[Message] = EVERYTHING) -> Iterator[tuple[Message, bytes]]:
    """Feed a whole stream, as a caller does that never has more than was asked for."""
    decoder, at = FrameDecoder(codec), 0
    while at < len(stream):
        end = at + decoder.wanted
        if end > len(stream):
            return
        frame = decoder.feed(memoryview(stream)[at:end])
        at = end
        if frame is not None:
            payload = stream[at : at + frame.payload_length]
            at += frame.payload_length
            yield frame.message, payload


@st.composite
def frames(draw: st.DrawFn) -> tuple[Message, bytes]:
    message = draw(st.sampled_from(message_types()).flatmap(any_message))
    return message, draw(st.binary(max_size=min(message.max_payload, 100)))


@given(st.lists(frames(), max_size=4))
def test_frames_survive_the_wire(sent: list[tuple[Message, bytes]]) -> None:
    stream = b"".join(encode_frame(message, len(payload)) + payload for message, payload in sent)
    assert list(decoded(stream)) == sent


@given(frames(), st.data())
def test_a_truncated_stream_gives_no_frame(frame: tuple[Message, bytes], data: st.DataObject) -> None:
    stream = encode_frame(frame[0], len(frame[1]))
    assert list(decoded(stream[: data.draw(st.integers(0, len(stream) - 1))])) == []


@given(st.binary(max_size=200))
def test_noise_ends_in_nothing_but_a_protocol_error(noise: bytes) -> None:
    try:
        list(decoded(noise))
    except RemoteProtocolError:
        pass


def test_the_layout_is_two_big_endian_lengths_and_the_header() -> None:
    header = encode(PIECE)
    assert encode_frame(PIECE, 0x01020) == b"\x00\x00\x00" + bytes([len(header)]) + b"\x00\x00\x10\x20" + header


@pytest.mark.parametrize("length", [0, MAX_HEADER_BYTES + 1, 1 << 31, (1 << 32) - 1])
def test_a_header_length_out_of_bounds_is_refused_at_once(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^header length {length} is outside 1..{MAX_HEADER_BYTES}$"):
        FrameDecoder(FROM_SERVER).feed(struct.pack(">II", length, 0))


@pytest.mark.parametrize("length", [MAX_PAYLOAD_BYTES + 1, 1 << 31, (1 << 32) - 1])
def test_a_payload_length_out_of_bounds_is_refused_at_once(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"^payload length {length} is over {MAX_PAYLOAD_BYTES}$"):
        FrameDecoder(FROM_SERVER).feed(struct.pack(">II", 1, length))


def test_lengths_at_their_limits_are_taken() -> None:
    decoder = FrameDecoder(FROM_SERVER)
    assert decoder.feed(struct.pack(">II", MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES)) is None
    assert decoder.wanted == MAX_HEADER_BYTES


@pytest.mark.parametrize("kind", [pytest.param(kind, id=kind.__name__) for kind in message_types()])
def test_a_payload_is_as_long_as_its_message_allows(kind: type[Message]) -> None:
    header = msgpack.packb(smallest(kind))
    message = Codec(kind).decode(header)

    def heard(payload_length: int) -> Frame[Message] | None:
        decoder = FrameDecoder(Codec(kind))
        decoder.feed(struct.pack(">II", len(header), payload_length))
        return decoder.feed(header)

    assert heard(kind.max_payload) == Frame(message, kind.max_payload)
    encode_frame(message, kind.max_payload)
    if kind.max_payload < MAX_PAYLOAD_BYTES:
        with pytest.raises(RemoteProtocolError, match=f"over the {kind.max_payload} of {kind.__name__}$"):
            heard(kind.max_payload + 1)
    with pytest.raises(LocalProtocolError, match=f"over the {kind.max_payload} of {kind.__name__}$"):
        encode_frame(message, kind.max_payload + 1)


def test_the_largest_manifest_and_tracker_file_fit_into_a_payload() -> None:
    assert Publish.max_payload == MAX_MANIFEST_BYTES <= MAX_PAYLOAD_BYTES
    assert Download.max_payload == TrackerContent.max_payload >= MAX_TRACKER_BYTES


def test_it_knows_when_it_is_between_frames() -> None:
    decoder, stream = FrameDecoder(FROM_SERVER), encode_frame(PIECE, 5)
    assert decoder.is_between_frames
    decoder.feed(stream[:8])
    assert not decoder.is_between_frames
    assert decoder.feed(stream[8:]) == Frame(PIECE, 5)
    assert decoder.is_between_frames


@pytest.mark.parametrize("data", [b"", b"\x00" * 7, b"\x00" * 9])
def test_feeding_another_number_of_bytes_is_a_bug_of_ours(data: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="8 were wanted"):
        FrameDecoder(FROM_SERVER).feed(data)


def test_a_message_of_the_other_side_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="message 66 is not allowed here"):
        list(decoded(encode_frame(Cancel([0], True)), FROM_SERVER))
