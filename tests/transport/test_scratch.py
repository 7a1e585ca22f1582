"""Two loops in two threads of one program, each with connections of its own: none sees what is another's."""

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from interfiles.transport import tls
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import MessageStream
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import FROM_CLIENT, Resolve
from tests.transport.setups import receive_exactly
from tests.transport.tls_ends import Cut, cable, secured

WHOLE = 1 << 20


class Meanwhile:
    """Lets the same happen in another thread, once and to its end, in the middle of what happens here.

    `name`: which of the two this is.
    """

    def __init__(self, exchange: Callable[["Meanwhile"], Awaitable[None]], name: str = "here") -> None:
        self.name = name
        self._exchange = exchange
        self._is_due = name == "here"

    def run(self) -> None:
        """Let it happen there now."""
        if self._is_due:
            self._is_due = False
            went_well: list[bool] = []

            def there() -> None:
                trio.run(self._exchange, Meanwhile(self._exchange, "there"))
                went_well.append(True)

            thread = threading.Thread(target=there)
            thread.start()
            thread.join()
            assert went_well

    @property
    def has_been(self) -> bool:
        """Whether it has happened there."""
        return not self._is_due


class Interrupted(Cut):
    """An end that has just received something when the other thread has its turn."""

    def __init__(self, inner: Transport) -> None:
        super().__init__(inner, [WHOLE])
        self.meanwhile: Meanwhile | None = None

    async def receive_some_into(self, buffer: memoryview) -> int:
        count = await super().receive_some_into(buffer)
        if self.meanwhile is not None:
            self.meanwhile.run()
        return count


async def messages(meanwhile: Meanwhile) -> None:
    near, far = await cable()
    interrupted = Interrupted(far)
    interrupted.meanwhile = meanwhile
    await MessageStream(near, FROM_CLIENT).send(Resolve(1, meanwhile.name, False))
    stream: MessageStream[Message] = MessageStream(interrupted, FROM_CLIENT)
    assert await stream.receive() == Resolve(1, meanwhile.name, False)


@pytest.mark.parametrize("is_shaking_hands", [True, False])
def test_what_comes_over_tls_is_not_another_threads(is_shaking_hands: bool) -> None:
    async def exchange(meanwhile: Meanwhile) -> None:
        near, far = await cable()
        interrupted = Interrupted(far)
        interrupted.meanwhile = meanwhile if is_shaking_hands else None
        dialled, accepted = await secured(ends=(near, interrupted))
        interrupted.meanwhile = meanwhile
        content = meanwhile.name.encode() * 1000
        await dialled.send_all(content)
        assert await receive_exactly(accepted, len(content)) == content
        assert meanwhile.has_been

    trio.run(exchange, Meanwhile(exchange))


def test_a_message_that_comes_is_not_another_threads() -> None:
    trio.run(messages, Meanwhile(messages))


def test_a_file_that_is_sent_over_tls_is_not_another_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).write_bytes(name.encode() * 1000)
    read, running = tls._read, dict[int, Meanwhile]()

    def interrupted(fd: int, offset: int, buffer: memoryview) -> int:
        count = read(fd, offset, buffer)
        running[threading.get_ident()].run()
        return count

    async def exchange(meanwhile: Meanwhile) -> None:
        running[threading.get_ident()] = meanwhile
        dialled, accepted = await secured()
        path = tmp_path / meanwhile.name
        size = path.stat().st_size
        with path.open("rb") as file:
            await dialled.send_file(file.fileno(), 0, size, head=b"head")
        assert await receive_exactly(accepted, 4 + size) == b"head" + path.read_bytes()
        assert meanwhile.has_been

    monkeypatch.setattr(tls, "_read", interrupted)
    trio.run(exchange, Meanwhile(exchange))
