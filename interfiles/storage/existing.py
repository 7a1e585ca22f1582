"""Compares what is at a destination already with a manifest."""

import os
import stat
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from interfiles.manifest import DirectoryEntry, Manifest, SymlinkEntry
from interfiles.piece_set import PieceSet
from interfiles.storage.failures import GONE, failure
from interfiles.storage.hashing import Cancelled, Progress
from interfiles.storage.part_layout import directories
from interfiles.storage.piece_store import check_pieces
from interfiles.storage.scan import Stamp, stamp_of
from interfiles.storage.tree import Tree, link_target, open_directory_below, parent_below


@dataclass(frozen=True, slots=True)
class Existing:
    """What is at a destination. `pieces` match the manifest.

    `stamps`: of all files, when everything matches and nothing more is there; else None.
    """

    pieces: PieceSet
    stamps: tuple[Stamp, ...] | None

    @property
    def is_identical(self) -> bool:
        return self.stamps is not None


def matches_existing(destination: Path, manifest: Manifest, *, progress: Progress, cancelled: Cancelled) -> Existing:
    """Compare whatever is at `destination` with the manifest by reading all of it.

    Nothing there has no piece that matches. `progress` is told how many bytes more are done.

    Raises:
      NotPermitted, StorageFailed: it may not or cannot be read.
      Stopped: `cancelled` answered yes.
    """
    before = same_structure(destination, manifest)
    pieces = check_pieces(Tree(destination, manifest), PieceSet.full(manifest.piece_count), progress, cancelled)
    is_identical = pieces.is_full and before == same_structure(destination, manifest)
    return Existing(pieces, before if is_identical else None)


def same_structure(destination: Path, manifest: Manifest) -> tuple[Stamp, ...] | None:
    """Compare all but the content: kinds, sizes, executable bits, symlink targets, and that nothing more is there.

    Returns the stamps of the files, or None where something differs.

    Raises:
      NotPermitted, StorageFailed: it may not or cannot be looked at.
    """
    tree = Tree(destination, manifest)
    try:
        stamps = _stamps(tree)
        return stamps if stamps is not None and _same_tree(tree) else None
    except OSError as e:
        if e.errno in GONE:
            return None
        raise failure(e, destination, "read") from e


def _stamps(tree: Tree) -> tuple[Stamp, ...] | None:
    stamps = []
    for index, file in enumerate(tree.manifest.files):
        status = tree.status(index)
        is_executable = bool(status.st_mode & stat.S_IXUSR)
        if (stat.S_ISREG(status.st_mode), status.st_size, is_executable) != (
            True,
            file.entry.size,
            file.entry.executable,
        ):
            return None
        stamps.append(stamp_of(status))
    return tuple(stamps)


def _same_tree(tree: Tree) -> bool:
    """Whether a directory has the manifest's directories and symlinks, and not one name more."""
    if not tree.manifest.is_directory:
        return True
    expected: dict[str, set[bytes]] = defaultdict(set, {"": set()})
    for path in directories(tree.manifest):
        expected[path].update()
    for path in (*directories(tree.manifest), *_leaves(tree.manifest)):
        above, _, name = path.rpartition("/")
        expected[above].add(name.encode())
    with tree.anchor() as anchor:
        return all(_names(anchor, path) == names for path, names in expected.items()) and all(
            _target(anchor, entry.path) == entry.target.encode()
            for entry in tree.manifest.entries
            if isinstance(entry, SymlinkEntry)
        )


def _leaves(manifest: Manifest) -> list[str]:
    return [entry.path for entry in manifest.entries if not isinstance(entry, DirectoryEntry)]


def _names(anchor: int, path: str) -> set[bytes]:
    descriptor = open_directory_below(anchor, path.encode())
    try:
        return {os.fsencode(name) for name in os.listdir(descriptor)}
    finally:
        os.close(descriptor)


def _target(anchor: int, path: str) -> bytes | None:
    with parent_below(anchor, path.encode()) as (directory, name):
        return link_target(directory, name)
