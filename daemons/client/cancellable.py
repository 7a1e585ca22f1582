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
    failure: Exception | None = None

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
        except Stopped as e:
            await trio.lowlevel.checkpoint_if_cancelled()
            failure = e
        except Exception as e:  # noqa: BLE001 - raised again outside the nursery, which would wrap it in a group
            failure = e
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return result
