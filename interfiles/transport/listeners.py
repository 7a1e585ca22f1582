"""Accepting connections: bounded in number, and one bad connection harms only itself."""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog
import trio

from interfiles.transport.base import Listener, Transport

ACCEPT_PAUSE_S: Final = 0.1  # when accepting fails, for want of descriptors for example: others may be freed meanwhile

log = structlog.get_logger()


async def serve(
    listener: Listener,
    handler: Callable[[Transport], Awaitable[None]],
    *,
    max_connections: int,
) -> None:
    """Run `handler` on each connection in a task of its own, until cancelled; then close the listener.

    At most `max_connections` run at once; more wait in the system's queue. The transport is closed after its handler,
    whatever happened. `handler` has an error boundary of its own, for what peers bring about; what it lets out all the
    same is logged as a bug.
    """
    room = trio.CapacityLimiter(max_connections)
    failing = False

    async def run(transport: Transport, token: object) -> None:
        try:
            await handler(transport)
        except* Exception:  # one connection ends, the daemon goes on
            log.exception("bug", task="connection")
        finally:
            transport.close()
            room.release_on_behalf_of(token)

    try:
        async with trio.open_nursery() as nursery:
            while True:
                token = object()
                await room.acquire_on_behalf_of(token)
                try:
                    transport = await listener.accept()
                except OSError as e:
                    room.release_on_behalf_of(token)
                    if not failing:  # one line for all attempts until it works again
                        log.warning("accepting failed", address=str(listener.address), error=str(e))
                    failing = True
                    await trio.sleep(ACCEPT_PAUSE_S)
                    continue
                failing = False
                nursery.start_soon(run, transport, token)
    finally:
        listener.close()
