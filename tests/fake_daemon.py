"""A daemon that plays a script: at a real Unix socket, in the real protocol, in a thread of its own."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from interfiles.errors import InterFilesError, PeerGone
from interfiles.transport.message_stream import MessageStream, welcome
from interfiles.transport.plain import SocketListener, SocketTransport
from interfiles.transport.unix import listen_unix
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import Progress, Result, TrackerContent
from interfiles.wire.handshake_messages import Conversation, Failure
from interfiles.wire.reports import Report, encode_report


class Never:
    """The daemon says nothing more, and keeps the connection until the caller leaves."""


NEVER = Never()
# A report is a result; bytes are a tracker file; an error fails the request; then, or at its end, the daemon hangs up.
Reply = Progress | Report | bytes | InterFilesError | Message | Never


@dataclass
class FakeDaemon:
    """`requests`: what was asked, with its payload. `left` is set when a caller left before the script's end."""

    socket: Path
    conversation: Conversation = "control"
    requests: list[tuple[Message, bytes]] = field(default_factory=list)
    scripts: list[Sequence[Reply]] = field(default_factory=list)
    told: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)

    def will(self, *replies: Reply) -> None:
        """Answer the next request like this; each call is for one more request."""
        self.scripts.append(replies)

    @property
    def request(self) -> Message:
        """The only request."""
        ((request, _),) = self.requests
        return request

    @contextmanager
    def running(self) -> Iterator["FakeDaemon"]:
        """Serve in a thread."""
        scope = trio.CancelScope()
        tokens: list[trio.lowlevel.TrioToken] = []
        ready = threading.Event()

        async def main() -> None:
            with scope:
                listener = listen_unix(self.socket)
                tokens.append(trio.lowlevel.current_trio_token())
                ready.set()
                async with trio.open_nursery() as nursery:
                    await self._accept(listener, nursery)

        thread = threading.Thread(target=trio.run, args=[main])
        thread.start()
        try:
            assert ready.wait(10)
            yield self
        finally:
            tokens[0].run_sync_soon(scope.cancel)
            thread.join()

    async def _accept(self, listener: SocketListener, nursery: trio.Nursery) -> None:
        try:
            while True:
                nursery.start_soon(self._converse, await listener.accept())
        finally:
            listener.close()

    async def _converse(self, transport: SocketTransport) -> None:
        try:
            stream, _ = await welcome(transport, self.conversation, lambda: "local")
            request = await stream.receive()
            self.requests.append((request, await stream.receive_payload()))
            for reply in self.scripts.pop(0):
                await self._say(stream, reply)
        except PeerGone:  # `connect` only looks whether the daemon answers
            pass
        finally:
            transport.close()

    async def _say(self, stream: MessageStream[Message], reply: Reply) -> None:
        match reply:
            case Report():
                await stream.send(Result(), encode_report(reply))
            case bytes():
                await stream.send(TrackerContent(), reply)
            case InterFilesError():
                await stream.send(Failure(reply.code, str(reply)))
            case Never():
                self.told.set()
                try:
                    await stream.receive()
                finally:
                    self.left.set()
            case _:
                await stream.send(reply)
