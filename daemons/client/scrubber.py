"""Hashing all that lies complete on this host again and again, from the disk, so that rot is found before it is needed.

`plan_scrubs` says what is next and how quickly. One piece of one file is read at a time. Ages go by the steady clock
from the daemon's start on; the wall clock only carries them over a restart, so whatever is done to it costs one scrub
more, or puts one off by one period, and no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import trio

from daemons.client.cancellable import run_cancellable
from daemons.client.local_file import COMPLETE_STATES
from daemons.client.scrub_plan import MAX_SCRUB_RATE, Aged, plan_scrubs
from daemons.supervision import contain
from interfiles.errors import ContentChanged, InterFilesError, StorageFailed
from interfiles.piece_set import PieceSet
from interfiles.storage.records import ScrubRecord
from interfiles.wire.reports import ScrubReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from daemons.client.callers import Caller
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from interfiles.geometry import PieceIndex
    from interfiles.manifest import FileId
    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore

MIN_SCRUB_EVERY_S: Final = 1.0
SCRUB_LOOK_S: Final = 60.0  # between two plans, or a hundredth of the period if that is less
SCRUB_SAVE_S: Final = 60.0  # of reading is done again after a restart, at most
SCRUB_RETRY_S: Final = 3_600.0  # for a file that could not be read, or the whole period if that is less
SCRUB_STUCK_S: Final = 600.0  # for one piece, after which its disk is left alone until it answers
SCRUB_REPORT_S: Final = 10.0  # between two reports of bad pieces of one file: a dead disk may have a million
BUSY_LOOK_S: Final = 2.0
BUSY_RATE: Final = 1_000_000  # bytes a second from and to peers
BUSY_SHARE: Final = 0.25  # of `MAX_SCRUB_RATE`, while the host is busy

T = TypeVar("T")

log = structlog.get_logger()


@dataclass(slots=True)
class _Kept:
    """What is known of a copy. Times by trio's clock; `position`: the piece to go on with."""

    file: LocalFile
    scrubbed_at: float
    position: int = 0
    not_before: float = float("-inf")


@dataclass(slots=True)
class _BadPieces:
    """Of the file that is being scrubbed: whether some were found that are not reported, and when some were."""

    unreported: bool = False
    reported_at: float = float("-inf")


