"""What daemons answer to a person or a script: the payloads of `Result`, and what `--json` prints, field for field."""

from typing import Literal, TypeVar, cast

import msgpack
import msgspec

from interfiles.errors import RemoteProtocolError
from interfiles.priority import Priority

CopyState = Literal["complete", "partial", "none"]
R = TypeVar("R", bound="Report")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the reports."""


class UploadReport(Report, frozen=True, kw_only=True):
    """`tracker`: the path that the tracker file was written to, set by whoever wrote it.

    `published`: the master has it in its catalogue; False while the master is away. `hosts`: so many could hold a copy
    now, None while that is not known. `expires_at`: when it is removed from the fleet, as in `StatReport`, by this
    upload or an earlier one; 0: never, or, while the master is away, as before.
    """

    id: str
    name: str
    size: int
    files: int
    pieces: int
    piece_size: int
    tracker: str
    replicas_wanted: int
    published: bool
    seconds: float
    hosts: int | None = None
    expires_at: int = 0


class DownloadReport(Report, frozen=True, kw_only=True):
    """`bytes_from_peers`: bytes of good pieces from each host, by name; `bytes_local`: found on this host already.

    Together they are the size, or more if pieces went bad and were fetched again. Pieces that had come before a crash
    and were not recorded yet are found in the part, and count under the name `?`.
    """

    id: str
    name: str
    path: str
    size: int
    seconds: float
    state: Literal["complete", "detached"]
    bytes_from_peers: dict[str, int]
    bytes_local: int
    pieces_rejected: int


class HolderReport(Report, frozen=True, kw_only=True):
    """`state`: what the host has; `host_state`: live, suspect, gone or draining.

    `doing`: fetching, waiting, paused or damaged, else empty. `ordered`: it holds or fetches the file by order.
    """

    host: str
    name: str
    zone: str
    address: str
    state: CopyState
    pieces: int
    doing: str
    host_state: str
    last_seen_s: float
    down: int
    up: int
    note: str
    ordered: bool = False


class ReplicaCount(Report, frozen=True, kw_only=True):
    """Copies of a file. `complete`: durable ones, on hosts that are live or suspect; `under_way`: on their way to such.

    `why_not`: why there are fewer than wanted, and not all the others are coming, empty: there are not.
    """

    wanted: int
    complete: int
    under_way: int = 0
    why_not: str = ""


class ReplicasReport(Report, frozen=True, kw_only=True):
    """Copies of a file. `replicas_wanted`: so many; `hosts`: so many hosts could hold one now.

    The rest as in `ReplicaCount`.
    """

    id: str
    name: str
    replicas_wanted: int
    hosts: int
    complete: int
    under_way: int
    why_not: str


class LocalCopy(Report, frozen=True, kw_only=True):
    """What this host has of a file, and where; `doing` and `ordered` as in `HolderReport`."""

    state: CopyState
    pieces: int
    path: str
    doing: str
    note: str
    ordered: bool = False


class StatReport(Report, frozen=True, kw_only=True):
    """`complete_info` False: the master is away, so `hosts` has only what this host knows.

    `expires_at`: when it is removed from the fleet by itself, in seconds since 1970, UTC; 0: never.
    """

    id: str
    name: str
    is_directory: bool
    entries: int
    size: int
    uploaded_at: int
    uploaded_by: str
    piece_size: int
    pieces: int
    hosts: list[HolderReport]
    replicas: ReplicaCount
    local: LocalCopy
    complete_info: bool
    expires_at: int = 0


class FileReport(Report, frozen=True, kw_only=True):
    """A file of the fleet; `complete` and `partial` count hosts, `local` is this one.

    `under_way` and `why_not` as in `ReplicaCount`; `expires_at` as in `StatReport`.
    """

    id: str
    name: str
    size: int
    entries: int
    uploaded_at: int
    uploaded_by: str
    replicas_wanted: int
    complete: int
    partial: int
    local: CopyState
    under_way: int = 0
    why_not: str = ""
    expires_at: int = 0


class FileListReport(Report, frozen=True, kw_only=True):
    """One page of the fleet's files; `next_start` is where the next begins, None at the end."""

    files: list[FileReport]
    next_start: int | None


