"""The manifest: what a file or directory is, immutably, and under which id.

Its canonical encoding is msgpack, shortest forms only:

    [1, name, is_directory, piece size, [entry, …], piece hashes]

An entry is an array of one, two or three: `[path]` is an empty directory, `[path, target]` a symlink, `[path, size,
executable]` a file. Entries ascend by the UTF-8 bytes of their paths; directories that hold something are implied. The
content is the concatenation of the files in that order; the piece hashes are the BLAKE3 of its pieces, 32 bytes each.
The file id is the BLAKE3 of the encoding. A `Manifest` in hand obeys every rule, wherever it came from.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NewType, cast

import msgpack
from blake3 import blake3

from interfiles.errors import InvalidManifest
from interfiles.flat_msgpack import FlatReader
from interfiles.geometry import MAX_CONTENT_BYTES, Geometry, PieceIndex
from interfiles.manifest_paths import MAX_ENTRIES, check_name, check_path, check_target, check_tree, quoted
from interfiles.piece_set import PieceSet

VERSION: Final = 1
HASH_BYTES: Final = 32
MAX_MANIFEST_BYTES: Final = 64 << 20  # the largest piece table takes 32 MiB, so as much is left for the entries

_FIELDS: Final = 6

FileId = NewType("FileId", bytes)


def short_id(file_id: FileId) -> str:
    """The id as people see it: its first 12 hex digits."""
    return file_id.hex()[:12]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of `size` bytes."""

    path: str
    size: int
    executable: bool


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """An empty directory; those that hold something are implied by what they hold."""

    path: str


@dataclass(frozen=True, slots=True)
class SymlinkEntry:
    """A symlink; `target` is relative to the directory that it is in."""

    path: str
    target: str


Entry = FileEntry | DirectoryEntry | SymlinkEntry


@dataclass(frozen=True, slots=True)
class FileSpan:
    """A file and where it begins in the content, in bytes."""

    entry: FileEntry
    offset: int


@dataclass(frozen=True, eq=False)
class Manifest:
    """A file or directory under its `name`; two manifests are equal when their ids are.

    `entries`: of a single file, that file alone with `path == name`; of a directory, paths relative to it.
    `piece_size` in bytes; `hashes`: all piece hashes, concatenated.

    Raises:
      InvalidManifest: any rule is broken; the message is a reason without a subject, such as "piece table has 4,387
        hashes, its size calls for 4,388".
    """

    name: str
    is_directory: bool
    entries: tuple[Entry, ...] = field(repr=False)
    piece_size: int
    hashes: bytes = field(repr=False)
    geometry: Geometry = field(init=False, repr=False)
    file_id: FileId = field(init=False, repr=False)

    def __post_init__(self) -> None:
        size = check_entries(self.name, self.is_directory, self.entries)
        geometry = _geometry(size, self.piece_size, self.hashes)
        encoded = self.encode()
        if len(encoded) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"manifest takes {len(encoded):,} bytes, at most {MAX_MANIFEST_BYTES:,} are allowed")
        object.__setattr__(self, "geometry", geometry)
        object.__setattr__(self, "file_id", FileId(blake3(encoded).digest()))

    @classmethod
    def build(
        cls, name: str, is_directory: bool, entries: Iterable[Entry], piece_size: int, hashes: bytes
    ) -> "Manifest":
        """Make a manifest from entries in ascending order of path.

        Raises:
          InvalidManifest: any rule is broken.
        """
        return cls(name, is_directory, tuple(entries), piece_size, hashes)

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> "Manifest":
        """Read a canonical encoding. Memory stays within a small multiple of `data`, whatever it holds.

        Raises:
          InvalidManifest: too large, malformed, not canonical, or any rule is broken.
        """
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidManifest(f"manifest takes {len(data):,} bytes, at most {MAX_MANIFEST_BYTES:,} are allowed")
        try:
            manifest = cls._read(FlatReader(data))
        except ValueError as e:
            raise InvalidManifest(f"manifest is malformed: {e}") from e
        if blake3(data).digest() != manifest.file_id:
            raise InvalidManifest("manifest is not in its canonical encoding")
        return manifest

    @classmethod
    def _read(cls, reader: FlatReader) -> "Manifest":
        count = reader.array()
        if (version := reader.integer()) != VERSION:
            raise InvalidManifest(f"manifest is of version {version}, this InterFiles reads version {VERSION}")
        if count != _FIELDS:
            raise ValueError(f"{count:,} fields, {_FIELDS} are expected")
        name, is_directory, piece_size = reader.text(), reader.flag(), reader.integer()
        if (listed := reader.array()) > MAX_ENTRIES:
            raise InvalidManifest(f"manifest lists {listed:,} entries, at most {MAX_ENTRIES:,} are allowed")
        entries = tuple([_read_entry(reader) for _ in range(listed)])
        hashes = reader.binary()
        reader.end()
        return cls(name, is_directory, entries, piece_size, hashes)

    def encode(self) -> bytes:
        """The canonical encoding; `decode` takes this and no other form."""
        entries = [_entry_fields(entry) for entry in self.entries]
        fields = [VERSION, self.name, self.is_directory, self.piece_size, entries, self.hashes]
        return cast("bytes", msgpack.packb(fields))

    @property
    def size(self) -> int:
        """Bytes in all files together."""
        return self.geometry.size

    @property
    def piece_count(self) -> int:
        return self.geometry.piece_count

    def piece_hash(self, piece: PieceIndex) -> bytes:
        """The BLAKE3 of a piece: 32 bytes."""
        return self.hashes[piece * HASH_BYTES : (piece + 1) * HASH_BYTES]

    @cached_property
    def files(self) -> tuple[FileSpan, ...]:
        """Every file, empty ones too, in the order of the content."""
        files, offset = [], 0
        for entry in self.entries:
            if isinstance(entry, FileEntry):
                files.append(FileSpan(entry, offset))
                offset += entry.size
        return tuple(files)

    def spans(self, offset: int, length: int) -> list[tuple[int, int, int]]:
        """The files that a range of the content lies in, as (index in `files`, offset in that file, length), in bytes.

        Empty files hold nothing of it and are left out.

        Raises:
          ValueError: the range is not inside the content.
        """
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise ValueError(f"bytes {offset}..{end} are outside a content of {self.size} bytes")
        starts, indices = self._filled_files
        spans = []
        at = bisect_right(starts, offset) - 1
        while offset < end:
            file = self.files[indices[at]]
            within = offset - file.offset
            taken = min(file.entry.size - within, end - offset)
            spans.append((indices[at], within, taken))
            offset += taken
            at += 1
        return spans

    @cached_property
    def _filled_files(self) -> tuple[list[int], list[int]]:
        """Of each file that is not empty, where it begins in the content and its index in `files`."""
        filled = [(file.offset, index) for index, file in enumerate(self.files) if file.entry.size]
        return [offset for offset, _ in filled], [index for _, index in filled]

    def zero_pieces(self) -> PieceSet:
        """The pieces that are all zeros by their hash: a fresh file of the right size holds them already."""
        zeros: list[PieceIndex] = []
        if self.piece_count:
            last = PieceIndex(self.piece_count - 1)
            zeros += _indices_of(_zeros_hash(self.piece_size), self.hashes[: last * HASH_BYTES])
            if self.piece_hash(last) == _zeros_hash(self.geometry.piece_length(last)):
                zeros.append(last)
        return PieceSet.of(self.piece_count, zeros)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Manifest) and self.file_id == other.file_id

    def __hash__(self) -> int:
        return hash(self.file_id)


