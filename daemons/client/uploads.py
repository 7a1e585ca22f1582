"""Uploading: scan, hash, remember, and publish a path of this host."""

from __future__ import annotations

import math
import os
import shutil
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import trio

from daemons.client.callers import Caller
from daemons.client.cancellable import run_cancellable
from daemons.client.handovers import describe, receive
from daemons.client.hashing_progress import HashingProgress
from interfiles.errors import ContentChanged, NotPermitted, Refused, printable
from interfiles.geometry import choose_piece_size
from interfiles.manifest import HASH_BYTES, Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage.copying import TreeCopy, copy_tree
from interfiles.storage.failures import translated
from interfiles.storage.handed import HandedContent
from interfiles.storage.hashing import DiskContent, draft_manifest, hash_range, slices
from interfiles.storage.records import FileRecord, encode_stamps
from interfiles.storage.scan import Scan, scan
from interfiles.storage.seed_store import SeedStore
from interfiles.tracker_file import TrackerFile
from interfiles.wire.reports import UploadReport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from daemons.client.allowance import Allowance
    from daemons.client.callers import Call
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.master_link import MasterLink
    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor
    from interfiles.storage.records import Identity

HASHING_THREADS: Final = 2
PUBLISH_TIMEOUT_S: Final = 10.0  # then the upload is done all the same, and published when the master is back


@dataclass(frozen=True, slots=True)
class Wish:
    """What becomes of an upload: on how many hosts it is kept, and for how many seconds; None: nothing is said."""

    replicas: int | None = None
    expire_s: float | None = None

    def expires_at(self, now: float) -> int:
        """When it is removed from the fleet, in Unix seconds as `now` is; 0: nothing is said."""
        return math.ceil(now + self.expire_s) if self.expire_s is not None else 0


