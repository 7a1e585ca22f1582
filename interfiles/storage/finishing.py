"""From a complete part to the destination, through a crash at any step.

In the directory that both are in, three names tell how far an earlier attempt came:

    part     destination  aside
    yes      anything     -      nothing was moved yet
    yes      no           yes    the old content was moved aside, and is at `aside` until the new one is in place
    no       yes          -      the new content is in place
    no       yes          yes    the same, and the old one is still to be removed

A file is renamed over a file in one step, so that there is no moment without either. A directory cannot be: between two
renames neither is at the destination, but both are there under other names.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from interfiles.errors import DestinationExists, StorageFailed, printable
from interfiles.manifest import Manifest, SymlinkEntry
from interfiles.storage.existing import matches_existing
from interfiles.storage.failures import translated
from interfiles.storage.part_layout import directories, mode_of
from interfiles.storage.places import Place, open_place
from interfiles.storage.scan import Stamp, stamp_of
from interfiles.storage.syncing import sync_descriptor, sync_paths
from interfiles.storage.system import rename_exclusively, umask
from interfiles.storage.tree import (
    Tree,
    Walk,
    link_target,
    open_directory_below,
    parent_below,
    remove_below,
)

_log = structlog.get_logger()

_NO_MODES: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP})  # FAT, and shares that have none
_CANNOT_RENAME_EXCLUSIVELY: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})
_CANNOT_LINK: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS})


def finish(
    part: Path,
    destination: Path,
    manifest: Manifest,
    *,
    overwrite: bool,
    place: Place | None = None,
    mask: int | None = None,
) -> tuple[Stamp, ...]:
    """Give a complete part its modes, symlinks and name, durably, and return the stamps of its files.

    `destination` is in the directory of `part`, which must be `place`. `mask`: what is taken off the usual modes; None:
    this process's own. With `overwrite`, what is there is replaced and then removed. After a
    crash at any step, calling it again completes the work: so a job that was finishing calls this before all else, and
    does not open the part.

    Raises:
      DestinationExists: something is at the destination, and `overwrite` is False or it is no file or directory.
      NoSpace, NotPermitted, StorageFailed: the file system refuses, or the part is gone or not complete.
    """
    if destination.parent != part.parent:
        raise ValueError("a part is finished in the directory that it is in")
    with translated(destination, "written"):
        parent = open_place(part.parent, place)
        try:
            stamps = _finish(parent, part, destination, manifest, overwrite, umask() if mask is None else mask)
        finally:
            os.close(parent)
    return stamps


def _finish(
    parent: int, part: Path, destination: Path, manifest: Manifest, overwrite: bool, mask: int
) -> tuple[Stamp, ...]:
    aside = os.fsencode(part.with_suffix(".old").name)
    if _status(parent, os.fsencode(part.name)) is not None:
        move = _Move(parent, os.fsencode(part.name), destination, aside, overwrite)
        move.check()
        stamps = _complete(parent, part, manifest, mask)
        move.perform()
    else:  # an earlier attempt moved it
        stamps = _stamps_in_place(part, destination, manifest)
    sync_descriptor(parent)
    _remove_aside(parent, aside)
    return stamps


def _complete(parent: int, part: Path, manifest: Manifest, mask: int) -> tuple[Stamp, ...]:
    """Make everything as it shall be in the end, but for the name, and durable."""
    anchor = open_directory_below(parent, os.fsencode(part.name) if manifest.is_directory else b"")
    try:
        tree = Tree(part, manifest, anchor)
        with tree.walking() as walk:
            stamps = [_set_file_mode(tree, walk, index, mask) for index in range(len(manifest.files))]
        for entry in manifest.entries:
            if isinstance(entry, SymlinkEntry):
                make_symlink(anchor, entry)
        paths = [tree.below_anchor(file.entry.path) for file in manifest.files]
        if manifest.is_directory:
            inner = [path.encode() for path in reversed(directories(manifest))]
            for path in (*inner, b"."):  # the root last: until then nobody else can look inside
                _set_directory_mode(anchor, path, mask)
            paths += [*inner, b"."]
        sync_paths(anchor, paths)
        return tuple(stamps)
    finally:
        os.close(anchor)


def make_symlink(anchor: int, entry: SymlinkEntry) -> None:
    """Make a symlink below an open directory, unless it is there already.

    Raises:
      OSError: it cannot be made, or something else has its name.
    """
    with parent_below(anchor, entry.path.encode()) as (directory, name):
        try:
            os.symlink(entry.target.encode(), name, dir_fd=directory)
        except FileExistsError:
            if link_target(directory, name) != entry.target.encode():
                raise


def _set_file_mode(tree: Tree, walk: Walk, index: int, mask: int) -> Stamp:
    entry, status = tree.manifest.files[index].entry, walk.status(index)
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
        shown = printable(str(tree.path(index)))
        raise StorageFailed(f"{shown} has {status.st_size:,} bytes, not {entry.size:,}; pause and resume the download")
    mode = mode_of(entry) & ~mask
    if stat.S_IMODE(status.st_mode) != mode:
        descriptor = walk.open(index)
        try:
            _set_mode(descriptor, mode)
        finally:
            os.close(descriptor)
    return stamp_of(status)


def _set_directory_mode(anchor: int, path: bytes, mask: int) -> None:
    descriptor = open_directory_below(anchor, path)
    try:
        _set_mode(descriptor, 0o755 & ~mask)
    finally:
        os.close(descriptor)


def _set_mode(descriptor: int, mode: int) -> None:
    try:
        os.fchmod(descriptor, mode)
    except OSError as e:
        if e.errno not in _NO_MODES:
            raise


@dataclass(frozen=True, slots=True)
class _Move:
    """The part's way to its name; `part` and `aside` are names in the open directory `parent`."""

    parent: int
    part: bytes
    destination: Path
    aside: bytes
    overwrite: bool

    @property
    def target(self) -> bytes:
        return os.fsencode(self.destination.name)

    def check(self) -> None:
        """Refuse early what `perform` would refuse."""
        found = _status(self.parent, self.target)
        if found is None or self._is_linked(found):
            return
        shown = printable(str(self.destination))
        if not self.overwrite:
            raise DestinationExists(f"{shown} exists; move it away, or let the download overwrite it")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode) or stat.S_ISLNK(found.st_mode)):
            raise DestinationExists(f"{shown} is no file or directory; remove it")

    def perform(self) -> None:
        """Rename, replacing only what may be replaced."""
        self.check()
        found, part = _status(self.parent, self.target), os.lstat(self.part, dir_fd=self.parent)
        if found is not None and self._is_linked(found):
            os.unlink(self.part, dir_fd=self.parent)
        elif found is not None and not stat.S_ISDIR(found.st_mode) and not stat.S_ISDIR(part.st_mode):
            os.rename(self.part, self.target, src_dir_fd=self.parent, dst_dir_fd=self.parent)
        else:
            if found is not None:
                remove_below(self.parent, self.aside)
                self._rename(self.target, self.aside)
            self._rename(self.part, self.target)

    def _is_linked(self, found: os.stat_result) -> bool:
        """Whether the part has both names: a crash struck between linking it and removing the other name."""
        return os.path.samestat(found, os.lstat(self.part, dir_fd=self.parent))

    def _rename(self, source: bytes, target: bytes) -> None:
        try:
            _rename_without_replacing(self.parent, source, target)
        except FileExistsError as e:
            shown = printable(str(self.destination))
            raise DestinationExists(f"{shown} has just been made by someone else; move it away") from e


