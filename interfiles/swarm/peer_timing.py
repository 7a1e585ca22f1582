"""How quick a peer is, by its own blocks, and when its silence is a stall."""

from typing import Final

FIRST_STALL_S: Final = 5.0  # before anything is measured
MIN_STALL_S: Final = 0.5  # a process that is paused for a moment is no stall yet
MAX_STALL_S: Final = 20.0
BUSY_SILENCE_S: Final = 2.0  # between two signs of being busy, which are about a second apart
UNMEASURED_S: Final = 0.5  # what a peer that has sent nothing yet is taken to need
KNOWN_BLOCKS: Final = 4  # from so many on a peer is known: its first ones may have come in a burst
_SHARE: Final = 1 / 8  # of the newest block in the mean (RFC 6298)
_FIRST_BYTES: Final = 64 << 10  # of a block: fewer say little about how quickly it comes


class PeerTiming:
    """The blocks of one peer in time. Times are seconds of one monotonic clock; only times when it owes count.

    While this host does not read (`pause`), to keep to a limit of its own, the peer may be silent.
    """

    def __init__(self, now: float) -> None:
        self._heard_at = now
        self._block_since = now
        self._begun_at = now  # the block that is coming, of which so many bytes are here
        self._arrived_bytes = 0
        self._s_per_byte: float | None = None
        self._blocks = 0
        self._mean_s: float | None = None
        self._deviation_s = 0.0
        self._paused_at: float | None = None
        self._paused_s = 0.0  # since `_block_since`

    def start(self, now: float) -> None:
        """The peer owes something from now on; before, it owed nothing."""
        self._heard_at = self._block_since = now
        self._paused_s = 0.0

    def pause(self, now: float) -> None:
        """This host stops reading what the peer sends."""
        self._paused_at = now

    def resume(self, now: float) -> None:
        """It reads on. Without a `pause` before, nothing happens."""
        if self._paused_at is not None:
            paused_s, self._paused_at = now - self._paused_at, None
            self._paused_s += paused_s
            self._begun_at += paused_s
            self._heard_at = max(self._heard_at, now)

    def begin_block(self, now: float) -> None:
        """A block begins to come."""
        self._heard_at = self._begun_at = now
        self._arrived_bytes = 0

    def hear(self, now: float, count: int = 0) -> None:
        """The peer gave a sign of life, so many bytes of a block perhaps."""
        self._heard_at = now
        self._arrived_bytes += count

    @property
    def arrived_bytes(self) -> int:
        """Of the last block that began to come."""
        return self._arrived_bytes

    def hear_busy(self, now: float) -> None:
        """The peer said that it is busy: it says so again, or sends, within `BUSY_SILENCE_S`."""
        self._heard_at = now + BUSY_SILENCE_S

    def add_block(self, length: int, now: float) -> None:
        """A block of so many bytes came whole; means are kept as by RFC 6298.

        Pauses of this host count for the rate, so that it asks for less, but are no slowness of the peer's.
        """
        pace = (now - self._block_since) / max(length, _FIRST_BYTES)  # a tiny one says nothing of a peer's rate
        took = max(now - self._block_since - self._paused_s, 0.0)
        self._blocks += 1
        self._block_since = self._heard_at = now
        self._paused_s = 0.0
        if self._mean_s is None or self._s_per_byte is None:
            self._mean_s, self._deviation_s, self._s_per_byte = took, took / 2, pace
        else:
            self._deviation_s += (abs(took - self._mean_s) - self._deviation_s) / 4
            self._mean_s += (took - self._mean_s) * _SHARE
            self._s_per_byte += (pace - self._s_per_byte) * _SHARE

    @property
    def is_known(self) -> bool:
        """Whether it has sent enough for its rate to be relied on."""
        return self._blocks >= KNOWN_BLOCKS

    @property
    def rate(self) -> float:
        """Bytes a second while it owes; 0 before anything is measured, at most 1 TB/s."""
        return 1 / max(self._s_per_byte, 1e-12) if self._s_per_byte is not None else 0.0

    def needed_s(self, count: int) -> float:
        """Seconds that the peer will take for so many bytes."""
        return count * self._s_per_byte if self._s_per_byte is not None else UNMEASURED_S

    def waited_s(self, now: float) -> float:
        """Seconds since its last block, or since it was asked for one, in which this host would have heard it."""
        pausing_s = now - self._paused_at if self._paused_at is not None else 0.0
        return now - self._block_since - self._paused_s - pausing_s

    def left_s(self, count: int, now: float) -> float:
        """Seconds until so many bytes have come, those of the block that is coming included, as slow as it comes."""
        return self.pace(now) * max(count - self._arrived_bytes, 0)

    def pace(self, now: float) -> float:
        """Seconds for each byte of the block that is coming."""
        return (now - self._begun_at) / (self._arrived_bytes + _FIRST_BYTES)

    def deadline(self) -> float:
        """When its silence is a stall."""
        if self._paused_at is not None:
            return float("inf")
        if self._mean_s is None:
            return self._heard_at + FIRST_STALL_S
        return self._heard_at + min(max(self._mean_s + 4 * self._deviation_s, MIN_STALL_S), MAX_STALL_S)
