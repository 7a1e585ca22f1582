"""Removing a content from where a person has it: what its manifest names, and nothing else that lies beside it."""

import errno
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from interfiles.manifest import Manifest
from interfiles.storage.failures import translated
from interfiles.storage.tree import Tree, open_directory, parent_below

# Gone already, or something else stands in its place: either way nothing of ours is left there.
_NOTHING_OF_OURS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR})
_STILL_IN_USE: Final = frozenset({errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY})


def remove_content(root: Path, manifest: Manifest) -> None:
    """Remove the files, symlinks and then empty directories of `manifest` at `root`; called in a thread.

    Nothing is followed out of `root`, and a directory that holds anything else stays.

    Raises:
      NotPermitted, StorageFailed: something could not be removed.
    """
    tree = Tree(root, manifest)
    with translated(root, "removed"):
        with suppress(FileNotFoundError, NotADirectoryError), tree.anchor() as anchor:
            for entry in manifest.entries:
                _remove(anchor, tree.below_anchor(entry.path))
            if manifest.is_directory:
                for directory in _directories(manifest):
                    _remove(anchor, directory, is_directory=True)
        if manifest.is_directory:
            _remove_root(root)


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


def _remove_root(root: Path) -> None:
    try:
        os.close(open_directory(root))  # a symlink in the root's place is not ours
        root.rmdir()
    except OSError as e:
        if e.errno not in _NOTHING_OF_OURS | _STILL_IN_USE:
            raise
