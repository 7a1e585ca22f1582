"""Makes what was written survive a loss of power."""

import errno
import os
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from interfiles.storage.system import sync_file_system
from interfiles.storage.tree import open_below

# Each fsync may wait for the disk's journal; one syncfs takes as long as a few of them, however many files there are.
_MOST_ALONE: Final = 64


def sync_paths(anchor: int, paths: Collection[bytes]) -> None:
    """Make the files and directories at `paths`, relative to an open directory, durable; `.` is that directory itself.

    Raises:
      OSError: one of them is not there, or could not be written.
    """
    if len(paths) > _MOST_ALONE:
        sync_file_system(anchor)
        return
    for path in paths:
        descriptor = open_below(anchor, path, os.O_RDONLY)
        try:
            sync_descriptor(descriptor)
        finally:
            os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Make one open file or directory durable.

    Raises:
      OSError: it could not be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno != errno.EINVAL:  # some file systems sync no directories, and need not
            raise


def forget_cached(anchor: int, paths: Collection[bytes]) -> None:
    """Drop what the system remembers of files that could not be written, so that reading them tells what is on disk.

    After a failed fsync, Linux takes the pages for clean, and would go on showing what the disk never got.
    """
    for path in paths:
        with suppress(OSError):  # what cannot be opened cannot be read either; a directory has nothing to forget
            descriptor = open_below(anchor, path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
