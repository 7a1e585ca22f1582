"""One request to a daemon on this host, over its Unix socket: one connection each, errors in words for a person."""

import os
import pwd
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio

from interfiles.errors import (
    DaemonUnreachable,
    LocalProtocolError,
    NotPermitted,
    PeerGone,
    PeerSilent,
    RemoteProtocolError,
    UsageError,
    from_wire,
    printable,
)
from interfiles.locations import SYSTEM_SOCKET
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import caller_uid, dial_unix
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import Progress, Result, TrackerContent
from interfiles.wire.handshake_messages import Conversation, Failure
from interfiles.wire.reports import R, decode_report

ProgressCallback = Callable[[Progress], object]


class Handing(Protocol):
    """Answers what a daemon asks during one request."""

    async def answer(self, stream: MessageStream[Message], question: Message) -> None:
        """Send the answer.

        Raises:
          RemoteProtocolError: the question is none about this request.
          InterFilesError: the answer is that this user may not, or cannot.
        """

    def end(self) -> None:
        """The daemon has said something else: what was needed to answer no longer is. Brief; may be called again."""


class HandingNothing:
    """The request is about nothing that would have to be opened."""

    async def answer(self, stream: MessageStream[Message], question: Message) -> None:
        raise RemoteProtocolError(f"{type(question).__name__} came in place of a result")

    def end(self) -> None:
        """Nothing was."""


_SUBJECT: Final[dict[Conversation, str]] = {"control": "the client daemon", "admin": "the master"}
_HINT: Final[dict[Conversation, str]] = {
    "control": "start it with `interfiles client`, or name the socket of another",
    "admin": "start it with `interfiles master` on this host, or name its state directory",
}
_ANOTHER: Final[dict[Conversation, str]] = {"control": "another socket", "admin": "another state directory"}

_UNANSWERED: Final = "before it answered; start it again and repeat the command"


@dataclass(frozen=True, slots=True)
class ControlSocket:
    """The Unix socket of a daemon, and which conversation is held there."""

    path: Path
    conversation: Conversation

    @asynccontextmanager
    async def open(self, *, if_gone: str = _UNANSWERED) -> AsyncIterator[MessageStream[Message]]:
        """Connect and greet; the connection is closed on leaving.

        `if_gone`: what it means to the caller when the daemon goes away meanwhile; the end of a sentence.

        Raises:
          DaemonUnreachable: no daemon answers at the socket, or it went away.
          NotPermitted: the socket or the daemon is another user's.
          InterFilesError: the daemon refused, in its words.
        """
        stream = await self._greet()
        try:
            yield stream
        except (PeerGone, PeerSilent) as e:
            raise self._gone(if_gone) from e
        finally:
            stream.close()

    async def ask(
        self,
        request: Message,
        kind: type[R],
        *,
        content: bytes = b"",
        on_progress: ProgressCallback | None = None,
        handing: Handing | None = None,
        if_gone: str = _UNANSWERED,
    ) -> R:
        """Send one request on a connection of its own, and return its report.

        `handing`: what a daemon of another user may ask to be given meanwhile.

        Raises:
          DaemonUnreachable, NotPermitted: as `open`.
          InterFilesError: the daemon refused or failed, in its words.

        Cancellation:
          Closes the connection: a download goes on, anything else is abandoned.
        """
        async with self.open(if_gone=if_gone) as stream:
            return await converse(stream, request, kind, content=content, on_progress=on_progress, handing=handing)

    async def _greet(self) -> MessageStream[Message]:
        transport = await self._dial()
        try:
            stream, _ = await greet(transport, self.conversation, "local")
        except PeerSilent as e:
            raise DaemonUnreachable(
                f"{self._subject} does not answer on {self._shown}; see its log, and restart it"
            ) from e
        except PeerGone as e:
            raise self._gone(_UNANSWERED) from e
        return stream

    def _gone(self, meaning: str) -> DaemonUnreachable:
        return DaemonUnreachable(f"{self._subject} went away {meaning}")

    async def _dial(self) -> SocketTransport:
        try:
            transport = await dial_unix(self.path)
        except FileNotFoundError as e:
            raise self._unreachable(f"no socket at {self._shown}") from e
        except ConnectionRefusedError as e:
            raise self._unreachable(f"nothing answers on socket {self._shown}") from e
        except PermissionError as e:
            raise NotPermitted(self._foreign(self._owner())) from e
        except OSError as e:
            raise self._unreachable(f"socket {self._shown} cannot be used: {e.strerror or e}") from e
        server, user = caller_uid(transport), os.geteuid()
        if user != 0 and server not in (0, user) and not await trio.to_thread.run_sync(_is_kept_by, self.path, server):
            transport.close()  # whoever squats on a socket's path must not get to see what is asked there
            raise NotPermitted(self._foreign(server))
        return transport

    def _unreachable(self, reason: str) -> DaemonUnreachable:
        hint = _HINT[self.conversation]
        if self.conversation == "control" and self.path != SYSTEM_SOCKET and SYSTEM_SOCKET.parent.is_dir():
            hint += "; the system's own daemon answers to root (use sudo)"
        return DaemonUnreachable(f"{self._subject} is not running ({reason}); {hint}")

    def _foreign(self, owner: int | None) -> str:
        whose = "another user" if owner is None else _user(owner)
        another = _ANOTHER[self.conversation]
        return f"the socket {self._shown} belongs to {whose}; run the command as that user, or name {another}"

    def _owner(self) -> int | None:
        try:
            return self.path.stat().st_uid
        except OSError:
            return None

    @property
    def _subject(self) -> str:
        return _SUBJECT[self.conversation]

    @property
    def _shown(self) -> str:
        return printable(str(self.path))


async def converse(
    stream: MessageStream[Message],
    request: Message,
    kind: type[R],
    *,
    content: bytes = b"",
    on_progress: ProgressCallback | None = None,
    handing: Handing | None = None,
) -> R:
    """Send one request, with `content` as its payload, and return its report; `handing` as in `ControlSocket.ask`.

    Raises:
      UsageError: the protocol has no way to say this request.
      InterFilesError: the daemon refused or failed, in its words; or the conversation broke.
    """
    handing = handing or HandingNothing()
    await _send(stream, request, content)
    try:
        while True:
            message = await stream.receive()
            handing.end()
            match message:
                case Result():
                    return decode_report(await stream.receive_payload(), kind)
                case Progress() as progress:
                    if on_progress is not None:
                        on_progress(progress)
                case Failure(code, text):
                    raise from_wire(code, printable(text))
                case TrackerContent():
                    raise RemoteProtocolError("TrackerContent came in place of a result")
                case question:
                    with suppress(PeerGone):  # as in `_send`
                        await handing.answer(stream, question)
    finally:
        handing.end()


async def _send(stream: MessageStream[Message], request: Message, content: bytes) -> None:
    try:
        await stream.send(request, content)
    except LocalProtocolError as e:
        raise UsageError(f"the request cannot be sent: {e}") from e
    except PeerGone:
        pass  # a daemon that refuses may close early: its reason can still be received


def _is_kept_by(path: Path, uid: int) -> bool:
    """Whether nobody but this user and root can have put a socket at this path."""
    try:
        real = Path(os.path.realpath(path, strict=True))
        return real.lstat().st_uid == uid and all(_is_closed_to_others(above, uid) for above in real.parents)
    except OSError:
        return False


def _is_closed_to_others(directory: Path, uid: int) -> bool:
    found = directory.stat()
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (0, uid) and not is_shared


def _user(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"
