"""The catalogue's part of the fleet conversation: files, who holds them, hosts; asked by clients, a page at a time."""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from interfiles.manifest import MAX_MANIFEST_BYTES
from interfiles.wire.codec import Message, Part
from interfiles.wire.fields import (
    MAX_REPLICAS,
    AddressText,
    Bytes,
    BytesPerSecond,
    Code,
    ContentBytes,
    Count,
    FileIdBytes,
    FileName,
    HostIdText,
    HostName,
    PieceBytes,
    PieceCount,
    Query,
    Replicas,
    RequestNumber,
    Seconds,
    Text,
    UnixSeconds,
    ZoneName,
)

HoldingState = Literal["fetching", "waiting", "paused", "damaged", "complete", "none"]
HostState = Literal["live", "suspect", "gone", "draining"]
PAGE_ROWS: Final = 64  # of one page: the longest 64 take 83 KiB, under what a header may have
MAX_NOTE_LENGTH: Final = 200

Note = Annotated[str, Meta(max_length=MAX_NOTE_LENGTH, description="for a person")]


class Holding(Part, frozen=True, gc=False):  # a master has hundreds of thousands, and no cycle can be among them
    """What a host holds of one file. `pieces` counts verified ones; `complete` says that all are durable.

    `damaged`: the rest was there and is bad; it is not fetched again by itself. `none`: nothing any more. `down` and
    `up`: what it fetches and serves now. `note`: for a person, may be empty. `ordered`: held because of an `Order`.
    """

    file_id: FileIdBytes
    state: HoldingState
    pieces: PieceCount
    down: BytesPerSecond
    up: BytesPerSecond
    note: Note
    ordered: bool


class FileInfo(Part, frozen=True):
    """A file of the catalogue, without its piece hashes. `uploaded_by`: a host's name.

    `expires_at`: when it is removed from the fleet by itself; 0: never.
    """

    file_id: FileIdBytes
    name: FileName
    is_directory: bool
    entries: Count
    size: ContentBytes
    piece_size: PieceBytes
    pieces: PieceCount
    uploaded_at: UnixSeconds
    uploaded_by: HostName
    replicas_wanted: Replicas
    expires_at: UnixSeconds


class Publish(Message, frozen=True, tag=24):
    """Puts a file into the catalogue; the payload is its manifest. Answered by `Published` or `RequestFailed`.

    `replicas` 0: the master's default. `expires_at` as in `FileInfo`; 0: as it was. `again`: the host has joined anew
    since it was uploaded; if it was removed from the fleet meanwhile, that stays so.
    """

    max_payload: ClassVar[int] = MAX_MANIFEST_BYTES

    request: RequestNumber
    file_id: FileIdBytes
    uploaded_at: UnixSeconds
    replicas: Annotated[int, Meta(ge=0, le=MAX_REPLICAS, description="copies")]
    expires_at: UnixSeconds
    again: bool


class Published(Message, frozen=True, tag=25):
    """Answers `Publish`: the catalogue has the file, durably. `hosts`: so many could hold a copy now."""

    request: RequestNumber
    info: FileInfo
    hosts: Count


class SetReplicas(Message, frozen=True, tag=22):
    """Wants another number of copies of a file. Answered by `ReplicasSet` or `RequestFailed`."""

    request: RequestNumber
    file_id: FileIdBytes
    replicas: Replicas


class ReplicasSet(Message, frozen=True, tag=23):
    """Answers `SetReplicas`: the catalogue has it, durably. `hosts` as in `Published`."""

    request: RequestNumber
    info: FileInfo
    hosts: Count


class Resolve(Message, frozen=True, tag=26):
    """Looks a file up; `with_manifest` asks for its manifest too. Answered by `Resolved` or `RequestFailed`."""

    request: RequestNumber
    query: Query
    with_manifest: bool


