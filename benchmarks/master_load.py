"""The hosts of a large fleet, as their master sees them: real connections, and nothing behind them.

Each has its own certificate and its own TLS connection, registers, announces what it holds, and sends a heartbeat every
ten seconds, with another amount of free space each time and something new in it now and then. All are in one process, a
task each.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import trio

from benchmarks.master_catalogue import file
from interfiles.errors import InterFilesError
from interfiles.identity import contexts
from interfiles.identity.contexts import Credentials
from interfiles.transport.base import Address
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.plain import TcpNetwork
from interfiles.transport.tls import secure
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import (
    MAX_HEARTBEAT_HOLDINGS,
    Handout,
    Heard,
    Heartbeat,
    Holding,
    HoldingState,
    Register,
    Registered,
)

HEARTBEAT_S: Final = 10.0
ROOM_BYTES: Final = 1 << 40  # on each host, less
ROOM_CHANGES_BYTES: Final = 1 << 35  # so much at most, another amount each time
NEWS_SHARE: Final = 0.05  # of the heartbeats: a file has come, or has gone again


def holding(number: int, state: HoldingState) -> Holding:
    """What a host tells of the file of this number."""
    told = file(number)
    return Holding(told.file_id, state, told.pieces if state == "complete" else 0, 0, 0, "", False)


async def connect(address: Address, name: str, credentials: Credentials) -> MessageStream[Message]:
    """Dial the master and register.

    Raises:
      InterFilesError: it cannot be reached, or refuses.
    """
    transport = await secure(await TcpNetwork().dial(address), contexts.dialling(credentials), accepted=False)
    stream, _ = await greet(transport, "fleet", "master")
    await stream.send(Register(name, "", "", 4851))
    while not isinstance(await stream.receive(), Registered):
        pass
    return stream


@dataclass
class Noticed:
    """By all hosts together. `answers`: seconds from a heartbeat to `Heard`; `lost`: why connections ended."""

    up: int = 0
    answers: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Host:
    """One host. `held`: numbers of the files that it has from the start; `spare`: of the one that comes and goes."""

    def __init__(self, name: str, credentials: Credentials, held: Sequence[int], spare: int, noticed: Noticed) -> None:
        self.name: Final = name
        self._credentials = credentials
        self._noticed = noticed
        self._rng = random.Random(name)
        self._news = [holding(number, "complete") for number in held]
        self._spare, self._has_spare = spare, False
        self._sequence = 0
        self._pause = trio.CancelScope()
        self._sent_at = self._told_at = 0.0
        self._awaited: bytes | None = None
        self._told = trio.Event()

    async def run(self, address: Address, dials: trio.CapacityLimiter, *, task_status: trio.TaskStatus[None]) -> None:
        """Connect, and be there until cancelled; a connection that ends is noticed, and not made again.

        Started once the first heartbeat is answered, or the connection lost.
        """
        is_up = False
        try:
            async with dials:
                stream = await connect(address, self.name, self._credentials)
            try:
                await self._beat(stream)
                self._noticed.up += 1
                is_up = True
                task_status.started()
                await self._go_on(stream)
            finally:
                stream.close()
        except InterFilesError as e:
            self._noticed.lost.append(f"{self.name}: {e}")
            if not is_up:
                task_status.started()

    async def _go_on(self, stream: MessageStream[Message]) -> None:
        due = trio.current_time() + self._rng.uniform(0, HEARTBEAT_S)
        while True:
            with trio.CancelScope(deadline=-math.inf if self._news else due) as self._pause:
                while True:
                    self._take(await stream.receive())
            if trio.current_time() >= due:
                due += HEARTBEAT_S
                self._change()
            await self._beat(stream)

    async def _beat(self, stream: MessageStream[Message]) -> None:
        news, self._news = self._news[:MAX_HEARTBEAT_HOLDINGS], self._news[MAX_HEARTBEAT_HOLDINGS:]
        self._sequence += 1
        self._sent_at = trio.current_time()
        free = ROOM_BYTES - self._rng.randrange(ROOM_CHANGES_BYTES)
        await stream.send(Heartbeat(self._sequence, 0, free, self._sequence == 1, news))
        while not isinstance(message := await stream.receive(), Heard):
            self._take(message)
        self._noticed.answers.append(trio.current_time() - self._sent_at)

    def _change(self) -> None:
        if self._rng.random() < NEWS_SHARE:
            self._news.append(holding(self._spare, "none" if self._has_spare else "complete"))
            self._has_spare = not self._has_spare

    def _take(self, message: Message) -> None:
        if isinstance(message, Handout) and message.file_id == self._awaited:
            self._awaited, self._told_at = None, trio.current_time()
            self._told.set()

    def say(self, holdings: Sequence[Holding]) -> None:
        """Send a heartbeat with these at once."""
        self._news.extend(holdings)
        self._pause.cancel()

    async def fetch(self, number: int) -> float:
        """Begin to fetch a file, and give up once peers for it were handed out; return how many seconds that took."""
        self._awaited, self._told = file(number).file_id, trio.Event()
        self.say([holding(number, "fetching")])
        await self._told.wait()
        self.say([holding(number, "none")])
        return self._told_at - self._sent_at
