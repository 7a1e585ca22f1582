"""The master's end of a registered host's connection: what is sent on it, and why it ends."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import trio

from interfiles.errors import (
    InterFilesError,
    NoSpace,
    NotPermitted,
    PeerSilent,
    Refused,
    RemoteProtocolError,
    TransportError,
)
from interfiles.transport.message_stream import MessageStream
from interfiles.wire.codec import Message

# what the other end, or our disk, may bring about
EXPECTED: Final = (TransportError, RemoteProtocolError, NotPermitted, Refused, NoSpace)
MAX_UNSENT: Final = 512  # messages: a host that lets so many pile up does not read
SEND_TIMEOUT_S: Final = 30.0  # for one message, beside what its payload takes at `MIN_PAYLOAD_BYTES_PER_S`
SILENT_HEARTBEATS: Final = 3  # a host that misses so many is taken for gone, and its connection closed
MIN_PAYLOAD_BYTES_PER_S: Final = 256 << 10  # a payload held up for longer holds memory that others need


@dataclass(frozen=True, slots=True)
class _Unsent:
    message: Message
    payload: bytes = b""
    sent: trio.Event | None = None  # set once it is, where somebody waits for that


class Connection:
    """One registered host's connection. Whoever ends it first gives the reason, which the host is told if it can be.

    `certificate`: by which the host has proved to be it, in PEM. `publishing`: files whose manifests are on their way
    from it into the catalogue. `handouts`: what it was last told of each file's peers, kept by `Handouts`.
    """

    def __init__(self, stream: MessageStream[Message], host_id: str, name: str, certificate: str) -> None:
        self.host_id: Final = host_id
        self.name: Final = name
        self.certificate: Final = certificate
        self.publishing: Final[set[bytes]] = set()
        self.handouts: Final[dict[bytes, object]] = {}
        self.reason: InterFilesError | None = None
        self._stream = stream
        self._queue, self._due = trio.open_memory_channel[_Unsent](MAX_UNSENT)
        self._scope = trio.CancelScope()
        self._mid_frame = False
        self._waits_since = math.inf  # for what the host says next; infinite while something is done about what it said
        self._sent_by = math.inf  # the message that is being sent; infinite while none is

    def push(self, message: Message) -> None:
        """Send a message some time soon, without waiting; a host that does not read is cut off."""
        try:
            self._queue.send_nowait(_Unsent(message))
        except trio.WouldBlock:
            self.end(PeerSilent(f"{self.name} does not read: {MAX_UNSENT} messages wait for it"))

    @property
    def is_busy(self) -> bool:
        """Whether much is waiting to be sent: what can wait should."""
        return self._queue.statistics().current_buffer_used > MAX_UNSENT // 2

    async def acknowledge(self, message: Message) -> None:
        """Send a message some time soon, once there is room: whoever says much and reads little is heard less.

        No checkpoint where there is.
        """
        unsent = _Unsent(message)
        try:
            self._queue.send_nowait(unsent)
        except trio.WouldBlock:
            await self._queue.send(unsent)

    async def answer(self, message: Message, payload: bytes = b"") -> None:
        """Send a message and wait until it is sent, so that its payload is in memory no longer than that."""
        sent = trio.Event()
        await self._queue.send(_Unsent(message, payload, sent))
        await sent.wait()

    async def receive(self) -> Message:
        """Wait for what the host says next. It has its turn with others, though more of it may have arrived.

        Raises:
          PeerGone, PeerSilent, RemoteProtocolError: as `MessageStream.receive`.
        """
        self._waits_since = trio.current_time()
        message = await self._stream.receive()
        self._waits_since = math.inf
        return message

    def end(self, reason: InterFilesError) -> None:
        """End the connection; only the first reason counts."""
        if self.reason is None:
            self.reason = reason
            self._scope.cancel()

    def check(self, now: float, heartbeat_s: float) -> None:
        """End the connection if its host was silent, or has not taken what it is sent, for too long.

        To be called a few times a heartbeat, for all at once: time limits of their own for what each host says and is
        sent are a good part of what a heartbeat costs.
        """
        if now - self._waits_since >= SILENT_HEARTBEATS * heartbeat_s:
            self.end(PeerSilent(f"{self.name} was silent for {SILENT_HEARTBEATS} heartbeats"))
        elif now >= self._sent_by:
            self.end(PeerSilent(f"{self.name} takes what is sent to it too slowly"))

    async def run(self, read: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        """Send what is to be sent, and run `read`, until the connection ends; then close it.

        `read` gets a nursery for the connection's other tasks.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ending, self._send_all)
                    nursery.start_soon(self._ending, lambda: read(nursery))
            if self.reason is not None and not self._mid_frame and not isinstance(self.reason, TransportError):
                await self._stream.fail(self.reason.code, str(self.reason))
        finally:
            self._stream.close()

    async def _ending(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except EXPECTED as e:
            self.end(e)

    async def _send_all(self) -> None:
        async for unsent in self._due:
            self._mid_frame = True
            self._sent_by = trio.current_time() + SEND_TIMEOUT_S + len(unsent.payload) / MIN_PAYLOAD_BYTES_PER_S
            await self._stream.send(unsent.message, unsent.payload)
            self._sent_by = math.inf
            self._mid_frame = False
            if unsent.sent is not None:
                unsent.sent.set()
