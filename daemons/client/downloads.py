"""What happens between `interfiles download` and the first byte: find the file, check the place, make the part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from daemons.client.cancellable import run_cancellable
from daemons.client.local_file import COMPLETE_STATES
from daemons.client.sources import Source
from interfiles.errors import (
    ContentChanged,
    DestinationExists,
    NotPermitted,
    PathNotFound,
    Refused,
    StorageFailed,
    printable,
)
from interfiles.piece_set import PieceSet
from interfiles.storage.existing import matches_existing, same_structure
from interfiles.storage.jobs import FileRecord, encode_stamps
from interfiles.storage.part_store import PartStore, part_path
from interfiles.storage.seed_store import SeedStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.transfers import Transfers
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import FileState
    from interfiles.storage.scan import Stamp


class Downloader:
    """Turns requests into records that `Transfers` works on."""

    def __init__(self, library: Library, transfers: Transfers, disk: Executor) -> None:
        self._library = library
        self._transfers = transfers
        self._disk = disk

    async def start(
        self, source: Source, directory: Path, *, overwrite: bool, progress: Callable[[int], None]
    ) -> tuple[LocalFile, Path]:
        """Make sure that the file is at `directory` or on its way there; return it and where it will be.

        `progress` hears, from a thread, of bytes compared with what is at the destination already.

        Raises:
          DestinationExists: other content is there and may not be overwritten.
          PathNotFound, NotPermitted, NoSpace, StorageFailed: the place is not fit; nothing was written.
          Refused: the file is on its way to another place.

        Cancellation:
          Leaves no record and no part.
        """
        manifest = source.manifest
        directory = await self._disk.run(_checked_directory, directory)
        destination = directory / manifest.name
        known = self._library.find(manifest.file_id)
        if known is not None and known.record.part is not None:
            if Path(os.fsdecode(known.record.path)) != destination:
                raise Refused(
                    f"{known.label} is on its way to {printable(os.fsdecode(known.record.path))}; "
                    "wait for it, or stop it with interfiles rm --local"
                )
            if known.record.state == "paused":
                await self._library.set_state(known, "downloading")
            return known, destination
        if await self._disk.run(same_structure, destination, manifest) is not None:  # else no need to read it all
            existing = await run_cancellable(
                self._disk,
                lambda cancelled: matches_existing(destination, manifest, progress=progress, cancelled=cancelled),
            )
            if existing.stamps is not None:
                return await self._adopt(known, source, destination, existing.stamps), destination
        if not overwrite and await self._disk.run(os.path.lexists, destination):
            raise DestinationExists(
                f"{printable(str(destination))} exists and differs; use --overwrite, or -o for another place"
            )
        if known is not None and known.is_complete and known.store is not None:
            return await self._copy(known, destination, overwrite=overwrite, progress=progress), destination
        return await self._begin(source, destination, overwrite=overwrite), destination

    async def _adopt(
        self, known: LocalFile | None, source: Source, destination: Path, stamps: Sequence[Stamp]
    ) -> LocalFile:
        """The very content is there already: serve it from there."""
        if known is not None and known.is_complete and os.fsdecode(known.record.path) == str(destination):
            return known
        record = self._record(source, destination, None, "complete", overwrite=False, stamps=stamps)
        store = SeedStore(destination, source.manifest, stamps, self._library.open_files)
        return await self._library.add(record, source.manifest, store)

    async def _begin(self, source: Source, destination: Path, *, overwrite: bool) -> LocalFile:
        manifest = source.manifest
        part = part_path(destination.parent, manifest)
        store = await self._disk.run(PartStore.create, part, manifest, self._library.open_files)
        store.close()  # the transfer opens it, as after a restart
        record = self._record(source, destination, part, "downloading", overwrite=overwrite, stamps=())
        return await self._library.add(record, manifest, None)

    async def _copy(
        self, known: LocalFile, destination: Path, *, overwrite: bool, progress: Callable[[int], None]
    ) -> LocalFile:
        """This host has the file elsewhere: copy it, every piece checked, and keep serving the first."""
        manifest, part = known.manifest, part_path(destination.parent, known.manifest)
        store = await self._disk.run(PartStore.create, part, manifest, self._library.open_files)
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
        return known

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


def _checked_directory(directory: Path) -> Path:
    """The directory without symlinks in its path, fit to hold a download."""
    shown = printable(str(directory))
    try:
        real = directory.resolve(strict=True)
    except FileNotFoundError as e:
        raise PathNotFound(f"there is no directory {shown}; make it first, or name another with -o") from e
    except OSError as e:
        raise StorageFailed(f"{shown} cannot be used: {e.strerror or e}") from e
    if not real.is_dir():
        raise PathNotFound(f"{shown} is not a directory; name one with -o")
    if not os.access(real, os.W_OK | os.X_OK):
        raise NotPermitted(f"the daemon's user may not write to {shown}; name another directory with -o")
    return real
