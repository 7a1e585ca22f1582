"""Piece hashes of a content on disk.

Bytes are hashed while they are in the processor's cache, through one buffer a thread. Holes are not read, and a piece
that is all hole is not hashed either, so a sparse terabyte takes a second.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from blake3 import blake3

from interfiles.errors import ContentChanged, printable
from interfiles.geometry import MIB, Geometry, PieceIndex
from interfiles.manifest import HASH_BYTES, Manifest
from interfiles.storage import Stopped
from interfiles.storage.failures import GONE, failure
from interfiles.storage.scan import Scan, Stamp, stamp_of
from interfiles.storage.sparse import Holes
from interfiles.storage.system import drop_cached, is_cached
from interfiles.storage.tree import Tree

BUFFER_BYTES: Final = MIB

_SLICE_BYTES: Final = 256 * MIB  # some 50 ms of work: two threads that take turns end together
_ZEROS: Final = bytes(BUFFER_BYTES)

Progress = Callable[[int], None]
Cancelled = Callable[[], bool]


def draft_manifest(scanned: Scan, piece_size: int) -> Manifest:
    """The manifest of what was scanned, its hashes all zero until they are known: `dataclasses.replace` puts them in.

    Raises:
      InvalidManifest: it would break a rule, so hashing would be in vain.
    """
    hashes = bytes(Geometry(scanned.size, piece_size).piece_count * HASH_BYTES)
    return Manifest(scanned.name, scanned.is_directory, scanned.entries, piece_size, hashes)


def slices(geometry: Geometry) -> Iterator[tuple[int, int]]:
    """Cut a content into (first piece, count) for `hash_range`, in order, for threads to take one after another."""
    step = max(1, _SLICE_BYTES // geometry.piece_size)
    return ((first, min(step, geometry.piece_count - first)) for first in range(0, geometry.piece_count, step))


@dataclass(frozen=True, slots=True)
class DiskContent:
    """The content of `manifest`, whose hashes may not be known yet, at `root`; `stamps` are its files' when scanned."""

    root: Path
    manifest: Manifest
    stamps: Sequence[Stamp]


def hash_range(
    content: DiskContent, first_piece: int, count: int, *, progress: Progress, cancelled: Cancelled
) -> bytes:
    """Hash `count` pieces from `first_piece` on and return their hashes, concatenated; called in a thread.

    `progress` is told how many bytes more are done.

    Raises:
      ContentChanged: a file differs from its stamp before or after it was read; the message names it.
      NotPermitted, StorageFailed: a file cannot be read.
      Stopped: `cancelled` answered yes.
    """
    geometry = content.manifest.geometry
    hashes = bytearray()
    with PieceReader(Tree(content.root, content.manifest), content.stamps) as reader:
        for raw in range(first_piece, first_piece + count):
            if cancelled():
                raise Stopped
            piece = geometry.piece(raw)
            hashes += reader.hash(piece)
            progress(geometry.piece_length(piece))
    return bytes(hashes)


class PieceHasher:
    """Hashes one piece; one that is all holes costs nothing."""

    def __init__(self) -> None:
        self._hasher: blake3 | None = None
        self._zeros = 0

    def update(self, data: memoryview | int) -> None:
        """Take the next bytes, or the length of a hole."""
        if isinstance(data, int) and self._hasher is None:
            self._zeros += data
            return
        if self._hasher is None:
            self._hasher = blake3()
            _update_with_zeros(self._hasher, self._zeros)
        if isinstance(data, int):
            _update_with_zeros(self._hasher, data)
        else:
            self._hasher.update(data)

    def digest(self) -> bytes:
        """The BLAKE3 of what was taken."""
        return _hash_of_zeros(self._zeros) if self._hasher is None else self._hasher.digest()


