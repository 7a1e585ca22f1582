"""Turns what the operating system says into one sentence for a person."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final, Literal

from interfiles.errors import InterFilesError, NoSpace, NotPermitted, StorageFailed, printable

Doing = Literal["read", "written", "removed", "moved"]
_VERBS: Final[dict[Doing, str]] = {
    "read": "read it",
    "written": "write there",
    "removed": "remove it",
    "moved": "move it",
}

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

# No file is there, or something is where a file should be (O_NOFOLLOW makes a symlink ELOOP or ENOTDIR).
GONE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO, errno.EISDIR})

# The user who may do what is being done; None: the client daemon's own.
whose_rights: ContextVar[int | None] = ContextVar("whose_rights", default=None)


def failure(error: OSError, path: Path, doing: Doing) -> InterFilesError:
    """The error of ours that says what the system said about `path`."""
    shown = printable(str(path))
    if error.errno in FULL:
        return NoSpace(f"{shown} cannot be written: {error.strerror}; make room on that disk")
    if error.errno in FORBIDDEN:
        uid = whose_rights.get()
        who = "the client daemon's user" if uid is None else f"user {uid}"
        return NotPermitted(f"{shown} cannot be {doing}: {error.strerror}; let {who} {_VERBS[doing]}")
    return StorageFailed(f"{shown} cannot be {doing}: {error.strerror}")


@contextmanager
def translated(path: Path, doing: Doing) -> Iterator[None]:
    """Raise `failure` for an OSError within."""
    try:
        yield
    except OSError as e:
        raise failure(e, path, doing) from e
