"""Copies, at a second place, of what this host holds already: jobs like any other, so a crash loses none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.cancellable import run_cancellable
from daemons.client.hashing_progress import HashingProgress
from daemons.supervision import contain
from interfiles.errors import ContentChanged, DestinationExists, InterFilesError, Refused, printable
from interfiles.manifest import FileId, short_id
from interfiles.piece_set import PieceSet
from interfiles.storage.part_store import PartStore, check_left_over, discard_part, part_path
from interfiles.storage.records import CopyRecord, encode_stamps
from interfiles.storage.seed_store import SeedStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore
    from interfiles.storage.places import Place
    from interfiles.storage.scan import Stamp

MAX_COPIES: Final = 64  # under way at once

log = structlog.get_logger()


@dataclass(eq=False, slots=True)
class Copy:
    """A copy under way. `failure`: after `ended`, why it was not made; None where it was.

    `has_part`: something of it is on disk.
    """

    record: CopyRecord
    file: LocalFile
    progress: HashingProgress
    has_part: bool = False
    failure: InterFilesError | None = None
    ended: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    @property
    def destination(self) -> Path:
        return Path(os.fsdecode(self.record.destination))

    @property
    def part(self) -> Path:
        return Path(os.fsdecode(self.record.part))


class Copier:
    """Copies complete files, every piece checked; the first place stays the one that is served from."""

    def __init__(self, library: Library, jobs: JobStore, database: Executor) -> None:
        self._library = library
        self._jobs = jobs
        self._database = database
        self._copies: dict[bytes, Copy] = {}  # by part
        self._begun, self._due = trio.open_memory_channel[Copy](MAX_COPIES)

    def __iter__(self) -> Iterator[Copy]:
        return iter(list(self._copies.values()))

    def of(self, file_id: FileId) -> list[Copy]:
        """The copies of a file that are under way."""
        return [copy for copy in self if copy.file.file_id == file_id]

    async def load(self) -> None:
        """Take up what an earlier run of the daemon left unfinished."""
        for record in await self._database.run(self._jobs.load_copies):
            file = self._library.find(FileId(record.file_id))
            if file is not None and file.is_complete and len(self._copies) < MAX_COPIES:
                self._begin(Copy(record, file, _progress(file), has_part=True))
                continue
            log.warning("copy given up", **_shown(record), reason="this host does not have the whole file any more")
            disk, part = self._library.disks.of(record.owner), Path(os.fsdecode(record.part))
            try:
                await disk.run(discard_part, part, record.place)
            except InterFilesError as e:
                log.warning("not removed", part=printable(str(part)), reason=str(e))
            await self._database.run(self._jobs.remove_copy, record)

    async def run(self) -> None:
        """Copy until cancelled."""
        async with trio.open_nursery() as nursery:
            async for copy in self._due:
                nursery.start_soon(self._carry_out, copy)

    def find(self, file: LocalFile, destination: Path, owner: Owner | None) -> Copy | None:
        """The copy of a file that is on its way to a destination.

        Raises:
          Refused: it is another user's.
        """
        copy = self._copies.get(os.fsencode(part_path(destination.parent, file.manifest)))
        if copy is not None and copy.record.owner != owner:
            raise Refused(f"{file.label} is being copied there for another user; ask again when that is done")
        return copy

    async def start(
        self, file: LocalFile, destination: Path, *, overwrite: bool, owner: Owner | None, place: Place | None
    ) -> Copy:
        """Begin to copy a complete file, which the caller has claimed, to a destination without symlinks in its path.

        None is on its way there. It goes on whatever becomes of the caller, and after a restart.
        `owner` and `place`: who asks, as in `FileRecord`. `Copy.failure` will be one of these:

          ContentChanged: the file is not what it was when it was hashed.
          DestinationExists: other content is there and may not be overwritten.
          PathNotFound, NotPermitted, NoSpace, StorageFailed: the place is not fit.
          Refused: it was stopped. Whatever it is, no part is left.

        Raises:
          Refused: too many copies are under way.
        """
        part = os.fsencode(part_path(destination.parent, file.manifest))
        if len(self._copies) >= MAX_COPIES:
            raise Refused(f"{MAX_COPIES} copies are under way on this host; ask again when one is done")
        record = CopyRecord(part, file.file_id, os.fsencode(destination), overwrite, owner, place)
        copy = self._copies[part] = Copy(record, file, _progress(file))
        try:
            await self._database.run(self._jobs.add_copy, record)
        except BaseException:
            del self._copies[part]
            raise
        self._begin(copy)
        return copy

    async def stop(self, file_id: FileId) -> None:
        """End the copies of a file, and remove their parts."""
        copies = self.of(file_id)
        for copy in copies:
            copy.scope.cancel()
        for copy in copies:
            await copy.ended.wait()

    def _begin(self, copy: Copy) -> None:
        self._copies[copy.record.part] = copy
        self._begun.send_nowait(copy)

    async def _carry_out(self, copy: Copy) -> None:
        copy.failure = Refused(f"{copy.file.label} was not copied; see the daemon's log")
        try:
            await contain("copying", lambda: self._attempt(copy), expected=(InterFilesError,), log=log)
        finally:
            del self._copies[copy.record.part]
            copy.ended.set()

    async def _attempt(self, copy: Copy) -> None:
        record, disk = copy.record, self._library.disks.of(copy.record.owner)
        try:
            with copy.scope:
                await self._make(copy, disk)
                copy.failure = None
                log.info("copied", **_shown(record))
            if copy.failure is not None:
                copy.failure = Refused(f"the copy of {copy.file.label} was stopped: the file was removed")
        except InterFilesError as e:
            copy.failure = e
        try:
            if copy.failure is not None:
                log.warning("copy given up", **_shown(record), reason=str(copy.failure))
                if copy.has_part:
                    await disk.run(discard_part, copy.part, record.place)
        finally:
            with trio.CancelScope(shield=True):
                await self._database.run(self._jobs.remove_copy, record)

    async def _make(self, copy: Copy, disk: Executor) -> None:
        record, manifest, files = copy.record, copy.file.manifest, self._library.open_files
        if copy.has_part:  # of an earlier run: nothing says how far it got
            await disk.run(discard_part, copy.part, record.place)
            copy.has_part = False
            if not record.overwrite and await disk.run(os.path.lexists, record.destination):
                raise DestinationExists(f"{printable(str(copy.destination))} exists already")
        await disk.run(check_left_over, copy.part, manifest)
        none = PieceSet(manifest.piece_count)
        store = await disk.run(lambda: PartStore.open(copy.part, manifest, none, files, record.owner, record.place))
        copy.has_part = True
        try:
            await self._fill(copy, store, disk)
        finally:
            store.close()

    async def _fill(self, copy: Copy, store: PartStore, disk: Executor) -> None:
        wanted, root = store.held.complement(), Path(os.fsdecode(copy.file.record.path))
        rights, progress = copy.file.record.rights, copy.progress.add
        copied = await run_cancellable(
            disk,
            lambda cancelled: store.reuse(root, wanted, owner=rights, progress=progress, cancelled=cancelled),
        )
        if copied != wanted:
            raise ContentChanged(f"{copy.file.label} changed while it was copied; run interfiles verify on it")
        await disk.run(store.sync)
        with trio.CancelScope(shield=True):  # what has its name is no part any more
            stamps = await disk.run(lambda: store.finish(copy.destination, overwrite=copy.record.overwrite))
            copy.has_part = False
            if copy.file.record.ordered:
                await self._take_the_place(copy, stamps)

    async def _take_the_place(self, copy: Copy, stamps: Sequence[Stamp]) -> None:
        """The copy of a replica, which is nobody's, is the person's: it is served from there, and the replica goes."""
        made, file = copy.record, copy.file
        async with self._library.claimed(file.file_id):
            if self._library.find(file.file_id) is not file or not file.record.ordered:
                return
            record = replace(
                file.record,
                path=made.destination,
                stamps=encode_stamps(stamps),
                owned=False,
                ordered=False,
                owner=made.owner,
                place=made.place,
                priority="normal",
            )
            store = SeedStore(copy.destination, file.manifest, stamps, self._library.open_files, record.rights)
            await self._library.add(record, file.manifest, store)


def _progress(file: LocalFile) -> HashingProgress:
    return HashingProgress(name=file.manifest.name, total=file.manifest.size, copying=True)


def _shown(record: CopyRecord) -> dict[str, str]:
    return {"file": short_id(FileId(record.file_id)), "to": printable(os.fsdecode(record.destination))}
