"""The control and admin conversations: CLI or Python API to a daemon, over its Unix socket.

One request a connection. The daemon answers with any number of `Progress`, then `Result` (its payload is a report) or
`Failure`. Closing early detaches a download and abandons anything else.

A caller who is neither the daemon's own user nor root is asked meanwhile to open, with its own rights, what the request
is about (`DescribeTree`, `HandFiles`, `HandPlace`). It answers each in one message, and descriptors travel beside that
message's first byte (SCM_RIGHTS).
"""

from typing import Annotated, ClassVar, Final, Literal

from msgspec import Meta

from interfiles.priority import Priority
from interfiles.wire.codec import Codec, Message
from interfiles.wire.fields import (
    Bytes,
    BytesPerSecond,
    Count,
    HostNameOrNone,
    Path,
    Query,
    Replicas,
    Seconds,
    Text,
)
from interfiles.wire.framing import MAX_PAYLOAD_BYTES
from interfiles.wire.handshake_messages import Failure

Phase = Literal["hashing", "checking", "waiting", "fetching", "finishing", "verifying", "publishing", "replicating"]
MAX_TOKEN_USES: Final = 1_000_000
MAX_EVENT_WAIT_S: Final = 30.0
MAX_HANDED_FILES: Final = 64  # at once: a daemon never holds many open for one caller
MIN_EXPIRE_S: Final = 60.0  # less than hosts need to fetch anything is a mistake

HandedCount = Annotated[int, Meta(ge=1, le=MAX_HANDED_FILES, description="files")]


class Upload(Message, frozen=True, tag=128):
    """Hash and seed a path. `Result` is an `UploadReport`, and `TrackerContent` follows it.

    `replicas` None: the master's default. `copy`: seed an own copy, not the path itself. `expire_s`: from now, until it
    is removed from the fleet by itself; None: never, or as it was.
    """

    path: Path
    replicas: Replicas | None
    copy: bool
    expire_s: Annotated[float, Meta(ge=MIN_EXPIRE_S, le=1e9, description="seconds")] | None


class Download(Message, frozen=True, tag=129):
    """Fetch a file into `directory`. `Result` is a `DownloadReport`.

    The payload is a tracker file; without one, `query` names the file. `overwrite`: replace what is there. `detach`:
    answer as soon as the daemon has taken the download on. `timeout_s`: to wait for a first source and between two
    pieces; None: for ever. `priority` None: as it is, or normal where the download begins.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query
    directory: Path
    overwrite: bool
    detach: bool
    timeout_s: Seconds | None
    priority: Priority | None


class Stat(Message, frozen=True, tag=130):
    """Who has what of a file: payload or `query` as in `Download`. `Result` is a `StatReport`."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query


class ListFiles(Message, frozen=True, tag=131):
    """A page of the fleet's files, from the `start`th on. `Result` is a `FileListReport`."""

    start: Count


class ListHosts(Message, frozen=True, tag=132):
    """All hosts of the fleet. `Result` is a `HostListReport`."""


class Status(Message, frozen=True, tag=133):
    """The local daemon's own state. `Result` is a `StatusReport`."""


class Remove(Message, frozen=True, tag=134):
    """Take a file, payload or `query` as in `Download`, out of the fleet. `Result` is a `RemoveReport`.

    `local`: only this host stops serving or fetching it. `delete`: the content goes too, here or everywhere.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query
    local: bool
    delete: bool


class Verify(Message, frozen=True, tag=135):
    """Hash this host's copy again; bad pieces are withdrawn. `Result` is a `VerifyReport`.

    Payload or `query` as in `Download`.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query


class Pause(Message, frozen=True, tag=136):
    """Neither fetch nor serve a file until `Resume`: payload or `query` as in `Download`.

    `Result` is a `TransferStateReport`.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query


class Resume(Message, frozen=True, tag=137):
    """Go on after `Pause`: payload or `query` as in `Download`. `Result` is a `TransferStateReport`."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query


class Wait(Message, frozen=True, tag=138):
    """Stream a download's progress until it is complete. Payload, fields and `Result` as in `Download`."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query
    timeout_s: Seconds | None


class SetReplicas(Message, frozen=True, tag=143):
    """Have another number of copies of a file: payload or `query` as in `Download`. `Result` is a `ReplicasReport`."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query
    replicas: Replicas


