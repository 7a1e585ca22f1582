"""Messages over a transport: frames in and out, payloads straight between file, buffer and socket."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Generic, Protocol

import trio

from interfiles.errors import (
    InterFilesError,
    LocalProtocolError,
    PeerGone,
    PeerSilent,
    TransportError,
    printable,
)
from interfiles.transport.base import Transport
from interfiles.transport.scratch import Scratch
from interfiles.wire import session
from interfiles.wire.codec import Codec, M, Message
from interfiles.wire.fields import MAX_TEXT_LENGTH
from interfiles.wire.framing import FrameDecoder, encode_frame
from interfiles.wire.handshake_messages import HELLO, WELCOME, Conversation, Failure, Role, Welcome

HANDSHAKE_TIMEOUT_S: Final = 10.0
HEADER_TIMEOUT_S: Final = 30.0  # from a frame's first byte to its header's last: a slowloris is cut off here
PAYLOAD_TIMEOUT_S: Final = 30.0  # for a payload taken as a whole, beside what it takes at the rate below
MIN_PAYLOAD_BYTES_PER_S: Final = 16 << 10  # slower is a slowloris too: it holds memory and a connection
CLOSE_TIMEOUT_S: Final = 2.0
_STAGE_BYTES: Final = 16 << 10  # small frames come in one read; of a bulk payload at most so much is copied twice more
_PART_BYTES: Final = 1 << 20  # memory taken ahead of a payload, whatever length the peer announced
_UNPACED_BYTES: Final = 256 << 10  # of a payload sent before its pace is looked at again: it may be limited by then
_STAGE: Final = Scratch(_STAGE_BYTES)  # what comes while a stream holds nothing is received into it, and copied
_NOTHING: Final = memoryview(b"")


class Pace(Protocol):
    """How quickly a payload may go."""

    @property
    def is_limited(self) -> bool:
        """Whether to ask `next_part` at all now."""

    async def next_part(self, wanted: int) -> int:
        """Wait until some of `wanted` bytes may go; return how many, at least one."""


class _NoPace:
    """At once."""

    is_limited = False

    async def next_part(self, wanted: int) -> int:
        return wanted


_NO_PACE: Final = _NoPace()


class MessageStream(Generic[M]):
    """One conversation's stream of messages of the union that its codec accepts.

    One task receives, one task sends. A message's payload, `payload_left` bytes, is taken off before the next message
    is received. Sending and receiving a message, and taking a whole payload, are checkpoints even if they need not
    wait; taking some of a payload may not be one.
    """

    def __init__(self, transport: Transport, codec: Codec[M]) -> None:
        self.transport: Final = transport
        self.payload_left = 0
        self._decoder = FrameDecoder(codec)
        self._stage = _NOTHING
        self._start = self._end = 0

    async def send(self, message: Message, payload: bytes | memoryview = b"", *, pace: Pace = _NO_PACE) -> None:
        """Send one message with its payload, that at `pace`.

        Raises:
          LocalProtocolError: the message breaks its own bounds.
          PeerGone, PeerSilent: the connection is over.

        Cancellation:
          May leave a partial frame on the wire; the stream is then good for nothing but closing.
        """
        frame = encode_frame(message, len(payload))
        await trio.lowlevel.checkpoint()
        if len(payload) <= _STAGE_BYTES and not (payload and pace.is_limited):
            await self.transport.send_all(frame + payload)
            return
        await self.transport.send_all(frame)
        left = memoryview(payload)
        while left:
            count = await pace.next_part(len(left)) if pace.is_limited else min(len(left), _UNPACED_BYTES)
            await self.transport.send_all(left[:count])
            left = left[count:]

    async def send_together(self, messages: Sequence[Message]) -> None:
        """Send several messages without payload at once.

        Raises:
          LocalProtocolError, PeerGone, PeerSilent, Cancellation: as `send`.
        """
        frames = b"".join([encode_frame(message, 0) for message in messages])
        await trio.lowlevel.checkpoint()
        await self.transport.send_all(frames)

    async def send_files(self, message: Message, spans: list[tuple[int, int, int]], *, pace: Pace = _NO_PACE) -> None:
        """Send one message whose payload is read from open files: `(fd, offset, count)` one after the other.

        It goes at `pace`, and its header with its first part.

        Raises:
          ContentChanged, StorageFailed: a file is shorter than that or cannot be read; the stream must be closed.
          LocalProtocolError, PeerGone, PeerSilent, Cancellation: as `send`.
        """
        frame = encode_frame(message, sum(count for _, _, count in spans))
        await trio.lowlevel.checkpoint()
        for fd, offset, left in spans:
            while left:
                count = await pace.next_part(left) if pace.is_limited else min(left, _UNPACED_BYTES)
                await self.transport.send_file(fd, offset, count, head=frame)
                frame = b""
                offset, left = offset + count, left - count
        if frame:
            await self.transport.send_all(frame)

    async def receive(self) -> M:
        """Wait for the next message; its payload is then `payload_left` bytes on the stream.

        Raises:
          PeerGone: the peer closed or broke the connection, between frames or within one.
          PeerSilent: a header began and did not end within `HEADER_TIMEOUT_S`.
          RemoteProtocolError: what came is not an allowed message.

        Cancellation:
          Nothing is lost between frames: received bytes stay for the next call.
        """
        if self.payload_left:
            raise LocalProtocolError(f"{self.payload_left} payload bytes were left on the stream")
        if self._start == self._end and self._decoder.is_between_frames:
            await self.transport.wait_readable()
            await self._fill()
        else:
            await trio.lowlevel.checkpoint()
        message = self._take_header()
        if message is None:
            with trio.move_on_after(HEADER_TIMEOUT_S):
                while (message := self._take_header()) is None:
                    await self._fill()
        if message is None:
            raise PeerSilent(f"a message begun was not finished within {HEADER_TIMEOUT_S:.0f} s")
        return message

    def _take_header(self) -> M | None:
        """Return the next message if the stage holds all of its header."""
        while self._end - self._start >= self._decoder.wanted:
            data = self._stage[self._start : self._start + self._decoder.wanted]
            self._start += len(data)
            frame = self._decoder.feed(data)
            if frame is not None:
                self.payload_left = frame.payload_length
                return frame.message
        return None

    async def _fill(self) -> None:
        """Read more into the stage; one of its own is made for what is left of a frame, larger for a large header."""
        kept, wanted = self._stage[self._start : self._end], self._decoder.wanted
        if not kept:
            self._stage, self._start, self._end = _NOTHING, 0, 0
        if kept or wanted > _STAGE_BYTES:
            if self._start + wanted > len(self._stage):
                self._stage = memoryview(bytearray(max(_STAGE_BYTES, wanted)))
                self._stage[: len(kept)] = kept
                self._start, self._end = 0, len(kept)
            self._end += await self._receive_into(self._stage[self._end :])
        else:
            stage = _STAGE.view
            count = await self._receive_into(stage)
            self._stage, self._end = memoryview(bytes(stage[:count])), count

    async def _receive_into(self, view: memoryview) -> int:
        self.transport.promise(0)
        count = await self.transport.receive_some_into(view)
        if count == 0:
            raise PeerGone("the peer closed the connection")
        return count

    async def receive_payload_into(self, view: memoryview) -> None:
        """Fill `view`, at most `payload_left` bytes, with the payload's next bytes.

        Raises:
          PeerGone: the connection ended within the payload.
        """
        filled = 0
        while filled < len(view):
            filled += await self.receive_some_payload_into(view[filled:])

    async def receive_some_payload_into(self, view: memoryview) -> int:
        """Wait for some of the payload; return how many bytes of `view` were filled, at least one.

        Raises:
          PeerGone: the connection ended within the payload.
        """
        if not 0 < len(view) <= self.payload_left:
            raise LocalProtocolError(f"{len(view)} bytes asked of a payload with {self.payload_left} left")
        staged = min(self._end - self._start, len(view))
        if staged:
            view[:staged] = self._stage[self._start : self._start + staged]
            self._start += staged
        else:
            self.transport.promise(self.payload_left)
            staged = await self.transport.receive_some_into(view)
            if staged == 0:
                raise PeerGone("the peer closed the connection in the middle of a payload")
        self.payload_left -= staged
        return staged

    async def receive_payload(self) -> bytes:
        """The whole payload; its length was checked against its message's limit.

        Raises:
          PeerGone: the connection ended within the payload.
          PeerSilent: it came slower than `MIN_PAYLOAD_BYTES_PER_S`.
        """
        parts: list[bytearray] = []
        await self._take_payload(parts.append)
        return b"".join(parts)

    async def skip_payload(self) -> None:
        """Read the payload off the stream and drop it.

        Raises:
          PeerGone, PeerSilent: as `receive_payload`.
        """
        await self._take_payload(lambda _: None)

    async def _take_payload(self, take: Callable[[bytearray], None]) -> None:
        timeout_s = PAYLOAD_TIMEOUT_S + self.payload_left / MIN_PAYLOAD_BYTES_PER_S
        with trio.move_on_after(timeout_s) as scope:
            while self.payload_left:
                await trio.lowlevel.checkpoint()
                part = bytearray(min(self.payload_left, _PART_BYTES))
                await self.receive_payload_into(memoryview(part))
                take(part)
        if scope.cancelled_caught:
            raise PeerSilent(f"a payload did not come within {timeout_s:.0f} s")

    async def fail(self, code: str, text: str) -> None:
        """Tell the peer why the conversation ends, if it still listens, and close. Always brief.

        No other task may be using the stream. What the peer still sends is read and dropped until it closes: a socket
        that is closed over unread bytes resets the connection, and the words are lost.

        Cancellation:
          Waits, but not longer than `CLOSE_TIMEOUT_S`.
        """
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True), suppress(PeerGone, PeerSilent):
            await self.send(Failure(code, printable(text)[:MAX_TEXT_LENGTH]))
            while await self.transport.receive_some_into(_STAGE.view):
                await trio.lowlevel.checkpoint()
        self.close()

    def close(self) -> None:
        """Close at once."""
        self.transport.close()

    def continue_as(self, codec: Codec[Message]) -> "MessageStream[Message]":
        """The same stream with another codec, for what comes after the handshake; this one is not used any more."""
        made: MessageStream[Message] = MessageStream(self.transport, codec)
        made._stage, made._start, made._end = self._stage, self._start, self._end
        return made


async def greet(transport: Transport, conversation: Conversation, role: Role) -> tuple[MessageStream[Message], Welcome]:
    """Open a conversation as its dialler. `role`: what the acceptor has proved to be.

    Raises:
      InterFilesError: the acceptor refused, in its words; or PeerGone, PeerSilent, RemoteProtocolError.
        The transport is closed then, as it is on cancellation.
    """
    stream = MessageStream(transport, WELCOME)
    try:
        rules = session.rules_for(conversation, "acceptor", role)
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            await stream.send(session.hello(conversation))
            welcome = session.confirm(await stream.receive())
            return stream.continue_as(rules), welcome
        raise PeerSilent(f"no answer to the greeting within {HANDSHAKE_TIMEOUT_S:.0f} s")
    except BaseException:
        transport.close()
        raise


async def welcome(
    transport: Transport, conversation: Conversation, admit: Callable[[], Role]
) -> tuple[MessageStream[Message], Role]:
    """Open a conversation as its acceptor; a dialler that is refused is told why.

    `admit` says what the dialler has proved to be, or raises the reason why it is not let in; it is asked once the
    dialler has said what it wants, so that it can be told.

    Raises:
      InterFilesError: as `greet`, or what `admit` raised; the transport is closed then.
    """
    stream = MessageStream(transport, HELLO)
    try:
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            hello = await stream.receive()
            role = admit()
            rules = session.rules_for(conversation, "dialler", role)
            await stream.send(session.answer(hello, conversation, role))
            return stream.continue_as(rules), role
        raise PeerSilent(f"no greeting within {HANDSHAKE_TIMEOUT_S:.0f} s")
    except (TransportError, LocalProtocolError):
        transport.close()
        raise
    except InterFilesError as e:
        await stream.fail(e.code, str(e))
        raise
    except BaseException:
        transport.close()
        raise
