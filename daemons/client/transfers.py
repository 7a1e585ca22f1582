"""Runs a `Download` for every file that should be fetched, and stops those that should not."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.download import Download
from daemons.client.notice import Notice
from daemons.client.rate_gate import SpareGate
from daemons.supervision import Backoff, contain, first_leaf
from interfiles.errors import InterFilesError, Refused
from interfiles.swarm.spare_rate import SpareRate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from random import Random

    from daemons.client.fleet_network import FleetNetwork
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.rate_gate import RateGate
    from interfiles.manifest import FileId

SPARE_S: Final = 0.2  # between two looks at what replicas may fetch
RETRY_FLOOR_S: Final = 2.0
RETRY_CAP_S: Final = 30.0  # a disk that was full is noticed within so long after room is made

log = structlog.get_logger()


class Transfers:
    """Level-triggered: looks at what the records say and makes it so.

    `on_complete` is told of each file that has been fetched whole.
    """

    def __init__(
        self,
        library: Library,
        network: FleetNetwork,
        rng: Random,
        gate: RateGate,
        *,
        zone: str,
        on_complete: Callable[[LocalFile], None] = lambda _: None,
    ) -> None:
        self._library = library
        self._network = network
        self._zone = zone
        self._rng = rng
        self._gate = gate
        self._spare = SpareGate(gate)
        self._on_complete = on_complete
        self._running: dict[FileId, tuple[LocalFile, trio.CancelScope, trio.Event]] = {}
        self._held: set[FileId] = set()
        self._forgotten: dict[FileId, bool] = {}
        self._told_to_forget = Notice()

    async def run(self) -> None:
        """Keep the downloads going until cancelled."""
        seen = 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._remove_forgotten)
            nursery.start_soon(self._leave_room)
            while True:
                for file in self._library:
                    if file.is_fetching and file.file_id not in self._running and file.file_id not in self._held:
                        self._running[file.file_id] = (file, trio.CancelScope(), trio.Event())
                        nursery.start_soon(self._keep_fetching, file)
                seen = await self._library.work.later_than(seen)

    async def _leave_room(self) -> None:
        """Have the replicas that come here leave most of the line to people's downloads."""
        spare = SpareRate()
        while True:
            await trio.sleep(SPARE_S)
            now = trio.current_time()
            fetching = [file for file, _, _ in self._running.values() if file.phase == "fetching"]
            people = [file.rates(now)[0] for file in fetching if not file.record.ordered]
            replicas = sum(file.rates(now)[0] for file in fetching if file.record.ordered)
            self._spare.change(spare.update(sum(people) if people else None, replicas, now))

    @asynccontextmanager
    async def stopped(self, file: LocalFile) -> AsyncIterator[None]:
        """End the run of a file's download, if there is one, once it has let go of the part; no other begins inside."""
        async with self._library.claimed(file.file_id), self.halted(file):
            yield

    @asynccontextmanager
    async def halted(self, file: LocalFile) -> AsyncIterator[None]:
        """The same, for who has claimed the file."""
        self._held.add(file.file_id)
        try:
            if entry := self._running.get(file.file_id):
                _, scope, ended = entry
                scope.cancel()
                await ended.wait()
            yield
        finally:
            self._held.discard(file.file_id)
            self._library.work.tell()

    async def pause(self, file: LocalFile) -> None:
        """Neither fetch nor serve the file until it is resumed.

        Raises:
          Refused: there is nothing to pause.
        """
        async with self.stopped(file):
            if file.record.state == "withdrawn":
                raise Refused(f"{file.label} cannot be paused: {file.refusal}")
            if file.record.state != "paused":
                await self._library.set_state(file, "paused")

    async def resume(self, file: LocalFile) -> None:
        """Go on with a paused file where it was.

        Raises:
          ContentChanged: a complete one is not what was hashed any more; it is withdrawn until it is put back.
        """
        async with self._library.claimed(file.file_id):
            if file.record.state == "paused":
                complete = file.record.part is None
                await self._library.set_state(file, "complete" if complete else "downloading")
        await self._library.check_unchanged(file)

    async def remove(self, file: LocalFile, *, delete: bool, everywhere: bool = False) -> None:
        """Stop fetching and serving a file and forget it; a part is deleted, content at its destination on request.

        `everywhere`: it was removed from the fleet, not from this host alone; whoever waits for it is told which.
        """
        why = f"the file was removed from {'the fleet' if everywhere else 'this host'}"
        async with self.stopped(file):
            await self._library.remove(file, delete=delete, why=why)

    def forget(self, file_id: FileId, *, delete: bool) -> None:
        """The file was removed from the fleet: remove it here too, soon."""
        if self._library.find(file_id) is not None:
            self._forgotten[file_id] = delete
            self._told_to_forget.tell()

    async def _remove_forgotten(self) -> None:
        seen = 0
        async with trio.open_nursery() as nursery:
            while True:
                while self._forgotten:
                    file_id, delete = self._forgotten.popitem()
                    if file := self._library.find(file_id):
                        nursery.start_soon(self._forget, file, delete)
                seen = await self._told_to_forget.later_than(seen)

    async def _forget(self, file: LocalFile, delete: bool) -> None:
        log.info("forgotten", file=file.label, delete=delete)
        remove = partial(self.remove, file, delete=delete, everywhere=True)
        await contain(f"forgetting {file.label}", remove, expected=(InterFilesError,), log=log)

    async def _keep_fetching(self, file: LocalFile) -> None:
        """Try until it is complete; a disk that is full or broken may be mended meanwhile."""
        _, scope, ended = self._running[file.file_id]
        backoff = Backoff(self._rng, floor_s=RETRY_FLOOR_S, cap_s=RETRY_CAP_S)

        async def attempt() -> None:
            gate = self._spare if file.record.ordered else self._gate
            try:
                await Download(file, self._library, self._network, self._rng, gate, zone=self._zone).run()
                if self._library.find(file.file_id) is file:  # not removed meanwhile
                    self._on_complete(file)
            except* InterFilesError as group:
                error = first_leaf(group)
                assert isinstance(error, InterFilesError)
                file.note, file.failure = str(error), error
                self._library.phase_changed(file)
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
