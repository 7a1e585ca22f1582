"""A content read through descriptors that somebody else has opened, and lends: no path is looked up here.

What comes is whatever they chose to hand over. So each descriptor is looked at before it is read, and again afterwards,
and only positions are used that are given with each call: the offset and the flags of an open file are theirs too.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from interfiles.errors import ContentChanged, RemoteProtocolError, printable
from interfiles.geometry import MIB
from interfiles.manifest import Manifest
from interfiles.storage import Stopped
from interfiles.storage.copying import TreeCopy
from interfiles.storage.failures import failure
from interfiles.storage.hashing import BUFFER_BYTES, Cancelled, PieceHasher, Progress
from interfiles.storage.scan import Stamp, stamp_of
from interfiles.storage.sparse import Holes

_TURN_BYTES: Final = 256 * MIB  # some 50 ms of work, and others have the thread


def status_of(descriptor: int, *, writable: bool = False) -> os.stat_result:
    """What a descriptor that came from somebody else stands for, fit to be read from (or written to).

    Raises:
      RemoteProtocolError: it cannot be, whatever it is: opened for a path only, or the wrong way.
    """
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    wanted = (os.O_WRONLY, os.O_RDWR) if writable else (os.O_RDONLY, os.O_RDWR)
    if flags & os.O_PATH or flags & os.O_ACCMODE not in wanted:
        raise RemoteProtocolError(f"a descriptor came that cannot be {'written to' if writable else 'read from'}")
    return os.fstat(descriptor)


def stamp_of_file(descriptor: int, size: int, path: Path) -> Stamp:
    """The stamp of a file that was handed over as the one at `path`, of which `size` bytes were announced.

    Raises:
      RemoteProtocolError: it is no regular file, or not open for reading.
      ContentChanged: it has another size.
    """
    status = status_of(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise RemoteProtocolError(f"the descriptor of {printable(str(path))} is of no regular file")
    if status.st_size != size:
        raise _changed(path)
    return stamp_of(status)


class HandedContent:
    """Hashes the content of `draft`, a batch of files after the other in the order of its manifest; or copies it.

    `hashes` and `stamps` are those of what was hashed; both are complete after the last batch.

    Raises, from `advance`:
      RemoteProtocolError, ContentChanged: a file is not what was announced, or changed meanwhile.
      NoSpace, NotPermitted, StorageFailed: a disk refuses.
      Stopped: `cancelled` answered yes.
    """

    def __init__(self, root: Path, draft: Manifest, copy: TreeCopy | None = None) -> None:
        self.hashes: Final = bytearray()
        self.stamps: Final[list[Stamp]] = []
        self._root: Final = root
        self._draft: Final = draft
        self._copy: Final = copy
        self._buffer: Final = memoryview(bytearray(BUFFER_BYTES if copy is None else 0))
        self._piece = PieceHasher()
        self._done = 0  # bytes of the content
        self._batch: Sequence[int] = ()
        self._position = 0  # in the file that is hashed now

    @property
    def files_left(self) -> int:
        """Files whose descriptors are still to come."""
        return len(self._draft.files) - len(self.stamps)

    def take(self, descriptors: Sequence[int]) -> None:
        """The next files' descriptors, which stay the lender's to close, after the last `advance`."""
        self._batch = list(descriptors)

    def advance(self, *, progress: Progress, cancelled: Cancelled) -> bool:
        """Work for a while, in a thread; return whether the batch is done."""
        left = _TURN_BYTES
        while self._batch and left > 0:
            if self._copy is not None:
                left -= self._copy_one(self._copy, progress, cancelled)
            else:
                left -= self._hash_some(left, progress, cancelled)
        return not self._batch

    def finish(self) -> None:
        """The last file is done."""
        if self._done % self._draft.piece_size:
            self._end_piece()

    def _next(self) -> tuple[int, int, Path]:
        """The descriptor, size and path of the file that is its turn."""
        index = len(self.stamps) - (1 if self._position else 0)
        entry = self._draft.files[index].entry
        return self._batch[0], entry.size, self._root / entry.path if self._draft.is_directory else self._root

    def _copy_one(self, copy: TreeCopy, progress: Progress, cancelled: Cancelled) -> int:
        descriptor, size, path = self._next()
        stamp = stamp_of_file(descriptor, size, path)
        copy.add(descriptor, stamp, progress=progress, cancelled=cancelled)
        self.stamps.append(stamp)
        self._batch = self._batch[1:]
        return size + 1

    def _hash_some(self, most: int, progress: Progress, cancelled: Cancelled) -> int:
        descriptor, size, path = self._next()
        if not self._position:
            self.stamps.append(stamp_of_file(descriptor, size, path))
        stop = min(size, self._position + most)
        for data in _read(descriptor, self._position, stop, self._buffer, path):
            if cancelled():
                raise Stopped
            self._add(data)
            progress(data if isinstance(data, int) else len(data))
        count, self._position = stop - self._position, stop
        if stop == size:
            if stamp_of_file(descriptor, size, path) != self.stamps[-1]:
                raise _changed(path)
            self._batch, self._position = self._batch[1:], 0
        return count + 1  # an empty file is work too

    def _add(self, data: memoryview | int) -> None:
        """Hash the next bytes of the content, which may lie in several pieces."""
        left = data if isinstance(data, int) else len(data)
        while left:
            count = min(left, self._draft.piece_size - self._done % self._draft.piece_size)
            if isinstance(data, int):
                self._piece.update(count)
            else:
                self._piece.update(data[:count])
                data = data[count:]
            self._done, left = self._done + count, left - count
            if not self._done % self._draft.piece_size:
                self._end_piece()

    def _end_piece(self) -> None:
        self.hashes.extend(self._piece.digest())
        self._piece = PieceHasher()


def _read(descriptor: int, start: int, stop: int, buffer: memoryview, path: Path) -> Iterator[memoryview | int]:
    """A range of an open file in order, a buffer at a time: data, valid until the next step, or a hole's length."""
    try:
        for begin, end, is_data in Holes(descriptor).segments(start, stop):
            while begin < end:
                count = min(end - begin, len(buffer))
                if not is_data:
                    yield count
                elif (count := os.preadv(descriptor, [buffer[:count]], begin)) == 0:
                    raise _changed(path)
                else:
                    yield buffer[:count]
                begin += count
    except OSError as e:
        raise failure(e, path, "read") from e


def _changed(path: Path) -> ContentChanged:
    return ContentChanged(
        f"{printable(str(path))} changed while it was read; upload it again when nothing writes to it"
    )
