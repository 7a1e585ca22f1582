"""The fleet conversation: a client daemon dials its master and keeps the connection.

Who is who, what hosts hold, and peers are here; `catalogue_messages` and `replica_messages` have the rest of it.

Requests carry a number that their answer repeats, so that several can be under way at once; what the master pushes
carries none. Who shows no certificate may ask for the CA's certificates and enrol, and nothing else; a host whose
certificate has expired may renew it, and nothing else.
"""

from typing import Annotated, Final

from msgspec import Meta

from interfiles.wire.catalogue_messages import (
    MAX_NOTE_LENGTH,
    PAGE_ROWS,
    FileInfo,
    FilePage,
    FileRow,
    Holder,
    HolderPage,
    Holding,
    HoldingState,
    HostPage,
    HostRow,
    HostState,
    ListFiles,
    ListHolders,
    ListHosts,
    Publish,
    Published,
    Remove,
    Removed,
    ReplicasSet,
    RequestFailed,
    Resolve,
    Resolved,
    SetReplicas,
)
from interfiles.wire.codec import Codec, Message, Part
from interfiles.wire.fields import (
    AddressText,
    Bytes,
    Count,
    FileIdBytes,
    HostIdText,
    HostName,
    Pem,
    Port,
    Replicas,
    RequestNumber,
    Seconds,
    SigningRequest,
    ZoneName,
)
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.replica_messages import MAX_LEFTOVERS, Challenge, Declined, LeftOver, Order, Proof, Release

# fmt: off
__all__ = [
    "FROM_CLIENT",
    "FROM_LAPSED_HOST",
    "FROM_MASTER",
    "FROM_STRANGER",
    "FROM_UNVERIFIED_MASTER",
    "MAX_AUTHORITIES",
    "MAX_HEARTBEAT_HOLDINGS",
    "MAX_LEFTOVERS",
    "MAX_NOTE_LENGTH",
    "MAX_REVOKED",
    "PAGE_ROWS",
    "AbsentHolder",
    "Authorities",
    "AuthorityList",
    "Challenge",
    "Declined",
    "Enrol",
    "Enrolled",
    "FileInfo",
    "FilePage",
    "FileRow",
    "Forget",
    "GetAuthorities",
    "Handout",
    "Heard",
    "Heartbeat",
    "Holder",
    "HolderPage",
    "Holding",
    "HoldingState",
    "HostPage",
    "HostRow",
    "HostState",
    "LeftOver",
    "ListFiles",
    "ListHolders",
    "ListHosts",
    "Order",
    "PeerAddress",
    "Proof",
    "Publish",
    "Published",
    "Register",
    "Registered",
    "Release",
    "Remove",
    "Removed",
    "Renew",
    "Renewed",
    "ReplicasSet",
    "RequestFailed",
    "Resolve",
    "Resolved",
    "Revoked",
    "SetReplicas",
]
# fmt: on

MAX_HEARTBEAT_HOLDINGS: Final = 128
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
    *(Register, Renew, Heartbeat, Publish, Resolve, ListHolders, ListFiles, ListHosts, Remove, SetReplicas),
    *(Declined, LeftOver, Proof),
)
FROM_UNVERIFIED_MASTER: Codec[Message] = Codec(Authorities, Failure)
FROM_MASTER: Codec[Message] = Codec(
    *(Authorities, Enrolled, Renewed, Revoked, Registered, Heard, Published, Resolved, HolderPage, FilePage),
    *(HostPage, Removed, ReplicasSet, RequestFailed, Handout, Forget, Order, Release, Challenge, Failure),
)
