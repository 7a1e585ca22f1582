"""The replicas' part of the fleet conversation: what the master has its hosts hold, and how it looks after that."""

from typing import Annotated, Final

from msgspec import Meta

from interfiles.wire.codec import Message
from interfiles.wire.fields import Bytes, Code, Count, FileIdBytes, PieceNumber, Seconds, Text

MAX_LEFTOVERS: Final = 256


class Order(Message, frozen=True, tag=43):
    """Pushed: hold a copy of this file, of `size`. Answered by `Declined`, or by a `Heartbeat` that has it."""

    file_id: FileIdBytes
    size: Bytes


class Release(Message, frozen=True, tag=44):
    """Pushed: a copy that was ordered is not wanted any more. Answered by `Heartbeat`, which has it no more."""

    file_id: FileIdBytes


class Declined(Message, frozen=True, tag=45):
    """Answers `Order`, at once or when it turns out later: the host does not hold the copy, in words why.

    Also told when a person is about to remove a file there.

    `rest_s`: it need not be asked to hold this file for so long; 0: for as long as the master likes. `whole_host`: nor
    other files.
    """

    file_id: FileIdBytes
    code: Code
    text: Text
    rest_s: Seconds
    whole_host: bool


class LeftOver(Message, frozen=True, tag=48):
    """The host still has copies of these files which nobody wants any more. Answered by `Forget` for removed ones."""

    file_ids: Annotated[list[FileIdBytes], Meta(min_length=1, max_length=MAX_LEFTOVERS)]


class Challenge(Message, frozen=True, tag=46):
    """Pushed: show that you hold a piece, read from the disk now. Answered by `Proof`. `number` grows by one."""

    number: Count
    file_id: FileIdBytes
    piece: PieceNumber
    nonce: Annotated[bytes, Meta(min_length=32, max_length=32, description="a key of BLAKE3")]


class Proof(Message, frozen=True, tag=47):
    """Answers `Challenge`: BLAKE3 of the piece, keyed with the nonce; `digest` empty: it cannot be read, `text` why."""

    number: Count
    digest: Annotated[bytes, Meta(max_length=32, description="32 bytes or none")]
    text: Text
