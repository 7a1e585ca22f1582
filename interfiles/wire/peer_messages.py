"""The swarm conversation: the dialler fetches pieces of one file, the acceptor serves them."""

from typing import Annotated, ClassVar, Final

from msgspec import Meta

from interfiles.geometry import BLOCK_BYTES, MAX_PIECES
from interfiles.priority import Priority
from interfiles.wire.codec import Codec, Message
from interfiles.wire.fields import FileIdBytes, PieceBytes, PieceNumber, Text
from interfiles.wire.handshake_messages import Failure

MAX_LISTED: Final = 256  # pieces in one message

Pieces = Annotated[list[PieceNumber], Meta(min_length=1, max_length=MAX_LISTED)]


class Open(Message, frozen=True, tag=64):
    """Names the file; sent once, first. Answered by `Bitfield`, or by `Failure` where the file is not served.

    `priority`: how urgent the download is beside others. What a server has to share, it shares 1:4:16.
    """

    file_id: FileIdBytes
    priority: Priority


class Ask(Message, frozen=True, tag=65):
    """Asks for whole pieces. Answered by `Piece`, in the order that the server likes, by `Busy` or by `NotFound`."""

    pieces: Pieces


class Cancel(Message, frozen=True, tag=66):
    """Takes pieces back that were asked for. Answered by `Dropped`; blocks of a piece that was begun come before it.

    `even_begun`: no more blocks of one that was begun; otherwise it is sent to its end.
    """

    pieces: Pieces
    even_begun: bool


class Complaint(Message, frozen=True, tag=67):
    """A piece that this server sent did not match its hash. Not answered.

    The server hashes its copy again, and withdraws the piece if that is bad.
    """

    piece: PieceNumber


class Prefer(Message, frozen=True, tag=68):
    """The download has another priority from now on. Not answered."""

    priority: Priority


class Bitfield(Message, frozen=True, tag=80):
    """Answers `Open`: the pieces that the server holds.

    The payload has one bit a piece, the first piece in the highest bit of the first byte, and zeros for spare bits.
    """

    max_payload: ClassVar[int] = MAX_PIECES // 8


class Have(Message, frozen=True, tag=81):
    """Pieces that the server has gained since its `Bitfield`; sent unasked.

    Those that it knows the fetcher to have may be left out.
    """

    pieces: Pieces


class Piece(Message, frozen=True, tag=82):
    """Answers `Ask`: one block of a piece, from `offset` on, whose bytes are the payload.

    Blocks are of 1 MiB, but for a piece's last one. Those of a piece come in order, and no other piece's between them.
    """

    max_payload: ClassVar[int] = BLOCK_BYTES

    piece: PieceNumber
    offset: PieceBytes


class Busy(Message, frozen=True, tag=83):
    """Answers `Ask`: others are served first. Said again every second while that lasts; what was asked for stands."""


class NotFound(Message, frozen=True, tag=84):
    """Answers `Ask`: these pieces are not held (any more); the server no longer counts as having them."""

    pieces: Pieces


class Dropped(Message, frozen=True, tag=86):
    """Answers `Cancel`: no block of these pieces comes any more, unless they are asked for again."""

    pieces: Pieces


class Withdrawn(Message, frozen=True, tag=85):
    """The server stops serving this file; it closes the connection next. Sent unasked."""

    reason: Text


FROM_FETCHER: Codec[Message] = Codec(Open, Ask, Cancel, Complaint, Prefer)
FROM_SERVER: Codec[Message] = Codec(Bitfield, Have, Piece, Busy, NotFound, Dropped, Withdrawn, Failure)
