"""Removing a content from where a person has it: what its manifest names, and nothing else that lies beside it."""

import errno
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from interfiles.manifest import Manifest
from interfiles.storage.failures import translated
from interfiles.storage.places import Place, open_place
from interfiles.storage.tree import open_below, parent_below

# Gone already, or something else stands in its place: either way nothing of ours is left there.
_NOTHING_OF_OURS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})
_STILL_IN_USE: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


def remove_content(root: Path, manifest: Manifest, place: Place | None = None) -> None:
    """Remove the files, symlinks and then empty directories of `manifest` at `root`; called in a thread.

    Nothing is followed out of `root`, and a directory that holds anything else stays. `place`: which directory `root`
    must be in.

    Raises:
      NotPermitted, StorageFailed: something could not be removed.
    """
    name = os.fsencode(root.name)
    with translated(root, "removed"), suppress(FileNotFoundError, NotADirectoryError):
        parent = open_place(root.parent, place, os.O_PATH)
        try:
            if manifest.is_directory:
                _remove_below(parent, name, manifest)
            _remove(parent, name, is_directory=manifest.is_directory)
        finally:
            os.close(parent)


def _remove_below(parent: int, name: bytes, manifest: Manifest) -> None:
    try:
        anchor = open_below(parent, name, os.O_PATH | os.O_DIRECTORY)
    except OSError as e:
        if e.errno not in _NOTHING_OF_OURS:
            raise
        return
    try:
        for entry in manifest.entries:
            _remove(anchor, entry.path.encode())
        for directory in _directories(manifest):
            _remove(anchor, directory, is_directory=True)
    finally:
        os.close(anchor)


def _directories(manifest: Manifest) -> list[bytes]:
    """Every directory below the root that an entry implies, the deepest first."""
    found = {parent for entry in manifest.entries for parent in PurePosixPath(entry.path).parents}
    return [os.fsencode(path) for path in sorted(found, key=lambda p: len(p.parts), reverse=True) if path.parts]


def _remove(anchor: int, path: bytes, *, is_directory: bool = False) -> None:
    try:
        with parent_below(anchor, path) as (directory, name):
            if is_directory:
                os.rmdir(name, dir_fd=directory)
            else:
                os.unlink(name, dir_fd=directory)
    except IsADirectoryError:
        _remove(anchor, path, is_directory=True)  # an entry that is an empty directory
    except OSError as e:
        if e.errno not in _NOTHING_OF_OURS | _STILL_IN_USE:
            raise


def remove_own_copy(path: Path, manifest: Manifest) -> None:
    """Remove a copy that the daemon made for itself, and the directory made for it."""
    remove_content(path, manifest)
    with suppress(OSError):
        path.parent.rmdir()
