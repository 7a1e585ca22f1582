"""One connection that serves pieces of one file to one peer.

The reader puts what the peer asks for into the upload line and never waits for the writer, so a peer that asks while it
is being sent to is always heard; the writer sends what is new, then, when it is this peer's turn, a piece in blocks.
"""

from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import Final, Protocol

import trio

from daemons.client.notice import Notice
from daemons.client.rate_gate import Flow
from daemons.client.upload_line import BUSY_S, UploadLine
from daemons.supervision import first_leaf
from interfiles.errors import (
    ContentChanged,
    InterFilesError,
    NotPermitted,
    PeerGone,
    PeerSilent,
    RemoteProtocolError,
    StorageFailed,
    UnknownFile,
)
from interfiles.geometry import Block, PieceIndex
from interfiles.manifest import FileId, Manifest
from interfiles.piece_set import PieceSet
from interfiles.priority import Priority
from interfiles.storage.executor import Executor
from interfiles.swarm.upload_queue import SentCounts
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, MessageStream, welcome
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Role

MAX_ANSWERS: Final = 4096  # pieces refused or dropped that wait to be told: a peer that outruns them breaks the rules


class ServedFile(Protocol):
    """What a session needs of a file that this host has some of."""

    @property
    def manifest(self) -> Manifest:
        """What the file is."""

    @property
    def verified(self) -> PieceSet:
        """The pieces that may be served."""

    @property
    def gained(self) -> list[PieceIndex]:
        """The pieces gained since the daemon started, in order; it only grows."""

    @property
    def offers(self) -> Mapping[str, PieceSet]:
        """What other hosts are known to hold of it, by host."""

    @property
    def sent(self) -> SentCounts:
        """How often this host has sent each piece."""

    @property
    def changed(self) -> Notice:
        """Told when a piece is gained or lost, or serving ends."""

    @property
    def refusal(self) -> str | None:
        """Why the file is not served now; None while it is."""

    def reading(self, block: Block) -> AbstractContextManager[list[tuple[int, int, int]] | None]:
        """Open descriptors of a block's bytes, `(fd, offset, count)`, good inside; None: for a thread to read."""

    async def read(self, block: Block, disk: Executor) -> bytes | bytearray:
        """Read a block in a thread."""

    def add_sent(self, count: int) -> None:
        """So many payload bytes were sent, or are about to be."""

    def suspect(self, piece: PieceIndex) -> None:
        """A peer got this piece with a wrong hash, or the disk does not give it: check it."""

    def content_changed(self, reason: str) -> None:
        """The file on disk is not what was hashed: serve it no more."""


