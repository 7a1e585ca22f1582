"""A complete content where the person has it: read, never written."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from interfiles.manifest import Manifest
from interfiles.storage.acting import Owner
from interfiles.storage.failures import GONE, failure
from interfiles.storage.hashing import changed_error
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.piece_store import PieceStore
from interfiles.storage.scan import Stamp, stamp_of
from interfiles.storage.tree import Tree


class SeedStore(PieceStore):
    """Serves the file or directory at `root`; `stamps`: what its files (`manifest.files`) had when they were hashed.

    For an `owner` the device counts too, and no symlink is followed on the way: they could choose size, time and inode
    of a file on a file system of their own to be those of a file that is not theirs to read.
    """

    def __init__(
        self, root: Path, manifest: Manifest, stamps: Sequence[Stamp], files: OpenFiles, owner: Owner | None = None
    ) -> None:
        if len(stamps) != len(manifest.files):
            raise ValueError(f"{len(stamps)} stamps for {len(manifest.files)} files")
        super().__init__(Tree(root, manifest, is_strict=owner is not None), files, os.O_RDONLY, owner)
        self._stamps: Final = stamps

    def changed(self) -> tuple[str, str] | None:
        """Compare the stamp of whatever is at each file's path; called in a thread.

        Name the first that differs, and say in words how.
        """
        with self._tree.walking() as walk:
            for index, stamp in enumerate(self._stamps):
                path = self.manifest.files[index].entry.path
                try:
                    if not self._is_same(stamp_of(walk.status(index)), stamp):
                        return path, "has changed on disk"
                except OSError as e:
                    return path, "is gone" if e.errno in GONE else f"cannot be looked at ({e.strerror})"
        return None

    def _check_unchanged(self, index: int, descriptor: int) -> None:
        try:
            found = stamp_of(os.fstat(descriptor))
        except OSError as e:
            raise failure(e, self._tree.path(index), "read") from e
        if not self._is_same(found, self._stamps[index]):
            raise changed_error(self._tree.path(index))

    def _is_same(self, found: Stamp, stamp: Stamp) -> bool:
        return found == stamp and (self.owner is None or found.device == stamp.device)
