"""Where `upload` puts the tracker file: checked before the work begins, written whole or not at all."""

import errno
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from interfiles.errors import (
    DestinationExists,
    InterFilesError,
    NoSpace,
    NotPermitted,
    PathNotFound,
    StorageFailed,
    UsageError,
    printable,
)
from interfiles.tracker_file import MAGIC

SUFFIX: Final = ".tracker"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root, symlinks before its last component followed; the last keeps the name that was given.

    `.` and `..` have no name of their own, so they are followed too.

    Raises:
      PathNotFound: the current directory is gone.
      UsageError: the path is empty, as an unset variable in a script is.
    """
    text = _from_root(path)
    parent, name = os.path.split(text.rstrip("/"))
    if name in ("", ".", ".."):
        return Path(os.path.realpath(text))
    return Path(os.path.realpath(parent), name)


def real(path: str | os.PathLike[str]) -> Path:
    """The path from the root, all symlinks followed.

    Raises:
      PathNotFound: the current directory is gone.
    """
    return Path(os.path.realpath(_from_root(path)))


def _from_root(path: str | os.PathLike[str]) -> str:
    if not os.fspath(path):
        raise UsageError("an empty path names nothing; write . for the current directory")
    try:
        return os.path.join(os.getcwd(), os.fspath(path))
    except FileNotFoundError as e:
        raise PathNotFound("the current directory no longer exists; change to another one") from e


@dataclass(frozen=True, slots=True)
class TrackerPlace:
    """The path that a tracker file will be written to. All calls are brief but blocking."""

    path: Path

    @classmethod
    def choose(cls, content: Path, given: str | os.PathLike[str] | None) -> Self:
        """Choose and check the place for the tracker file of `content`, an absolute path.

        `given`: a directory, or the path of the file; None: NAME.tracker in the current directory.

        Raises:
          UsageError: the content has no name, being the root, or the tracker file would lie within it and change it.
          PathNotFound: there is no such directory.
          DestinationExists: something that is no tracker file is in the way.
          NotPermitted, NoSpace, StorageFailed: nothing can be written there.
        """
        if not content.name:
            raise UsageError("the root directory has no name to be known by; upload a directory in it")
        place = absolute("." if given is None else given)
        if place.is_dir():
            place /= content.name + SUFFIX
        elif given is not None and os.fspath(given).endswith("/"):
            raise PathNotFound(f"there is no directory {printable(str(place))} for the tracker file")
        if place.is_relative_to(content):
            raise UsageError(
                f"the tracker file {printable(str(place))} would change the content that it stands for; "
                "choose another place for it"
            )
        chosen = cls(place)
        chosen._check_free()
        chosen._write_aside(b"").unlink()
        return chosen

    def write(self, content: bytes) -> None:
        """Write the tracker file, durably; one that is there already is replaced, in one step.

        Raises:
          DestinationExists, NotPermitted, NoSpace, StorageFailed: as `choose`; nothing has changed then.
        """
        self._check_free()
        aside = self._write_aside(content)
        try:
            os.rename(aside, self.path)
        except OSError as e:
            aside.unlink(missing_ok=True)
            raise self._cannot_write(e) from e
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write_aside(self, content: bytes) -> Path:
        """Write a new file beside the place, durably; it is readable for whom the user's umask allows."""
        # A fixed length, so that a long name has room for it.
        aside = self.path.with_name(f".interfiles-{secrets.token_hex(6)}.tmp")
        try:
            fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as e:
            raise self._cannot_write(e) from e
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(fd)
        except BaseException as e:
            aside.unlink(missing_ok=True)
            if isinstance(e, OSError):
                raise self._cannot_write(e) from e
            raise
        return aside

    def _check_free(self) -> None:
        """Check that nothing but a tracker file is at the place."""
        try:
            mode = os.lstat(self.path).st_mode
            if not stat.S_ISREG(mode):
                raise self._in_the_way()
            with open(self.path, "rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise self._in_the_way()
        except FileNotFoundError:
            pass
        except OSError as e:
            raise self._cannot_write(e) from e

    def _in_the_way(self) -> DestinationExists:
        return DestinationExists(
            f"{self._shown} exists and is no tracker file; it stays as it is, choose another place for it"
        )

    def _cannot_write(self, error: OSError) -> InterFilesError:
        sentence = f"the tracker file {self._shown} cannot be written: {error.strerror}; choose another place for it"
        if error.errno in _FULL:
            return NoSpace(sentence)
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            return PathNotFound(f"there is no directory {printable(str(self.path.parent))} for the tracker file")
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            return NotPermitted(sentence)
        return StorageFailed(sentence)

    @property
    def _shown(self) -> str:
        return printable(str(self.path))
