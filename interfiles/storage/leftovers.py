"""Copies that the daemon holds no more on anybody's behalf: kept for as long as nobody needs the room.

A leftover is the directory that was made for one content, moved into the leftovers' own directory in one step under a
name that tells the file and its size: `<file id in hex>-<bytes>`. Its age is that of the move. It is neither served nor
announced; when its file is wanted here again it is moved back and hashed, which is quicker than fetching it.

Blocking; called in threads.
"""

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from interfiles.storage.failures import translated


@dataclass(frozen=True, slots=True)
class Leftover:
    """One of them. `size` in bytes; `since` in Unix seconds."""

    path: Path
    file_id: bytes
    size: int
    since: float


def leftovers_in(directory: Path) -> list[Leftover]:
    """Every leftover, the oldest first; nothing where the directory cannot be read."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if match := re.fullmatch(r"([0-9a-f]{64})-([0-9]{1,18})", entry.name):
                    since = entry.stat(follow_symlinks=False).st_mtime
                    found.append(Leftover(Path(entry.path), bytes.fromhex(match[1]), int(match[2]), since))
    except OSError:
        return []
    return sorted(found, key=lambda leftover: (leftover.since, leftover.path))


def put_aside(place: Path, directory: Path, file_id: bytes, size: int, now: float) -> None:
    """Make a leftover of the directory at `place`; nothing happens where there is none.

    Raises:
      NotPermitted, NoSpace, StorageFailed: the file system refuses.
    """
    target = directory / f"{file_id.hex()}-{size}"
    with translated(place, "moved"):
        directory.mkdir(mode=0o700, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.rename(place, target)
        except FileNotFoundError:
            return
        os.utime(target, (now, now))


def take_back(directory: Path, file_id: bytes, place: Path) -> bool:
    """Move a file's leftover to `place`, where nothing may be; return whether there was one.

    Raises:
      NotPermitted, StorageFailed: the file system refuses.
    """
    for leftover in leftovers_in(directory):
        if leftover.file_id == file_id:
            with translated(place, "moved"):
                place.parent.mkdir(mode=0o700, exist_ok=True)
                os.rename(leftover.path, place)
            return True
    return False


def make_room(directory: Path, needed: int, *, besides: bytes = b"") -> int:
    """Remove leftovers, the oldest first, until `needed` bytes are free or none is left; return how many bytes were.

    `besides`: of this file none is removed.
    """
    freed = 0
    for leftover in leftovers_in(directory):
        if freed >= needed:
            break
        if leftover.file_id != besides:
            shutil.rmtree(leftover.path, ignore_errors=True)
            freed += leftover.size
    return freed


def remove_leftover(directory: Path, file_id: bytes) -> None:
    """Remove what is left over of a file, if anything is."""
    for leftover in leftovers_in(directory):
        if leftover.file_id == file_id:
            shutil.rmtree(leftover.path, ignore_errors=True)


def remove_older(directory: Path, before: float) -> int:
    """Remove the leftovers from before a moment (Unix seconds); return how many."""
    old = [leftover for leftover in leftovers_in(directory) if leftover.since < before]
    for leftover in old:
        shutil.rmtree(leftover.path, ignore_errors=True)
    return len(old)