class PieceReader:
    """Reads pieces of a content one after another, in one thread, keeping the file that it is in open.

    With `stamps`, a file is compared with its stamp when it is opened and again when it is left, the last one when the
    context ends. Without, it is taken as it is. `from_disk`: not from the system's memory, as far as the system lets go
    of it; what was not in memory before is not kept there for this.

    Raises (`hash`, `read` and the end of the context):
      ContentChanged: a file differs from its stamp, is gone or ends too early.
      NotPermitted, StorageFailed: a file cannot be read.
    """

    def __init__(self, tree: Tree, stamps: Sequence[Stamp] | None = None, *, from_disk: bool = False) -> None:
        self._tree: Final = tree
        self._stamps: Final = stamps
        self._from_disk: Final = from_disk
        self._buffer: Final = memoryview(bytearray(BUFFER_BYTES))
        self._index = -1
        self._descriptor = -1
        self._holes = Holes(-1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave_file(compare=error is None)

    def hash(self, piece: PieceIndex) -> bytes:
        """The BLAKE3 of a piece."""
        hasher = PieceHasher()
        for data in self._segments(piece):
            hasher.update(data)
        return hasher.digest()

    def read(self, piece: PieceIndex) -> bytearray:
        """The bytes of a piece."""
        made = bytearray()
        for data in self._segments(piece):
            made += bytes(data)  # of a number: that many zeros
        return made

    def _segments(self, piece: PieceIndex) -> Iterator[memoryview | int]:
        """The piece's bytes in order: data, valid until the next step, or the length of a hole."""
        geometry = self._tree.manifest.geometry
        spans = self._tree.manifest.spans(geometry.piece_offset(piece), geometry.piece_length(piece))
        for index, offset, length in spans:
            try:
                if index != self._index:
                    self._leave_file(compare=True)
                    self._enter_file(index)
                yield from self._span(offset, offset + length)
            except OSError as e:
                raise self._translated(e, index) from e

    def _span(self, start: int, end: int) -> Iterator[memoryview | int]:
        if os.fstat(self._descriptor).st_size < end:
            raise self._changed(self._index)
        for at, stop, is_data in self._holes.segments(start, end):
            if not is_data:
                yield stop - at
            elif self._from_disk:
                yield from self._data_from_disk(at, stop)
            else:
                yield from self._data(at, stop)

    def _data(self, at: int, stop: int) -> Iterator[memoryview]:
        while at < stop:
            count = os.preadv(self._descriptor, [self._buffer[: stop - at]], at)
            if count == 0:
                raise self._changed(self._index)
            at += count
            yield self._buffer[:count]

    def _data_from_disk(self, at: int, stop: int) -> Iterator[memoryview]:
        try:
            is_wanted = is_cached(self._descriptor, at, stop - at)  # by whoever is served from it, perhaps
        except OSError:
            is_wanted = False
        drop_cached(self._descriptor, at, stop - at)
        yield from self._data(at, stop)
        if not is_wanted:
            drop_cached(self._descriptor, at, stop - at)

    def _enter_file(self, index: int) -> None:
        self._descriptor = self._tree.open(index)
        self._index = index
        self._holes = Holes(self._descriptor)
        if self._stamps is not None and stamp_of(os.fstat(self._descriptor)) != self._stamps[index]:
            raise self._changed(index)

    def _leave_file(self, *, compare: bool) -> None:
        if self._index < 0:
            return
        index, descriptor = self._index, self._descriptor
        self._index = self._descriptor = -1
        try:
            if compare and self._stamps is not None and stamp_of(os.fstat(descriptor)) != self._stamps[index]:
                raise self._changed(index)
        finally:
            os.close(descriptor)

    def _translated(self, error: OSError, index: int) -> Exception:
        path = self._tree.path(index)
        return changed_error(path, is_gone=True) if error.errno in GONE else failure(error, path, "read")

    def _changed(self, index: int) -> ContentChanged:
        return changed_error(self._tree.path(index))


def changed_error(path: Path, *, is_gone: bool = False) -> ContentChanged:
    """The sentence about a file that is not there, or is not what was hashed, any more."""
    what = "is gone" if is_gone else "has changed since it was hashed"
    return ContentChanged(f"{printable(str(path))} {what}; put it back, or upload or download it again")


@lru_cache(maxsize=16)  # whole pieces have the few lengths that piece sizes allow
def _hash_of_zeros(length: int) -> bytes:
    hasher = blake3()
    _update_with_zeros(hasher, length)
    return hasher.digest()


def _update_with_zeros(hasher: blake3, count: int) -> None:
    for at in range(0, count, BUFFER_BYTES):
        hasher.update(_ZEROS[: count - at] if count - at < BUFFER_BYTES else _ZEROS)
