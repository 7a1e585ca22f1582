"""The two ends of a connection in memory, and the pipe in each direction between them."""

import math
import os
from collections import deque
from collections.abc import Callable
from typing import Final

import trio

from interfiles.errors import ContentChanged, PeerGone, PeerSilent, StorageFailed
from interfiles.transport.base import Address
from interfiles.transport.memory_links import Links

SEGMENT_BYTES: Final = 64 << 10
STALL_TIMEOUT_S: Final = 60.0

Tap = Callable[[bytes], bytes]


class Pipe:
    """One direction of a connection: segments on their way or arrived, each with its arrival time, until they are read.

    An empty segment, always the last, is the end that the reader sees once the writer has closed. Faults and ends
    reach the other host only where no partition holds them back.
    """

    def __init__(self, links: Links, sender: str, receiver: str, *, window_bytes: int, tap: Tap | None) -> None:
        self.sender: Final = sender
        self.receiver: Final = receiver
        self._links = links
        self._window_bytes = window_bytes
        self._tap = tap
        self._segments: deque[tuple[float, memoryview]] = deque()
        self._unread_bytes = 0
        self._left_at = -math.inf
        self._writer_closed = self._reader_closed = self._is_lost = False
        self._broken: str | None = None
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def is_done(self) -> bool:
        """Both ends are closed."""
        return self._writer_closed and self._reader_closed

    def check_writer(self) -> None:
        """Raise `PeerGone` if nothing can be written any more."""
        self._check(closed=self._writer_closed)
        if self._reader_closed and not self._is_held:
            raise PeerGone("the connection broke: the peer closed it")

    async def write(self, segment: bytes) -> None:
        """Wait until the segment before has left and the window has room, then put this one on its way."""
        while trio.current_time() < self._left_at:
            with trio.move_on_at(self._left_at):
                await self._changed.park()
            self.check_writer()
        while self._unread_bytes >= self._window_bytes:
            with trio.move_on_after(STALL_TIMEOUT_S) as scope:
                await self._changed.park()
            self.check_writer()
            if scope.cancelled_caught:
                raise PeerSilent(f"the peer took nothing for {STALL_TIMEOUT_S:.0f} s")
        if self._tap is not None:
            segment = self._tap(segment)
        if segment:
            self._left_at, arrives_at = self._links.transmit(self.sender, self.receiver, len(segment))
            self._append(segment, arrives_at)

    async def read_into(self, buffer: memoryview) -> int:
        """Wait for bytes to arrive, and move as many as fit; return how many, 0 at the end."""
        while True:
            self._check(closed=self._reader_closed)
            arrives_at = self._segments[0][0] if self._segments and not self._is_held else math.inf
            if arrives_at <= trio.current_time():
                return self._take_into(buffer)
            with trio.move_on_at(arrives_at):
                await self._changed.park()

    def finish(self) -> None:
        """The writer closes: the reader sees the end after all that was sent."""
        if not self._writer_closed:
            self._writer_closed = True
            self._append(b"", trio.current_time() + self._links.latency_s(self.sender, self.receiver))

    def abandon(self) -> None:
        """The reader closes: what it has not read is gone, and the writer finds out."""
        self._reader_closed = True
        self._segments.clear()
        self._unread_bytes = 0
        self.wake()

    def break_down(self, reason: str) -> None:
        """Both ends fail for this reason, and what was on its way is gone."""
        self._broken = reason
        self._segments.clear()
        self.wake()

    def drop_end(self, host: str, *, silent: bool) -> None:
        """The end at `host` fails at once; the other fails too, or with `silent` hears nothing more."""
        self._writer_closed = self._writer_closed or host == self.sender
        self._reader_closed = self._reader_closed or host == self.receiver
        self._is_lost = self._is_lost or silent
        self.break_down("the connection broke: the peer's host went down")

    def wake(self) -> None:
        """Let whoever waits look again."""
        self._changed.unpark_all()

    @property
    def _is_held(self) -> bool:
        return self._is_lost or self._links.are_parted(self.sender, self.receiver)

    def _check(self, *, closed: bool) -> None:
        if closed:
            raise PeerGone("this end closed the connection")
        if self._broken is not None and not self._is_held:
            raise PeerGone(self._broken)

    def _append(self, segment: bytes, arrives_at: float) -> None:
        self._unread_bytes += len(segment)
        self._segments.append((arrives_at, memoryview(segment)))  # read in this order, whatever jitter says
        self.wake()

    def _take_into(self, buffer: memoryview) -> int:
        now, filled = trio.current_time(), 0
        while self._segments and filled < len(buffer):
            arrives_at, segment = self._segments[0]
            if arrives_at > now or not segment:
                break
            taken = segment[: len(buffer) - filled]
            buffer[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._segments.popleft()
            if len(taken) < len(segment):
                self._segments.appendleft((arrives_at, segment[len(taken) :]))
        self._unread_bytes -= filled
        self.wake()
        return filled


class MemoryTransport:
    """One end of a connection."""

    def __init__(self, outgoing: Pipe, incoming: Pipe, remote: Address, when_closed: Callable[[], None]) -> None:
        self._outgoing = outgoing
        self._incoming = incoming
        self._remote = remote
        self._when_closed = when_closed

    @property
    def remote(self) -> Address | None:
        return self._remote

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some_into(self, buffer: memoryview) -> int:
        await trio.lowlevel.checkpoint()
        return await self._incoming.read_into(buffer)

    def promise(self, count: int) -> None:
        """In memory waking costs nothing."""

    async def send_all(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self._outgoing.check_writer()
        view = memoryview(data)
        for at in range(0, len(view), SEGMENT_BYTES):
            await self._outgoing.write(bytes(view[at : at + SEGMENT_BYTES]))

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        await self.send_all(head)
        self._outgoing.check_writer()
        end = offset + count
        while offset < end:
            try:
                segment = os.pread(fd, min(SEGMENT_BYTES, end - offset), offset)
            except OSError as e:
                raise StorageFailed(f"the disk cannot read the file: {e.strerror}") from e
            if not segment:
                raise ContentChanged(f"the file ends {end - offset} bytes too early")
            await self._outgoing.write(segment)
            offset += len(segment)

    def close(self) -> None:
        self._outgoing.finish()
        self._incoming.abandon()
        self._when_closed()