class ServeSession:
    """A connected peer that fetches from this host."""

    def __init__(
        self,
        stream: MessageStream[Message],
        file: ServedFile,
        line: UploadLine,
        disk: Executor,
        *,
        fetcher: str,
        host: str,
        priority: Priority,
    ) -> None:
        self._disk = disk
        self._stream = stream
        self._file = file
        self._line = line
        self._fetcher = fetcher
        self._host = host
        self._not_found: list[PieceIndex] = []
        self._dropped: list[PieceIndex] = []
        self._to_finish: list[PieceIndex] = []  # dropped, once the piece that is being sent is sent
        self._unfinished: PieceIndex | None = None  # the piece that is being sent
        self._blocks: deque[Block] = deque()  # what is left of it
        self._told_busy_at = float("-inf")
        self._used_at = trio.current_time()
        self._held = file.verified.copy()
        self._told = len(file.gained)
        self._sent: dict[PieceIndex, int] = {}
        self._priority = priority
        self._pace: Final = Flow(line.gate, fetcher, lambda: self._priority, self._add_paced)
        self._paced_bytes = 0  # of the block that is being sent
        self._due: Final = line.join(fetcher, file.sent, file.manifest.piece_size, host=host, priority=priority)

    async def run(self) -> None:
        """Serve until the peer leaves or the file is served no more.

        Raises:
          TransportError, ProtocolError: the connection broke while something was sent, or its rules were broken.
        """
        self._line.news.follow(self._file.changed, self._due)
        try:
            await self._stream.send(m.Bitfield(), self._held.to_bytes())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, nursery.cancel_scope)
                await self._read()
                nursery.cancel_scope.cancel()
        finally:
            self._give_up()
            self._line.news.leave(self._file.changed, self._due)
            self._line.leave(self._fetcher)
            self._pace.close()

    def idle_s(self, now: float) -> float:
        """For how long the peer has asked for nothing and been sent no content, in seconds."""
        is_busy = self._unfinished is not None or self._line.is_asking(self._fetcher)
        return 0.0 if is_busy else now - self._used_at

    # Hearing

    async def _read(self) -> None:
        """Put what the peer asks for into the line until it leaves."""
        geometry = self._file.manifest.geometry
        while True:
            try:
                message = await self._stream.receive()
            except PeerGone:
                return
            try:
                match message:
                    case m.Ask(pieces=pieces):
                        self._hear_ask(PieceSet.of(geometry.piece_count, pieces))
                    case m.Cancel(pieces=pieces, even_begun=even_begun):
                        self._hear_cancel([geometry.piece(piece) for piece in pieces], even_begun=even_begun)
                    case m.Complaint(piece=piece):
                        self._hear_complaint(geometry.piece(piece))
                    case m.Prefer(priority=priority):
                        self._priority = priority
                        self._line.prefer(self._fetcher, priority)
                    case _:
                        raise RemoteProtocolError(f"{type(message).__name__} came after the file was opened")
            except ValueError as e:
                raise RemoteProtocolError(str(e)) from e
            if len(self._not_found) + len(self._dropped) + len(self._to_finish) > MAX_ANSWERS:
                raise RemoteProtocolError(f"over {MAX_ANSWERS} pieces were refused or dropped without being waited for")
            self._due.tell()

    def _hear_ask(self, pieces: PieceSet) -> None:
        self._used_at = trio.current_time()
        held = pieces.bits & self._file.verified.bits
        self._not_found += PieceSet(pieces.count, pieces.bits & ~held)
        self._line.ask(self._fetcher, held)

    def _hear_cancel(self, pieces: list[PieceIndex], *, even_begun: bool) -> None:
        self._line.cancel(self._fetcher, PieceSet.of(self._file.manifest.piece_count, pieces).bits)
        if self._unfinished in pieces and even_begun:
            self._give_up()
        for piece in pieces:
            (self._to_finish if piece == self._unfinished else self._dropped).append(piece)

    def _give_up(self) -> None:
        """The piece that is being sent does not count as sent, and what is left of it is not sent."""
        self._blocks.clear()
        if self._unfinished is not None:
            self._file.sent.undo(self._unfinished)
            self._end_piece()

    def _end_piece(self) -> None:
        self._used_at = trio.current_time()
        self._unfinished = None
        self._dropped += self._to_finish
        self._to_finish.clear()

    def _hear_complaint(self, piece: PieceIndex) -> None:
        """Have a piece checked, once for each time it was sent: complaining must not cost more than sending did."""
        unheard, length = self._sent.get(piece, 0), self._file.manifest.geometry.piece_length(piece)
        if unheard < length:
            raise RemoteProtocolError(f"a complaint about piece {piece}, of which only {unheard} bytes were sent")
        self._sent[piece] = unheard - length
        self._file.suspect(piece)

    # Sending

    async def _write(self, session_scope: trio.CancelScope) -> None:
        seen = 0
        while True:
            if (refusal := self._file.refusal) is not None:
                await self._stream.send(m.Withdrawn(refusal[:1000]))
                session_scope.cancel()
                return
            if not await self._send_one():
                seen = await self._due.later_than(seen)

    async def _send_one(self) -> bool:
        """Send what is most urgent; return False when nothing is due."""
        now = trio.current_time()
        if self._not_found:  # before `Dropped`: after it the peer knows of no such question
            await self._stream.send(m.NotFound(_taken(self._not_found)))
        elif self._dropped:
            await self._stream.send(m.Dropped(_taken(self._dropped)))
        elif self._told < len(self._file.gained):
            await self._tell_news()
        elif (block := self._next_block()) is not None:
            await self._send_block(block)
        elif self._line.is_waiting(self._fetcher) and now > self._told_busy_at + BUSY_S / 2:
            self._told_busy_at = now
            await self._stream.send(m.Busy())
        else:
            return False
        return True

    async def _tell_news(self) -> None:
        """Tell of what was gained, but for what the peer has itself: of that it asks nothing."""
        news = self._file.gained[self._told : self._told + m.MAX_LISTED]
        self._told += len(news)
        if (its := self._file.offers.get(self._host)) is not None:
            news = [piece for piece in news if piece not in its]
        if news:
            await self._stream.send(m.Have(list(news)))

    def _next_block(self) -> Block | None:
        while not self._blocks:
            piece = self._line.next(self._fetcher)
            if piece is None:
                return None
            self._unfinished = piece
            if piece in self._file.verified:
                self._blocks.extend(self._file.manifest.geometry.blocks(piece))
            else:
                self._refuse(piece)
                self._due.tell()
        return self._blocks.popleft()

    async def _send_block(self, block: Block) -> None:
        if block.piece not in self._file.verified:
            self._refuse(block.piece)
            return
        begun, self._paced_bytes = False, 0
        try:
            message = m.Piece(block.piece, block.offset)
            with self._file.reading(block) as spans:
                if spans is not None:
                    begun = True
                    await self._stream.send_files(message, spans, pace=self._pace)
            if spans is None:
                data = await self._file.read(block, self._disk)
                begun = True
                await self._stream.send(message, memoryview(data), pace=self._pace)
        except ContentChanged as e:
            self._file.content_changed(str(e))
            if begun:  # only the end of the connection can tell the peer
                raise
        except (NotPermitted, StorageFailed):
            self._file.suspect(block.piece)
            if begun:
                raise
            self._refuse(block.piece)
        else:
            self._file.add_sent(block.length - self._paced_bytes)
            self._sent[block.piece] = self._sent.get(block.piece, 0) + block.length
            if not self._blocks:
                self._end_piece()

    def _add_paced(self, count: int) -> None:
        """A part of a block goes, under a limit."""
        self._paced_bytes += count
        self._file.add_sent(count)
        self._line.moves(self._fetcher)

    def _refuse(self, piece: PieceIndex) -> None:
        """The piece that was to be sent is not held any more."""
        self._give_up()
        self._not_found.append(piece)