class WaitReplicas(Message, frozen=True, tag=153):
    """Stream how many copies of a file there are until there are enough. `Result` is a `ReplicasReport`.

    Payload or `query` as in `Download`; this host need not have it. `replicas`: so many; None: as many as are wanted,
    or as there are hosts that can hold one, if those are fewer. `timeout_s`: in all; None: for ever.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    query: Query
    replicas: Replicas | None
    timeout_s: Seconds | None


class Limit(Message, frozen=True, tag=142):
    """The daemon's limits of content bytes to (`up`) and from peers. `Result` is a `LimitReport`.

    0: none from now on; None: as it is. What is changed lasts until the daemon restarts. Members of the socket's group
    may only look.
    """

    up: BytesPerSecond | None
    down: BytesPerSecond | None


class TreeDescription(Message, frozen=True, tag=139):
    """Answers `DescribeTree`: the payload is a manifest whose hashes are all zero; no descriptor comes with it.

    `root`: where the content is, without symlinks.
    """

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES

    root: Path


class HandedFiles(Message, frozen=True, tag=140):
    """Answers `HandFiles`: a descriptor of each of these files comes with it, open for reading."""

    first: Count
    count: HandedCount


class HandedPlace(Message, frozen=True, tag=141):
    """Answers `HandPlace`: two descriptors come with it, of the directory and of the new file, open for writing.

    `umask`: the caller's, for the modes of what is downloaded.
    """

    umask: Annotated[int, Meta(ge=0, le=0o777, description="file mode bits")]


class MakeToken(Message, frozen=True, tag=144):
    """Make a join token good for `ttl_s` and `uses` joins (None: any number). `Result` is a `TokenReport`.

    `name`: what the one host that it is for is called; empty: any host, called what it likes.
    """

    ttl_s: Seconds
    uses: Annotated[int, Meta(ge=1, le=MAX_TOKEN_USES, description="joins")] | None
    name: HostNameOrNone


class RemoveHost(Message, frozen=True, tag=145):
    """The host, by name or id, is no longer of the fleet. `Result` is a `HostRemovedReport`."""

    host: Query


class ListTokens(Message, frozen=True, tag=146):
    """Every join token that is not long over. `Result` is a `TokenListReport`."""


class RevokeToken(Message, frozen=True, tag=147):
    """Let nobody else in by a token: its id or the start of it. `Result` is a `TokenRevokedReport`."""

    token: Query


class ListAuthorities(Message, frozen=True, tag=148):
    """The CAs that the fleet trusts. `Result` is an `AuthorityListReport`."""


class RotateAuthority(Message, frozen=True, tag=149):
    """Make a new CA that signs from now on; the one before stays trusted. `Result` is an `AuthorityListReport`."""


class RetireAuthority(Message, frozen=True, tag=150):
    """Trust the newest CA only, from now on. `Result` is an `AuthorityListReport`."""


class DrainHost(Message, frozen=True, tag=151):
    """The host is given no copies, and those that it has are made on others. `Result` is a `HostDrainReport`.

    `only_look`: change nothing, tell how far it is.
    """

    host: Query
    only_look: bool


class UndrainHost(Message, frozen=True, tag=152):
    """The host is as any other again. `Result` is a `HostDrainReport`."""

    host: Query


class ListEvents(Message, frozen=True, tag=156):
    """A page of the events with numbers above `after` in the event log `log`. `Result` is an `EventListReport`.

    If `log` is not what the master's log is called, as it is after a restart, or empty: the page begins with the newest
    `last`. `wait_s`: while there are none, the answer waits so long for one.
    """

    log: Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?\Z", max_length=16, description="16 hex digits; empty: any")]
    after: Count
    last: Count
    wait_s: Annotated[float, Meta(ge=0, le=MAX_EVENT_WAIT_S, description="seconds")]


class Progress(Message, frozen=True, tag=160):
    """How far a request is; any number of them before `Result`.

    `name`: of the file. `done` and `total` (0: not known yet) are bytes. `peers`: connected now. `text`: what it waits
    for, in words. While copies are waited for (`replicating`), `done` and `total` are copies, and `peers` those under
    way.
    """

    phase: Phase
    name: Annotated[str, Meta(max_length=255, description="file name")]
    done: Bytes
    total: Bytes
    rate: BytesPerSecond
    peers: Count
    text: Text


class Result(Message, frozen=True, tag=161):
    """Answers any request that could be done; the payload is its report."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES


class TrackerContent(Message, frozen=True, tag=162):
    """After an upload's result: the payload is the tracker file, for the caller to write."""

    max_payload: ClassVar[int] = MAX_PAYLOAD_BYTES


class DescribeTree(Message, frozen=True, tag=163):
    """Asks who wants to upload: what is at the path of your request? Answered by `TreeDescription`."""


class HandFiles(Message, frozen=True, tag=164):
    """Asks who wants to upload: open these files, counted in the order of the description.

    Answered by `HandedFiles`.
    """

    first: Count
    count: HandedCount


class HandPlace(Message, frozen=True, tag=165):
    """Asks who wants to download: open the directory of your request, and make the file `.interfiles-MARK.tmp` in it.

    That shows the right to write there. The file stays empty, and the caller removes it at the daemon's next message.
    Answered by `HandedPlace`.
    """

    mark: Annotated[
        str, Meta(pattern=r"^[0-9a-f]{32}\Z", max_length=32, description="32 hex digits, never used before")
    ]


def mark_name(mark: str) -> str:
    """The name of the file that `HandPlace` asks for."""
    return f".interfiles-{mark}.tmp"


FROM_CLI: Codec[Message] = Codec(
    *(Upload, Download, Stat, ListFiles, ListHosts, Status, Remove, Verify, Pause, Resume, Wait, Limit),
    *(SetReplicas, WaitReplicas),
    *(TreeDescription, HandedFiles, HandedPlace),
)
FROM_ADMIN: Codec[Message] = Codec(
    *(MakeToken, RemoveHost, ListTokens, RevokeToken, ListAuthorities, RotateAuthority, RetireAuthority),
    *(DrainHost, UndrainHost, ListEvents),
)
FROM_DAEMON: Codec[Message] = Codec(Progress, Result, TrackerContent, DescribeTree, HandFiles, HandPlace, Failure)
FROM_MASTER: Codec[Message] = Codec(Progress, Result, TrackerContent, Failure)
