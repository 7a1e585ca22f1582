"""Frames: `u32 header length | u32 payload length | header | payload`, big-endian.

The decoder is pulled: it says how many bytes it needs next and checks both lengths before the caller buffers any of
them. The payload never passes through here; the caller moves it between file and socket.
"""

import struct
from dataclasses import dataclass
from typing import Final, Generic

from interfiles.errors import LocalProtocolError, RemoteProtocolError
from interfiles.wire.codec import Codec, M, Message, encode

MAX_HEADER_BYTES: Final = 128 << 10  # the largest message, a heartbeat of 128 long holdings, takes 109 KiB
MAX_PAYLOAD_BYTES: Final = 72 << 20  # a tracker file with the largest manifest, and a margin for its envelope

_PREFIX: Final = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Frame(Generic[M]):
    """A decoded header and the number of payload bytes that follow it."""

    message: M
    payload_length: int


def encode_frame(message: Message, payload_length: int = 0) -> bytes:
    """Return prefix and header; the caller sends `payload_length` bytes of payload right after them.

    Raises:
      LocalProtocolError: the header or payload is longer than the message may be.
    """
    header = encode(message)
    if len(header) > MAX_HEADER_BYTES:
        raise LocalProtocolError(f"header of {len(header)} bytes is over {MAX_HEADER_BYTES}")
    if payload_length > message.max_payload:
        raise LocalProtocolError(
            f"payload of {payload_length} bytes is over the {message.max_payload} of {type(message).__name__}"
        )
    return _PREFIX.pack(len(header), payload_length) + header


class FrameDecoder(Generic[M]):
    """Turns a stream into frames, one at a time: feed exactly `wanted` bytes, again and again.

    `codec` may be replaced between frames, when the conversation moves on from its handshake.
    """

    def __init__(self, codec: Codec[M]) -> None:
        self.codec = codec
        self.wanted = _PREFIX.size
        self._payload_length: int | None = None

    @property
    def is_between_frames(self) -> bool:
        """Nothing of the next frame was fed yet."""
        return self._payload_length is None

    def feed(self, data: bytes | bytearray | memoryview) -> Frame[M] | None:
        """Take the next `wanted` bytes; return a frame once its header is whole.

        After a frame the caller takes its payload off the stream before it feeds again.

        Raises:
          RemoteProtocolError: a length over its limit, a bad header, or a payload where the message has none.
        """
        if len(data) != self.wanted:
            raise LocalProtocolError(f"fed {len(data)} bytes, {self.wanted} were wanted")
        if self._payload_length is None:
            header_length, payload_length = _PREFIX.unpack(data)
            if not 0 < header_length <= MAX_HEADER_BYTES:
                raise RemoteProtocolError(f"header length {header_length} is outside 1..{MAX_HEADER_BYTES}")
            if payload_length > MAX_PAYLOAD_BYTES:
                raise RemoteProtocolError(f"payload length {payload_length} is over {MAX_PAYLOAD_BYTES}")
            self.wanted, self._payload_length = header_length, payload_length
            return None
        message, payload_length = self.codec.decode(data), self._payload_length
        if payload_length > message.max_payload:
            raise RemoteProtocolError(
                f"payload of {payload_length} bytes is over the {message.max_payload} of {type(message).__name__}"
            )
        self.wanted, self._payload_length = _PREFIX.size, None
        return Frame(message, payload_length)