def check_entries(name: str, is_directory: bool, entries: Sequence[Entry]) -> int:
    """Check everything that a manifest says about its tree, and return the bytes in its files together.

    Raises:
      InvalidManifest: a name, path, target, size or the order breaks a rule.
    """
    check_name(name)
    if len(entries) > MAX_ENTRIES:
        raise InvalidManifest(f"manifest lists {len(entries):,} entries, at most {MAX_ENTRIES:,} are allowed")
    if not is_directory and not (len(entries) == 1 and isinstance(entries[0], FileEntry) and entries[0].path == name):
        raise InvalidManifest(f"single file {quoted(name)} must have itself as its only entry")
    size = 0
    previous = ""
    for entry in entries:
        check_path(entry.path)
        if entry.path <= previous:  # code points order as their UTF-8 bytes do
            raise InvalidManifest(f"entry {quoted(entry.path)} follows {quoted(previous)}, so they do not ascend")
        previous = entry.path
        if isinstance(entry, SymlinkEntry):
            check_target(entry.path, entry.target)
        elif isinstance(entry, FileEntry):
            if entry.size < 0:
                raise InvalidManifest(f"file {quoted(entry.path)} has a size of {entry.size:,} bytes")
            size += entry.size
    if size > MAX_CONTENT_BYTES:
        raise InvalidManifest(f"its files have {size:,} bytes together, at most {MAX_CONTENT_BYTES:,} are allowed")
    check_tree([entry.path for entry in entries])
    return size


def _geometry(size: int, piece_size: int, hashes: bytes) -> Geometry:
    try:
        geometry = Geometry(size, piece_size)
    except ValueError as e:
        raise InvalidManifest(str(e)) from e
    count, rest = divmod(len(hashes), HASH_BYTES)
    if rest:
        raise InvalidManifest(f"piece table of {len(hashes):,} bytes is not a whole number of {HASH_BYTES}-byte hashes")
    if count != geometry.piece_count:
        raise InvalidManifest(f"piece table has {count:,} hashes, its size calls for {geometry.piece_count:,}")
    return geometry


def _entry_fields(entry: Entry) -> tuple[str, int, bool] | tuple[str] | tuple[str, str]:
    match entry:
        case FileEntry(path, size, executable):
            return path, size, executable
        case DirectoryEntry(path):
            return (path,)
        case SymlinkEntry(path, target):
            return path, target


def _read_entry(reader: FlatReader) -> Entry:
    match reader.array():
        case 3:
            return FileEntry(reader.text(), reader.integer(), reader.flag())
        case 1:
            return DirectoryEntry(reader.text())
        case 2:
            return SymlinkEntry(reader.text(), reader.text())
        case fields:
            raise ValueError(f"an entry of {fields:,} fields, 1 to 3 are expected")


def _zeros_hash(length: int) -> bytes:
    return blake3(bytes(length)).digest()


def _indices_of(wanted: bytes, hashes: bytes) -> list[PieceIndex]:
    if wanted not in hashes:  # the usual case, at the speed of a search in C
        return []
    return [PieceIndex(at // HASH_BYTES) for at in range(0, len(hashes), HASH_BYTES) if hashes.startswith(wanted, at)]