class Uploader:
    """Makes seeds of paths."""

    def __init__(
        self,
        library: Library,
        link: MasterLink,
        disk: Executor,
        identity: Identity,
        *,
        copies: Path,
        allowance: Allowance,
        wall_clock: Callable[[], float],
    ) -> None:
        self._library = library
        self._link = link
        self._disk = disk
        self._identity = identity
        self._copies = copies
        self._allowance = allowance
        self._wall_clock = wall_clock

    async def upload(
        self, path: Path, *, wish: Wish, copy: bool, progress: HashingProgress
    ) -> tuple[UploadReport, bytes]:
        """Hash a path and seed it; return the report and the tracker file's content.

        Raises:
          PathNotFound, NotPermitted, ContentChanged, InvalidManifest, NoSpace, StorageFailed: the path cannot be sent.
          Refused: this very file is being downloaded here.

        Cancellation:
          Until the file is recorded nothing is left behind; afterwards it is seeded, published or not.
        """
        began = trio.current_time()
        found = await run_cancellable(self._disk, lambda cancelled: scan(path, cancelled=cancelled))
        progress.name, progress.total = found.name, found.size

        async def make(place: Path) -> None:
            await run_cancellable(self._disk, lambda cancelled: _copy_to(place, found, cancelled))

        async with self._copied(found, progress, make) if copy else nullcontext(found) as content:
            manifest = await self._hash(content, progress)
            async with self._library.claimed(manifest.file_id):
                file = await self._remember(content, manifest, wish, owned=copy)
        return await self._published(file, progress, began)

    async def upload_handed(
        self, call: Call, *, wish: Wish, copy: bool, progress: HashingProgress
    ) -> tuple[UploadReport, bytes]:
        """Do the same for a member of the socket's group, who opens everything and hands it over.

        Raises:
          RemoteProtocolError: what is handed over is not what was asked for.
          NotPermitted: the daemon cannot serve it from where it is; other errors as `upload`.

        Cancellation:
          As `upload`.
        """
        began, owner = trio.current_time(), call.caller.owner
        threads = self._library.disks.threads_of(owner)
        found, draft = await describe(call, threads)
        progress.name, progress.total = found.name, found.size
        if copy:
            file = await self._copy_handed(call, found, draft, wish, progress)
        else:
            content = HandedContent(found.root, draft)
            await receive(call, content, self._library.disks.of(owner), progress)
            manifest = await threads.run(lambda: replace(draft, hashes=bytes(content.hashes)))
            found = replace(found, stamps=tuple(content.stamps))
            await self._check_found(found, manifest, owner)
            async with self._library.claimed(manifest.file_id):
                file = await self._remember(found, manifest, wish, owned=False, owner=owner)
        return await self._published(file, progress, began)

    async def _copy_handed(
        self, call: Call, found: Scan, draft: Manifest, wish: Wish, progress: HashingProgress
    ) -> LocalFile:
        owner = call.caller.owner
        threads = self._library.disks.threads_of(owner)

        async def make(place: Path) -> None:
            making = await threads.run(_begin_copy, place, found)
            try:
                copied = HashingProgress()
                await receive(call, HandedContent(found.root, draft, making), threads, copied)
                await threads.run(making.end)
            finally:
                with trio.CancelScope(shield=True):
                    await self._disk.run(making.abandon)

        async with self._copied(found, progress, make) as content:
            manifest = await self._hash(content, progress)
            async with self._library.claimed(manifest.file_id):
                file = await self._remember(content, manifest, wish, owned=True, owner=owner)
            if os.fsdecode(file.record.path) != str(content.root):  # somebody else shares the very same from here
                await self._disk.run(lambda: shutil.rmtree(content.root.parent, ignore_errors=True))
        return file

    async def _check_found(self, found: Scan, manifest: Manifest, owner: Owner | None) -> None:
        """Find what was handed over again by its path, as will be done each time that it is served."""
        store = SeedStore(found.root, manifest, found.stamps, self._library.open_files, owner)
        differs = await self._library.disks.of(owner).run(store.changed)
        if differs is not None:
            raise NotPermitted(
                f"the daemon does not find {printable(differs[0])} of {printable(str(found.root))} as it was handed "
                "over: it has changed, or the daemon may not read it there; --copy serves a copy"
            )

    async def _published(self, file: LocalFile, progress: HashingProgress, began: float) -> tuple[UploadReport, bytes]:
        """Wait for the master, and make the report and the tracker file's content."""
        manifest = file.manifest
        progress.publishing = True
        with trio.move_on_after(PUBLISH_TIMEOUT_S):
            await self._wait_published(file)
        record = file.record
        tracker = TrackerFile(
            manifest=manifest,
            masters=self._identity.masters,
            uploaded_by=record.uploaded_by,
            uploaded_at=record.uploaded_at,
            fleet=self._identity.fleet,
        )
        report = UploadReport(
            id=manifest.file_id.hex(),
            name=manifest.name,
            size=manifest.size,
            files=len(manifest.entries),
            pieces=manifest.piece_count,
            piece_size=manifest.piece_size,
            tracker="",
            replicas_wanted=record.replicas or self._link.replicas or 0,
            published=record.published,
            seconds=round(trio.current_time() - began, 3),
            hosts=self._link.hosts if record.published else None,
            expires_at=record.expires_at,
        )
        return report, await self._disk.run(tracker.encode)

    @asynccontextmanager
    async def _copied(
        self, found: Scan, progress: HashingProgress, make: Callable[[Path], Awaitable[None]]
    ) -> AsyncIterator[Scan]:
        """Make an own copy under the state directory, within the quota: what is hashed and served then is the copy.

        `make(path)` makes it there. It is removed again if what is done with it fails.
        """
        place = self._copies / os.urandom(8).hex() / found.name
        with self._allowance.copying(found.size, printable(found.name)):
            await self._allowance.clear(0, besides=b"")
            progress.copying = True
            try:
                await make(place)
                progress.copying = False
                yield await run_cancellable(self._disk, lambda cancelled: scan(place, cancelled=cancelled))
            except BaseException:
                with trio.CancelScope(shield=True):
                    await self._disk.run(lambda: shutil.rmtree(place.parent, ignore_errors=True))
                raise

    async def _hash(self, found: Scan, progress: HashingProgress) -> Manifest:
        draft = await self._disk.run(draft_manifest, found, choose_piece_size(found.size))
        content = DiskContent(found.root, draft, found.stamps)
        hashes = bytearray(draft.piece_count * HASH_BYTES)
        waiting = iter(list(slices(draft.geometry)))

        async def work() -> None:
            for first, count in waiting:
                made = await run_cancellable(
                    self._disk,
                    lambda cancelled, first=first, count=count: hash_range(  # type: ignore[misc]
                        content, first, count, progress=progress.add, cancelled=cancelled
                    ),
                )
                hashes[first * HASH_BYTES : (first + count) * HASH_BYTES] = made

        async with trio.open_nursery() as nursery:
            for _ in range(HASHING_THREADS):
                nursery.start_soon(work)
        return await self._disk.run(lambda: replace(draft, hashes=bytes(hashes)))

    async def _remember(
        self, found: Scan, manifest: Manifest, wish: Wish, *, owned: bool, owner: Owner | None = None
    ) -> LocalFile:
        known = self._library.find(manifest.file_id)
        if known is not None and not Caller(owner).owns(known):
            with suppress(ContentChanged):
                await self._library.check_unchanged(known)
            if known.record.state == "paused":
                raise Refused(f"{known.label} is paused on this host by another user; only that user can resume it")
            if known.is_complete:
                return known  # this host serves it already, and goes on as its owner wants it
        if known is not None and known.record.part is not None:
            raise Refused(f"{known.label} is being downloaded here; wait for it, or stop it with interfiles rm --local")
        # What an earlier upload wished for and the master has not heard of yet is not lost.
        earlier = known.record if known is not None and not known.record.published else None
        stamps = list(found.stamps)
        now = self._wall_clock()
        record = FileRecord(
            file_id=manifest.file_id,
            manifest=manifest.encode(),
            path=os.fsencode(found.root),
            part=None,
            state="seeding",
            overwrite=False,
            uploaded_at=int(now),
            uploaded_by=self._identity.name,
            replicas=wish.replicas or (earlier.replicas if earlier else 0),
            published=False,
            stamps=encode_stamps(stamps),
            durable=PieceSet.full(manifest.piece_count).to_bytes(),
            bytes_local=manifest.size,
            bytes_from_peers={},
            pieces_rejected=0,
            seconds=0.0,
            note="",
            owned=owned,
            in_place=not owned,
            owner=owner,
            expires_at=wish.expires_at(now) or (earlier.expires_at if earlier else 0),
        )
        store = SeedStore(found.root, manifest, stamps, self._library.open_files, record.rights)
        return await self._library.add(record, manifest, store)

    async def _wait_published(self, file: LocalFile) -> None:
        """The master link publishes; wait for it while there is a link."""
        while not file.record.published and self._link.is_connected:
            with trio.move_on_after(0.5):
                await file.changed.later_than(file.changed.count)


def _begin_copy(place: Path, found: Scan) -> TreeCopy:
    with translated(place.parent, "written"):
        place.parent.mkdir(parents=True)
    return TreeCopy(found, place)


def _copy_to(place: Path, found: Scan, cancelled: Callable[[], bool]) -> None:
    with translated(place.parent, "written"):
        place.parent.mkdir(parents=True)
    copy_tree(found, place, progress=lambda _: None, cancelled=cancelled)
