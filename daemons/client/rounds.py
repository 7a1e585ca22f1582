"""Looking after all files again and again, so that nobody's disk holds up those of others."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from daemons.supervision import contain
from interfiles.errors import InterFilesError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from daemons.client.local_file import LocalFile
    from interfiles.storage.acting import Owner

log = structlog.get_logger()


@asynccontextmanager
async def rounds(
    files: Iterable[LocalFile], look: Callable[[LocalFile], Awaitable[None]]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Make a function that looks after every file; trouble with one, or with the database, does not end it.

    It waits for the daemon's own files. Those of other users are looked after beside it, each user's by one task: their
    disks may never answer. `files` are listed anew each time.
    """
    busy: set[Owner | None] = set()

    async def look_after(owner: Owner | None) -> None:
        for file in files:
            if file.record.rights == owner:
                task = f"looking after {file.label}"
                await contain(task, partial(look, file), expected=(InterFilesError,), log=log)
        busy.discard(owner)

    async with trio.open_nursery() as nursery:

        async def go_round() -> None:
            for owner in {file.record.rights for file in files} - busy:
                if owner is not None:
                    busy.add(owner)
                    nursery.start_soon(look_after, owner)
            await look_after(None)

        yield go_round
