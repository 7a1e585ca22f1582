"""Replicas: what the master has this host hold, under the state directory, on nobody's behalf.

An order is carried out in the background and answered by what the host announces, or declined in words. A replica that
the disk does not take is given up, so that the master finds another host; one with bad pieces is fetched anew where it
is bad; one that somebody has tampered with goes, and is ordered again. What is released is left over until the room is
needed. All of this is found by looking at the records, so a crash at any moment loses none of it.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.local_file import COMPLETE_STATES
from daemons.supervision import contain
from interfiles.errors import InterFilesError, NoSpace, NotPermitted, Refused, StorageFailed
from interfiles.manifest import FileId
from interfiles.piece_set import PieceSet
from interfiles.storage.failures import translated
from interfiles.storage.leftovers import put_aside, remove_leftover, remove_older, take_back
from interfiles.storage.part_store import PartStore, part_path
from interfiles.storage.piece_store import keyed_digest
from interfiles.storage.records import FileRecord
from interfiles.units import DAY, HOUR, format_count
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemons.client.allowance import Allowance
    from daemons.client.announcer import Errand
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.sources import Source, Sources
    from daemons.client.transfers import Transfers
    from interfiles.manifest import Manifest
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore
    from interfiles.wire.codec import Message

MAX_INBOX: Final = 64  # of what the master wants: what does not fit is ordered again, as it is not answered
MAX_AT_ONCE: Final = 4  # of it that is being done
LOOK_S: Final = (
    1.0  # after a change, until a look at how replicas are doing: the master hears of it before it is mended
)
LOOK_AGAIN_S: Final = 60.0  # between two looks where nothing changes
LEFTOVER_S: Final = 7.0 * DAY  # that a leftover is kept at most
CLEAR_S: Final = float(HOUR)  # between two looks for leftovers that are too old or over the quota
UNWANTED_REST_S: Final = float(DAY)  # until the master may ask again for what a person removed here
_DISK_TROUBLE: Final = (NoSpace, NotPermitted, StorageFailed)

log = structlog.get_logger()


class Replicas:
    """Carries out what comes into `inbox`. `place`: the directory of replicas, each in one of its own named by its id.

    `tell`: says something to the master.
    """

    def __init__(
        self,
        library: Library,
        transfers: Transfers,
        sources: Sources,
        allowance: Allowance,
        tell: Callable[[Message], None],
        jobs: JobStore,
        database: Executor,
        disk: Executor,
        inbox: trio.MemoryReceiveChannel[Errand],
        *,
        place: Path,
        leftovers: Path,
        wall_clock: Callable[[], float],
    ) -> None:
        self._library = library
        self._transfers = transfers
        self._sources = sources
        self._allowance = allowance
        self._tell = tell
        self._jobs = jobs
        self._database = database
        self._disk = disk
        self._inbox = inbox
        self._place = place
        self._leftovers = leftovers
        self._wall_clock = wall_clock

    async def run(self) -> None:
        """Hold what is ordered, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after)
            nursery.start_soon(self._clear)
            room = trio.Semaphore(MAX_AT_ONCE)
            async for message in self._inbox:
                await room.acquire()
                nursery.start_soon(self._carry_out, message, room)

    async def keep_away(self, file_id: FileId) -> None:
        """A person has removed a file from this host: it is no place for a replica of it."""
        await self._database.run(self._jobs.keep_away, file_id)

    async def _carry_out(self, message: Errand, room: trio.Semaphore) -> None:
        try:
            what = f"{type(message).__name__} of {message.file_id.hex()[:12]}"
            await contain(what, partial(self._do, message), expected=(InterFilesError,), log=log)
        finally:
            room.release()

    async def _do(self, message: Errand) -> None:
        match message:
            case m.Order():
                await self._order(message)
            case m.Release():
                await self._release(FileId(message.file_id))
            case m.Challenge():
                await self._answer(message)
            case m.Forget():
                await self._disk.run(remove_leftover, self._leftovers, message.file_id)

    # Orders

    async def _order(self, order: m.Order) -> None:
        file_id = FileId(order.file_id)
        if (known := self._library.find(file_id)) is not None and known.record.ordered:
            await self._look_at(known)  # what is wrong with it, if anything, is mended or out of the way then
        if known is None and await self._database.run(self._jobs.is_unwanted, file_id):
            self._decline(file_id, Refused("it was removed from this host by hand"), rest_s=UNWANTED_REST_S)
            return
        try:
            async with self._library.claimed(file_id):
                if not self._is_taken_care_of(self._library.find(file_id)):
                    await self._hold(file_id, order.size)
        except InterFilesError as e:
            self._decline(file_id, e)
            raise

    def _is_taken_care_of(self, known: LocalFile | None) -> bool:
        if known is None:
            return False
        if known.is_complete or known.is_fetching:
            return True
        raise Refused(f"{known.label} is {known.doing} on this host")

    async def _hold(self, file_id: FileId, size: int) -> None:
        """Begin to fetch."""
        with self._allowance.replicating(size):
            source = await self._sources.find(file_id.hex(), b"")
            manifest = source.manifest
            await self._allowance.clear(manifest.size, besides=file_id)
            await self._begin(source, self._place / file_id.hex())
        log.info("replica begun", file=manifest.name, id=file_id[:6], size=size)

    async def _begin(self, source: Source, place: Path) -> None:
        """Have a replica fetched; what is left over of the file is the beginning, hashed before it counts."""
        manifest, files = source.manifest, self._library.open_files
        part, none = part_path(place, manifest), PieceSet(manifest.piece_count)
        try:
            await self._disk.run(_make_place, place, self._leftovers, manifest, part)
            store = await self._disk.run(lambda: PartStore.open(part, manifest, none, files))
            try:
                await self._library.add(self._record(source, place, part), manifest, store)
            except BaseException:
                store.close()
                raise
        except BaseException:
            with trio.CancelScope(shield=True):
                await self._disk.run(lambda: shutil.rmtree(place, ignore_errors=True))
            raise

    def _record(self, source: Source, place: Path, part: Path) -> FileRecord:
        manifest = source.manifest
        return FileRecord(
            file_id=manifest.file_id,
            manifest=manifest.encode(),
            path=os.fsencode(place / manifest.name),
            part=os.fsencode(part),
            state="downloading",
            overwrite=False,
            uploaded_at=source.uploaded_at,
            uploaded_by=source.uploaded_by,
            replicas=source.replicas,
            published=True,
            stamps=b"",
            durable=PieceSet(manifest.piece_count).to_bytes(),
            bytes_local=0,
            bytes_from_peers={},
            pieces_rejected=0,
            seconds=0.0,
            note="",
            owned=True,
            priority="low",
            ordered=True,
        )

    def _decline(self, file_id: FileId, error: InterFilesError, *, rest_s: float = 0.0) -> None:
        is_trouble = isinstance(error, _DISK_TROUBLE)
        self._tell(m.Declined(file_id, error.code, str(error)[:1000], rest_s, whole_host=is_trouble))

    # Releases

    async def _release(self, file_id: FileId) -> None:
        """Give a replica up; whatever a person wants of the file stays."""
        file = self._library.find(file_id)
        if file is not None and file.record.ordered:
            await self._give_up(file, "the master wants it elsewhere", keep=file.is_complete)

    async def _give_up(self, file: LocalFile, why: str, *, keep: bool) -> None:
        """Hold a replica no more. `keep`: leave it over, as long as nobody needs the room."""
        async with self._transfers.stopped(file):
            if self._library.find(file.file_id) is not file or not file.record.ordered:
                return  # a person took it over meanwhile
            place = self._place / file.file_id.hex()
            if keep:
                now, size = self._wall_clock(), file.manifest.size
                await self._disk.run(put_aside, place, self._leftovers, file.file_id, size, now)
            await self._library.remove(file, delete=False, why=why)
            await self._disk.run(lambda: shutil.rmtree(place, ignore_errors=True))
        log.info("replica given up", file=file.label, reason=why)

    # What becomes of them

    async def _look_after(self) -> None:
        seen = 0
        while True:
            with trio.move_on_after(LOOK_AGAIN_S):  # what could not be done is tried again
                seen = await self._library.announcements.later_than(seen)
            await trio.sleep(LOOK_S)
            for file in self._library:
                if file.record.ordered:
                    work = partial(self._look_at, file)
                    await contain(f"looking after {file.label}", work, expected=(InterFilesError,), log=log)

    async def _look_at(self, file: LocalFile) -> None:
        if file.is_fetching and isinstance(file.failure, _DISK_TROUBLE):
            trouble = file.failure
            await self._give_up(file, str(trouble), keep=False)
            self._decline(file.file_id, trouble)
        elif file.record.state == "withdrawn":
            await self._give_up(file, file.note, keep=False)
        elif file.record.state in COMPLETE_STATES and not file.durable.is_full:
            await self._repair(file)

    async def _repair(self, file: LocalFile) -> None:
        """Fetch the bad pieces of a replica again: what is good of it becomes the part of a download.

        All of it is hashed first: what harms one piece seldom harms one only.
        """
        good = await self._library.check(file, file.durable.copy())
        if bad := [piece for piece in file.durable if piece not in good]:
            await self._library.report_bad(file, bad)
        async with self._transfers.stopped(file):
            if self._library.find(file.file_id) is not file or file.durable.is_full:
                return
            lost = file.manifest.piece_count - len(file.durable)
            log.warning("repairing replica", file=file.label, bad=format_count(lost, "piece"))
            await self._reopen(file, self._place / file.file_id.hex())

    async def _reopen(self, file: LocalFile, place: Path) -> None:
        content, part = place / file.manifest.name, part_path(place, file.manifest)
        with translated(content, "moved"):
            await self._disk.run(os.rename, content, part)
        record = replace(
            file.record,
            part=os.fsencode(part),
            state="downloading",
            durable=file.durable.to_bytes(),
            stamps=b"",
            note=file.note,
        )
        await self._library.add(record, file.manifest, None)

    async def _clear(self) -> None:
        while True:
            await self._disk.run(remove_older, self._leftovers, self._wall_clock() - LEFTOVER_S)
            await self._allowance.clear(0, besides=b"")  # what a lower quota, or others on the disk, leave no room for
            await trio.sleep(CLEAR_S)

    # Challenges

    async def _answer(self, challenge: m.Challenge) -> None:
        """Show a piece: read it from the disk, check it, and hash it with the key that the master chose just now."""
        file, digest, text = self._library.find(FileId(challenge.file_id)), b"", ""
        try:
            if file is None or not file.is_complete or challenge.piece >= file.manifest.piece_count:
                raise Refused("this host does not hold the file")
            piece = file.manifest.geometry.piece(challenge.piece)
            with file.using() as store:
                digest = await self._library.disk_of(file).run(keyed_digest, store, piece, challenge.nonce)
            if not digest:
                file.suspect(piece)
                text = "it does not match its hash on the disk"
        except InterFilesError as e:
            text = str(e)[:1000]
        self._tell(m.Proof(challenge.number, digest, text))


