"""Who commands the daemon, and the conversation with them: what they may do, and what they hand over meanwhile.

The kernel says who calls. The daemon's own user and root may do everything, by path. Members of the socket's group may
do what their own rights allow: what they share or want is opened by them and comes as descriptors, and they command
what they own. A descriptor that came belongs to this conversation until it is closed, whatever happens.
"""

from __future__ import annotations

import os
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from interfiles.errors import NotPermitted, PeerGone, PeerSilent, Refused, RemoteProtocolError, printable
from interfiles.storage.acting import Owner
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import UnixTransport, closers, credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from daemons.client.local_file import LocalFile
    from interfiles.transport.base import Transport
    from interfiles.transport.message_stream import MessageStream
    from interfiles.wire.codec import Message

ANSWER_TIMEOUT_S: Final = 30.0  # for a caller to open a few files and hand them over
DESCRIBE_TIMEOUT_S: Final = 600.0  # and to walk through a tree of a million
MAX_CALLS_A_MEMBER: Final = 16  # at once; with more, one member would keep the others out
MAX_MEMBER_CALLS: Final = 48  # of all members together: the daemon's own user and root find room beside them
MAX_LARGE_CALLS_A_MEMBER: Final = 2
LARGE_CALL_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """`owner`: the member of the socket's group; None: the daemon's own user or root."""

    owner: Owner | None = None

    def owns(self, file: LocalFile) -> bool:
        """Whether the file is theirs to command."""
        return self.is_allowed(file.record.owner)

    def is_allowed(self, owner: Owner | None) -> bool:
        """Whether they may command what is held on behalf of `owner`."""
        return self.owner is None or (owner is not None and owner.uid == self.owner.uid)

    def check_owns(self, file: LocalFile) -> None:
        """Let nobody command what is somebody else's.

        Raises:
          NotPermitted: it is.
        """
        if not self.owns(file):
            raise NotPermitted(
                f"{file.label} belongs to another user of this host; only that user, root and the daemon's own user "
                "may command it"
            )

    def check_commands_fleet(self, name: str) -> None:
        """Let members of the socket's group change nothing in the fleet about what they do not have here.

        Raises:
          NotPermitted: one of them asks that of the file called `name`.
        """
        if self.owner is not None:
            raise NotPermitted(
                f"{printable(name)} is not on this host, so it is not yours to change in the fleet; ask an "
                "administrator of this host"
            )


def who_calls(transport: Transport, group: int | None) -> Caller:
    """Find out who is at the other end; `group`: of those who may command the daemon beside its own user and root.

    Raises:
      NotPermitted: somebody else is.
    """
    if not isinstance(transport, SocketTransport):
        return Caller()  # in memory, for tests
    found = credentials(transport)
    if found.uid in (0, os.geteuid()):
        return Caller()
    if group is None:
        raise NotPermitted("this daemon belongs to another user; start your own with interfiles client")
    if group not in (found.gid, *found.groups):
        raise NotPermitted(
            f"you are not in group {group}, which may command this daemon; ask to be added to it, or start a daemon of "
            "your own with interfiles client"
        )
    return Caller(Owner(found.uid, found.gid, found.groups))


class Calls:
    """Counts the conversations under way of those who are neither the daemon's own user nor root."""

    def __init__(self) -> None:
        self._calls: Final[Counter[int]] = Counter()
        self._large: Final[Counter[int]] = Counter()

    @contextmanager
    def counted(self, uid: int) -> Iterator[bool]:
        """Tell whether there is room for one more conversation with this user, and count it inside."""
        is_room = (
            self._calls[uid] < MAX_CALLS_A_MEMBER
            and self._calls.total() < MAX_MEMBER_CALLS
            and closers.count(uid) < MAX_CALLS_A_MEMBER
        )
        with _counting(self._calls, uid):
            yield is_room

    @contextmanager
    def sized(self, uid: int, payload_bytes: int) -> Iterator[None]:
        """Count a request with its payload inside, if it is a large one.

        Raises:
          Refused: this user has too many of these under way.
        """
        if payload_bytes <= LARGE_CALL_BYTES:
            yield
            return
        if self._large[uid] >= MAX_LARGE_CALLS_A_MEMBER:
            raise Refused(
                f"{MAX_LARGE_CALLS_A_MEMBER} requests of yours with very many files are under way; wait for one to end"
            )
        with _counting(self._large, uid):
            yield


