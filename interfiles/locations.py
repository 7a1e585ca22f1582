"""Where daemons and CLI keep and look for things, when nothing else was said.

The same functions serve both, so that a command finds the daemon that the same user started. What the system gives root
lies under /var/lib and /run; other users have the XDG directories.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from interfiles.errors import UsageError

SOCKET_VARIABLE: Final = "INTERFILES_SOCKET"
SYSTEM_SOCKET: Final = Path("/run/interfiles/client.sock")
SYSTEM_STATE: Final = Path("/var/lib/interfiles")

_CLIENT_SOCKET_NAME: Final = "client.sock"
_ADMIN_SOCKET_NAME: Final = "master.sock"


def state_directory(
    role: Literal["client", "master"], *, environ: Mapping[str, str] = os.environ, uid: int | None = None
) -> Path:
    """The default state directory of a daemon; nothing is made. `uid`: whose, by default the caller's.

    Raises:
      UsageError: the user has no home directory.
    """
    if _is_root(uid):
        return SYSTEM_STATE / role
    state_home = _absolute(environ.get("XDG_STATE_HOME"))
    if state_home is None:
        try:
            state_home = Path(environ["HOME"] if environ.get("HOME") else Path.home()) / ".local/state"
        except RuntimeError as e:
            raise UsageError(
                "this user has no home directory; set HOME, or name the state directory and the socket"
            ) from e
    return state_home / "interfiles" / role


def client_socket(
    state: Path | None = None, *, environ: Mapping[str, str] = os.environ, uid: int | None = None
) -> Path:
    """The Unix socket of the client daemon, unless --socket names one.

    INTERFILES_SOCKET comes first, then the run directory of the system (root) or of the user (XDG_RUNTIME_DIR), then
    the daemon's state directory `state`, by default that of `state_directory`.

    Raises:
      UsageError: the user has no home directory, and needs one.
    """
    if chosen := environ.get(SOCKET_VARIABLE):
        return Path(chosen)
    if _is_root(uid):
        return SYSTEM_SOCKET
    run_directory = _absolute(environ.get("XDG_RUNTIME_DIR"))
    if run_directory is not None:
        return run_directory / "interfiles" / _CLIENT_SOCKET_NAME
    return (state or state_directory("client", environ=environ, uid=uid)) / _CLIENT_SOCKET_NAME


def socket_to_ask() -> Path:
    """Where a command looks for a client daemon: that of the caller, or where there is none the system's, if it may.

    Raises:
      UsageError: as `client_socket`.
    """
    own = client_socket()
    if SOCKET_VARIABLE not in os.environ and not own.exists() and os.access(SYSTEM_SOCKET, os.W_OK):
        return SYSTEM_SOCKET
    return own


def admin_socket(state: Path) -> Path:
    """The Unix socket for administration of the master whose state directory is `state`."""
    return state / _ADMIN_SOCKET_NAME


def _is_root(uid: int | None) -> bool:
    return (os.geteuid() if uid is None else uid) == 0


def _absolute(directory: str | None) -> Path | None:
    """The directory that a variable names; the XDG specification says to ignore relative ones."""
    return Path(directory) if directory and directory.startswith("/") else None