def _make_place(place: Path, leftovers: Path, manifest: Manifest, part: Path) -> None:
    """A directory for one replica, whatever a crash has left there; with what is left over of it, as its part.

    Raises:
      NotPermitted, NoSpace, StorageFailed: the file system refuses.
    """
    shutil.rmtree(place, ignore_errors=True)
    with translated(place, "written"):
        if take_back(leftovers, manifest.file_id, place) and os.path.lexists(place / manifest.name):
            os.rename(place / manifest.name, part)
        else:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)


def remove_strays(directory: Path, used: set[Path]) -> None:
    """Remove what lies in the daemon's own directory and no record names: a crash came before there was one."""
    for place in directory.iterdir() if directory.is_dir() else ():
        if place not in used:
            shutil.rmtree(place, ignore_errors=True)


def take_over(file: LocalFile, destination: Path) -> Path | None:
    """Move what this host has of a replica to where a person wants it, as a part; None where it cannot be moved there.

    Called in a thread, while nothing else works with the file.
    """
    manifest: Manifest = file.manifest
    held = file.record.part if file.record.part is not None else file.record.path
    part = part_path(destination.parent, manifest)
    if os.path.lexists(part):
        return None
    try:
        os.rename(held, part)
    except OSError:  # another file system, or nothing is there
        return None
    return part
