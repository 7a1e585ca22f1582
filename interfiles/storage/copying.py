"""An own copy of an uploaded content."""

import errno
import fcntl
import os
from contextlib import ExitStack, suppress
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
    copy = TreeCopy(scanned, destination)
    try:
        for index, stamp in enumerate(scanned.stamps):
            source = copy.open_source(index)
            try:
                copy.add(source, stamp, progress=progress, cancelled=cancelled)
            finally:
                os.close(source)
        return copy.end()
    except BaseException:
        copy.abandon()
        raise


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


class TreeCopy:
    """A copy under way, to which files are added in the order of the manifest; either `end` or `abandon` closes it.

    Raises, from every method: as `copy_tree`. All are called in threads.
    """

    def __init__(self, scanned: Scan, destination: Path) -> None:
        """Make all directories. The stamps of `scanned` may be missing: then no file is looked up by its path."""
        self._scanned: Final = scanned
        manifest = draft_manifest(scanned, choose_piece_size(scanned.size))
        self._source: Final = Tree(scanned.root, manifest)
        self._name: Final = os.fsencode(destination.name)
        self._added = 0
        self._is_open = True
        self._can_clone = True
        self._can_copy_in_kernel = True
        with translated(destination, "written"), ExitStack() as opened:
            self._parent: Final = open_directory(destination.parent)
            opened.callback(os.close, self._parent)
            self._anchor: Final = _make_root(self._parent, destination, manifest)
            opened.callback(os.close, self._anchor)
            self._target: Final = Tree(destination, manifest, self._anchor)
            try:
                make_directories(self._anchor, manifest)
            except BaseException:
                with suppress(OSError):
                    remove_below(self._parent, self._name)
                raise
            self._opened: Final = opened.pop_all()

    def open_source(self, index: int) -> int:
        """Open a file of the original by its path."""
        try:
            return self._source.open(index)
        except OSError as e:
            if e.errno in GONE:
                raise changed_error(self._source.path(index), is_gone=True) from e
            raise failure(e, self._source.path(index), "read") from e

    def add(self, source: int, stamp: Stamp, *, progress: Progress, cancelled: Cancelled) -> None:
        """Copy the next file from an open descriptor, whose stamp must be this one before and after."""
        if cancelled():
            raise Stopped
        index, self._added = self._added, self._added + 1
        entry = self._target.manifest.files[index].entry
        with translated(self._target.root, "written"):
            self._compare(index, source, stamp)
            target = open_below(self._anchor, self._target.below_anchor(entry.path), os.O_WRONLY | os.O_CREAT)
            try:
                os.fchmod(target, 0o700 if entry.executable else 0o600)
                self._copy_content(index, source, target, progress, cancelled)
            finally:
                os.close(target)
            self._compare(index, source, stamp)

    def end(self) -> Scan:
        """Make it whole and durable."""
        manifest = self._target.manifest
        with translated(self._target.root, "written"):
            for entry in manifest.entries:
                if isinstance(entry, SymlinkEntry):
                    make_symlink(self._anchor, entry)
            paths = [self._target.below_anchor(file.entry.path) for file in manifest.files]
            if manifest.is_directory:
                paths += [*(path.encode() for path in directories(manifest)), b"."]
            sync_paths(self._anchor, paths)
            stamps = tuple([stamp_of(self._target.status(index)) for index in range(len(manifest.files))])
            sync_descriptor(self._parent)
        self._opened.close()
        self._is_open = False
        return replace(self._scanned, root=self._target.root, stamps=stamps)

    def abandon(self) -> None:
        """Remove what was made; nothing happens after `end`."""
        if self._is_open:
            with self._opened, suppress(OSError):
                remove_below(self._parent, self._name)

    def _compare(self, index: int, source: int, stamp: Stamp) -> None:
        if stamp_of(os.fstat(source)) != stamp:
            raise changed_error(self._source.path(index))

    def _copy_content(self, index: int, source: int, target: int, progress: Progress, cancelled: Cancelled) -> None:
        size = self._target.manifest.files[index].entry.size
        if size and self._can_clone:
            try:
                fcntl.ioctl(target, _FICLONE, source)
            except OSError as e:
                if e.errno not in _UNSUPPORTED:
                    raise
                self._can_clone = False
                self._check_space(index)
            else:
                progress(size)
                return
        os.ftruncate(target, size)
        for start, end, is_data in Holes(source).segments(0, size):
            if is_data:
                self._copy_range(index, source, target, start, end, progress, cancelled)
            else:
                progress(end - start)

    def _check_space(self, first: int) -> None:
        """Check that there is room for the files from `first` on, now that they share no blocks."""
        files = self._source.manifest.files[first:]
        needed = sum(file.entry.size for file in files)
        if self._scanned.stamps:  # they can be looked up, and may be sparse
            needed = 0
            for index in range(first, first + len(files)):
                try:
                    needed += self._source.status(index).st_blocks * STAT_BLOCK_BYTES
                except OSError as e:
                    raise changed_error(self._source.path(index), is_gone=True) from e
        name = self._source.manifest.name
        check_space(self._anchor, self._target.root.parent, name, needed_bytes=needed, needed_files=len(files))

    def _copy_range(
        self,
        index: int,
        source: int,
        target: int,
        start: int,
        end: int,
        progress: Progress,
        cancelled: Cancelled,
    ) -> None:
        while start < end:
            if cancelled():
                raise Stopped
            count = self._copy_some(source, target, start, min(end - start, _STEP_BYTES))
            if count == 0:
                raise changed_error(self._source.path(index))
            progress(count)
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