def _taken(pieces: list[PieceIndex]) -> list[int]:
    """As many pieces as a message holds, taken from the list."""
    taken = pieces[: m.MAX_LISTED]
    del pieces[: m.MAX_LISTED]
    return list(taken)


async def serve_peer(
    transport: Transport,
    admit: Callable[[], Role],
    find: Callable[[FileId], ServedFile | None],
    line: UploadLine,
    disk: Executor,
    *,
    fetcher: str,
    host: str,
    sessions: MutableMapping[str, ServeSession],
) -> None:
    """Greet a peer, learn which file it wants, and serve it.

    `admit` as for `welcome`. `fetcher` names the connection in the upload line, `host` whose it is. Its session is
    among the `sessions` while it is served.

    Raises:
      TransportError, ProtocolError, NotPermitted, UnknownFile: why the session ended; the peer was told if it could be.
    """
    stream, _ = await welcome(transport, "swarm", admit)
    try:
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S) as scope:
            opening = await stream.receive()
        if scope.cancelled_caught:
            raise PeerSilent(f"the peer named no file within {HANDSHAKE_TIMEOUT_S:.0f} s")
        if not isinstance(opening, m.Open):
            raise RemoteProtocolError(f"{type(opening).__name__} came before the file was opened")
        file = find(FileId(opening.file_id))
        if file is None:
            raise UnknownFile("this host has nothing of the file")
        if file.refusal is not None:
            raise UnknownFile(file.refusal)
        session = ServeSession(stream, file, line, disk, fetcher=fetcher, host=host, priority=opening.priority)
        sessions[fetcher] = session
        try:
            await session.run()
        finally:
            del sessions[fetcher]
    except* (RemoteProtocolError, UnknownFile) as group:
        first = first_leaf(group)
        assert isinstance(first, InterFilesError)
        await stream.fail(first.code, str(first))
        raise
    finally:
        stream.close()
