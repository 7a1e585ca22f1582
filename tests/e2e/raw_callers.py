"""The protocol of commands as a test speaks it, on a socket that it has connected with a member's rights."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import trio

from interfiles.errors import from_wire
from interfiles.storage.acting import Owner, acting_as
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.unix import UnixTransport
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from tests.e2e.content import MIB
from tests.e2e.members import ANNA, BERT, GROUP, Users
from tests.e2e.processes import open_fds, poll, rss

MEMBER, OTHER = Owner(ANNA, ANNA, (GROUP,)), Owner(BERT, BERT, (GROUP,))
Stream = MessageStream[Message]


@contextmanager
def leaving_nothing(users: Users) -> Iterator[None]:
    """Check: no more descriptors than before, little more memory, nothing new to serve, and others are answered."""
    before = open_fds(users.shared), rss(users.shared)
    files = users.fleet.ask(users.shared, lambda client: client.status()).files
    yield
    poll(lambda: open_fds(users.shared) <= before[0], f"no more than {before[0]} descriptors", timeout_s=10)
    assert rss(users.shared) - before[1] < 64 * MIB
    users.fleet.check_logs()
    assert users.fleet.ask(users.shared, lambda client: client.status()).files == files
    run(lambda: answers(users, OTHER))


async def answers(users: Users, member: Owner) -> None:
    async with calling(users, member) as stream:
        await say(stream, c.Status())
        await hear(stream, c.Result)


@asynccontextmanager
async def calling(users: Users, member: Owner | None = None) -> AsyncIterator[Stream]:
    """A conversation as a member, Anna unless another one is named."""
    sock = socket.socket(socket.AF_UNIX)
    with acting_as(member or MEMBER):
        sock.connect(str(users.shared.socket))
    sock.setblocking(False)
    transport = UnixTransport(sock)
    stream, _ = await greet(transport, "control", "local")
    try:
        yield stream
    finally:
        stream.close()


async def say(stream: Stream, message: Message, descriptors: Sequence[int] = (), payload: bytes = b"") -> None:
    assert isinstance(stream.transport, UnixTransport)
    stream.transport.attach(descriptors)
    await stream.send(message, payload)


async def hear(stream: Stream, kind: type[Message]) -> Any:
    """The next message but progress; a failure is raised."""
    while True:
        message = await stream.receive()
        if isinstance(message, Failure):
            raise from_wire(message.code, message.text)
        if not isinstance(message, c.Progress) or kind is c.Progress:
            assert isinstance(message, kind)
            return message


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with trio.fail_after(20):
            await main()

    trio.run(bounded)
