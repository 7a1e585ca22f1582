"""Which file a person means: a tracker file, or what the fleet knows it by."""

import errno
import os
import stat
from dataclasses import dataclass

from interfiles.errors import InterFilesError, NotPermitted, PathNotFound, StorageFailed, UsageError, printable
from interfiles.manifest import short_id
from interfiles.tracker_file import MAGIC, MAX_TRACKER_BYTES, TrackerFile

_MAX_QUERY_CHARACTERS = 255
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the fleet: by the bytes of its tracker file, or by `query`, an id, id prefix or name; one is empty.

    `reference`: what a person can type to mean the same file.
    """

    query: str
    content: bytes
    reference: str


def read_source(given: str | os.PathLike[str]) -> Source:
    """Find out what `given` means. Blocking: a tracker file is read, at most 64 MiB, and checked.

    A path object, a text with a slash in it and one that ends in `.tracker` mean a tracker file, and so does one that
    names a file which begins like one. Any other text is an id, id prefix or name, and only the daemon knows whether
    there is one: so `interfiles stat disk.img` means what it says beside the file that was uploaded.

    Raises:
      PathNotFound: no tracker file is there, or it is no regular file.
      NotPermitted, StorageFailed: it cannot be read.
      InvalidTrackerFile: it is none, or not whole.
      UsageError: neither a path nor a query can look like this.
    """
    text = os.fspath(given)
    if not text or "\0" in text:
        raise UsageError("the name of a file is empty or contains a NUL; give a tracker file, a file id or a name")
    is_path = not isinstance(given, str) or "/" in text or text.endswith(".tracker")
    if is_path or _begins_like_a_tracker_file(text):
        content = _read_tracker_file(text)
        tracker = TrackerFile.decode(content, name=text)
        return Source("", content, short_id(tracker.manifest.file_id))
    if len(text) > _MAX_QUERY_CHARACTERS:
        raise UsageError(f"a file id or name has at most {_MAX_QUERY_CHARACTERS} characters, not {len(text):,}")
    if not _is_unicode(text):
        raise UsageError(f"{printable(text)} is not valid UTF-8; give the file's id instead")
    return Source(text, b"", text)


def _begins_like_a_tracker_file(path: str) -> bool:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            return stat.S_ISREG(os.fstat(file.fileno()).st_mode) and file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_tracker_file(path: str) -> bytes:
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PathNotFound(f"{printable(path)} is not a regular file; give a tracker file, a file id or a name")
            return file.read(MAX_TRACKER_BYTES + 1)
    except OSError as e:
        raise _cannot_read(path, e) from e


def _open_at_once(path: str, flags: int) -> int:
    """Open a file, and not wait for whoever may write to it if it is a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _cannot_read(path: str, error: OSError) -> InterFilesError:
    shown = printable(path)
    if error.errno in _MISSING:
        return PathNotFound(f"there is no tracker file {shown}; give the path of one, or a file's id or name")
    if isinstance(error, PermissionError):
        return NotPermitted(f"{shown} cannot be read: {error.strerror}; run as a user who may read it")
    if isinstance(error, IsADirectoryError):
        return PathNotFound(f"{shown} is a directory; give a tracker file, a file id or a name")
    return StorageFailed(f"{shown} cannot be read: {error.strerror or error}")
