"""What serving and verifying need of a content on disk, be it complete (`SeedStore`) or not yet (`PartStore`)."""

import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import Final

from blake3 import blake3

from interfiles.errors import ContentChanged, InterFilesError, NotPermitted, StorageFailed, printable
from interfiles.geometry import MIB, Block, PieceIndex
from interfiles.manifest import Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage import Stopped
from interfiles.storage.acting import Owner, acting_as
from interfiles.storage.failures import GONE, failure
from interfiles.storage.hashing import Cancelled, PieceReader, Progress, changed_error
from interfiles.storage.open_files import OpenFile, OpenFiles
from interfiles.storage.system import is_fuse
from interfiles.storage.tree import Tree, Walk

# Opening a file and reading from it takes some 15 µs, so the loop is held up for a quarter of a millisecond.
MAX_INLINE_FILES: Final = 16
READ_AHEAD_BYTES: Final = (
    8 * MIB
)  # of a file that is read from the disk: some 10 ms of it, and four times a slot's window

Span = tuple[int, int, int]


class PieceStore(ABC):
    """The content of `manifest` on disk.

    `reading` and `PartStore.write` are quick, so the loop may call them, unless a range is scattered over many small
    files; then a thread should (`read` and `write`). All else is called in threads. What is held for an `owner` always
    counts as scattered: a file system of theirs may take as long as it likes to answer. Calls that open more than
    single files, all but `reading`, `read` and `write`, are made acting as the owner.
    """

    def __init__(self, tree: Tree, files: OpenFiles, flags: int, owner: Owner | None = None) -> None:
        self.manifest: Final[Manifest] = tree.manifest
        self.owner: Final = owner
        self._tree: Final = tree
        self._files: Final = files
        self._flags: Final = flags
        self.is_closed = False

    def is_scattered(self, offset: int, length: int) -> bool:
        """Whether a range of the content (bytes) lies in more files than the loop should open at once."""
        return self.owner is not None or len(self.manifest.spans(offset, length)) > MAX_INLINE_FILES

    @contextmanager
    def reading(self, block: Block) -> Iterator[list[Span] | None]:
        """Lend (descriptor, offset, count), in bytes, of each file that a block lies in.

        None where the loop had better not read it: it is scattered, or a disk would be waited for. The descriptors are
        good for any use until the context ends.

        Raises:
          ContentChanged: a file is not what it was when it was hashed, or is cut short meanwhile; named.
          NotPermitted, StorageFailed: a file cannot be opened.
        """
        spans = self._spans(block)
        if self.owner is not None or len(spans) > MAX_INLINE_FILES:
            yield None
            return
        borrowed: list[OpenFile] = []
        try:
            for index, _, _ in spans:
                borrowed.append(self._borrow(index))
            lent = [(file, offset, count) for file, (_, offset, count) in zip(borrowed, spans, strict=True)]
            is_at_hand = all(file.is_cached(offset, count) for file, offset, count in lent)
            yield [(file.descriptor, offset, count) for file, offset, count in lent] if is_at_hand else None
        except ContentChanged as e:  # whoever has sent from a descriptor does not know what file that is
            for file, (index, offset, count) in zip(borrowed, spans, strict=False):
                if os.fstat(file.descriptor).st_size < offset + count:
                    raise self._cut_short(index) from e
            raise
        finally:
            for file in borrowed:
                self._files.give_back(file)

    def read(self, block: Block) -> bytearray:
        """Read a block, and have the system read ahead in its last file.

        Raises:
          ContentChanged, NotPermitted, StorageFailed: as `reading`.
        """
        made = bytearray(block.length)
        view = memoryview(made)
        with closing(self._files_of(self._spans(block))) as opened:
            for index, descriptor, offset, count in opened:
                if count == len(view):
                    os.posix_fadvise(descriptor, offset, READ_AHEAD_BYTES, os.POSIX_FADV_WILLNEED)
                self._read_fully(index, descriptor, offset, view[:count])
                view = view[count:]
        return made

    def check(self, pieces: PieceSet, *, progress: Progress, cancelled: Cancelled, from_disk: bool = False) -> PieceSet:
        """Hash pieces on disk and return those that match; may run in several threads at once.

        A piece in a file that is missing, too short or of another kind, or where the disk fails, does not match.
        `progress` is told how many bytes more are done. `from_disk`: as of `PieceReader`.

        Raises:
          NotPermitted: a file may not be read.
          Stopped: `cancelled` answered yes.
        """
        return check_pieces(self._tree, pieces, progress, cancelled, from_disk=from_disk)

    def read_from_disk(self, piece: PieceIndex) -> bytearray:
        """Read a piece past the system's memory, as far as the system lets it go.

        Raises:
          ContentChanged, NotPermitted, StorageFailed: as `reading`.
        """
        with PieceReader(self._tree, from_disk=True) as reader:
            return reader.read(piece)

    def close(self) -> None:
        """Close the files, each that is lent as soon as it is given back; closing twice is allowed."""
        self.is_closed = True
        self._files.forget(self)

    @abstractmethod
    def _check_unchanged(self, index: int, descriptor: int) -> None:
        """Raise an error if an open file is not what it should be."""

    def _gone(self, index: int) -> InterFilesError:
        """The error for a file that is not there."""
        return changed_error(self._tree.path(index), is_gone=True)

    def _cut_short(self, index: int) -> InterFilesError:
        """The error for a file that ends too early."""
        return changed_error(self._tree.path(index))

    def _spans(self, block: Block) -> list[tuple[int, int, int]]:
        return self.manifest.spans(self.manifest.geometry.piece_offset(block.piece) + block.offset, block.length)

    def _files_of(self, spans: list[Span]) -> Generator[tuple[int, int, int, int]]:
        """Each file's index and descriptor, with offset and count; good until the next is asked for.

        Files that are few are kept open for the next block; many would drive all others out of `OpenFiles`.
        """
        if len(spans) <= MAX_INLINE_FILES:
            for index, offset, count in spans:
                file = self._borrow(index)
                try:
                    yield index, file.descriptor, offset, count
                finally:
                    self._files.give_back(file)
            return
        if self.is_closed:
            raise ValueError("the store is closed")
        with acting_as(self.owner), self._tree.walking() as walk:  # once for all of them: each is small
            for index, offset, count in spans:
                try:
                    descriptor = self._open(walk, index)
                except OSError as e:
                    raise self._failure(index, e) from e
                try:
                    self._check_unchanged(index, descriptor)
                    yield index, descriptor, offset, count
                finally:
                    os.close(descriptor)

    def _borrow(self, index: int) -> OpenFile:
        """Borrow a file, which has not changed, from the open files."""
        if self.is_closed:
            raise ValueError("the store is closed")
        try:
            file = self._files.borrow(self, index, self._open_alone)
        except OSError as e:
            raise self._failure(index, e) from e
        try:
            self._check_unchanged(index, file.descriptor)
        except BaseException:
            self._files.give_back(file)
            raise
        return file

    def _failure(self, index: int, error: OSError) -> InterFilesError:
        if error.errno in GONE:
            return self._gone(index)
        return failure(error, self._tree.path(index), "read")

    def _open_alone(self, index: int) -> int:
        with acting_as(self.owner):
            return self._open(self._tree, index)

    def _open(self, tree: Tree | Walk, index: int) -> int:
        """Open a file, acting as the owner."""
        descriptor = tree.open(index, self._flags)
        if self.owner is not None and is_fuse(descriptor):
            os.close(descriptor)  # elsewhere, on the loop for one, closing could take for ever
            shown = printable(str(self._tree.path(index)))
            raise NotPermitted(f"{shown} is on a file system that a program of a user's answers for; use another disk")
        return descriptor

    def _read_fully(self, index: int, descriptor: int, offset: int, view: memoryview) -> None:
        while view:
            try:
                count = os.preadv(descriptor, [view], offset)
            except OSError as e:
                raise failure(e, self._tree.path(index), "read") from e
            if count == 0:
                raise self._cut_short(index)
            offset, view = offset + count, view[count:]


def keyed_digest(store: PieceStore, piece: PieceIndex, key: bytes) -> bytes:
    """BLAKE3 of a piece on disk, keyed with 32 bytes; empty if the piece does not match its hash. Called in a thread.

    Raises:
      ContentChanged, NotPermitted, StorageFailed: as `PieceStore.read`.
    """
    data = store.read_from_disk(piece)
    if blake3(data).digest() != store.manifest.piece_hash(piece):
        return b""
    return blake3(data, key=key).digest()


def check_pieces(
    tree: Tree, pieces: PieceSet, progress: Progress, cancelled: Cancelled, *, from_disk: bool = False
) -> PieceSet:
    """As `PieceStore.check`, of any content that may or may not be that of the tree's manifest."""
    manifest = tree.manifest
    matching = PieceSet(manifest.piece_count)
    with PieceReader(tree, from_disk=from_disk) as reader:
        for piece in pieces:
            if cancelled():
                raise Stopped
            try:
                if reader.hash(piece) == manifest.piece_hash(piece):
                    matching.add(piece)
            except (ContentChanged, StorageFailed):
                pass  # it is not there, so it does not match
            progress(manifest.geometry.piece_length(piece))
    return matching
