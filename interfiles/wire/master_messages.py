"""The fleet conversation: a client daemon dials its master and keeps the connection.

Requests carry a number that their answer repeats, so that several can be under way at once; what the master pushes
carries none. Who shows no certificate may ask for the CA's certificates and enrol, and nothing else; a host whose
certificate has expired may renew it, and nothing else.
"""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from interfiles.manifest import MAX_MANIFEST_BYTES
from interfiles.wire.codec import Codec, Message, Part
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
    Pem,
    PieceBytes,
    PieceCount,
    Port,
    Query,
    Replicas,
    RequestNumber,
    Seconds,
    SigningRequest,
    Text,
    UnixSeconds,
    ZoneName,
)
from interfiles.wire.handshake_messages import Failure

HoldingState = Literal["fetching", "waiting", "paused", "damaged", "complete", "none"]
HostState = Literal["live", "suspect", "gone"]
PAGE_ROWS: Final = 64  # of one page: the longest 64 take 83 KiB, under what a header may have
MAX_HEARTBEAT_HOLDINGS: Final = 128
MAX_NOTE_LENGTH: Final = 200
MAX_AUTHORITIES: Final = 4
MAX_REVOKED: Final = 512  # of one message

AuthorityList = Annotated[list[Pem], Meta(min_length=1, max_length=MAX_AUTHORITIES)]


class GetAuthorities(Message, frozen=True, tag=14):
    """Asks for the fleet's CA certificates, by who knows only their digest. Answered by `Authorities`."""


class Authorities(Message, frozen=True, tag=15):
    """The CAs that the fleet trusts, the newest first, which signs. Answers `GetAuthorities`.

    Also pushed to each host that has registered, and whenever they change: a host trusts these from then on, and no
    others, and renews its certificate if another than the newest signed it. `at_once`: connections with hosts that a CA
    has certified which is trusted no more end, too.
    """

    certificates: AuthorityList
    at_once: bool


class Enrol(Message, frozen=True, tag=16):
    """A host that has no identity yet shows a join token's secret. Answered by `Enrolled` or `Failure`.

    `name` and `zone`: what the host would like to be called, and where it stands. `signing_request`: for its key; the
    names in that are not looked at.
    """

    token_id: Annotated[bytes, Meta(min_length=8, max_length=8, description="from the join token")]
    secret: Annotated[bytes, Meta(min_length=16, max_length=16, description="from the join token")]
    name: HostName
    zone: ZoneName
    signing_request: SigningRequest


class Enrolled(Message, frozen=True, tag=17):
    """Answers `Enrol`: the identity that the master minted, which the host keeps in its state directory.

    `chain`: its certificate, which names the fleet and its host id, and what others need to verify that; `authorities`
    as in `Authorities`; `name`: what it is called if another host has the name it asked for. The host closes the
    connection next, and registers on a new one.
    """

    name: HostName
    chain: Pem
    authorities: AuthorityList


class Register(Message, frozen=True, tag=18):
    """A host that belongs to the fleet is up. Answered by `Registered` or `Failure`.

    `advertise` empty: others reach it where the master sees it dial from, at `listen_port`.
    """

    name: HostName
    zone: ZoneName
    advertise: AddressText
    listen_port: Port


class Registered(Message, frozen=True, tag=19):
    """Answers `Register`: the master counts the host as live and awaits its first `Heartbeat` with `replace` set.

    `name` and `address`: how the fleet knows the host. `heartbeat_s`: at most so long between two heartbeats.
    `replicas`: copies of a file that are wanted where an upload names no number.
    """

    name: HostName
    address: AddressText
    heartbeat_s: Seconds
    replicas: Replicas


class Holding(Part, frozen=True):
    """What a host holds of one file. `pieces` counts verified ones; `complete` says that all are durable.

    `damaged`: the rest was there and is bad; it is not fetched again by itself. `none`: nothing any more. `down` and
    `up`: what it fetches and serves now. `note`: for a person, may be empty.
    """

    file_id: FileIdBytes
    state: HoldingState
    pieces: PieceCount
    down: BytesPerSecond
    up: BytesPerSecond
    note: Annotated[str, Meta(max_length=MAX_NOTE_LENGTH, description="for a person")]


class Heartbeat(Message, frozen=True, tag=20):
    """Room on the host, and the holdings that changed since the last one. Answered by `Heard`.

    `sequence` is 1 for the first on a connection and grows by one. `used`: bytes of held files; `free`: room for more.
    `replace`: forget what was announced before; the first heartbeat after `Registered` has it, and those right behind
    it carry what did not fit in.
    """

    sequence: Count
    used: Bytes
    free: Bytes
    replace: bool
    holdings: Annotated[list[Holding], Meta(max_length=MAX_HEARTBEAT_HOLDINGS)]


