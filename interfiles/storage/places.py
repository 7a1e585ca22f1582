"""Directories that callers have shown to be theirs to write in, told again by device and inode at every use.

Such a directory may be swapped for another one, or for a symlink to one, at any moment: whoever asked for the download
can do that. So its path is walked without following a symlink, and what is found there is compared.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from interfiles.errors import NotPermitted, printable
from interfiles.storage.failures import GONE
from interfiles.storage.tree import open_strictly


@dataclass(frozen=True, slots=True)
class Place:
    """Which directory it is; inode numbers are not used again while it is there."""

    device: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The place in the answer of stat or fstat."""
        return cls(status.st_dev, status.st_ino)

    def encode(self) -> str:
        """As text, for a database: an inode number may be larger than its integers."""
        return f"{self.device} {self.inode}"

    @classmethod
    def decode(cls, text: str) -> Self:
        """The reverse of `encode`."""
        device, inode = text.split()
        return cls(int(device), int(inode))


def open_place(path: Path, place: Place | None, flags: int = os.O_RDONLY) -> int:
    """Open a directory; without a place, symlinks on the way to it are followed.

    Raises:
      NotPermitted: another directory, a symlink or nothing is where the place was.
      OSError: it may not be read.
    """
    if place is None:
        return os.open(path, flags | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = open_strictly(path, flags)
    except OSError as e:
        if e.errno not in GONE:
            raise
        raise _moved(path) from e
    if Place.of(os.fstat(descriptor)) != place:
        os.close(descriptor)
        raise _moved(path)
    return descriptor


def _moved(path: Path) -> NotPermitted:
    return NotPermitted(
        f"{printable(str(path))} is not the directory any more that the download was begun in; put that one back, or "
        "give the download up with interfiles rm --local"
    )
