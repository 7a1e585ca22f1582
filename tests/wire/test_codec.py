"""Headers: what is sent can be read, and nothing else can; every bound is hit from both sides."""

import tracemalloc
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import LocalProtocolError, RemoteProtocolError
from interfiles.wire import master_messages, peer_messages
from interfiles.wire.codec import Codec, Message, Part, encode
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import HELLO
from tests.wire.values import any_message, beyond, largest, message_types, smallest, struct_fields, tag_of

KINDS = message_types()
BY_NAME = [pytest.param(kind, id=f"{tag_of(kind)}-{kind.__name__}") for kind in KINDS]
EVERYTHING: Codec[Message] = Codec(*KINDS)
OPEN = peer_messages.Open(b"\x01" * 32, "normal")


def test_every_message_has_a_tag_of_its_own() -> None:
    assert len({tag_of(kind) for kind in KINDS}) == len(KINDS)


@given(st.sampled_from(KINDS).flatmap(any_message))
def test_a_message_survives_the_wire(message: Message) -> None:
    assert EVERYTHING.decode(encode(message)) == message


@pytest.mark.parametrize("kind", BY_NAME)
def test_the_outermost_values_pass(kind: type[Message]) -> None:
    for plain in (smallest(kind), largest(kind)):
        header = msgpack.packb(plain)
        message = Codec(kind).decode(header)
        assert encode(message) == header


@pytest.mark.parametrize("kind", BY_NAME)
def test_the_largest_header_is_within_the_limit(kind: type[Message]) -> None:
    message = Codec(kind).decode(msgpack.packb(largest(kind)))
    assert len(encode_frame(message)) - 8 <= MAX_HEADER_BYTES


@pytest.mark.parametrize("kind", BY_NAME)
def test_what_is_beyond_a_bound_or_of_another_type_is_refused(kind: type[Message]) -> None:
    codec, plain = Codec(kind), smallest(kind)
    for at, field in enumerate(struct_fields(kind), start=1):
        for value in beyond(field.type):
            with pytest.raises(RemoteProtocolError, match=f"^{kind.__name__} is malformed|exceeds max_(array|str)_len"):
                codec.decode(msgpack.packb([*plain[:at], value, *plain[at + 1 :]]))


@pytest.mark.parametrize("kind", BY_NAME)
def test_fields_too_many_or_too_few_are_refused(kind: type[Message]) -> None:
    plain = smallest(kind)
    for wrong in [[*plain, None], [*plain, 0, 0], *(plain[:length] for length in range(1, len(plain)))]:
        with pytest.raises(RemoteProtocolError, match=r"Expected `array` of"):
            Codec(kind).decode(msgpack.packb(wrong))


@pytest.mark.parametrize(
    "header",
    [
        *([], [None], ["65", 0, 0, 1], [65.0, 0, 0, 1], [True], [b"A"], [[65], 0, 0, 1], [-1], [0], [86], [2**64 - 1]),
        *(65, None, "65", b"", 1.5, True),
    ],
    ids=repr,
)
def test_a_header_without_a_known_tag_is_refused(header: Any) -> None:
    with pytest.raises(RemoteProtocolError, match=r"^(a header is not|message \d+ is not allowed|message -1)"):
        peer_messages.FROM_FETCHER.decode(msgpack.packb(header))


def test_true_does_not_pass_for_the_tag_one() -> None:
    hello = smallest(HELLO.accepted[0])
    with pytest.raises(RemoteProtocolError):
        HELLO.decode(msgpack.packb([True, *hello[1:]]))


def test_text_does_not_pass_for_base64_of_bytes() -> None:
    in_base64 = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
    assert msgspec.convert(in_base64, bytes) == OPEN.file_id
    with pytest.raises(RemoteProtocolError, match="Expected `bytes`, got `str`"):
        peer_messages.FROM_FETCHER.decode(msgpack.packb([64, in_base64, "normal"]))


MALFORMED = {
    "nothing": b"",
    "only an array's head": b"\x94",
    "truncated": encode(OPEN)[:-1],
    "bytes left over": encode(OPEN) + b"\x00",
    "two messages": encode(OPEN) * 2,
    "unused code": b"\xc1",
    "map": b"\x80",
    "map with an entry": b"\x81\x01\x02",
    "map within": b"\x92\x40\x80",
    "extension": b"\xd4\x05x",
    "empty extension": b"\xc7\x00\x05",
    "empty extension within": b"\x92\x40\xc7\x00\x05",
    "timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "empty timestamp": b"\xc7\x00\xff",
    "timestamp within": b"\x92\x40\xd6\xff\x00\x00\x00\x00",
    "bad UTF-8": b"\x92\x55\xa2\xff\xfe",
    "surrogate in UTF-8": b"\x92\x55\xa3\xed\xa0\x80",
    "array of 513": b"\x92\x51\xdc\x02\x01" + b"\x00" * 513,
    "text of 8193": b"\x92\x55\xda\x20\x01" + b"a" * 8193,
    "bytes of 8193": b"\x92\x40\xc5\x20\x01" + b"a" * 8193,
}


