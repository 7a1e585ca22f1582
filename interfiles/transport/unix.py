"""Unix sockets between the CLI and its daemon: who may connect, who has connected, and descriptors on the way.

A descriptor that comes in is this process's at once, whoever sent it, wanted or not. So every read takes what came with
it, and what is not expected is closed there and then and ends the conversation.
"""

import array
import errno
import os
import socket
import stat
import struct
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from interfiles.errors import AddressInUse, NotPermitted, RemoteProtocolError, UsageError, printable
from interfiles.transport.base import Address
from interfiles.transport.plain import LISTEN_BACKLOG, SocketListener, SocketTransport, bind_error

MAX_DESCRIPTORS: Final = 64  # in one message, and held by one conversation: a tree is handed over in batches
_MAX_UNIX_PATH_BYTES: Final = 107  # sun_path holds 108 with its NUL
_CREDENTIALS: Final = struct.Struct("iII")
_SO_PEERGROUPS: Final = 59  # of the machines that the acting of storage knows; Python has no name for it
_GROUP_BYTES: Final = 4
_GROUPS_BYTES: Final = 1024  # as much as Python lets an option have: 256 groups
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who is at the other end of a Unix socket, as the kernel noted when it was connected."""

    uid: int
    gid: int
    groups: tuple[int, ...]


class Closers:
    """Threads that close descriptors which came from another user.

    To close a file asks its file system, and that may be a program of that user's, which never answers. So nobody waits
    for it. `count` says how many closings of one user's are under way: who has many gets no more conversations.
    """

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._running: Final[Counter[int]] = Counter()

    def count(self, uid: int) -> int:
        """Closings under way of what this user sent."""
        with self._lock:
            return self._running[uid]

    def close(self, descriptors: Sequence[int], uid: int) -> None:
        """Close descriptors, soon."""
        if not descriptors:
            return
        with self._lock:
            self._running[uid] += 1
        threading.Thread(target=self._run, args=(list(descriptors), uid), name="closing", daemon=True).start()

    def _run(self, descriptors: list[int], uid: int) -> None:
        for descriptor in descriptors:
            with suppress(OSError):  # the file system's last words about a file that is not ours
                os.close(descriptor)
        with self._lock:
            self._running[uid] -= 1
            if not self._running[uid]:
                del self._running[uid]


closers: Final = Closers()


class UnixTransport(SocketTransport):
    """A connected Unix socket that descriptors can travel on; all that were not taken are closed with it."""

    def __init__(self, sock: socket.socket, remote: Address | None = None) -> None:
        super().__init__(sock, remote)
        self._peer: Final = caller_uid(self)
        self._expected = 0
        self._received: list[int] = []
        self._to_send: Sequence[int] = ()
        self._is_refused = False

    def expect(self, count: int) -> None:
        """Let so many descriptors come with what is read next; before, and beyond these, none may."""
        self._expected = count

    def take(self) -> list[int]:
        """The descriptors that have come, which are the taker's to close; from here on none is expected."""
        taken, self._received, self._expected = self._received, [], 0
        return taken

    def attach(self, descriptors: Sequence[int]) -> None:
        """Let descriptors travel with the first byte of what is sent next; they stay the caller's to close."""
        self._to_send = descriptors

    async def receive_some_into(self, buffer: memoryview) -> int:
        """As every transport.

        Raises:
          PeerGone: the connection broke.
          RemoteProtocolError: descriptors came that nobody asked for, or too many; all are closed, and what comes
            later is closed in silence.
        """
        while True:
            try:
                count, ancillary, flags, _ = self._sock.recvmsg_into(
                    [buffer], _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                await self._until(trio.lowlevel.wait_readable)
                continue
            except OSError as e:
                raise self._gone(e) from e
            if ancillary or flags & socket.MSG_CTRUNC:
                self._keep(ancillary, is_cut=bool(flags & socket.MSG_CTRUNC))
            return count

    def _keep(self, ancillary: list[tuple[int, int, bytes]], *, is_cut: bool) -> None:
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                came = array.array("i")
                came.frombytes(data[: len(data) - len(data) % came.itemsize])
                self._received += came
        if self._is_refused:
            self._drop()
            return
        if is_cut:
            reason = f"more than {MAX_DESCRIPTORS} descriptors came at once, or there is no room for them here"
        elif len(self._received) > self._expected:
            reason = f"{len(self._received)} descriptors came where {self._expected or 'none'} were asked for"
        else:
            return
        self._is_refused = True
        self._drop()
        raise RemoteProtocolError(reason)

    def _drop(self) -> None:
        closers.close(self.take(), self._peer)

    async def send_all(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while self._to_send and left:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", self._to_send))
            try:
                left = left[self._sock.sendmsg([left], [rights]) :]
                self._to_send = ()
            except BlockingIOError:
                await self._until_writable()
            except OSError as e:
                raise self._gone(e) from e
        await super().send_all(left)

    def close(self) -> None:
        super().close()
        self._drop()


async def dial_unix(path: Path) -> UnixTransport:
    """Connect to a daemon's Unix socket.

    Raises:
      OSError: as the system says (FileNotFoundError, ConnectionRefusedError, PermissionError); the caller names the
        daemon.
    """
    stream = await trio.open_unix_socket(str(path))
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return UnixTransport(sock)


def listen_unix(path: Path, *, group: int | None = None, option: str = "--socket") -> SocketListener:
    """Listen on a Unix socket that only this user may connect to: mode 0600, in a directory made 0700 if need be.

    `group`: its members may connect too: mode 0660, in a directory of 0710. `option`: what chooses another path. A
    stale socket, that nobody answers on, is replaced; whatever else is at the path stays. Blocking, but brief.

    Raises:
      AddressInUse: a daemon answers there, the path is too long, or something that is no socket is in the way.
      NotPermitted: the directory belongs to another user or cannot be written, or the group is not this user's to give.
      UsageError: the directory is closed to the group, and not there for the socket alone.
    """
    if len(os.fsencode(path)) > _MAX_UNIX_PATH_BYTES:
        shown = printable(str(path))
        raise AddressInUse(
            f"socket path {shown} is over {_MAX_UNIX_PATH_BYTES} bytes; choose a shorter one with {option}"
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.parent.stat()
        if found.st_uid != os.geteuid() or (found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX):
            shown = printable(str(path.parent))
            raise NotPermitted(f"directory {shown} is in the hands of other users; choose another with {option}")
        _remove_stale(path, option)
        if group is not None:
            _open_directory_to(path.parent, group)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            old_mask = os.umask(0o177)
            try:
                sock.bind(str(path))
            finally:
                os.umask(old_mask)
            if group is not None:
                _give(path, group, 0o660)
            sock.listen(LISTEN_BACKLOG)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
    except OSError as e:
        raise bind_error(e, f"socket {printable(str(path))}", option) from e
    return SocketListener(sock, UnixTransport)


def _open_directory_to(directory: Path, group: int) -> None:
    """Let members of the group pass through the socket's directory, if it is there for nothing else."""
    found = directory.stat()
    if found.st_mode & stat.S_IXOTH or (found.st_gid == group and found.st_mode & stat.S_IXGRP):
        return
    if any(directory.iterdir()):
        raise UsageError(
            f"directory {printable(str(directory))} is closed to the socket's group and holds other things; name an "
            "empty or a new one with --socket"
        )
    _give(directory, group, 0o710)


def _give(path: Path, group: int, mode: int) -> None:
    try:
        if path.lstat().st_gid != group:  # where it is the group's already, no right to change that is needed
            os.chown(path, -1, group, follow_symlinks=False)
        path.chmod(mode)
    except PermissionError as e:
        raise NotPermitted(
            f"the system does not let this user give {printable(str(path))} to group {group}; add the user to that "
            "group, or run the daemon as root"
        ) from e


def _remove_stale(path: Path, option: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressInUse(f"{printable(str(path))} is in the way and is no socket; choose another with {option}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                path.unlink()
            return
    shown = printable(str(path))
    raise AddressInUse(f"a daemon answers on socket {shown} already; stop it, or choose another with {option}")


def caller_uid(transport: SocketTransport) -> int:
    """The user at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED)."""
    return _credentials(transport)[1]


def credentials(transport: SocketTransport) -> Credentials:
    """The user and all groups at the other end of a Unix socket (SO_PEERCRED, SO_PEERGROUPS).

    Raises:
      NotPermitted: they are more groups than can be told.
    """
    _, uid, gid = _credentials(transport)
    try:
        raw = transport.socket.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError as e:
        if e.errno != errno.ERANGE:
            raise
        most = _GROUPS_BYTES // _GROUP_BYTES
        raise NotPermitted(f"user {uid} is in more than {most} groups, which is more than the daemon can tell") from e
    return Credentials(uid, gid, struct.unpack(f"{len(raw) // _GROUP_BYTES}I", raw))


def _credentials(transport: SocketTransport) -> tuple[int, int, int]:
    raw = transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid
