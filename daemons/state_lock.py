"""One daemon to a state directory."""

import fcntl
import os
import pwd
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from interfiles.errors import NotPermitted, Refused, StateInUse, StorageFailed, printable

_LOCK_NAME: Final = "lock"


class StateLock:
    """Holds a state directory for this process, as a context manager; made with mode 0700 if it is not there.

    The lock is the kernel's (flock), so it ends with the process, however that ends. The lock file stays where it is
    and names the last holder; only a held lock counts. Blocking, for a few system calls.
    """

    def __init__(self, state: Path, *, not_with: str = "") -> None:
        """`not_with`: a file by which a directory of the other daemon is known, which is not taken."""
        self._state = state
        self._not_with = not_with
        self._fd: int | None = None

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
          StateInUse: another process holds it.
          NotPermitted: the directory is another user's, is open to other users, or cannot be made.
          Refused: it is that of the other daemon.
          StorageFailed: the file system refuses for another reason.
        """
        try:
            self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._claim_directory()
            if self._not_with and (self._state / self._not_with).exists():
                raise Refused(
                    f"the state directory {self._shown} is that of another daemon ({self._not_with} is in it); choose "
                    "another with --state"
                )
            self._fd = self._lock()
        except PermissionError as error:
            raise NotPermitted(
                f"the state directory {self._shown} cannot be used: {error.strerror}; choose another with --state."
            ) from error
        except OSError as error:
            reason = "it is not a directory" if isinstance(error, FileExistsError) else error.strerror
            raise StorageFailed(
                f"the state directory {self._shown} cannot be used: {reason}; choose another with --state."
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Release the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @property
    def _shown(self) -> str:
        return printable(str(self._state))

    def _claim_directory(self) -> None:
        found = self._state.stat()
        if found.st_uid != os.geteuid():
            raise NotPermitted(
                f"the state directory {self._shown} belongs to {_user(found.st_uid)}, this is {_user(os.geteuid())}; "
                f"run as {_user(found.st_uid)}, or choose another with --state."
            )
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077 == 0:
            return
        names = os.listdir(self._state)
        # An empty directory was made for us. One with other things in it may be /tmp or a home: not ours to close.
        if names and _LOCK_NAME not in names:
            raise NotPermitted(
                f"the state directory {self._shown} is open to other users (mode {mode:04o}) and has other files; "
                "choose another with --state, or close it with chmod 700."
            )
        self._state.chmod(0o700)

    def _lock(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self._state / _LOCK_NAME, flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0).decode(errors="replace").strip()
            os.close(fd)
            by = f"process {holder}" if holder.isdecimal() else "another process"
            raise StateInUse(
                f"the state directory {self._shown} is in use by {by}; stop it, or choose another with --state."
            ) from error
        except BaseException:
            os.close(fd)
            raise
        return fd


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
