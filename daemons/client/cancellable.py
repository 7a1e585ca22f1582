"""Long blocking work that ends soon when its caller is cancelled."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from interfiles.storage import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from interfiles.storage.executor import Executor

T = TypeVar("T")


async def run_cancellable(executor: Executor, function: Callable[[Callable[[], bool]], T]) -> T:
    """Run `function(cancelled)` in the executor; `cancelled` answers yes from the moment the caller is cancelled.

    Cancellation:
      The function's `Stopped` is taken for the cancellation that caused it; its other effects are its own.
    """
    stop = False

    async def watch() -> None:
        nonlocal stop
        try:
            await trio.sleep_forever()
        finally:
            stop = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        try:
            result = await executor.run(function, lambda: stop)
        except Stopped:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise
        nursery.cancel_scope.cancel()
    return result