@contextmanager
def _counting(counter: Counter[int], uid: int) -> Iterator[None]:
    counter[uid] += 1
    try:
        yield
    finally:
        counter[uid] -= 1
        if not counter[uid]:
            del counter[uid]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller said when it was asked; `descriptors` are open while the answer is lent."""

    message: Message
    payload: bytes
    descriptors: Sequence[int]


@dataclass(slots=True)
class _Question:
    kind: type[Message]
    descriptors: int
    answered: trio.Event
    answer: Answer | None = None


class Call:
    """One conversation. One task hears the caller (`listen`); others speak, one message at a time, and ask."""

    def __init__(self, stream: MessageStream[Message], caller: Caller) -> None:
        self.caller: Final = caller
        self._stream: Final = stream
        self._speaking: Final = trio.Lock()
        self._question: _Question | None = None
        self._held: list[int] = []

    async def say(self, message: Message, payload: bytes = b"") -> None:
        """Send one message.

        Raises:
          PeerGone, PeerSilent, Cancellation: as `MessageStream.send`.
        """
        async with self._speaking:
            await self._stream.send(message, payload)

    @asynccontextmanager
    async def ask(
        self, question: Message, kind: type[Message], *, descriptors: int = 0, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> AsyncIterator[Answer]:
        """Ask the caller and lend its answer, of this `kind` and with so many descriptors, which are closed at the end.

        Raises:
          PeerSilent: no answer came within `timeout_s`.
          RemoteProtocolError, PeerGone: in `listen`, which then ends the conversation.
        """
        if self._question is not None:
            raise ValueError("one question at a time")
        asked = self._question = _Question(kind, descriptors, trio.Event())
        self._expect(descriptors)
        try:
            await self.say(question)
            with trio.move_on_after(timeout_s):
                await asked.answered.wait()
            if asked.answer is None:
                raise PeerSilent(f"the caller did not answer within {timeout_s:.0f} s")
            yield asked.answer
        finally:
            self._question = None
            self._expect(0)
            self._close_held()

    async def listen(self, scope: trio.CancelScope) -> None:
        """Hear the caller until it leaves, which abandons its request: cancel that.

        Raises:
          RemoteProtocolError: it says what it was not asked.
        """
        try:
            while True:
                await self._hear()
        except (PeerGone, PeerSilent):
            scope.cancel()

    async def _hear(self) -> None:
        message = await self._stream.receive()
        asked = self._question
        if asked is None or asked.answer is not None or type(message) is not asked.kind:
            raise RemoteProtocolError(f"{type(message).__name__} came while a request was under way")
        payload = await self._stream.receive_payload()
        transport = self._stream.transport
        came = transport.take() if isinstance(transport, UnixTransport) else []
        self._held += came
        if len(came) != asked.descriptors:
            raise RemoteProtocolError(
                f"{len(came)} descriptors came where {asked.descriptors or 'none'} were asked for"
            )
        asked.answer = Answer(message, payload, came)
        asked.answered.set()

    def _expect(self, count: int) -> None:
        if isinstance(self._stream.transport, UnixTransport):
            self._stream.transport.expect(count)

    def _close_held(self) -> None:
        held, self._held = self._held, []
        if held and self.caller.owner is not None:
            closers.close(held, self.caller.owner.uid)

    def close(self) -> None:
        """Close what was handed over and nobody has closed yet."""
        self._close_held()