def _rename_without_replacing(parent: int, source: bytes, target: bytes) -> None:
    """As `rename_exclusively`, also on file systems that lack it, NFS among them."""
    try:
        rename_exclusively(parent, source, target)
    except OSError as e:
        if e.errno not in _CANNOT_RENAME_EXCLUSIVELY:
            raise
    else:
        return
    if not stat.S_ISDIR(os.lstat(source, dir_fd=parent).st_mode):
        try:
            os.link(source, target, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as e:
            if e.errno not in _CANNOT_LINK:
                raise
        else:
            os.unlink(source, dir_fd=parent)
            return
    # A directory replaces at most an empty one. For a file without hard links (exFAT), looking first must do.
    if _status(parent, target) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    os.rename(source, target, src_dir_fd=parent, dst_dir_fd=parent)


def _stamps_in_place(part: Path, destination: Path, manifest: Manifest) -> tuple[Stamp, ...]:
    stamps = matches_existing(destination, manifest, progress=lambda _: None, cancelled=lambda: False).stamps
    if stamps is None:
        raise StorageFailed(f"{printable(str(part))} is gone before it was finished; download it again")
    return stamps


def _remove_aside(parent: int, aside: bytes) -> None:
    try:
        remove_below(parent, aside)
    except (OSError, RecursionError) as e:  # the new content is in place, so the download has not failed
        _log.warning("replaced content remains", name=printable(os.fsdecode(aside)), reason=str(e))


def _status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return None
