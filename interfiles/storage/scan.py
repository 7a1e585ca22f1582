"""Finds out what an uploaded path holds: every entry of the tree, and a stamp of every file.

The tree is walked by directory descriptors and no symlink in it is followed, so nothing outside it is ever opened. Each
file is opened once, which is the only honest test of the right to read it.
"""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from interfiles.errors import (
    ContentChanged,
    InterFilesError,
    InvalidManifest,
    PathNotFound,
    Refused,
    UsageError,
    printable,
)
from interfiles.manifest import DirectoryEntry, Entry, FileEntry, SymlinkEntry, check_entries
from interfiles.manifest_paths import MAX_DEPTH, MAX_ENTRIES
from interfiles.storage import Stopped
from interfiles.storage.failures import failure

# O_NONBLOCK: a FIFO that took a file's place a moment ago must not block the open.
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# What the system answers about a name that a directory has just listed, when it is now gone or of another kind.
_CHANGED_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ESTALE})
_MISSING_ERRORS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})

_KINDS: Final = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
}


@dataclass(frozen=True, slots=True)
class Stamp:
    """What tells a changed file from an unchanged one without reading it; `size` in bytes."""

    size: int
    mtime_ns: int
    inode: int
    device: int = field(compare=False)  # some file systems get another number at each boot


