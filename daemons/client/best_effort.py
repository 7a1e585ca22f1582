"""Storing what is in force already, from memory: that a disk is full or broken ends nothing then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from interfiles.errors import NoSpace, StorageFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from interfiles.storage.executor import Executor

log = structlog.get_logger()


class BestEffort:
    """Stores what the master tells: it holds until the next start whether or not that succeeds.

    A full disk is nothing that another connection to the master would mend, so no failure gets out of here.
    """

    def __init__(self, database: Executor) -> None:
        self._database = database
        self._failing: set[str] = set()

    async def store(self, what: str, write: Callable[[], None]) -> bool:
        """Call `write`, which changes the job store; return whether the change is durable.

        A failure gives one warning, the next one once `what` could be stored again meanwhile.
        """
        try:
            await self._database.run(write)
        except (NoSpace, StorageFailed) as e:
            if what not in self._failing:
                log.warning("not stored", what=what, reason=str(e))
            self._failing.add(what)
            return False
        self._failing.discard(what)
        return True