class Resolved(Message, frozen=True, tag=27):
    """Answers `Resolve`: the file found; the payload is its manifest where that was asked for."""

    max_payload: ClassVar[int] = MAX_MANIFEST_BYTES

    request: RequestNumber
    info: FileInfo


class ListHolders(Message, frozen=True, tag=28):
    """Asks for a page of the hosts that have some of a file, by name, from the `start`th on.

    Answered by `HolderPage` or `RequestFailed`.
    """

    request: RequestNumber
    file_id: FileIdBytes
    start: Count


class Holder(Part, frozen=True):
    """A host's part in one file, with the host's own state. `last_seen_s`: since it was last heard from."""

    host_id: HostIdText
    name: HostName
    zone: ZoneName
    address: AddressText
    host_state: HostState
    last_seen_s: Seconds
    holding: Holding


class HolderPage(Message, frozen=True, tag=29):
    """Answers `ListHolders`. `complete`: live or suspect hosts that hold every piece durably, over all pages.

    Those that drain do not count. `under_way`: copies on their way to hosts that count; `why_not`: why there are fewer
    than wanted, and not all the others are ordered, empty: there are not. `more`: ask again, from behind the last row.
    `hosts` as in `Published`.
    """

    request: RequestNumber
    info: FileInfo
    complete: Count
    holders: Annotated[list[Holder], Meta(max_length=PAGE_ROWS)]
    more: bool
    under_way: Count
    why_not: Note
    hosts: Count


class ListFiles(Message, frozen=True, tag=30):
    """Asks for a page of the catalogue, by name, from the `start`th on. Answered by `FilePage` or `RequestFailed`."""

    request: RequestNumber
    start: Count


class FileRow(Part, frozen=True):
    """A file, and how many hosts hold all of it and some of it. `under_way` and `why_not` as in `HolderPage`."""

    info: FileInfo
    complete: Count
    partial: Count
    under_way: Count
    why_not: Note


class FilePage(Message, frozen=True, tag=31):
    """Answers `ListFiles`. `more`: ask again, from behind the last row."""

    request: RequestNumber
    files: Annotated[list[FileRow], Meta(max_length=PAGE_ROWS)]
    more: bool


class ListHosts(Message, frozen=True, tag=32):
    """Asks for a page of the hosts, by name, from the `start`th on. Answered by `HostPage` or `RequestFailed`."""

    request: RequestNumber
    start: Count


class HostRow(Part, frozen=True):
    """A host as the master knows it; `files` counts those it holds completely.

    `used`: bytes of held files; `free`: room for more. `last_seen_s`: since it was last heard from. `ordered`: copies
    that it holds by order; `arriving`: those that it fetches by order; `to_move`: files to be copied to others before
    it is switched off, while it drains, None: it does not, or that is not known yet; `note`: why it is given no orders,
    empty: there is no such reason.
    """

    host_id: HostIdText
    name: HostName
    zone: ZoneName
    address: AddressText
    state: HostState
    files: Count
    used: Bytes
    free: Bytes
    last_seen_s: Seconds
    ordered: Count
    arriving: Count
    to_move: Count | None
    note: Note


class HostPage(Message, frozen=True, tag=33):
    """Answers `ListHosts`. `more`: ask again, from behind the last row."""

    request: RequestNumber
    hosts: Annotated[list[HostRow], Meta(max_length=PAGE_ROWS)]
    more: bool


class Remove(Message, frozen=True, tag=34):
    """Takes a file out of the catalogue and tells every host to forget it. Answered by `Removed` or `RequestFailed`.

    `delete`: copies at their destinations too.
    """

    request: RequestNumber
    file_id: FileIdBytes
    delete: bool


class Removed(Message, frozen=True, tag=35):
    """Answers `Remove`: the file is out of the catalogue; `hosts` had some of it."""

    request: RequestNumber
    hosts: Count


class RequestFailed(Message, frozen=True, tag=36):
    """Answers any request that carries a number, when it cannot be done; the connection goes on."""

    request: RequestNumber
    code: Code
    text: Text