def stamp_of(status: os.stat_result) -> Stamp:
    """The stamp in the answer of stat, lstat or fstat."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


@dataclass(frozen=True, slots=True)
class Scan:
    """A file or directory as it was found.

    `root`: absolute, without symlinks: the file itself, or the directory that the entries' paths are relative to.
    `entries` are in a manifest's order and obey its rules; `stamps` are those of the file entries, in the same order.
    `size`: bytes in all files together.
    """

    root: Path
    name: str
    is_directory: bool
    entries: tuple[Entry, ...]
    stamps: tuple[Stamp, ...]
    size: int


def scan(path: Path, *, cancelled: Callable[[], bool]) -> Scan:
    """List the file or directory at `path`. A symlink at `path` itself is followed, but lends the result its name.

    Raises:
      PathNotFound: it is not there, or it is or holds something other than files, directories and symlinks.
      NotPermitted: it, or something in it, may not be read.
      UsageError: it is the root of the file system.
      Refused: a name or symlink breaks the rules of a manifest, or there is too much.
      ContentChanged: something in it changed during the scan.
      StorageFailed: the file system fails.
      Stopped: `cancelled` answered yes.
    """
    root, status = _locate(path)
    name = root.name if path.name in ("", "..") else path.name
    walk = _Walk(root, cancelled)
    try:
        descriptor = os.open(root, _OPEN_FLAGS)
    except OSError as e:
        raise _translated(e, root, listed=True) from e
    try:
        opened = _status(descriptor, root)
        if not os.path.samestat(status, opened):
            raise _changed(root)
        is_directory = stat.S_ISDIR(opened.st_mode)
        if is_directory:
            walk.directory(descriptor, "", 1)
        else:
            walk.add_file(name, opened)
    finally:
        os.close(descriptor)
    return walk.result(name, is_directory)


def _locate(path: Path) -> tuple[Path, os.stat_result]:
    try:
        root = Path(os.path.realpath(path, strict=True))
        status = os.lstat(root)
    except OSError as e:
        if e.errno in _MISSING_ERRORS:
            there = "is a symlink to nothing" if os.path.islink(path) else "does not exist"
            raise PathNotFound(f"{_shown(path)} {there}; name a file or directory that does") from e
        if e.errno == errno.ELOOP:
            raise PathNotFound(f"{_shown(path)} is a symlink that leads in a circle") from e
        raise _translated(e, path) from e
    except ValueError as e:
        raise PathNotFound(f"{_shown(path)} contains a NUL, which no path does") from e
    if root == Path(root.anchor):
        raise UsageError(f"{_shown(path)} is the whole file system; name a directory in it")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise _wrong_kind(path, status)
    return root, status


class _Walk:
    """Collects entries and stamps below one root."""

    def __init__(self, root: Path, cancelled: Callable[[], bool]) -> None:
        self._root: Final = root
        self._cancelled: Final = cancelled
        self._entries: Final[list[Entry]] = []
        self._stamps: Final[dict[str, Stamp]] = {}

    def add_file(self, path: str, status: os.stat_result) -> None:
        self._entries.append(FileEntry(path, status.st_size, bool(status.st_mode & stat.S_IXUSR)))
        self._stamps[path] = stamp_of(status)

    def directory(self, descriptor: int, prefix: str, depth: int) -> None:
        """Collect what is in an open directory; `prefix` is empty for the root and ends in a slash for others.

        `depth`: components in the paths of its children.
        """
        where = self._root / prefix
        before = _status(descriptor, where)
        try:
            with os.scandir(descriptor) as listing:
                children = list(listing)
        except OSError as e:
            raise _translated(e, where) from e
        if children and depth > MAX_DEPTH:
            raise Refused(f"{_shown(where)} is more than {MAX_DEPTH} levels deep, too deep to upload")
        for child in children:
            self._check_progress()
            try:
                self._child(descriptor, prefix, child, depth)
            except OSError as e:
                raise _translated(e, where / child.name, listed=True) from e
        if _status(descriptor, where).st_mtime_ns != before.st_mtime_ns:
            raise _changed(where)
        if prefix and not children:
            self._entries.append(DirectoryEntry(prefix[:-1]))

    def _check_progress(self) -> None:
        if self._cancelled():
            raise Stopped
        if len(self._entries) > MAX_ENTRIES:
            raise Refused(
                f"{_shown(self._root)} holds more than the {MAX_ENTRIES:,} files that can be uploaded at once"
            )

    def _child(self, parent: int, prefix: str, child: os.DirEntry[str], depth: int) -> None:
        path = prefix + child.name
        if child.is_symlink():
            self._entries.append(SymlinkEntry(path, os.readlink(child.name, dir_fd=parent)))
            return
        is_directory = child.is_dir(follow_symlinks=False)
        if not is_directory and not child.is_file(follow_symlinks=False):
            raise _wrong_kind(self._root / path, child.stat(follow_symlinks=False))
        descriptor = os.open(child.name, _OPEN_FLAGS, dir_fd=parent)
        try:
            status = _status(descriptor, self._root / path)
            if is_directory and stat.S_ISDIR(status.st_mode):
                self.directory(descriptor, f"{path}/", depth + 1)
            elif not is_directory and stat.S_ISREG(status.st_mode):
                self.add_file(path, status)
            else:
                raise _changed(self._root / path)
        finally:
            os.close(descriptor)

    def result(self, name: str, is_directory: bool) -> Scan:
        entries = tuple(sorted(self._entries, key=lambda entry: entry.path))
        try:
            size = check_entries(name, is_directory, entries)
        except InvalidManifest as e:
            raise Refused(f"{_shown(self._root)} cannot be uploaded: {e}") from e
        stamps = tuple([self._stamps[entry.path] for entry in entries if isinstance(entry, FileEntry)])
        return Scan(self._root, name, is_directory, entries, stamps, size)


def _status(descriptor: int, path: Path) -> os.stat_result:
    try:
        return os.fstat(descriptor)
    except OSError as e:
        raise _translated(e, path, listed=True) from e


def _translated(error: OSError, path: Path, *, listed: bool = False) -> InterFilesError:
    """The error of ours that says what the system said about `path`; `listed`: its directory had it a moment ago."""
    return _changed(path) if listed and error.errno in _CHANGED_ERRORS else failure(error, path, "read")


def _changed(path: Path) -> ContentChanged:
    return ContentChanged(f"{_shown(path)} changed while it was read; upload it again when nothing writes to it")


def _wrong_kind(path: Path, status: os.stat_result) -> PathNotFound:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown kind")
    return PathNotFound(f"{_shown(path)} is {kind}; only files, directories and symlinks can be uploaded")


def _shown(path: Path) -> str:
    return printable(str(path))