class HostReport(Report, frozen=True, kw_only=True):
    """A host of the fleet; `files` counts those that it holds completely, `ordered` those among them that it holds by
    order, `arriving` what it fetches by order. `to_move`: files to be copied to others before it is switched off, while
    it drains; None: it does not, or that is not known yet. `note`: why it is given no orders, else empty.
    """

    host: str
    name: str
    zone: str
    address: str
    state: str
    files: int
    used: int
    free: int
    last_seen_s: float
    ordered: int = 0
    arriving: int = 0
    to_move: int | None = None
    note: str = ""


class HostListReport(Report, frozen=True, kw_only=True):
    """All hosts of the fleet, in the order of names."""

    hosts: list[HostReport]


class TransferReport(Report, frozen=True, kw_only=True):
    """A file that this host does not have whole, or copies to another place.

    `state`: fetching, waiting, checking, finishing, downloading (about to), copying, paused, damaged or withdrawn.
    `priority`: low, normal or high.
    """

    id: str
    name: str
    path: str
    state: str
    size: int
    bytes_done: int
    down: int
    peers: int
    note: str
    priority: Priority = "normal"


class ScrubReport(Report, frozen=True, kw_only=True):
    """What hashing everything again comes to. `every_s`: how often each copy's turn comes, in seconds.

    `finished_at`: when the last file was done, in seconds since 1970, UTC; nil: none since the daemon started. `due`:
    files whose turn it is; `damaged`: files with pieces on disk that do not match their hashes, whoever found them.
    `file` (an id), `name`, `size` and `bytes_done`: what is being read now; empty and 0 if nothing is, or if it is
    another user's.
    """

    every_s: float
    finished_at: int | None
    due: int
    damaged: int
    file: str
    name: str
    size: int
    bytes_done: int


class StatusReport(Report, frozen=True, kw_only=True):
    """The local daemon: who it is, its master, and what it is doing. `held`: ids of what it has some of.

    `limit_down`, `limit_up`: as in `LimitReport`. `scrub` nil: it is turned off.
    """

    host: str
    name: str
    zone: str
    fleet: str
    address: str
    master: str
    master_state: Literal["connected", "connecting"]
    master_note: str
    state_directory: str
    files: int
    used: int
    free: int
    down: int
    up: int
    transfers: list[TransferReport]
    held: list[str] = []
    limit_down: int | None = None
    limit_up: int | None = None
    scrub: ScrubReport | None = None


class LimitReport(Report, frozen=True, kw_only=True):
    """The daemon's limits, and the rates now, of content from (`down`) and to peers. A limit of None: there is none.

    `bytes_down`, `bytes_up`: what has moved since the daemon started, of the files that it has.
    """

    limit_down: int | None
    limit_up: int | None
    down: int
    up: int
    bytes_down: int
    bytes_up: int


class RemoveReport(Report, frozen=True, kw_only=True):
    """`hosts`: how many others had some of it and were told to forget it.

    `deleted`: the content on this host's disk is gone. `ordered`: this host held or fetched it by the master's order.
    """

    id: str
    name: str
    hosts: int
    deleted: bool
    path: str
    ordered: bool = False


class VerifyReport(Report, frozen=True, kw_only=True):
    """`checked`: of `pieces`, how many this host has; `complete`: the file is at its `path`, all of it.

    `bad_pieces`: the pieces whose bytes on disk do not match; empty when all is well. `ordered`: this host holds it by
    the master's order, and mends it by itself.
    """

    id: str
    name: str
    path: str
    size: int
    pieces: int
    checked: int
    complete: bool
    bad_pieces: list[int]
    seconds: float
    ordered: bool = False


class TransferStateReport(Report, frozen=True, kw_only=True):
    """Answer to pause and resume."""

    id: str
    name: str
    state: str


def encode_report(report: Report) -> bytes:
    """The payload of `Result`. A path that is not UTF-8 goes as the bytes that it is."""
    return cast("bytes", msgpack.packb(msgspec.to_builtins(report), unicode_errors="surrogateescape"))


def decode_report(data: bytes, kind: type[R]) -> R:
    """Read the payload of `Result`.

    Raises:
      RemoteProtocolError: it is not a report of this kind.
    """
    try:
        return msgspec.convert(msgpack.unpackb(data, unicode_errors="surrogateescape"), kind)
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError, RecursionError) as e:
        raise RemoteProtocolError(f"the daemon's answer is not a {kind.__name__}: {e}") from e
