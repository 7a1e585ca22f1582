"""System calls of Linux that Python does not offer, through the C library."""

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_RENAME_NOREPLACE: Final = 1
_FUSE_MAGIC: Final = 0x65735546
_MEMORY_MAGICS: Final = frozenset({0x01021994, 0x858458F6})  # tmpfs, ramfs
_PROBE_BYTES: Final = 128 << 10
_STATFS_BYTES: Final = 256  # more than any machine's struct statfs, which begins with the magic number
_DEFAULT_UMASK: Final = 0o022
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

# The numbers of setgroups, setresuid and setresgid. The C library's own functions change the user of every thread.
_SYSTEM_CALLS: Final = {"x86_64": (116, 117, 119), "aarch64": (159, 147, 149), "riscv64": (159, 147, 149)}
_UNCHANGED: Final = ctypes.c_uint32(0xFFFFFFFF)

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.renameat2.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
_libc.syncfs.argtypes = [ctypes.c_int]


def fallocate(descriptor: int, offset: int, length: int) -> None:
    """Reserve disk space for a range of a file (bytes), which reads as zeros where nothing was written.

    Unlike `os.posix_fallocate`, it never falls back to writing every block, which takes as long as the download itself.

    Raises:
      OSError: with EOPNOTSUPP where the file system cannot.
    """
    while _libc.fallocate(descriptor, 0, offset, length) != 0:
        if (number := ctypes.get_errno()) != errno.EINTR:
            raise OSError(number, os.strerror(number))


def rename_exclusively(directory: int, source: bytes, target: bytes) -> None:
    """Rename within an open directory in one step that fails when the target exists.

    Raises:
      FileExistsError: something is called `target` already.
      OSError: with EINVAL where the file system cannot.
    """
    if _libc.renameat2(directory, source, directory, target, _RENAME_NOREPLACE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_file_system(descriptor: int) -> None:
    """Write everything of the file system that an open file is on: for thousands of files, far faster than each alone.

    Raises:
      OSError: something could not be written since the descriptor was opened.
    """
    if _libc.syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def is_fuse(descriptor: int) -> bool:
    """Whether an open file is on a file system that a user's program answers for, whenever it likes.

    Raises:
      OSError: the system cannot tell.
    """
    return _magic(descriptor) == _FUSE_MAGIC


def is_cached(descriptor: int, offset: int, length: int) -> bool:
    """Whether a range of an open file (bytes) can be read without waiting for a disk.

    One byte in `_PROBE_BYTES` is asked for: the system never reads less ahead at once.

    Raises:
      OSError: it cannot be read; with EOPNOTSUPP where the file system cannot tell.
    """
    byte = [bytearray(1)]
    try:
        for at in (*range(offset, offset + length - 1, _PROBE_BYTES), offset + length - 1):
            os.preadv(descriptor, byte, at, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True


def drop_cached(descriptor: int, offset: int, length: int) -> None:
    """Ask the system to drop what it has in memory of a range of an open file (bytes), so that it is read anew.

    It drops whole pages that are written to the disk and that no process has mapped; what is newer than the disk stays,
    and so does everything on a file system without a disk. It promises nothing, so an error is not one of the caller's.
    """
    start = offset - offset % _PAGE_BYTES
    end = offset + length + -(offset + length) % _PAGE_BYTES  # the pages at both ends too, which would stay otherwise
    with suppress(OSError):
        os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


def is_in_memory(descriptor: int) -> bool:
    """Whether an open file is on a file system without a disk.

    Raises:
      OSError: the system cannot tell.
    """
    return _magic(descriptor) in _MEMORY_MAGICS


def _magic(descriptor: int) -> int:
    found = (ctypes.c_char * _STATFS_BYTES)()
    _checked(_libc.fstatfs(descriptor, found))
    return int.from_bytes(found.raw[:4], sys.byteorder)


def set_thread_user(uid: int, gid: int) -> None:
    """Change the effective user and group of the calling thread alone; the real and saved ones stay.

    Raises:
      OSError: the thread may not, or with ENOSYS: it is not known how on this machine.
    """
    _, set_user, set_group = _numbers()
    # Rights are taken on last and given up first: between the two calls there is nothing that a caller could not do.
    calls = ((set_user, uid), (set_group, gid)) if uid == 0 else ((set_group, gid), (set_user, uid))
    for number, value in calls:
        _checked(_libc.syscall(ctypes.c_long(number), _UNCHANGED, ctypes.c_uint32(value), _UNCHANGED))


def set_thread_groups(groups: Sequence[int]) -> None:
    """Change the supplementary groups of the calling thread alone.

    Raises:
      OSError: as `set_thread_user`.
    """
    number, _, _ = _numbers()
    listed = (ctypes.c_uint32 * len(groups))(*groups)
    _checked(_libc.syscall(ctypes.c_long(number), ctypes.c_size_t(len(groups)), listed))


def _numbers() -> tuple[int, int, int]:
    numbers = _SYSTEM_CALLS.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"it is not known how on {platform.machine()}")
    return numbers


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def umask() -> int:
    """This process's umask. `os.umask` can tell it only by changing it, for every thread."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return _DEFAULT_UMASK
