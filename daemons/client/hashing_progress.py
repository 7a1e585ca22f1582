"""How far something is that threads do and callers watch."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from interfiles.errors import InterFilesError
from interfiles.wire import control_messages as c

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemons.client.callers import Call

PROGRESS_S: Final = 0.1  # between two progress messages


@dataclass(slots=True)
class HashingProgress:
    """Counted by the hashing threads, shown by the control session."""

    name: str = ""
    done: int = 0
    total: int = 0
    copying: bool = False
    publishing: bool = False

    def add(self, count: int) -> None:
        """So many bytes more are hashed."""
        self.done += count


@asynccontextmanager
async def shown(call: Call, phase: c.Phase, progress: HashingProgress) -> AsyncIterator[None]:
    """Stream the progress of what runs inside; a message begun is sent whole, for the result comes right after it."""
    done, failure = trio.Event(), None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_show, call, phase, progress, done)
        try:
            yield
        except InterFilesError as e:
            failure = e
        done.set()
    if failure is not None:
        raise failure


async def _show(call: Call, phase: c.Phase, progress: HashingProgress, done: trio.Event) -> None:
    began = trio.current_time()
    while True:
        with trio.move_on_after(PROGRESS_S):
            await done.wait()
            return
        now = "publishing" if progress.publishing else phase
        text = "copying" if progress.copying else ""
        rate = int(progress.done / (trio.current_time() - began))
        await call.say(c.Progress(now, progress.name, progress.done, progress.total, rate, 0, text))
