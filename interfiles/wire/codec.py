"""Headers: msgpack bytes to typed, frozen messages and back.

`msgpack` parses under caps on every length, so a hostile header cannot make the parser allocate more than a few
megabytes; `msgspec` then checks type and bounds of every field. Whatever does not fit, exactly, is a
`RemoteProtocolError`.
"""

from typing import ClassVar, Final, Generic, NoReturn, TypeVar

import msgpack
import msgspec

from interfiles.errors import LocalProtocolError, RemoteProtocolError

MAX_ARRAY_ITEMS: Final = 512  # an empty array costs 8 bytes an announced item, and 1,024 may be nested: 4 MiB at worst
MAX_STRING_BYTES: Final = 8192

_MAX_REASON_LENGTH: Final = 300  # a codec may quote the peer, escaped but at length


class Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every message; a subclass sets `tag=`, its number on the wire.

    `max_payload`: bytes that may follow the header in the same frame; most messages carry none.
    """

    max_payload: ClassVar[int] = 0


class Part(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the records that stand inside messages."""


M = TypeVar("M", bound=Message)


class Codec(Generic[M]):
    """Decodes the messages of one union: what one end may say in one conversation."""

    def __init__(self, *accepted: type[M]) -> None:
        self.accepted: Final = accepted
        self._by_tag: Final = {message.__struct_config__.tag: message for message in accepted}

    def decode(self, header: bytes | bytearray | memoryview) -> M:
        """Read one header.

        Raises:
          RemoteProtocolError: not msgpack, over a cap, not one of the accepted messages, or a field out of bounds.
        """
        try:
            plain = msgpack.unpackb(
                header,
                max_array_len=MAX_ARRAY_ITEMS,
                max_map_len=0,
                max_ext_len=0,
                max_str_len=MAX_STRING_BYTES,
                max_bin_len=MAX_STRING_BYTES,
                ext_hook=_refuse_ext,
            )
        except (ValueError, msgpack.UnpackException, RecursionError) as e:
            raise RemoteProtocolError(f"header of {len(header)} bytes is not valid msgpack: {_reason(e)}") from e
        kind = self._kind(plain)
        try:
            return msgspec.convert(plain, kind, builtin_types=(bytes,))  # without this, text passes for base64 of bytes
        except (msgspec.ValidationError, RecursionError) as e:
            raise RemoteProtocolError(f"{kind.__name__} is malformed: {_reason(e)}") from e

    def _kind(self, plain: object) -> type[M]:
        if type(plain) is not list or not plain or type(plain[0]) is not int:
            raise RemoteProtocolError("a header is not an array that begins with a tag")
        kind = self._by_tag.get(plain[0])
        if kind is None:
            raise RemoteProtocolError(f"message {plain[0]} is not allowed here")
        return kind


def encode(message: Message) -> bytes:
    """Write one header.

    Raises:
      LocalProtocolError: a field is out of its bounds, so that the peer would refuse the message.
    """
    try:
        header = msgspec.msgpack.encode(message)
        msgspec.msgpack.decode(header, type=type(message))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as e:
        raise LocalProtocolError(f"{type(message).__name__} breaks its own bounds: {_reason(e)}") from e
    return header


def _refuse_ext(code: int, data: bytes) -> NoReturn:
    raise ValueError(f"extension {code} of {len(data)} bytes")


def _reason(error: Exception) -> str:
    return str(error)[:_MAX_REASON_LENGTH] or type(error).__name__
