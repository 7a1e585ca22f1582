"""The swarm conversation: the dialler fetches pieces of one file, the acceptor serves them."""

from typing import Annotated, ClassVar

from msgspec import Meta

from interfiles.geometry import BLOCK_BYTES, MAX_PIECES
from interfiles.wire.codec import Codec, Message
from interfiles.wire.fields import BlockBytes, FileIdBytes, Milliseconds, PieceBytes, PieceNumber, Text
from interfiles.wire.handshake_messages import Failure


class Open(Message, frozen=True, tag=64):
    """Names the file; sent once, first. Answered by `Bitfield`, or by `Failure` where the file is not served."""

    file_id: FileIdBytes


class Request(Message, frozen=True, tag=65):
    """Asks for one block: `length` bytes from `offset` of a piece. Answered by `Piece`, `Busy` or `NotFound`."""

    piece: PieceNumber
    offset: PieceBytes
    length: BlockBytes


class Cancel(Message, frozen=True, tag=66):
    """Takes back every unanswered request for a piece; not answered, but answers on their way still arrive."""

    piece: PieceNumber


class Complaint(Message, frozen=True, tag=67):
    """A piece that this server sent did not match its hash. Not answered.

    The server hashes its copy again, and withdraws the piece if that is bad.
    """

    piece: PieceNumber


class Bitfield(Message, frozen=True, tag=80):
    """Answers `Open`: the pieces that the server holds.

    The payload has one bit a piece, the first piece in the highest bit of the first byte, and zeros for spare bits.
    """

    max_payload: ClassVar[int] = MAX_PIECES // 8


class Have(Message, frozen=True, tag=81):
    """Pieces that the server has gained since its `Bitfield`; sent unasked."""

    pieces: Annotated[list[PieceNumber], Meta(min_length=1, max_length=256)]


class Piece(Message, frozen=True, tag=82):
    """Answers `Request`: one block, whose bytes are the payload."""

    max_payload: ClassVar[int] = BLOCK_BYTES

    piece: PieceNumber
    offset: PieceBytes


class Busy(Message, frozen=True, tag=83):
    """Answers `Request`: refused for now; ask again after `retry_after_ms`, or elsewhere."""

    piece: PieceNumber
    offset: PieceBytes
    retry_after_ms: Milliseconds


class NotFound(Message, frozen=True, tag=84):
    """Answers `Request`: the piece is not held (any more); the server no longer counts as having it."""

    piece: PieceNumber
    offset: PieceBytes


class Withdrawn(Message, frozen=True, tag=85):
    """The server stops serving this file; it closes the connection next. Sent unasked."""

    reason: Text


FROM_FETCHER: Codec[Message] = Codec(Open, Request, Cancel, Complaint)
FROM_SERVER: Codec[Message] = Codec(Bitfield, Have, Piece, Busy, NotFound, Withdrawn, Failure)
