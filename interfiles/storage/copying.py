"""An own copy of an uploaded content."""

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from interfiles.errors import DestinationExists, printable
from interfiles.geometry import MIB, choose_piece_size
from interfiles.manifest import Manifest, SymlinkEntry
from interfiles.storage import Stopped
from interfiles.storage.failures import GONE, failure, translated
from interfiles.storage.finishing import make_symlink
from interfiles.storage.hashing import Cancelled, Progress, changed_error, draft_manifest
from interfiles.storage.part_layout import STAT_BLOCK_BYTES, check_space, directories, make_directories
from interfiles.storage.scan import Scan, Stamp, stamp_of
from interfiles.storage.sparse import Holes
from interfiles.storage.syncing import sync_descriptor, sync_paths
from interfiles.storage.tree import Tree, open_below, open_directory, open_directory_below, remove_below

_FICLONE: Final = 0x40049409
_STEP_BYTES: Final = 16 * MIB  # between two looks at `cancelled`
_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM})


def copy_tree(scanned: Scan, destination: Path, *, progress: Progress, cancelled: Cancelled) -> Scan:
    """Copy what was scanned to `destination`, which must not exist, durably, and return the scan of the copy.

    Shares blocks with the original where the file system can, else the kernel copies; holes stay holes. `progress` is
    told how many bytes more are done. What a failed call has made is removed.

    Raises:
      ContentChanged: a file is not what was scanned.
      NoSpace, NotPermitted, StorageFailed, DestinationExists: the file system refuses.
      Stopped: `cancelled` answered yes.
    """
    manifest = draft_manifest(scanned, choose_piece_size(scanned.size))
    name = os.fsencode(destination.name)
    with translated(destination, "written"):
        parent = open_directory(destination.parent)
        try:
            anchor = _make_root(parent, destination, manifest)
            try:
                stamps = _Copying(scanned, manifest, destination, anchor, progress, cancelled).perform()
                sync_descriptor(parent)
            except BaseException:
                with suppress(OSError):
                    remove_below(parent, name)
                raise
            finally:
                os.close(anchor)
        finally:
            os.close(parent)
    return replace(scanned, root=destination, stamps=stamps)


def _make_root(parent: int, destination: Path, manifest: Manifest) -> int:
    """Make the directory, or the single file empty, and return the tree's anchor."""
    name = os.fsencode(destination.name)
    try:
        if not manifest.is_directory:
            os.close(open_below(parent, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            return os.dup(parent)
        os.mkdir(name, 0o700, dir_fd=parent)
        return open_directory_below(parent, name)
    except FileExistsError as e:
        raise DestinationExists(f"{printable(str(destination))} exists already; remove it") from e


class _Copying:
    """One copy under way, into the open directory `anchor`."""

    def __init__(
        self,
        scanned: Scan,
        manifest: Manifest,
        destination: Path,
        anchor: int,
        progress: Progress,
        cancelled: Cancelled,
    ) -> None:
        self._stamps: Final = scanned.stamps
        self._source: Final = Tree(scanned.root, manifest)
        self._target: Final = Tree(destination, manifest, anchor)
        self._anchor: Final = anchor
        self._progress: Final = progress
        self._cancelled: Final = cancelled
        self._can_clone = True
        self._can_copy_in_kernel = True

    def perform(self) -> tuple[Stamp, ...]:
        """Make everything in the copy, and return the stamps of its files."""
        manifest = self._target.manifest
        make_directories(self._anchor, manifest)
        for index in range(len(manifest.files)):
            self._copy_file(index)
        for entry in manifest.entries:
            if isinstance(entry, SymlinkEntry):
                make_symlink(self._anchor, entry)
        paths = [self._target.below_anchor(file.entry.path) for file in manifest.files]
        if manifest.is_directory:
            paths += [*(path.encode() for path in directories(manifest)), b"."]
        sync_paths(self._anchor, paths)
        return tuple([stamp_of(self._target.status(index)) for index in range(len(manifest.files))])

    def _copy_file(self, index: int) -> None:
        if self._cancelled():
            raise Stopped
        entry = self._target.manifest.files[index].entry
        source = self._open_source(index)
        try:
            self._compare(index, source)
            path = self._target.below_anchor(entry.path)
            target = open_below(self._anchor, path, os.O_WRONLY | os.O_CREAT)
            try:
                os.fchmod(target, 0o700 if entry.executable else 0o600)
                self._copy_content(index, source, target)
            finally:
                os.close(target)
            self._compare(index, source)
        finally:
            os.close(source)

    def _open_source(self, index: int) -> int:
        try:
            return self._source.open(index)
        except OSError as e:
            if e.errno in GONE:
                raise changed_error(self._source.path(index)) from e
            raise failure(e, self._source.path(index), "read") from e

    def _compare(self, index: int, source: int) -> None:
        if stamp_of(os.fstat(source)) != self._stamps[index]:
            raise changed_error(self._source.path(index))

    def _copy_content(self, index: int, source: int, target: int) -> None:
        size = self._stamps[index].size
        if size and self._can_clone:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as e:
                if e.errno not in _UNSUPPORTED:
                    raise
                self._can_clone = False
                self._check_space(index)
            else:
                self._progress(size)
                return
        os.ftruncate(target, size)
        for start, end, is_data in Holes(source).segments(0, size):
            if is_data:
                self._copy_range(index, source, target, start, end)
            else:
                self._progress(end - start)

    def _check_space(self, first: int) -> None:
        """Check that there is room for the files from `first` on, now that they share no blocks."""
        remaining, needed = range(first, len(self._stamps)), 0
        for index in remaining:
            try:
                needed += self._source.status(index).st_blocks * STAT_BLOCK_BYTES
            except OSError as e:
                raise changed_error(self._source.path(index)) from e
        name = self._source.manifest.name
        check_space(self._anchor, self._target.root.parent, name, needed_bytes=needed, needed_files=len(remaining))

    def _copy_range(self, index: int, source: int, target: int, start: int, end: int) -> None:
        while start < end:
            if self._cancelled():
                raise Stopped
            count = self._copy_some(source, target, start, min(end - start, _STEP_BYTES))
            if count == 0:
                raise changed_error(self._source.path(index))
            self._progress(count)
            start += count

    def _copy_some(self, source: int, target: int, offset: int, count: int) -> int:
        if self._can_copy_in_kernel:
            try:
                return os.copy_file_range(source, target, count, offset, offset)
            except OSError as e:
                if e.errno not in _UNSUPPORTED:
                    raise
                self._can_copy_in_kernel = False
        return os.pwrite(target, os.pread(source, min(count, MIB), offset), offset)
