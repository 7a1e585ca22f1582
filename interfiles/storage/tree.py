"""The files of a content on disk, opened without following a symlink at the content's root or anywhere below it."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from interfiles.manifest import Manifest

# O_NONBLOCK: a FIFO in a file's place must not block the open; files ignore it.
_FILE_FLAGS: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# O_PATH: passing through a directory takes no right to list it.
_PASSING_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Tree:
    """The content of `manifest` at `root`: a directory, or the single file itself.

    Its paths are relative to an anchor: the directory itself, or the one that the single file is in. `held` is its
    descriptor, which its owner keeps open; without one it is opened by its path each time, so that nothing stays open
    between two uses. `is_strict`: no symlink is followed on the way to the root either.
    """

    root: Path
    manifest: Manifest
    held: int | None = None
    is_strict: bool = False

    @contextmanager
    def anchor(self) -> Iterator[int]:
        """Lend the descriptor that paths are relative to.

        Raises:
          OSError: the directory is not there.
        """
        if self.held is not None:
            yield self.held
            return
        if self.is_strict:
            opened = open_strictly(self.root if self.manifest.is_directory else self.root.parent)
        elif self.manifest.is_directory:
            opened = os.open(self.root, _PASSING_FLAGS | os.O_NOFOLLOW)
        else:  # symlinks on the way to what a person named are theirs, and followed
            opened = os.open(self.root.parent, _PASSING_FLAGS)
        try:
            yield opened
        finally:
            os.close(opened)

    def below_anchor(self, path: str) -> bytes:
        """Where the entry at `path` is, relative to the anchor."""
        return path.encode() if self.manifest.is_directory else os.fsencode(self.root.name)

    def open(self, index: int, flags: int = os.O_RDONLY) -> int:
        """Open the file at `index` of `manifest.files`.

        Raises:
          OSError: one of `failures.GONE` where it is not there, or something else is.
        """
        with self.walking() as walk:
            return walk.open(index, flags)

    def status(self, index: int) -> os.stat_result:
        """Look up the file at `index` without opening it.

        Raises:
          OSError: as `open`.
        """
        with self.walking() as walk:
            return walk.status(index)

    @contextmanager
    def walking(self) -> Iterator["Walk"]:
        """Go from file to file, which is quicker than to come from the root each time."""
        walk = Walk(self)
        try:
            yield walk
        finally:
            walk.close()

    def path(self, index: int) -> Path:
        """Where the file at `index` is, for messages."""
        return self.root / self.manifest.files[index].entry.path if self.manifest.is_directory else self.root


class Walk:
    """The files of a tree one after the other; the directory that the last was in stays open for the next.

    `Tree.walking` makes it. Raises: as the methods of `Tree` by the same names.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._stack = ExitStack()  # holds the anchor, from the first file on
        self._anchor: int | None = None
        self._below: tuple[bytes, int] | None = None  # the directory that the last file was in, if not the anchor

    def close(self) -> None:
        self._leave()
        self._stack.close()

    def open(self, index: int, flags: int = os.O_RDONLY) -> int:
        descriptor = self.make(index, flags)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, "It is not a regular file")
        return descriptor

    def make(self, index: int, flags: int, mode: int = 0o600) -> int:
        """Open whatever is at a file's path; with O_CREAT, a file with a mode if there is nothing."""
        directory, name = self._find(index)
        return os.open(name, flags | _FILE_FLAGS, mode, dir_fd=directory)

    def status(self, index: int) -> os.stat_result:
        directory, name = self._find(index)
        return os.stat(name, dir_fd=directory, follow_symlinks=False)

    def _find(self, index: int) -> tuple[int, bytes]:
        parent, _, name = self._tree.below_anchor(self._tree.manifest.files[index].entry.path).rpartition(b"/")
        if self._anchor is None:
            self._anchor = self._stack.enter_context(self._tree.anchor())
        if not parent:
            return self._anchor, name
        if self._below is None or self._below[0] != parent:
            self._leave()
            self._below = (parent, open_below(self._anchor, parent, _PASSING_FLAGS))
        return self._below[1], name

    def _leave(self) -> None:
        if self._below is not None:
            os.close(self._below[1])
            self._below = None


def open_directory(path: Path) -> int:
    """Open a directory that a person named: symlinks on the way to it, and itself, are theirs and followed.

    Raises:
      OSError: it is not there, is no directory, or may not be read.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_strictly(path: Path, flags: int = os.O_PATH) -> int:
    """Open the directory at an absolute path with no symlink anywhere on it.

    Raises:
      OSError: a directory is not there or may not be passed; ENOTDIR or ELOOP of a symlink.
    """
    directory = os.open("/", _PASSING_FLAGS)
    try:
        for name in path.parts[1:]:
            above, directory = directory, os.open(name, _PASSING_FLAGS | os.O_NOFOLLOW, dir_fd=directory)
            os.close(above)
        return os.open(".", flags | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)


@contextmanager
def parent_below(anchor: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Lend the directory that `path`, relative to `anchor`, lies in, with the path's last component.

    Raises:
      OSError: a directory is not there, or a symlink or something else is in its place.
    """
    *parents, name = path.split(b"/")
    directory = anchor
    try:
        for component in parents:
            above, directory = directory, os.open(component, _PASSING_FLAGS | os.O_NOFOLLOW, dir_fd=directory)
            if above != anchor:
                os.close(above)
        yield directory, name
    finally:
        if directory != anchor:
            os.close(directory)


def open_below(anchor: int, path: bytes, flags: int, mode: int = 0o600) -> int:
    """Open what is at `path`, relative to `anchor`. Never follows a symlink, never waits for a FIFO.

    Raises:
      OSError: as `parent_below`.
    """
    with parent_below(anchor, path) as (directory, name):
        return os.open(name, flags | _FILE_FLAGS, mode, dir_fd=directory)


def open_directory_below(anchor: int, path: bytes) -> int:
    """Open a directory below `anchor`; the empty path is the anchor itself.

    Raises:
      OSError: as `parent_below`.
    """
    return open_below(anchor, path or b".", _DIRECTORY_FLAGS)


def link_target(directory: int, name: bytes) -> bytes | None:
    """Where a symlink in an open directory points to, None of what is no symlink.

    Raises:
      OSError: nothing is there.
    """
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        return None


def remove_below(directory: int, name: bytes) -> None:
    """Remove whatever `name` is in an open directory, with all that is in it, symlinks as such; gone is fine.

    Raises:
      OSError: something in it cannot be removed.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        shutil.rmtree(os.fsdecode(name), dir_fd=directory)
