"""One connection that fetches pieces of one file from one peer.

Two tasks: the receiver takes blocks off the wire, hashes them while they are in cache and writes them to the part; the
asker keeps the peer's window full with what the scheduler decides. The scheduler is shared by all sessions of the file.
"""

import random
from collections.abc import Mapping
from contextlib import suppress
from typing import Final, Protocol

import blake3
import trio

from daemons.client.notice import Notice
from daemons.client.rate_gate import Flow
from interfiles.errors import NoSource, PeerGone, PeerSilent, RemoteProtocolError, VerificationFailed, printable
from interfiles.geometry import BLOCK_BYTES, Block, PieceIndex
from interfiles.manifest import Manifest
from interfiles.piece_set import PieceSet
from interfiles.swarm.decisions import Cancelled, Decision
from interfiles.swarm.peer_timing import PeerTiming
from interfiles.swarm.request_scheduler import RequestScheduler
from interfiles.transport.base import Address, Transport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, MessageStream, greet
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.master_messages import PeerAddress

LINGER_S: Final = 1.0  # after a complaint: closing over blocks that still come would take the complaint down with it
MAX_KEY_BYTES: Final = 256 << 30  # of content by one connection: after 380 GB AES-GCM needs a new key (RFC 8446, 5.5)
TURN_BYTES: Final = 256 << 10  # decrypted before the loop has its turn: it answers commands meanwhile
REST_S: Final = 0.05  # after a refusal: a peer that refuses everything, at once, is not asked at the speed of the line


class PeerNetwork(Protocol):
    """What a session needs of the network."""

    async def dial_host(self, address: Address, host_id: str) -> Transport:
        """Connect to the host of this id, and no other.

        Raises:
          TransportError, NotPermitted: it is not there, or cannot prove to be it.
        """


class PieceSink(Protocol):
    """Where a session puts what it fetches."""

    async def write_block(self, block: Block, data: memoryview) -> None:
        """Write a block's bytes to the part.

        Raises:
          NoSpace, NotPermitted, StorageFailed: the disk does not take it; the download has been told to stop.
        """

    def add_verified(self, piece: PieceIndex, peer_name: str) -> None:
        """A piece's hash matched, and this peer sent it: it may be served from now on."""

    def add_rejected(self, piece: PieceIndex) -> None:
        """A piece's hash did not match."""

    def add_fetched(self, count: int) -> None:
        """So many payload bytes came."""