@pytest.mark.parametrize("header", [pytest.param(header, id=name) for name, header in MALFORMED.items()])
def test_a_malformed_header_is_refused(header: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        EVERYTHING.decode(header)


class Marked(Part, frozen=True):
    """A record that looks like an extension type: a number and bytes."""

    number: int
    data: bytes


class Marks(Message, frozen=True, tag=99):
    mark: Marked


def test_an_extension_does_not_pass_for_a_record() -> None:
    assert Codec(Marks).decode(b"\x92\x63\x92\x05\xc4\x00") == Marks(Marked(5, b""))
    with pytest.raises(RemoteProtocolError, match="not valid msgpack: extension 5 of 0 bytes"):
        Codec(Marks).decode(b"\x92\x63\xc7\x00\x05")


def test_a_map_with_entries_is_not_even_parsed() -> None:
    with pytest.raises(RemoteProtocolError, match="not valid msgpack: 1 exceeds max_map_len"):
        EVERYTHING.decode(b"\x81\x01\x02")


@given(st.binary(max_size=64))
def test_noise_is_refused_or_read_and_never_anything_else(noise: bytes) -> None:
    try:
        message = EVERYTHING.decode(noise)
    except RemoteProtocolError:
        return
    assert EVERYTHING.decode(encode(message)) == message


@given(st.data())
def test_a_changed_byte_is_refused_or_read_and_never_anything_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    header = bytearray(encode(data.draw(any_message(kind))))
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        EVERYTHING.decode(header)
    except RemoteProtocolError:
        pass


def _grid(leaf: bytes) -> bytes:
    """As many arrays of 512 leaves as fit into a header."""
    rows = MAX_HEADER_BYTES // (3 + 512 * len(leaf))
    return b"\xdc" + rows.to_bytes(2, "big") + (b"\xdc\x02\x00" + leaf * 512) * rows


BOMBS = {
    "nested arrays that announce 512 items": b"\xdc\x02\x00" * (MAX_HEADER_BYTES // 3),
    "nested arrays of one": b"\x91" * MAX_HEADER_BYTES,
    "array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "extension of 4 GB": b"\xc9\xff\xff\xff\xff\x01",
    "empty arrays": _grid(b"\x90"),
    "empty maps": _grid(b"\x80"),
    "arrays of arrays": _grid(b"\x91\x90"),
    "numbers": _grid(b"\xcd\x7f\xff"),
}


@pytest.mark.parametrize("header", [pytest.param(header, id=name) for name, header in BOMBS.items()])
def test_a_bomb_is_refused_in_little_memory(header: bytes) -> None:
    assert len(header) <= MAX_HEADER_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            EVERYTHING.decode(header)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 << 20


def test_what_a_peer_sends_reaches_no_log_unescaped_nor_at_length() -> None:
    hello = smallest(HELLO.accepted[0])
    with pytest.raises(RemoteProtocolError) as refused:
        HELLO.decode(msgpack.packb([1, "\x1b[2J\n" + "x" * 8000, *hello[2:]]))
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "message",
    [
        peer_messages.Complaint(-1),
        peer_messages.Complaint(1 << 20),
        peer_messages.Complaint(1 << 70),
        peer_messages.Complaint("1"),  # type: ignore[arg-type]
        peer_messages.Complaint(...),  # type: ignore[arg-type]
        peer_messages.Ask([-1]),
        peer_messages.Ask([1 << 20]),
        peer_messages.Ask([]),
        peer_messages.Ask([0] * 257),
        peer_messages.Ask(1),  # type: ignore[arg-type]
        peer_messages.Cancel(["1"], True),  # type: ignore[list-item]
        peer_messages.Cancel([], True),
        peer_messages.Cancel([0] * 257, True),
        peer_messages.NotFound([]),
        peer_messages.NotFound([0] * 257),
        peer_messages.Dropped([]),
        peer_messages.Dropped([0] * 257),
        peer_messages.Open(b"short", "normal"),
        peer_messages.Open("A" * 44, "normal"),  # type: ignore[arg-type]
        peer_messages.Withdrawn("x" * 1001),
        peer_messages.Withdrawn("lone \ud800 surrogate"),
        peer_messages.Have([]),
        peer_messages.Have([0] * 257),
        master_messages.Registered("a", "", float("nan"), 1),
        master_messages.Registered("a\n", "", 10.0, 1),
        master_messages.Registered("a", "not an address", 10.0, 1),
    ],
    ids=lambda message: repr(message)[:40],
)
def test_what_the_peer_would_refuse_is_not_sent(message: Message) -> None:
    with pytest.raises(LocalProtocolError, match=f"^{type(message).__name__} breaks its own bounds"):
        encode(message)
