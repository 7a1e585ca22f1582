"""What happens between `interfiles download` and the first byte: find the file, check the place, make the part."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.cancellable import run_cancellable
from daemons.client.local_file import COMPLETE_STATES, LocalFile
from daemons.client.sources import Source
from daemons.supervision import contain
from interfiles.errors import (
    ContentChanged,
    DestinationExists,
    InterFilesError,
    NotPermitted,
    PathNotFound,
    Refused,
    StorageFailed,
    printable,
)
from interfiles.piece_set import PieceSet
from interfiles.storage.existing import matches_existing, same_structure
from interfiles.storage.jobs import FileRecord, encode_stamps
from interfiles.storage.part_store import PartStore, discard_part, part_path
from interfiles.storage.seed_store import SeedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemons.client.library import Library
    from daemons.client.transfers import Transfers
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import FileState
    from interfiles.storage.scan import Stamp


MAX_ORDERS: Final = 16  # waiting to be looked at; more callers wait for room

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Taken:
    """A download that was taken on. `is_here`: the content was on this host already, here or at another place."""

    file: LocalFile
    destination: Path
    is_here: bool


@dataclass(slots=True)
class _Order:
    source: Source
    directory: Path
    overwrite: bool
    progress: Callable[[int], None]
    done: trio.Event = field(default_factory=trio.Event)
    taken: Taken | None = None
    refused: InterFilesError | None = None


class Downloader:
    """Turns requests into records that `Transfers` works on.

    Requests are carried out by tasks of the daemon, not of the caller's connection: a caller who leaves after asking
    finds the download taken on, whatever moment it left at.
    """

    def __init__(self, library: Library, transfers: Transfers, disk: Executor) -> None:
        self._library = library
        self._transfers = transfers
        self._disk = disk
        self._orders, self._due = trio.open_memory_channel[_Order](MAX_ORDERS)

    async def run(self) -> None:
        """Carry requests out until cancelled."""
        async with trio.open_nursery() as nursery:
            async for order in self._due:
                nursery.start_soon(self._carry_out, order)

    async def start(
        self, source: Source, directory: Path, *, overwrite: bool, progress: Callable[[int], None]
    ) -> Taken:
        """Make sure that the file is at `directory` or on its way there.

        `progress` hears, from a thread, of bytes compared with what is on the disk already.

        Raises:
          DestinationExists: other content is there and may not be overwritten.
          PathNotFound, NotPermitted, NoSpace, StorageFailed: the place is not fit; nothing was written.
          Refused: the file is on its way to another place.

        Cancellation:
          The request is carried out all the same.
        """
        order = _Order(source, directory, overwrite, progress)
        await self._orders.send(order)
        await order.done.wait()
        if order.taken is None:
            raise order.refused or Refused("the download was not taken on; see the daemon's log")
        return order.taken

    async def _carry_out(self, order: _Order) -> None:

        async def take() -> None:
            try:
                async with self._library.claimed(order.source.manifest.file_id):
                    order.taken = await self._take(order)
            except InterFilesError as e:
                order.refused = e

        try:
            await contain("taking a download on", take, expected=(), log=log)
        finally:
            order.done.set()

    async def _take(self, order: _Order) -> Taken:
        source, manifest = order.source, order.source.manifest
        directory = await self._disk.run(_checked_directory, order.directory)
        destination = directory / manifest.name
        known = self._library.find(manifest.file_id)
        if known is not None and known.record.part is not None:
            return await self._go_on(known, destination, overwrite=order.overwrite)
        if await self._disk.run(same_structure, destination, manifest) is not None:  # else no need to read it all
            existing = await run_cancellable(
                self._disk,
                lambda cancelled: matches_existing(destination, manifest, progress=order.progress, cancelled=cancelled),
            )
            if existing.stamps is not None:
                return Taken(await self._adopt(known, source, destination, existing.stamps), destination, is_here=True)
        if known is not None and os.fsdecode(known.record.path) == str(destination):
            with suppress(ContentChanged):
                await self._library.check_unchanged(known)
        overwrite = order.overwrite or (known is not None and _is_damaged_download(known, destination))
        if not overwrite and await self._disk.run(os.path.lexists, destination):
            raise DestinationExists(
                f"{printable(str(destination))} exists and differs; use --overwrite, or -o for another place"
            )
        if known is not None and known.is_complete and os.fsdecode(known.record.path) != str(destination):
            await self._copy(known, destination, overwrite=overwrite, progress=order.progress)
            return Taken(known, destination, is_here=True)
        return Taken(await self._begin(source, destination, overwrite=overwrite), destination, is_here=False)

    async def _go_on(self, known: LocalFile, destination: Path, *, overwrite: bool) -> Taken:
        """The file is being downloaded, or was paused."""
        if Path(os.fsdecode(known.record.path)) != destination:
            raise Refused(
                f"{known.label} is on its way to {printable(os.fsdecode(known.record.path))}; "
                "wait for it, or stop it with interfiles rm --local"
            )
        if overwrite and not known.record.overwrite:
            await self._library.allow_overwrite(known)
        if known.record.state == "paused":
            await self._library.set_state(known, "downloading")
        return Taken(known, destination, is_here=False)

    async def _adopt(
        self, known: LocalFile | None, source: Source, destination: Path, stamps: Sequence[Stamp]
    ) -> LocalFile:
        """The very content is there already: serve it from there."""
        if known is not None and known.is_complete:
            with suppress(ContentChanged):
                await self._library.check_unchanged(known)
                return known
        is_ours = known is not None and os.fsdecode(known.record.path) == str(destination)
        in_place = known.record.in_place if known is not None and is_ours else True
        record = self._record(source, destination, None, "complete", overwrite=False, stamps=stamps)
        store = SeedStore(destination, source.manifest, stamps, self._library.open_files)
        return await self._library.add(replace(record, in_place=in_place), source.manifest, store)

    async def _begin(self, source: Source, destination: Path, *, overwrite: bool) -> LocalFile:
        """Make the part, then the record; a part that a crash left between the two is gone on with."""
        manifest, none = source.manifest, PieceSet(source.manifest.piece_count)
        part = part_path(destination.parent, manifest)
        is_new = not await self._disk.run(os.path.lexists, part)
        store = await self._disk.run(PartStore.open, part, manifest, none, self._library.open_files)
        store.close()  # the transfer opens it, as after a restart
        record = self._record(source, destination, part, "downloading", overwrite=overwrite, stamps=())
        try:
            return await self._library.add(record, manifest, None)
        except InterFilesError:
            if is_new:
                await self._disk.run(discard_part, part)
            raise

    async def _copy(
        self, known: LocalFile, destination: Path, *, overwrite: bool, progress: Callable[[int], None]
    ) -> None:
        """This host has the file elsewhere: copy it, every piece checked, and keep serving the first."""
        manifest, part = known.manifest, part_path(destination.parent, known.manifest)
        none = PieceSet(manifest.piece_count)
        store = await self._disk.run(PartStore.open, part, manifest, none, self._library.open_files)
        try:
            wanted = store.held.complement()
            root = Path(os.fsdecode(known.record.path))
            copied = await run_cancellable(
                self._disk, lambda cancelled: store.reuse(root, wanted, progress=progress, cancelled=cancelled)
            )
            if copied != wanted:
                raise ContentChanged(f"{printable(str(root))} changed while it was copied; run interfiles verify on it")
            await self._disk.run(store.sync)
            await self._disk.run(lambda: store.finish(destination, overwrite=overwrite))
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._disk.run(store.discard)
            raise
        store.close()

    def _record(
        self,
        source: Source,
        destination: Path,
        part: Path | None,
        state: FileState,
        *,
        overwrite: bool,
        stamps: Sequence[Stamp],
    ) -> FileRecord:
        count = source.manifest.piece_count
        complete = state in COMPLETE_STATES
        return FileRecord(
            file_id=source.manifest.file_id,
            manifest=source.manifest.encode(),
            path=os.fsencode(destination),
            part=os.fsencode(part) if part is not None else None,
            state=state,
            overwrite=overwrite,
            uploaded_at=source.uploaded_at,
            uploaded_by=source.uploaded_by,
            replicas=source.replicas,
            published=True,
            stamps=encode_stamps(list(stamps)),
            durable=(PieceSet.full(count) if complete else PieceSet(count)).to_bytes(),
            bytes_local=source.manifest.size if complete else 0,
            bytes_from_peers={},
            pieces_rejected=0,
            seconds=0.0,
            note="",
            owned=False,
        )


def _is_damaged_download(file: LocalFile, destination: Path) -> bool:
    """Whether what stands at `destination` is a download of ours of which some pieces have gone bad."""
    record = file.record
    return (
        file.changed_reason is None
        and record.state in COMPLETE_STATES
        and not record.in_place
        and not file.durable.is_full
        and os.fsdecode(record.path) == str(destination)
    )


def _checked_directory(directory: Path) -> Path:
    """The directory without symlinks in its path, fit to hold a download."""
    shown = printable(str(directory))
    try:
        real = Path(os.path.realpath(directory, strict=True))
    except FileNotFoundError as e:
        raise PathNotFound(f"there is no directory {shown}; make it first, or name another with -o") from e
    except OSError as e:
        raise StorageFailed(f"{shown} cannot be used: {e.strerror or e}") from e
    if not real.is_dir():
        raise PathNotFound(f"{shown} is not a directory; name one with -o")
    if not os.access(real, os.W_OK | os.X_OK):
        raise NotPermitted(f"the daemon's user may not write to {shown}; name another directory with -o")
    return real
