"""The line of those who fetch from this host, and the bell of each: who has a slot is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from daemons.client.news import News
from daemons.client.notice import Notice
from interfiles.priority import WEIGHTS
from interfiles.swarm.rate_limit import SlotCount
from interfiles.swarm.upload_queue import SLOTS, UploadQueue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from daemons.client.rate_gate import RateGate
    from interfiles.geometry import PieceIndex
    from interfiles.priority import Priority
    from interfiles.swarm.upload_queue import SentCounts

BUSY_S: Final = 1.0  # how often who waits is told so
LOOKS: Final = 4  # meanwhile, for slots that are stuck, and for those who are waited for no more


class UploadLine:
    """An `UploadQueue` on trio's clock, with fewer slots where `gate` has a limit. `run` must run meanwhile.

    `news`: rings the same bells when files change.
    """

    def __init__(self, gate: RateGate) -> None:
        self.gate = gate
        self._slots = SlotCount(gate.rate, SLOTS)
        self._queue = UploadQueue(self._slots.slots)
        self._bells: dict[str, Notice] = {}
        self.news: Final = News()

    async def run(self) -> None:
        """Look for slots that are stuck, and every second have everybody look whether to say something."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.news.run)
            await self._keep_moving()

    async def _keep_moving(self) -> None:
        passed = self.gate.passed
        while True:
            for _ in range(LOOKS):
                await trio.sleep(BUSY_S / LOOKS)
                self._ring(self._queue.grant(trio.current_time()))
            before, passed = passed, self.gate.passed
            is_line = bool(self._queue.waiting())
            self._queue.slots = self._slots.adapt(self.gate.rate, (passed - before) / BUSY_S, is_line=is_line)
            self._ring(self._queue.grant(trio.current_time()))
            self._ring(self._queue.waiting())

    def join(self, fetcher: str, sent: SentCounts, piece_bytes: int, *, host: str, priority: Priority) -> Notice:
        """A fetcher of pieces of this size comes, of this host; the notice tells when its turn may have come."""
        self._queue.add(fetcher, sent, piece_bytes, trio.current_time(), host=host, weight=WEIGHTS[priority])
        self._bells[fetcher] = Notice()
        return self._bells[fetcher]

    def prefer(self, fetcher: str, priority: Priority) -> None:
        """It has another priority from now on."""
        self._ring(self._queue.weigh(fetcher, WEIGHTS[priority], trio.current_time()))

    def moves(self, fetcher: str) -> None:
        """It takes what it is sent, as slowly as the limit has it."""
        self._queue.moves(fetcher, trio.current_time())

    def leave(self, fetcher: str) -> None:
        """It is gone."""
        del self._bells[fetcher]
        self._ring(self._queue.drop(fetcher, trio.current_time()))

    def ask(self, fetcher: str, pieces: int) -> None:
        """It asks for these pieces (bits)."""
        self._ring(self._queue.ask(fetcher, pieces, trio.current_time()))

    def cancel(self, fetcher: str, pieces: int) -> None:
        """It asks for these pieces (bits) no more."""
        self._ring(self._queue.cancel(fetcher, pieces, trio.current_time()))

    def next(self, fetcher: str) -> PieceIndex | None:
        """The piece to send to it now; None if it is not its turn."""
        now = trio.current_time()
        piece = self._queue.next(fetcher, now)
        if piece is None or self._queue.is_held_back:
            self._ring(self._queue.grant(now))
        return piece

    def is_asking(self, fetcher: str) -> bool:
        """Whether it asks for something that is not begun."""
        return self._queue.is_asking(fetcher)

    def is_waiting(self, fetcher: str) -> bool:
        """Whether it asks for something and others are served first."""
        return self._queue.is_waiting(fetcher)

    def _ring(self, fetchers: Iterable[str]) -> None:
        for fetcher in fetchers:
            self._bells[fetcher].tell()
