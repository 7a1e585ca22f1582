"""What the client daemon remembers, one plain value a thing: `JobStore` keeps them."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from interfiles.priority import Priority
from interfiles.storage.acting import Owner
from interfiles.storage.places import Place
from interfiles.storage.scan import Stamp

FileState = Literal["seeding", "downloading", "finishing", "paused", "complete", "withdrawn"]

_STAMP: Final = struct.Struct(">QqQQ")


@dataclass(frozen=True, slots=True)
class Identity:
    """This host as its fleet knows it.

    `key`, `chain` and `authorities` as in `Credentials`; `masters` as HOST:PORT. `removed`: what the master said when
    it no longer knew this host, empty while it does; such a host may join anew.
    """

    fleet: str
    host_id: str
    name: str
    zone: str
    key: str = field(repr=False)
    chain: str
    authorities: tuple[str, ...]
    masters: tuple[str, ...]
    removed: str = ""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that this host holds or fetches.

    `path`: where it is, or will be; `part`: where it is until then, None where there is none. `stamps`: of all files,
    by `encode_stamps`, empty until known. `durable`: bitfield of the pieces that survive a crash. `uploaded_at` in Unix
    seconds; `replicas` wanted, 0 for the master's default; `published`: the master has it in its catalogue.
    `bytes_from_peers`: of verified pieces, by who sent them; `bytes_local`: found on this host; `seconds` that its
    download has taken. `owned`: the copy is the daemon's own; `in_place`: it is the person's, from before, so nothing
    ever removes it. `owner`: the other user on whose behalf it is held, if it is; `place`: the directory in which that
    user has shown a right to write. `priority`: of its download. `ordered`: the master has it held, under the state
    directory; nobody of this host asked for it. `expires_at`: when it is to be removed from the fleet, in Unix seconds,
    as its upload wishes, and once it is published as the master says; 0: nothing is said of that. `again`: it was
    published before this host joined anew.
    """

    file_id: bytes
    manifest: bytes
    path: bytes
    part: bytes | None
    state: FileState
    overwrite: bool
    uploaded_at: int
    uploaded_by: str
    replicas: int
    published: bool
    stamps: bytes
    durable: bytes
    bytes_local: int
    bytes_from_peers: Mapping[str, int]
    pieces_rejected: int
    seconds: float
    note: str
    owned: bool
    in_place: bool = False
    owner: Owner | None = None
    place: Place | None = None
    priority: Priority = "normal"
    ordered: bool = False
    expires_at: int = 0
    again: bool = False

    @property
    def rights(self) -> Owner | None:
        """With whose rights its content is opened, None: the daemon's own, as its own copies are."""
        return None if self.owned else self.owner


@dataclass(frozen=True, slots=True)
class CopyRecord:
    """A copy that this host makes, at a second place, of a file that it has.

    `part`: where it grows, the only one that does there. The rest as in `FileRecord`; the file may be gone meanwhile.
    """

    part: bytes
    file_id: bytes
    destination: bytes
    overwrite: bool
    owner: Owner | None
    place: Place | None


@dataclass(frozen=True, slots=True)
class ScrubRecord:
    """How far the scrub of a file is. `scrubbed_at`: when all of it was last hashed, in Unix seconds.

    `position`: the piece with which the scrub that is under way goes on, 0 if none is.
    """

    file_id: bytes
    scrubbed_at: float
    position: int


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """A host that the master last named for a file; `address` as HOST:PORT."""

    host_id: str
    name: str
    address: str


def encode_stamps(stamps: Sequence[Stamp]) -> bytes:
    """32 bytes a stamp."""
    return b"".join([_STAMP.pack(stamp.size, stamp.mtime_ns, stamp.inode, stamp.device) for stamp in stamps])


def decode_stamps(data: bytes) -> tuple[Stamp, ...]:
    """The reverse of `encode_stamps`.

    Raises:
      ValueError: the length is not that of whole stamps.
    """
    if len(data) % _STAMP.size:
        raise ValueError(f"{len(data)} bytes are not a whole number of stamps of {_STAMP.size} bytes")
    return tuple([Stamp(*fields) for fields in _STAMP.iter_unpack(data)])
