"""What happens between `interfiles download` and the first byte: find the file, check the place, make the part."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.callers import Caller
from daemons.client.cancellable import run_cancellable
from daemons.client.local_file import COMPLETE_STATES, LocalFile
from daemons.client.replicas import take_over
from daemons.client.sources import Source
from daemons.supervision import contain
from interfiles.errors import (
    ContentChanged,
    DestinationExists,
    InterFilesError,
    NoSpace,
    NotPermitted,
    PathNotFound,
    Refused,
    StorageFailed,
    printable,
)
from interfiles.piece_set import PieceSet
from interfiles.storage.acting import can_act
from interfiles.storage.existing import matches_existing, same_structure
from interfiles.storage.part_store import PartStore, check_left_over, discard_part, part_path
from interfiles.storage.records import FileRecord, encode_stamps
from interfiles.storage.seed_store import SeedStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemons.client.allowance import Allowance
    from daemons.client.copies import Copier, Copy
    from daemons.client.library import Library
    from daemons.client.transfers import Transfers
    from interfiles.priority import Priority
    from interfiles.storage.acting import Owner
    from interfiles.storage.places import Place
    from interfiles.storage.records import FileState
    from interfiles.storage.scan import Stamp


MAX_ORDERS: Final = 16  # waiting to be looked at; more callers wait for room

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Taken:
    """A download that was taken on.

    `is_here`: the content was on this host already, here or at another place; `copy`: from there, under way.
    """

    file: LocalFile
    destination: Path
    is_here: bool
    copy: Copy | None = None


@dataclass(slots=True)
class _Order:
    source: Source
    directory: Path
    overwrite: bool
    progress: Callable[[int], None]
    priority: Priority | None
    owner: Owner | None = None
    place: Place | None = None
    done: trio.Event = field(default_factory=trio.Event)
    taken: Taken | None = None
    refused: InterFilesError | None = None


class Downloader:
    """Turns requests into records that `Transfers` works on.

    Requests are carried out by tasks of the daemon, not of the caller's connection: a caller who leaves after asking
    finds the download taken on, whatever moment it left at.
    """

    def __init__(self, library: Library, transfers: Transfers, copier: Copier, allowance: Allowance) -> None:
        self._library = library
        self._allowance = allowance
        self._copier = copier
        self._transfers = transfers
        self._under_way: Counter[int] = Counter()  # by user: one whose disk does not answer must not fill the memory
        self._orders, self._due = trio.open_memory_channel[_Order](MAX_ORDERS)

    async def run(self) -> None:
        """Carry requests out until cancelled."""
        async with trio.open_nursery() as nursery:
            async for order in self._due:
                nursery.start_soon(self._carry_out, order)

    async def start(
        self,
        source: Source,
        directory: Path,
        *,
        overwrite: bool,
        progress: Callable[[int], None],
        priority: Priority | None = None,
        owner: Owner | None = None,
        place: Place | None = None,
    ) -> Taken:
        """Make sure that the file is at `directory` or on its way there.

        `progress` hears, from a thread, of bytes compared with what is on the disk already. `owner`: the member of the
        socket's group that asks, and has shown that it may write in `directory`, which is `place`. `priority` None: as
        it is, or normal.

        Raises:
          DestinationExists: other content is there and may not be overwritten.
          PathNotFound, NotPermitted, NoSpace, StorageFailed: the place is not fit; nothing was written.
          Refused: the file is on its way to another place, or this member has too many requests under way.

        Cancellation:
          The request is carried out all the same.
        """
        order = _Order(source, directory, overwrite, progress, priority, owner, place)
        if owner is not None and self._under_way[owner.uid] >= MAX_ORDERS:
            raise Refused(f"{MAX_ORDERS} downloads of yours are still being looked at; try again in a moment")
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

        uid = order.owner.uid if order.owner is not None else 0
        self._under_way[uid] += 1
        try:
            await contain("taking a download on", take, expected=(), log=log)
        finally:
            order.done.set()
            self._under_way[uid] -= 1

    async def _take(self, order: _Order) -> Taken:
        manifest, disk = order.source.manifest, self._library.disks.of(order.owner)
        directory = await disk.run(_checked_directory, order.directory) if order.place is None else order.directory
        destination = directory / manifest.name
        known = self._library.find(manifest.file_id)
        if known is None or not known.record.ordered:
            return await self._take_here(order, destination, known)
        async with self._transfers.halted(known):
            return await self._take_replica(order, destination, known)

    async def _take_here(self, order: _Order, destination: Path, known: LocalFile | None) -> Taken:
        disk = self._library.disks.of(order.owner)
        owns_known = known is not None and Caller(order.owner).owns(known)
        if known is not None and not owns_known:
            _check_free(known)
        if known is not None and known.record.part is not None:
            return await self._go_on(known, destination, overwrite=order.overwrite, priority=order.priority)
        if known is not None and (copy := self._copier.find(known, destination, order.owner)) is not None:
            return Taken(known, destination, is_here=True, copy=copy)
        if order.owner is None or can_act():  # else the daemon might read what the owner may not
            stamps = await self._existing(order, destination)
            if stamps is not None:
                return Taken(await self._adopt(known, order, destination, stamps), destination, is_here=True)
        elif order.overwrite:
            raise NotPermitted(
                "this daemon is not root's, so it cannot tell what you may replace; move it away yourself, and leave "
                "--overwrite out"
            )
        if known is not None and os.fsdecode(known.record.path) == str(destination):
            with suppress(ContentChanged):
                await self._library.check_unchanged(known)
        is_damaged = known is not None and owns_known and _is_damaged_download(known, destination)
        overwrite = order.overwrite or is_damaged
        if not overwrite and await disk.run(os.path.lexists, destination):
            raise DestinationExists(
                f"{printable(str(destination))} exists and differs; use --overwrite, or -o for another place"
            )
        if known is not None and known.is_complete and os.fsdecode(known.record.path) != str(destination):
            copy = await self._copier.start(
                known, destination, overwrite=overwrite, owner=order.owner, place=order.place
            )
            return Taken(known, destination, is_here=True, copy=copy)
        return Taken(await self._begin(order, destination, overwrite=overwrite), destination, is_here=False)

    async def _take_replica(self, order: _Order, destination: Path, replica: LocalFile) -> Taken:
        """A replica, which is nobody's, becomes the person's: on its way, it goes there; whole, too.

        What cannot be moved is copied if it is whole, and else fetched anew; so is what another user may not have. If
        the request is refused, the replica stays as it is.
        """
        disk = self._library.disks.of(None)
        is_free = order.overwrite or not await disk.run(os.path.lexists, destination)
        if is_free and order.owner is None and (moved := await self._moved(order, destination, replica)) is not None:
            return Taken(moved, destination, is_here=False)
        taken = await self._take_here(order, destination, replica if replica.is_complete else None)
        if self._library.find(replica.file_id) is not replica:  # another record is in its place, so nothing names this
            place = Path(os.fsdecode(replica.record.path)).parent
            await disk.run(lambda: shutil.rmtree(place, ignore_errors=True))
        return taken

    async def _moved(self, order: _Order, destination: Path, replica: LocalFile) -> LocalFile | None:
        """Make what there is of a replica the part of the person's download; None where it cannot be moved there."""
        part = await self._library.disks.of(None).run(take_over, replica, destination)
        if part is None:
            return None
        r = replica.record
        record = replace(
            self._record(order, destination, part, "downloading", overwrite=order.overwrite, stamps=()),
            durable=replica.durable.to_bytes(),
            bytes_local=r.bytes_local,
            bytes_from_peers=r.bytes_from_peers,
            pieces_rejected=r.pieces_rejected,
            seconds=r.seconds,
        )
        return await self._library.add(record, replica.manifest, None)

    async def _existing(self, order: _Order, destination: Path) -> Sequence[Stamp] | None:
        """The stamps of what is at the destination, if it is the very content that is wanted."""
        manifest, disk = order.source.manifest, self._library.disks.of(order.owner)
        if await disk.run(same_structure, destination, manifest) is None:
            return None  # no need to read it all
        existing = await run_cancellable(
            disk,
            lambda cancelled: matches_existing(destination, manifest, progress=order.progress, cancelled=cancelled),
        )
        return existing.stamps

    async def _go_on(self, known: LocalFile, destination: Path, *, overwrite: bool, priority: Priority | None) -> Taken:
        """The file is being downloaded, or was paused."""
        if Path(os.fsdecode(known.record.path)) != destination:
            raise Refused(
                f"{known.label} is on its way to {printable(os.fsdecode(known.record.path))}; "
                "wait for it, or stop it with interfiles rm --local"
            )
        wanted = (overwrite or known.record.overwrite, priority or known.record.priority)
        if wanted != (known.record.overwrite, known.record.priority):
            await self._library.reorder(known, overwrite=wanted[0], priority=wanted[1])
            known.changed.tell()
        if known.record.state == "paused":
            await self._library.set_state(known, "downloading")
        return Taken(known, destination, is_here=False)

    async def _adopt(
        self, known: LocalFile | None, order: _Order, destination: Path, stamps: Sequence[Stamp]
    ) -> LocalFile:
        """The very content is there already: serve it from there."""
        if known is not None and known.is_complete:
            with suppress(ContentChanged):
                await self._library.check_unchanged(known)
                return known
        manifest = order.source.manifest
        is_ours = known is not None and os.fsdecode(known.record.path) == str(destination)
        in_place = known.record.in_place if known is not None and is_ours else True
        record = self._record(order, destination, None, "complete", overwrite=False, stamps=stamps)
        store = SeedStore(destination, manifest, stamps, self._library.open_files, order.owner)
        return await self._library.add(replace(record, in_place=in_place), manifest, store)

    async def _begin(self, order: _Order, destination: Path, *, overwrite: bool) -> LocalFile:
        """Make the part, then the record; a part that a crash left between the two is gone on with."""
        manifest, disk = order.source.manifest, self._library.disks.of(order.owner)
        part = part_path(destination.parent, manifest)
        is_new = not await disk.run(os.path.lexists, part)
        await disk.run(check_left_over, part, manifest)
        none, files = PieceSet(manifest.piece_count), self._library.open_files
        make = partial(PartStore.open, part, manifest, none, files, order.owner, order.place)
        try:
            store = await disk.run(make)
        except NoSpace:
            if not await self._allowance.clear_all(manifest.size):  # leftovers give way to people
                raise
            store = await disk.run(make)
        record = self._record(order, destination, part, "downloading", overwrite=overwrite, stamps=())
        try:
            return await self._library.add(record, manifest, store)  # the transfer goes on with it
        except InterFilesError:
            store.close()
            if is_new:
                await disk.run(discard_part, part, order.place)
            raise

    def _record(
        self,
        order: _Order,
        destination: Path,
        part: Path | None,
        state: FileState,
        *,
        overwrite: bool,
        stamps: Sequence[Stamp],
    ) -> FileRecord:
        source, count = order.source, order.source.manifest.piece_count
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
            owner=order.owner,
            place=order.place,
            priority=order.priority or "normal",
        )


def _check_free(known: LocalFile) -> None:
    """Let nobody take over what another user of this host fetches, or does not want to be served."""
    if known.record.part is not None:
        raise Refused(f"{known.label} is being downloaded here by another user; ask again when that is done")
    if known.record.state == "paused":
        raise Refused(f"{known.label} is paused on this host by another user; only that user can resume it")


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
    except ValueError as e:  # a NUL in it
        raise PathNotFound(f"{shown} is no path: {e}") from e
    except OSError as e:
        raise StorageFailed(f"{shown} cannot be used: {e.strerror or e}") from e
    if not real.is_dir():
        raise PathNotFound(f"{shown} is not a directory; name one with -o")
    if not os.access(real, os.W_OK | os.X_OK):
        raise NotPermitted(f"the daemon's user may not write to {shown}; name another directory with -o")
    return real
