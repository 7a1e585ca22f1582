"""A change that several tasks wait for."""

import trio


class Notice:
    """Counts changes; a waiter names the count that it has seen, so no change is missed between two looks."""

    def __init__(self) -> None:
        self.count = 0
        self._event = trio.Event()

    def tell(self) -> None:
        """Something changed: wake every waiter."""
        self.count += 1
        self._event.set()
        self._event = trio.Event()

    async def later_than(self, seen: int) -> int:
        """Wait until there was a change after `seen`; return the count now."""
        while self.count <= seen:
            await self._event.wait()
        return self.count