class Scrubber:
    """Owns when each copy was scrubbed, in the job store and in memory. `every_s` None: nothing is scrubbed.

    `is_disk_busy` says whether the daemon's disk threads work for somebody else right now.
    """

    def __init__(
        self,
        library: Library,
        jobs: JobStore,
        database: Executor,
        *,
        every_s: float | None,
        wall_clock: Callable[[], float],
        is_disk_busy: Callable[[], bool],
    ) -> None:
        self._library = library
        self._jobs = jobs
        self._database = database
        self._every_s = every_s or 0.0
        self._look_s = min(SCRUB_LOOK_S, self._every_s / 100)
        self._wall_clock = wall_clock
        self._is_disk_busy = is_disk_busy
        self._kept: dict[FileId, _Kept] = {}
        self._stuck: set[Owner | None] = set()  # whose disk has not answered yet
        self._due: list[_Kept] = []
        self._rate = MAX_SCRUB_RATE
        self._planned_at = float("-inf")
        self._current: _Kept | None = None
        self._finished_at: int | None = None
        self._moved, self._moved_at, self._is_busy = 0, float("-inf"), False

    async def load(self) -> None:
        """Take over what the job store knows, once the library is loaded.

        A complete copy of which nothing is known is due: a crash came before it was noted, or scrubs were off.
        """
        if not self._every_s:
            return
        now, wall = trio.current_time(), self._wall_clock()
        known = await self._database.run(self._jobs.load_scrubs, wall)
        for file in self._library:
            if record := known.get(file.file_id):
                self._kept[file.file_id] = _Kept(file, now - (wall - record.scrubbed_at), record.position)
            elif file.record.part is None:
                self._kept[file.file_id] = _Kept(file, now - self._every_s)

    async def run(self) -> None:
        """Scrub until cancelled.

        Cancellation:
          What is read since the position was last saved is read again.
        """
        if not self._every_s:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await contain("planning the scrub", self._plan, expected=(InterFilesError,), log=log)
                for kept in self._due:
                    before = kept.scrubbed_at
                    await contain(
                        f"scrubbing {kept.file.label}",
                        partial(self._scrub, nursery, kept),
                        expected=(InterFilesError,),
                        log=log,
                    )
                    self._current = None
                    if kept.scrubbed_at == before:  # it has not come to its end
                        kept.not_before = trio.current_time() + min(SCRUB_RETRY_S, self._every_s)
                    if trio.current_time() >= self._planned_at + self._look_s:
                        break
                else:
                    await trio.sleep(self._look_s)

    def report(self, caller: Caller) -> ScrubReport | None:
        """What a person is told: which file it is, if it is the caller's; None where nothing is scrubbed."""
        if not self._every_s:
            return None
        current, files = self._current, list(self._library)
        is_own = current is not None and caller.owns(current.file)
        return ScrubReport(
            every_s=self._every_s,
            finished_at=self._finished_at,
            due=len(self._due),
            damaged=sum(file.record.state in COMPLETE_STATES and not file.is_complete for file in files),
            file=current.file.file_id.hex() if current and is_own else "",
            name=current.file.manifest.name if current and is_own else "",
            size=current.file.manifest.size if current and is_own else 0,
            bytes_done=current.file.manifest.size - _left(current) if current and is_own else 0,
        )

    # What is next

    async def _plan(self) -> None:
        now = self._planned_at = trio.current_time()
        found = [file for file in self._library if file.record.part is None]
        fresh = [file for file in found if (k := self._kept.get(file.file_id)) is None or k.file is not file]
        for file in fresh:  # it has been hashed as a whole just now
            self._kept[file.file_id] = _Kept(file, now)
        self._kept = {key: kept for key, kept in self._kept.items() if self._library.find(key) is kept.file}
        candidates = [
            self._kept[file.file_id] for file in found if self._is_whole(file) and file.record.rights not in self._stuck
        ]
        candidates = [kept for kept in candidates if kept.not_before <= now]
        plan = plan_scrubs([Aged(_left(kept), now - kept.scrubbed_at) for kept in candidates], self._every_s)
        self._due, self._rate = [candidates[at] for at in plan.due], plan.rate
        if fresh:
            wall = self._wall_clock()
            records = [ScrubRecord(file.file_id, wall, 0) for file in fresh]
            await self._database.run(self._jobs.save_scrubs, records)

    def _is_whole(self, file: LocalFile) -> bool:
        """Whether it is there to be scrubbed: not removed, replaced, paused, withdrawn or changed."""
        is_here = self._library.find(file.file_id) is file and file.store is not None
        return is_here and file.record.state in COMPLETE_STATES and file.changed_reason is None

    # One file

    async def _scrub(self, nursery: trio.Nursery, kept: _Kept) -> None:
        """Read a file from where its scrub was, and note that it is done.

        A file that cannot be read, or is gone from the library meanwhile, is left for later.
        """
        file = kept.file
        if not self._is_whole(file) or file.record.rights in self._stuck or not await self._is_unchanged(nursery, file):
            return
        self._current = kept
        bad = _BadPieces()
        try:
            is_done = await self._read_on(nursery, kept, bad)
        except InterFilesError:
            await self._report(file, bad)
            if self._is_whole(file):
                raise
            return  # it went in the middle of it: removed, or taken to be mended
        await self._report(file, bad)
        if is_done:
            kept.scrubbed_at, kept.position = trio.current_time(), 0
            self._due = [other for other in self._due if other is not kept]
            await self._save(kept)
            self._finished_at = int(self._wall_clock())
            log.debug("scrubbed", file=file.label, damaged=not file.is_complete)

    async def _read_on(self, nursery: trio.Nursery, kept: _Kept, bad: _BadPieces) -> bool:
        """Read a file to its end; False if it is not there any more as it was."""
        file, geometry = kept.file, kept.file.manifest.geometry
        saved_at = trio.current_time()
        while kept.position < geometry.piece_count:
            piece, began = geometry.piece(kept.position), trio.current_time()
            if piece not in file.verified:  # known to be bad: there is nothing to read
                kept.position += 1
                await trio.lowlevel.checkpoint()
                continue
            is_good = await self._is_good(nursery, file, piece)
            if not self._is_whole(file) or (not is_good and not await self._is_unchanged(nursery, file)):
                return False
            if not is_good:
                await self._found_bad(file, bad, piece)
            kept.position += 1
            if trio.current_time() >= saved_at + SCRUB_SAVE_S:
                await self._report(file, bad)
                await self._save(kept)
                saved_at = trio.current_time()
            await self._rest(geometry.piece_length(piece), began)
        return True

    async def _is_unchanged(self, nursery: trio.Nursery, file: LocalFile) -> bool:
        """What its user has changed is no rot; the library withdraws it, and says so."""
        try:
            await self._patiently(nursery, file, lambda: self._library.check_unchanged(file))
        except ContentChanged:
            return False
        return self._is_whole(file)

    async def _is_good(self, nursery: trio.Nursery, file: LocalFile, piece: PieceIndex) -> bool:
        async def check() -> PieceSet:
            wanted = PieceSet.of(file.manifest.piece_count, [piece])
            with file.using() as store:
                return await run_cancellable(
                    self._library.disk_of(file),
                    lambda cancelled: store.check(wanted, progress=lambda _: None, cancelled=cancelled, from_disk=True),
                )

        return piece in await self._patiently(nursery, file, check)

    async def _patiently(self, nursery: trio.Nursery, file: LocalFile, work: Callable[[], Awaitable[T]]) -> T:
        """Do some disk work for a file, but do not wait for ever: a disk that never answers holds up no other.

        Raises:
          StorageFailed: it has not answered; nobody asks it again before it does.
          Others as `work`.
        """
        rights, results, failures, ended = file.record.rights, list[T](), list[Exception](), trio.Event()

        async def attempt() -> None:
            try:
                results.append(await work())
            except Exception as e:  # noqa: BLE001 - raised again where it is waited for
                failures.append(e)
            finally:
                self._stuck.discard(rights)
                ended.set()

        nursery.start_soon(attempt)
        with trio.move_on_after(SCRUB_STUCK_S):
            await ended.wait()
        if failures:
            raise failures[0]
        if not ended.is_set():
            self._stuck.add(rights)
            raise StorageFailed(f"the disk of {file.label} has not answered for {SCRUB_STUCK_S:.0f} s")
        return results[0]

    async def _found_bad(self, file: LocalFile, bad: _BadPieces, piece: PieceIndex) -> None:
        log.warning("rot", file=file.label, piece=int(piece))
        file.remove_bad([piece])  # nobody is sent it from now on
        bad.unreported = True
        if trio.current_time() >= bad.reported_at + SCRUB_REPORT_S:
            await self._report(file, bad)

    async def _report(self, file: LocalFile, bad: _BadPieces) -> None:
        """Have the library say what is bad, with what was bad before: the note names all of it."""
        if bad.unreported and self._library.find(file.file_id) is file and file.record.state != "withdrawn":
            bad.unreported, bad.reported_at = False, trio.current_time()
            await self._library.report_bad(file, list(file.verified.complement()))

    # How quickly

    async def _rest(self, count: int, began: float) -> None:
        """Wait for as long as `count` bytes should have taken since `began`."""
        if trio.current_time() >= self._planned_at + self._look_s:
            await self._plan()
        rate = min(self._rate, MAX_SCRUB_RATE * BUSY_SHARE) if self._is_host_busy() else self._rate
        await trio.sleep(max(0.0, began + count / rate - trio.current_time()))

    def _is_host_busy(self) -> bool:
        now = trio.current_time()
        if (elapsed := now - self._moved_at) >= BUSY_LOOK_S:
            moved = sum(file.down.total + file.up.total for file in self._library)
            self._is_busy = moved - self._moved >= BUSY_RATE * elapsed
            self._moved, self._moved_at = moved, now
        return self._is_busy or self._is_disk_busy()

    async def _save(self, kept: _Kept) -> None:
        wall = self._wall_clock() - (trio.current_time() - kept.scrubbed_at)
        record = ScrubRecord(kept.file.file_id, wall, kept.position)
        await self._database.run(self._jobs.save_scrubs, [record])


def _left(kept: _Kept) -> int:
    """Bytes still to be read."""
    return max(0, kept.file.manifest.size - kept.position * kept.file.manifest.piece_size)
