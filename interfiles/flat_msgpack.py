"""Reads msgpack one scalar or array header at a time.

A parser that builds whole objects can be made to allocate a hundred times its input: nested arrays, empty maps, headers
that promise billions. Here each call builds one scalar out of bytes that are there, so nothing is allocated that the
input does not hold. The caller, who knows what must come next, checks the counts.
"""

from typing import Final, NoReturn

import msgpack


class FlatReader:
    """One pass over msgpack bytes; every method raises `ValueError` with a reason when something else comes next."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._length: Final = len(data)
        self._unpacker: Final = msgpack.Unpacker(
            max_buffer_size=max(self._length, 1), max_array_len=0, max_map_len=0, max_ext_len=0
        )
        self._unpacker.feed(data)

    def array(self) -> int:
        """How many items the array has that begins here; they follow one by one."""
        try:
            return int(self._unpacker.read_array_header())
        except (ValueError, msgpack.UnpackException) as e:
            self._refuse(e, "an array")

    def text(self) -> str:
        value = self._scalar("text")
        if type(value) is not str:
            raise ValueError(f"{type(value).__name__} where text belongs")
        return value

    def binary(self) -> bytes:
        value = self._scalar("bytes")
        if type(value) is not bytes:
            raise ValueError(f"{type(value).__name__} where bytes belong")
        return value

    def integer(self) -> int:
        value = self._scalar("a whole number")
        if type(value) is not int:  # a bool is an int to isinstance
            raise ValueError(f"{type(value).__name__} where a whole number belongs")
        return value

    def flag(self) -> bool:
        value = self._scalar("true or false")
        if type(value) is not bool:
            raise ValueError(f"{type(value).__name__} where true or false belongs")
        return value

    def end(self) -> None:
        """Nothing may be left."""
        left = self._length - self._unpacker.tell()
        if left:
            raise ValueError(f"{left:,} bytes follow its end")

    def _scalar(self, expected: str) -> object:
        try:
            return self._unpacker.unpack()
        except (ValueError, RecursionError, msgpack.UnpackException) as e:
            self._refuse(e, expected)

    def _refuse(self, error: Exception, expected: str) -> NoReturn:
        if isinstance(error, UnicodeDecodeError):
            raise ValueError("text that is not UTF-8") from error
        if isinstance(error, msgpack.OutOfData):
            raise ValueError(f"it ends after {self._length:,} bytes, where {expected} should follow") from error
        raise ValueError(f"something else where {expected} should follow byte {self._unpacker.tell():,}") from error
