"""Replicas: what the master has this host hold, under the state directory, on nobody's behalf.

An order is carried out in the background and answered by what the host announces, or declined in words. A replica that
the disk does not take is given up, so that the master finds another host; one with bad pieces is fetched anew where it
is bad; one that somebody has tampered with goes, and is ordered again. What is released is left over until the room is
needed. All of this is found by looking at the records, so a crash at any moment loses none of it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.local_file import COMPLETE_STATES
from daemons.supervision import contain
from interfiles.errors import InterFilesError, NoSpace, NotPermitted, Refused, StorageFailed
from interfiles.manifest import FileId
from interfiles.piece_set import PieceSet
from interfiles.storage.failures import translated
from interfiles.storage.leftovers import leftovers_in, put_aside, remove_leftover, remove_older, take_back
from interfiles.storage.part_store import PartStore, discard_part, part_path
from interfiles.storage.piece_store import keyed_digest
from interfiles.storage.records import FileRecord
from interfiles.units import DAY, HOUR
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Callable

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
CLEAR_S: Final = float(HOUR)  # between two looks for leftovers that are too old, over the quota, or of removed files
REMOVED_REST_S: Final = float(DAY)  # until the master may ask again for what a person removed here,
UNFIT_REST_S: Final = 600.0  # or for what is paused, damaged or withdrawn here
_DISK_TROUBLE: Final = (NoSpace, NotPermitted, StorageFailed)
_BY_HAND: Final = "it was removed from this host by hand"

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
        self._not_before: dict[FileId, float] = {}  # replicas that could not be helped, and when to look at them again

    async def run(self) -> None:
        """Hold what is ordered, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._look_after)
            nursery.start_soon(self._clear)
            room, room_to_answer = trio.Semaphore(MAX_AT_ONCE), trio.Semaphore(MAX_AT_ONCE)
            async for errand in self._inbox:
                if not isinstance(errand, m.Challenge):
                    await room.acquire()
                    nursery.start_soon(self._carry_out, errand, room)
                elif room_to_answer.value:  # a disk that hangs must keep no orders waiting
                    await room_to_answer.acquire()
                    nursery.start_soon(self._carry_out, errand, room_to_answer)

    async def load(self) -> None:
        """Bring to its place what a crash has left between two steps; to be called before transfers begin."""
        for file in self._library:
            if file.record.ordered and file.record.part is not None:
                await self._disk.run(_to_part, Path(os.fsdecode(file.record.path)), Path(os.fsdecode(file.record.part)))

    async def start_anew(self) -> None:
        """The host has joined anew: what it was ordered to hold before is left over."""
        for file in self._library:
            if file.record.ordered:
                await self._give_up(file, "this host has joined anew", keep=file.is_complete)

    async def keep_away(self, file_id: FileId) -> None:
        """A person removes a file from this host: it is no place for a replica of it, for a while."""
        await self._database.run(self._jobs.keep_away, file_id, self._wall_clock())
        self._decline(file_id, Refused(_BY_HAND), rest_s=REMOVED_REST_S)  # before it is gone: not to be ordered again

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
            await self._look_at(known)  # what is wrong with it, if anything, is mended then
        try:
            async with self._library.claimed(file_id):
                refusal = await self._refusal(file_id)
                if refusal is None and self._library.find(file_id) is None:  # else it is here, or on its way
                    await self._hold(file_id)
        except InterFilesError as e:
            self._decline(file_id, e)
            raise
        if refusal is not None:
            self._decline(file_id, Refused(refusal[0]), rest_s=refusal[1])

    async def _refusal(self, file_id: FileId) -> tuple[str, float] | None:
        """Why a person of this host does not want a replica of a file, and for how long it need not be asked for."""
        known = self._library.find(file_id)
        if known is not None:
            return None if known.is_complete or known.is_fetching else (f"it is {known.doing} here", UNFIT_REST_S)
        since = self._wall_clock() - REMOVED_REST_S
        is_unwanted = await self._database.run(self._jobs.is_unwanted, file_id, since)
        return (_BY_HAND, REMOVED_REST_S) if is_unwanted else None

    async def _hold(self, file_id: FileId) -> None:
        """Begin to fetch."""
        source = await self._sources.find(file_id.hex(), b"")
        manifest = source.manifest
        if manifest.file_id != file_id:
            raise Refused("the master has another file under this id")
        with self._allowance.replicating(manifest.size):
            await self._allowance.clear(0, besides=file_id)
            await self._begin(source, self._place / file_id.hex())
        log.info("replica begun", file=manifest.name, id=file_id[:6], size=manifest.size)

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
                with suppress(StorageFailed):  # they may be on different disks: then nothing is kept
                    await self._disk.run(put_aside, place, self._leftovers, file.file_id, size, now)
            elif file.record.part is not None:  # before the record, which is often on the same disk: that may be full
                with suppress(InterFilesError):
                    await self._disk.run(discard_part, Path(os.fsdecode(file.record.part)))
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
            now = trio.current_time()
            self._not_before = {file_id: until for file_id, until in self._not_before.items() if until > now}
            for file in self._library:
                if file.record.ordered and file.file_id not in self._not_before:
                    work = partial(self._try_to_mend, file)
                    await contain(f"looking after {file.label}", work, expected=(InterFilesError,), log=log)

    async def _try_to_mend(self, file: LocalFile) -> None:
        self._not_before[file.file_id] = trio.current_time() + LOOK_AGAIN_S  # unless it succeeds
        await self._look_at(file)
        self._not_before.pop(file.file_id, None)

    async def _look_at(self, file: LocalFile) -> None:
        if file.is_fetching and isinstance(file.failure, _DISK_TROUBLE):
            self._decline(file.file_id, file.failure)
            await self._give_up(file, str(file.failure), keep=False)
        elif _is_unsound(file):
            await self._mend(file)

    async def _mend(self, file: LocalFile) -> None:
        """Fetch what is bad or missing of a replica: what there is of it becomes the part of a download, and is hashed.

        So nothing that is good is fetched or lost, whatever has become of the rest. The record comes first: after a
        crash `load` does what it says.
        """
        async with self._transfers.stopped(file):
            if self._library.find(file.file_id) is not file or not _is_unsound(file):
                return  # paused, restored or removed meanwhile
            log.warning("mending replica", file=file.label, reason=file.note)
            place = self._place / file.file_id.hex()
            content, part = place / file.manifest.name, part_path(place, file.manifest)
            record = replace(
                file.record,
                path=os.fsencode(content),
                part=os.fsencode(part),
                state="downloading",
                durable=PieceSet(file.manifest.piece_count).to_bytes(),
                stamps=b"",
            )
            await self._library.add(record, file.manifest, None)
            await self._disk.run(_to_part, content, part)

    async def _clear(self) -> None:
        while True:
            await self._disk.run(remove_older, self._leftovers, self._wall_clock() - LEFTOVER_S)
            await self._allowance.clear(0, besides=b"")  # what a lower quota, or others on the disk, leave no room for
            await trio.sleep(LOOK_AGAIN_S)  # by then there is a link, if there is a master
            left = [leftover.file_id for leftover in await self._disk.run(leftovers_in, self._leftovers)]
            for start in range(0, len(left), m.MAX_LEFTOVERS):  # what is removed meanwhile must go here too
                self._tell(m.LeftOver(left[start : start + m.MAX_LEFTOVERS]))
            await trio.sleep(CLEAR_S - LOOK_AGAIN_S)

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


def _to_part(content: Path, part: Path) -> None:
    """Make a part of a replica's content, unless there is one.

    Raises:
      NotPermitted, NoSpace, StorageFailed: the file system refuses.
    """
    with translated(content, "moved"):
        part.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.path.lexists(part) and os.path.lexists(content):
            os.rename(content, part)


def _is_unsound(file: LocalFile) -> bool:
    """Whether a replica that was complete is not what it was: pieces are bad, or somebody has changed or moved it."""
    is_damaged = file.record.state in COMPLETE_STATES and not file.durable.is_full
    return file.record.ordered and (is_damaged or file.record.state == "withdrawn")


def remove_strays(directory: Path, used: set[Path]) -> None:
    """Remove what lies in the daemon's own directory and no record names: a crash came before there was one.

    Where records name nothing of what is there, the directory may have been moved, and nothing is removed.
    """
    known = {os.path.realpath(place) for place in used}
    places = list(directory.iterdir()) if directory.is_dir() else []
    strays = [place for place in places if os.path.realpath(place) not in known]
    if known and len(strays) == len(places) and places:
        log.warning("not cleared", directory=str(directory), reason="no record names anything in it; was it moved?")
        return
    for place in strays:
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
