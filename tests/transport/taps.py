"""Taps for `MemoryNetwork.tap`: what hostile or broken hosts do to the bytes that they send."""

import struct


class CorruptPayloads:
    """Flips a bit in every `every`th payload that a connection carries; headers pass as they are.

    One for each connection: `network.tap(host, lambda receiver: CorruptPayloads(every=10))`.
    """

    def __init__(self, *, every: int) -> None:
        self.corrupted = 0
        self._every = every
        self._seen = 0
        self._prefix = b""
        self._header_left = 0
        self._payload_left = 0
        self._spoil_next = False

    def __call__(self, data: bytes) -> bytes:
        made, at = bytearray(data), 0
        while at < len(data):
            at += self._step(made, at)
        return bytes(made)

    def _step(self, made: bytearray, at: int) -> int:
        """Pass over the rest of a prefix, header or payload, as far as it is here; return how many bytes that are."""
        here = len(made) - at
        if self._header_left:
            passed = min(self._header_left, here)
            self._header_left -= passed
        elif self._payload_left:
            passed = min(self._payload_left, here)
            self._payload_left -= passed
            if self._spoil_next:
                made[at] ^= 1
                self._spoil_next = False
                self.corrupted += 1
        else:
            passed = min(8 - len(self._prefix), here)
            self._prefix += made[at : at + passed]
            if len(self._prefix) == 8:
                self._begin_frame()
        return passed

    def _begin_frame(self) -> None:
        self._header_left, self._payload_left = struct.unpack(">II", self._prefix)
        self._prefix = b""
        if self._payload_left:
            self._seen += 1
            self._spoil_next = self._seen % self._every == 0