class FetchSession:
    """A connected peer of one download."""

    def __init__(
        self,
        peer: PeerAddress,
        manifest: Manifest,
        scheduler: RequestScheduler,
        sink: PieceSink,
        *,
        flow: Flow,
        sessions: Mapping[str, "FetchSession"],
        rng: random.Random,
    ) -> None:
        self.peer: Final = peer
        self.wake: Final = Notice()
        self._manifest = manifest
        self._scheduler = scheduler
        self._sink = sink
        self._flow = flow
        self._told_priority = flow.priority()
        self._sessions = sessions
        self._rng = rng
        self._cancels: list[Cancelled] = []
        self._rejected: list[PieceIndex] = []
        self._resting_until = 0.0
        self._received_bytes = 0
        self._hasher = (
            blake3.blake3()
        )  # of the piece that is coming: its blocks come in order, so it is hashed as it comes

    async def run(self, network: PeerNetwork) -> None:
        """Dial the peer and fetch from it until it has given `MAX_KEY_BYTES`, or the session is cancelled.

        Raises:
          TransportError, ProtocolError: the connection failed or broke its rules.
          NotPermitted: the peer is not of the fleet any more, or says so of this host.
          VerificationFailed: the peer sent a wrong piece; it has been told.
          NoSource: the peer refuses to serve the file.

        Cancellation:
          Closes the connection; the pieces that it owed are free for others.
        """
        transport = await network.dial_host(Address.parse(self.peer.address), self.peer.host_id)
        stream, _ = await greet(transport, "swarm", "host")
        try:
            offered = await self._open(stream)
            self._scheduler.add_peer(self.peer.host_id, offered, trio.current_time())
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._ask, stream)
                    await self._receive(stream)
                    nursery.cancel_scope.cancel()
            finally:
                self._scheduler.remove_peer(self.peer.host_id)
                self._wake_all()
        finally:
            stream.close()

    def cancel(self, cancelled: Cancelled) -> None:
        """A piece was taken from this peer: tell it."""
        self._cancels.append(cancelled)
        self.wake.tell()

    @property
    def received_bytes(self) -> int:
        """Of content, in whole blocks."""
        return self._received_bytes

    @property
    def has_other_priority(self) -> bool:
        """Whether the peer is to be told of another priority."""
        return self._told_priority != self._flow.priority()

    async def _open(self, stream: MessageStream[Message]) -> PieceSet:
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            self._told_priority = self._flow.priority()
            await stream.send(m.Open(self._manifest.file_id, self._told_priority))
            match await stream.receive():
                case m.Bitfield():
                    data = await stream.receive_payload()
                case Failure(text=text):
                    raise NoSource(f"{self.peer.name} does not serve it: {printable(text)}")
                case other:
                    raise RemoteProtocolError(f"{type(other).__name__} came in place of Bitfield")
            try:
                return PieceSet.from_bytes(self._manifest.piece_count, data)
            except ValueError as e:
                raise RemoteProtocolError(str(e)) from e
        raise PeerSilent(f"{self.peer.name} did not answer within {HANDSHAKE_TIMEOUT_S:.0f} s")

    # Asking

    async def _ask(self, stream: MessageStream[Message]) -> None:
        with suppress(PeerGone):  # what it said before it went the receiver hears, and ends the session
            await self._keep_asking(stream)

    async def _keep_asking(self, stream: MessageStream[Message]) -> None:
        seen = 0
        while True:
            now = trio.current_time()
            decision = Decision()
            if now >= self._resting_until:
                decision = self._scheduler.next_asks(self.peer.host_id, now, self._rng)
            self._pass_on(decision.cancelled)
            await self._tell_cancels(stream)
            if self._rejected:
                piece = self._rejected[0]
                await self._complain(stream)
                raise VerificationFailed(f"{self.peer.name} sent piece {piece} with a wrong hash")
            if self._scheduler.is_dead(self.peer.host_id):
                raise PeerSilent(f"{self.peer.name} owes pieces and sends nothing")
            if self.has_other_priority:
                self._told_priority = self._flow.priority()
                await stream.send(m.Prefer(self._told_priority))
            for at in range(0, len(decision.asks), m.MAX_LISTED):
                await stream.send(m.Ask(list(decision.asks[at : at + m.MAX_LISTED])))
            retry_at = max(self._scheduler.retry_at(self.peer.host_id), self._resting_until)
            if retry_at <= now:  # nearly always: a cancel scope costs more than all the rest here
                seen = await self.wake.later_than(seen)
                continue
            with trio.move_on_at(retry_at):
                seen = await self.wake.later_than(seen)

    async def _tell_cancels(self, stream: MessageStream[Message]) -> None:
        cancels, self._cancels = self._cancels, []
        for even_begun in (False, True):
            pieces = [entry.piece for entry in cancels if entry.even_begun is even_begun]
            for at in range(0, len(pieces), m.MAX_LISTED):
                await stream.send(m.Cancel(list(pieces[at : at + m.MAX_LISTED]), even_begun))

    async def _complain(self, stream: MessageStream[Message]) -> None:
        with trio.move_on_after(LINGER_S):
            while True:
                while self._rejected:
                    await stream.send(m.Complaint(self._rejected.pop()))
                await self.wake.later_than(self.wake.count)

    def _pass_on(self, cancelled: list[Cancelled]) -> None:
        for entry in cancelled:
            self._sessions[entry.peer].cancel(entry)

    def _wake_all(self) -> None:
        for session in self._sessions.values():
            session.wake.tell()

    # Receiving

    async def _receive(self, stream: MessageStream[Message]) -> None:
        """Take what comes, until the connection's key has been used for long enough: the next one has another."""
        buffer = memoryview(bytearray(BLOCK_BYTES))
        while self._received_bytes < MAX_KEY_BYTES:
            message = await stream.receive()
            if isinstance(message, m.Piece):
                await self._receive_block(stream, message.piece, message.offset, buffer)
                has_news = True
            else:
                has_news = self._hear(message)
            if self._rejected or (has_news and self._scheduler.has_room(self.peer.host_id)):
                self.wake.tell()

    def _hear(self, message: Message) -> bool:
        """Return whether there may be something to ask for now."""
        host_id = self.peer.host_id
        match message:
            case m.Have(pieces=pieces):
                return self._scheduler.add_haves(host_id, pieces)
            case m.Busy():
                self._scheduler.timing(host_id).hear_busy(trio.current_time())
                return False
            case m.Dropped(pieces=pieces):
                for peer in {peer for piece in pieces for peer in self._scheduler.on_dropped(host_id, piece)}:
                    self._sessions[peer].wake.tell()
            case m.NotFound(pieces=pieces):
                for piece in pieces:
                    self._scheduler.on_not_found(host_id, piece)
                self._rest()
            case m.Withdrawn(reason=reason):
                raise NoSource(f"{self.peer.name} stops serving it: {printable(reason)}")
            case Failure(text=text):
                raise NoSource(f"{self.peer.name} ends the connection: {printable(text)}")
            case other:
                raise RemoteProtocolError(f"{type(other).__name__} came twice")
        return True

    def _rest(self) -> None:
        """The peer refused pieces: they are free for others."""
        self._resting_until = trio.current_time() + REST_S
        self._wake_all()

    async def _receive_block(self, stream: MessageStream[Message], piece: int, offset: int, buffer: memoryview) -> None:
        length, host_id = stream.payload_left, self.peer.host_id
        arrival = self._scheduler.on_block(host_id, piece, offset, length, trio.current_time())
        self._pass_on(arrival.cancelled)
        view, timing = buffer[:length], self._scheduler.timing(host_id)
        filled = 0
        while filled < length:
            room = min(TURN_BYTES, length - filled)
            if self._flow.is_limited:
                room = self._flow.gate.part_bytes(room)
            count = await stream.receive_some_payload_into(view[filled : filled + room])
            filled += count
            timing.hear(trio.current_time(), count)
            self._sink.add_fetched(count)
            if self._flow.is_limited:
                await self._pause(timing, count)
            if filled < length:  # a full socket never blocks: the loop gets its turn here
                await trio.lowlevel.checkpoint()
        self._received_bytes += length
        self._scheduler.on_block_end(host_id, length, trio.current_time())
        if arrival.block is not None:  # else it was taken back while it was on its way
            await self._add_to_piece(arrival.block, view)

    async def _pause(self, timing: PeerTiming, count: int) -> None:
        """Wait for as long as `count` bytes should have taken; the peer cannot be heard meanwhile."""
        timing.pause(trio.current_time())
        try:
            await self._flow.pay(count)
        finally:
            timing.resume(trio.current_time())

    async def _add_to_piece(self, block: Block, view: memoryview) -> None:
        host_id = self.peer.host_id
        if not self._scheduler.begin_write(host_id, block.piece, trio.current_time()):
            return
        try:
            if block.offset == 0:
                self._hasher = blake3.blake3()
            self._hasher.update(view)
            await self._sink.write_block(block, view)
            self._scheduler.on_taken(host_id, block)
        finally:
            self._scheduler.end_write(host_id, block.piece, trio.current_time())
        if block.offset + block.length < self._manifest.geometry.piece_length(block.piece):
            return
        if self._hasher.digest() == self._manifest.piece_hash(block.piece):
            self._scheduler.on_verified(block.piece)
            self._sink.add_verified(block.piece, self.peer.name)
        else:
            self._pass_on(self._scheduler.on_rejected(self.peer.host_id, block.piece))
            self._sink.add_rejected(block.piece)
            self._rejected.append(block.piece)  # the asker, who alone writes, complains and ends the session
