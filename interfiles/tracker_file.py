"""The tracker file: the small file that `upload` writes and `download` and `stat` take.

    magic: 8 bytes | version: u16 | body length: u32 | body | BLAKE3 of all before it: 32 bytes        (big-endian)

    body: msgpack [manifest: its canonical bytes, [master: HOST:PORT, …], uploaded by, uploaded at, fleet]

The envelope stays the same in every version, so that damage is told from a newer version: only a whole file's version
is believed. The checksum finds accidents; who means harm can make a new one, so the content is checked as if there were
none.
"""

import struct
from dataclasses import dataclass
from typing import Final, cast

import msgpack
from blake3 import blake3

from interfiles.errors import InvalidManifest, InvalidTrackerFile, printable
from interfiles.flat_msgpack import FlatReader
from interfiles.manifest import MAX_MANIFEST_BYTES, Manifest
from interfiles.units import format_count

MAGIC: Final = b"\x89IFILE\r\n"  # not text, and it does not survive a transfer that treats it as text
VERSION: Final = 1
MAX_MASTERS: Final = 16
MAX_ADDRESS_BYTES: Final = 262  # a host name, brackets or not, a colon and a port
MAX_LABEL_BYTES: Final = 255  # the name of a host, the id of a fleet
MAX_TRACKER_BYTES: Final = MAX_MANIFEST_BYTES + (64 << 10)
LAST_SECOND: Final = 253_402_300_799  # of the year 9999: calendars end there

_HEAD: Final = struct.Struct(">8sHI")
_CHECKSUM_BYTES: Final = 32
_FIELDS: Final = 5
_GET_AGAIN: Final = "get it again from where it came"


@dataclass(frozen=True, slots=True)
class TrackerFile:
    """What a tracker file holds.

    `masters`: HOST:PORT of each master of the fleet; `uploaded_by`: the name of a host; `uploaded_at`: whole seconds
    since 1970, UTC; `fleet`: its id.

    Raises:
      ValueError: one of them is out of its bounds.
    """

    manifest: Manifest
    masters: tuple[str, ...]
    uploaded_by: str
    uploaded_at: int
    fleet: str

    def __post_init__(self) -> None:
        if len(self.masters) > MAX_MASTERS:
            raise ValueError(f"it names {len(self.masters):,} masters, at most {MAX_MASTERS} are allowed")
        for address in self.masters:
            _check_address(address)
        for what, label in (("host name", self.uploaded_by), ("fleet id", self.fleet)):
            if len(label.encode()) > MAX_LABEL_BYTES:
                raise ValueError(f"its {what} has {len(label.encode()):,} bytes, at most {MAX_LABEL_BYTES} are allowed")
        if not 0 <= self.uploaded_at <= LAST_SECOND:
            raise ValueError(f"its time of upload {self.uploaded_at} is outside 0..{LAST_SECOND}")

    def encode(self) -> bytes:
        """The bytes of the file."""
        fields = [self.manifest.encode(), self.masters, self.uploaded_by, self.uploaded_at, self.fleet]
        body = cast("bytes", msgpack.packb(fields))
        content = _HEAD.pack(MAGIC, VERSION, len(body)) + body
        return content + blake3(content).digest()

    @classmethod
    def decode(cls, data: bytes, *, name: str = "the tracker file") -> "TrackerFile":
        """Read the bytes of a tracker file.

        `name` is the subject of the error's sentence: "weights.tracker is truncated: …". No more than the first
        `MAX_TRACKER_BYTES + 1` bytes of a file are needed to refuse one that is too large.

        Raises:
          InvalidTrackerFile: empty, not a tracker file, truncated, damaged, of another version, too large, or its
            content breaks a rule; caused by `InvalidManifest` where it is the manifest's.
        """
        shown = printable(name)
        body = _open_envelope(data, shown)
        try:
            return cls._read(FlatReader(body))
        except (ValueError, InvalidManifest) as e:
            raise InvalidTrackerFile(f"{shown} is damaged: {e}") from e

    @classmethod
    def _read(cls, reader: FlatReader) -> "TrackerFile":
        if (count := reader.array()) != _FIELDS:
            raise ValueError(f"its body has {count:,} fields, {_FIELDS} are expected")
        manifest = reader.binary()
        if (listed := reader.array()) > MAX_MASTERS:
            raise ValueError(f"it names {listed:,} masters, at most {MAX_MASTERS} are allowed")
        masters = tuple([reader.text() for _ in range(listed)])
        uploaded_by, uploaded_at, fleet = reader.text(), reader.integer(), reader.text()
        reader.end()
        return cls(Manifest.decode(manifest), masters, uploaded_by, uploaded_at, fleet)


def _open_envelope(data: bytes, shown: str) -> memoryview:
    """Return the body of a whole, undamaged tracker file of this version."""
    if not data:
        raise InvalidTrackerFile(f"{shown} is empty; {_GET_AGAIN}")
    if not data.startswith(MAGIC[: len(data)]):
        raise InvalidTrackerFile(f"{shown} is not a tracker file; `interfiles upload` makes them")
    if len(data) > MAX_TRACKER_BYTES:
        raise InvalidTrackerFile(f"{shown} is too large: a tracker file has at most {MAX_TRACKER_BYTES:,} bytes")
    if len(data) < _HEAD.size:
        raise InvalidTrackerFile(f"{shown} is truncated: it ends after {len(data)} bytes; {_GET_AGAIN}")
    _, version, body_length = _HEAD.unpack_from(data)
    body_end = _HEAD.size + body_length
    expected = body_end + _CHECKSUM_BYTES
    if len(data) < expected:
        raise InvalidTrackerFile(f"{shown} is truncated: {len(data):,} of {expected:,} bytes are there; {_GET_AGAIN}")
    if len(data) > expected:
        extra = format_count(len(data) - expected, "byte follows", "bytes follow")
        raise InvalidTrackerFile(f"{shown} is damaged: {extra} its end; {_GET_AGAIN}")
    whole = memoryview(data)
    if blake3(whole[:body_end]).digest() != whole[body_end:]:
        raise InvalidTrackerFile(f"{shown} is damaged: its checksum does not match; {_GET_AGAIN}")
    if version != VERSION:
        raise InvalidTrackerFile(_other_version(shown, version))
    return whole[_HEAD.size : body_end]


def _other_version(shown: str, version: int) -> str:
    if version > VERSION:
        return f"{shown} was made by a newer InterFiles: version {version}, this one reads {VERSION}; update this one"
    return f"{shown} is of version {version}, this InterFiles reads {VERSION}; upload the file again"


def _check_address(address: str) -> None:
    host, _, port = address.rpartition(":")
    length = len(address.encode())
    if length > MAX_ADDRESS_BYTES:
        raise ValueError(f"a master's address has {length:,} bytes, at most {MAX_ADDRESS_BYTES} are allowed")
    if not (host and port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16):
        raise ValueError(f"a master's address is '{printable(address)}', not HOST:PORT")