class Heard(Message, frozen=True, tag=21):
    """Answers `Heartbeat`: the master has applied it and all before."""

    sequence: Count


class FileInfo(Part, frozen=True):
    """A file of the catalogue, without its piece hashes. `uploaded_by`: a host's name."""

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


class Publish(Message, frozen=True, tag=24):
    """Puts a file into the catalogue; the payload is its manifest. Answered by `Published` or `RequestFailed`.

    `replicas` 0: the master's default.
    """

    max_payload: ClassVar[int] = MAX_MANIFEST_BYTES

    request: RequestNumber
    file_id: FileIdBytes
    uploaded_at: UnixSeconds
    replicas: Annotated[int, Meta(ge=0, le=MAX_REPLICAS, description="copies")]


class Published(Message, frozen=True, tag=25):
    """Answers `Publish`: the catalogue has the file, durably."""

    request: RequestNumber
    info: FileInfo


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

    `more`: ask again, from behind the last row.
    """

    request: RequestNumber
    info: FileInfo
    complete: Count
    holders: Annotated[list[Holder], Meta(max_length=PAGE_ROWS)]
    more: bool


class ListFiles(Message, frozen=True, tag=30):
    """Asks for a page of the catalogue, by name, from the `start`th on. Answered by `FilePage` or `RequestFailed`."""

    request: RequestNumber
    start: Count


class FileRow(Part, frozen=True):
    """A file, and how many hosts hold all of it and some of it."""

    info: FileInfo
    complete: Count
    partial: Count


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

    `used`: bytes of held files; `free`: room for more. `last_seen_s`: since it was last heard from.
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


class Renew(Message, frozen=True, tag=37):
    """A host asks for a new certificate, for the key of this request. Answered by `Renewed` or `RequestFailed`.

    Allowed before `Register` too, and all that a host whose certificate has expired may say.
    """

    request: RequestNumber
    signing_request: SigningRequest


class Renewed(Message, frozen=True, tag=38):
    """Answers `Renew`: `chain` and `authorities` as in `Enrolled`."""

    request: RequestNumber
    chain: Pem
    authorities: AuthorityList


class PeerAddress(Part, frozen=True):
    """Where a peer of a swarm can be dialled; `complete`: it holds every piece."""

    host_id: HostIdText
    name: HostName
    zone: ZoneName
    address: AddressText
    complete: bool


class AbsentHolder(Part, frozen=True):
    """A host that has some of a file but is not up. `last_seen_s`: since it was last heard from."""

    name: HostName
    last_seen_s: Seconds


class Handout(Message, frozen=True, tag=40):
    """Pushed to a host that fetches a file, whenever its peers change; replaces the handout before it."""

    file_id: FileIdBytes
    peers: Annotated[list[PeerAddress], Meta(max_length=64)]
    absent: Annotated[list[AbsentHolder], Meta(max_length=4)]
    gateways: Annotated[list[HostIdText], Meta(max_length=16, description="who of its zone asks other zones")]


class Forget(Message, frozen=True, tag=41):
    """Pushed when a file is removed from the fleet: stop serving or fetching it."""

    file_id: FileIdBytes
    delete: bool


class Revoked(Message, frozen=True, tag=42):
    """Pushed to each host that has registered, and when a host is removed: these are not of the fleet any more.

    Connections with them end at once, and none is made again. `replace`: forget what was pushed before; the first
    message after `Registered` has it, and those right behind it carry what did not fit in.
    """

    replace: bool
    hosts: Annotated[list[HostIdText], Meta(max_length=MAX_REVOKED)]


FROM_STRANGER: Codec[Message] = Codec(GetAuthorities, Enrol)
FROM_LAPSED_HOST: Codec[Message] = Codec(Renew)
FROM_CLIENT: Codec[Message] = Codec(
    Register, Renew, Heartbeat, Publish, Resolve, ListHolders, ListFiles, ListHosts, Remove
)
FROM_UNVERIFIED_MASTER: Codec[Message] = Codec(Authorities, Failure)
# fmt: off
FROM_MASTER: Codec[Message] = Codec(
    Authorities, Enrolled, Renewed, Revoked, Registered, Heard, Published, Resolved, HolderPage, FilePage,
    HostPage, Removed, RequestFailed, Handout, Forget, Failure,
)
# fmt: on
