"""Runs a `Download` for every file that should be fetched, and stops those that should not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.download import Download
from daemons.supervision import Backoff, contain
from interfiles.errors import InterFilesError, Refused

if TYPE_CHECKING:
    from random import Random

    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from interfiles.manifest import FileId
    from interfiles.storage.executor import Executor
    from interfiles.transport.base import Network
    from interfiles.wire.session import Identity

RETRY_FLOOR_S: Final = 2.0
RETRY_CAP_S: Final = 30.0  # a disk that was full is noticed within so long after room is made

log = structlog.get_logger()


class Transfers:
    """Level-triggered: looks at what the records say and makes it so."""

    def __init__(self, library: Library, network: Network, disk: Executor, rng: Random, identity: Identity) -> None:
        self._library = library
        self._network = network
        self._disk = disk
        self._rng = rng
        self._identity = identity
        self._running: dict[FileId, tuple[LocalFile, trio.CancelScope, trio.Event]] = {}
        self._leaving: set[FileId] = set()

    async def run(self) -> None:
        """Keep the downloads going until cancelled."""
        seen = 0
        async with trio.open_nursery() as nursery:
            while True:
                for file in self._library:
                    if file.is_fetching and file.file_id not in self._running and file.file_id not in self._leaving:
                        self._running[file.file_id] = (file, trio.CancelScope(), trio.Event())
                        nursery.start_soon(self._keep_fetching, file)
                seen = await self._library.work.later_than(seen)

    async def stop(self, file: LocalFile) -> None:
        """End the run of a file's download, if there is one, and wait until it has let go of the part."""
        if entry := self._running.get(file.file_id):
            _, scope, ended = entry
            scope.cancel()
            await ended.wait()

    async def pause(self, file: LocalFile) -> None:
        """Neither fetch nor serve the file until it is resumed.

        Raises:
          Refused: there is nothing to pause.
        """
        if file.record.state in ("finishing", "withdrawn"):
            raise Refused(f"{file.label} cannot be paused: {file.refusal or 'it is about to be complete'}")
        if file.record.state != "paused":
            await self._library.set_state(file, "paused")
            await self.stop(file)

    async def resume(self, file: LocalFile) -> None:
        """Go on with a paused file where it was."""
        if file.record.state == "paused":
            complete = file.record.part is None
            await self._library.set_state(file, "complete" if complete else "downloading")

    async def remove(self, file: LocalFile, *, delete: bool) -> None:
        """Stop fetching and serving a file and forget it; a part is deleted, content at its destination on request."""
        self._leaving.add(file.file_id)  # else the run that is stopped would be followed by another
        try:
            await self.stop(file)
            await self._library.remove(file, delete=delete)
        finally:
            self._leaving.discard(file.file_id)
            self._library.work.tell()

    async def forget(self, file_id: FileId, *, delete: bool) -> None:
        """The file was removed from the fleet."""
        if file := self._library.find(file_id):
            log.info("forgotten", file=file.label, delete=delete)
            await self.remove(file, delete=delete)

    async def _keep_fetching(self, file: LocalFile) -> None:
        """Try until it is complete; a disk that is full or broken may be mended meanwhile."""
        _, scope, ended = self._running[file.file_id]
        backoff = Backoff(self._rng, floor_s=RETRY_FLOOR_S, cap_s=RETRY_CAP_S)

        async def attempt() -> None:
            try:
                await Download(file, self._library, self._network, self._disk, self._rng, self._identity).run()
            except* InterFilesError as group:
                file.note = _first(group)
                file.changed.tell()
                raise

        try:
            with scope:
                while file.is_fetching:
                    await contain(f"downloading {file.label}", attempt, expected=(InterFilesError,), log=log)
                    if file.is_fetching:
                        await trio.sleep(backoff.next())
        finally:
            del self._running[file.file_id]
            ended.set()
            self._library.work.tell()


def _first(group: BaseExceptionGroup[InterFilesError]) -> str:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error)
