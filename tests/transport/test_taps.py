"""The corrupting tap corrupts what it says, however its bytes are cut, so that tests which use it mean something."""

from hypothesis import given
from hypothesis import strategies as st

from interfiles.wire.framing import encode_frame
from interfiles.wire.peer_messages import Have, Piece
from tests.transport.taps import CorruptPayloads


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_every_third_payload_has_one_bit_flipped(cuts: list[int]) -> None:
    stream, expected = b"", b""
    for number in range(1, 11):
        frame = encode_frame(Have([number])) + encode_frame(Piece(number, 0), 20)
        stream += frame + bytes(20)
        expected += frame + (b"\x01" + bytes(19) if number % 3 == 0 else bytes(20))
    tap, sent, turn = CorruptPayloads(every=3), b"", 0
    while stream:
        cut = cuts[turn % len(cuts)]
        turn += 1
        sent += tap(stream[:cut])
        stream = stream[cut:]
    assert sent == expected
    assert tap.corrupted == 3
