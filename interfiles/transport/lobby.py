"""Connections whose other end has not proved yet who it is: few enough that strangers never crowd members out."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from interfiles.transport.base import Transport

log = structlog.get_logger()


class Lobby:
    """Holds at most `size` connections; a newcomer to a full lobby takes the place of who has waited longest.

    An honest end proves itself within milliseconds, so it is never the one that has waited longest, unless newcomers
    arrive by the thousand in that time.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: dict[Transport, None] = {}
        self._is_crowded = False

    def __len__(self) -> int:
        return len(self._waiting)

    @contextmanager
    def waiting(self, transport: Transport) -> Iterator[None]:
        """Count a connection while its other end is to prove itself; it may be closed meanwhile."""
        if len(self._waiting) >= self._size:
            longest = next(iter(self._waiting))
            del self._waiting[longest]
            longest.close()
            if not self._is_crowded:
                log.warning("crowded by strangers", waiting=self._size, newest=str(transport.remote))
            self._is_crowded = True
        elif len(self._waiting) < self._size // 2:
            self._is_crowded = False
        self._waiting[transport] = None
        try:
            yield
        finally:
            self._waiting.pop(transport, None)
