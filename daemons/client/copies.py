"""Copies, at a second place, of what this host holds already: jobs like any other, so a crash loses none."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import trio

from daemons.client.cancellable import run_cancellable
from daemons.supervision import contain
from interfiles.errors import ContentChanged, DestinationExists, InterFilesError, PathNotFound, printable
from interfiles.manifest import FileId, short_id
from interfiles.piece_set import PieceSet
from interfiles.storage.part_store import PartStore, discard_part, part_path
from interfiles.storage.records import CopyRecord

if TYPE_CHECKING:
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore
    from interfiles.storage.places import Place

log = structlog.get_logger()


class Copier:
    """Copies complete files, every piece checked; the first place stays the one that is served from."""

    def __init__(self, library: Library, jobs: JobStore, database: Executor) -> None:
        self._library = library
        self._jobs = jobs
        self._database = database

    async def run(self) -> None:
        """Go on with what an earlier run of the daemon left unfinished, and return."""
        async with trio.open_nursery() as nursery:
            for record in await self._database.run(self._jobs.load_copies):
                go_on = partial(self._go_on, record)
                nursery.start_soon(
                    partial(contain, "going on with a copy", go_on, expected=(InterFilesError,), log=log)
                )

    async def copy(
        self,
        file: LocalFile,
        destination: Path,
        *,
        overwrite: bool,
        owner: Owner | None,
        place: Place | None,
        progress: Callable[[int], None],
    ) -> None:
        """Copy a complete file, which the caller has claimed, to a destination without symlinks in its path.

        `progress` hears, from a thread, of bytes copied. `owner` and `place`: who asks, as in `FileRecord`.

        Raises:
          ContentChanged: the file is not what it was when it was hashed.
          DestinationExists: other content is there and may not be overwritten.
          PathNotFound, NotPermitted, NoSpace, StorageFailed: the place is not fit. Whatever is raised, no part is left.

        Cancellation:
          The part stays, for `run` to go on with.
        """
        part = part_path(destination.parent, file.manifest)
        record = CopyRecord(
            file_id=file.file_id,
            destination=os.fsencode(destination),
            part=os.fsencode(part),
            overwrite=overwrite,
            owner=owner,
            place=place,
        )
        await self._database.run(self._jobs.add_copy, record)
        await self._carry_out(file, record, progress)

    async def _carry_out(self, file: LocalFile, record: CopyRecord, progress: Callable[[int], None]) -> None:
        disk, manifest, files = self._library.disks.of(record.owner), file.manifest, self._library.open_files
        part, none = Path(os.fsdecode(record.part)), PieceSet(manifest.piece_count)
        try:
            store = await disk.run(lambda: PartStore.open(part, manifest, none, files, record.owner, record.place))
            try:
                await self._fill(store, file, record, progress)
            except InterFilesError:
                await disk.run(store.discard)
                raise
            finally:
                store.close()
        except InterFilesError:
            await self._database.run(self._jobs.remove_copy, record)
            raise
        await self._database.run(self._jobs.remove_copy, record)

    async def _fill(
        self, store: PartStore, file: LocalFile, record: CopyRecord, progress: Callable[[int], None]
    ) -> None:
        disk, wanted = self._library.disks.of(record.owner), store.held.complement()
        root, destination = Path(os.fsdecode(file.record.path)), Path(os.fsdecode(record.destination))
        copied = await run_cancellable(
            disk,
            lambda cancelled: store.reuse(
                root, wanted, owner=file.record.rights, progress=progress, cancelled=cancelled
            ),
        )
        if copied != wanted:
            raise ContentChanged(f"{file.label} changed while it was copied; run interfiles verify on it")
        await disk.run(store.sync)
        await disk.run(lambda: store.finish(destination, overwrite=record.overwrite))

    async def _go_on(self, record: CopyRecord) -> None:
        shown = {"file": short_id(FileId(record.file_id)), "to": printable(os.fsdecode(record.destination))}
        async with self._library.claimed(FileId(record.file_id)):
            if record not in await self._database.run(self._jobs.load_copies):
                return  # asked for again meanwhile, and done
            try:
                await self._begin_anew(record)
            except InterFilesError as e:
                log.warning("copy given up", reason=str(e), **shown)
            else:
                log.info("copied", **shown)

    async def _begin_anew(self, record: CopyRecord) -> None:
        file, disk = self._library.find(FileId(record.file_id)), self._library.disks.of(record.owner)
        try:
            await disk.run(discard_part, Path(os.fsdecode(record.part)), record.place)
            if file is None or not file.is_complete:
                raise PathNotFound("this host does not have the whole file any more")
            if not record.overwrite and await disk.run(os.path.lexists, record.destination):
                raise DestinationExists("something is there already")
        except InterFilesError:
            await self._database.run(self._jobs.remove_copy, record)
            raise
        await self._carry_out(file, record, lambda _: None)
