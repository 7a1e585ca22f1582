"""Where blocking work runs: in threads for real, inline in virtual-time tests."""

from collections.abc import Callable
from typing import Protocol, TypeVar, TypeVarTuple, Unpack

import trio

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Executor(Protocol):
    """Runs blocking functions without blocking the loop."""

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """Return what `function(*args)` returns, or raise what it raises.

        Cancellation:
          Takes effect before the function starts or after it has ended, never within: its effects are whole.
        """


class ThreadExecutor:
    """At most `threads` functions at once, each in a worker thread."""

    def __init__(self, threads: int) -> None:
        self._limiter = trio.CapacityLimiter(threads)

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        return await trio.to_thread.run_sync(function, *args, limiter=self._limiter)


class InlineExecutor:
    """Runs the function at once on the loop: in virtual time a thread would make the clock jump."""

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        await trio.lowlevel.checkpoint()
        return function(*args)
