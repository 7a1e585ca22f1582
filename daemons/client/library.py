"""The files that this host has some of: the one owner of their records.

Whatever changes a file's durable state goes through here, into SQLite first and into memory then, so a crash between
the two forgets nothing that anybody was told. Two sources of trouble are looked after: pieces that peers complained
about are hashed again, and files whose content changed on disk are withdrawn and reported.
"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.best_effort import BestEffort
from daemons.client.cancellable import run_cancellable
from daemons.client.disks import Disks
from daemons.client.local_file import LocalFile
from daemons.client.notice import Notice
from daemons.client.rounds import rounds
from interfiles.errors import AmbiguousFile, ContentChanged, NotPermitted, printable
from interfiles.manifest import FileId, Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage.part_store import discard_part
from interfiles.storage.records import KnownPeer, decode_stamps, encode_stamps
from interfiles.storage.removing import remove_content, remove_own_copy
from interfiles.storage.seed_store import SeedStore
from interfiles.units import format_count
from interfiles.wire.master_messages import FileInfo, Handout, PeerAddress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from interfiles.priority import Priority
    from interfiles.storage.executor import Executor
    from interfiles.storage.jobs import JobStore
    from interfiles.storage.open_files import OpenFiles
    from interfiles.storage.piece_store import PieceStore
    from interfiles.storage.records import FileRecord, FileState
    from interfiles.storage.scan import Stamp

SWEEP_S: Final = 60.0  # a changed file that nobody asks for is noticed within so long

log = structlog.get_logger()


class Library:
    """The local files by id."""

    def __init__(
        self,
        jobs: JobStore,
        database: Executor,
        disk: Executor,
        open_files: OpenFiles,
        *,
        disks: Disks | None = None,
    ) -> None:
        self.open_files: Final = open_files
        self.disks: Final = disks or Disks(disk, lambda: disk)
        self.announcements: Final = Notice()
        self.attention: Final = Notice()
        self.work: Final = Notice()
        self._jobs = jobs
        self._database = database
        self._best_effort = BestEffort(database)
        self._disk = disk
        self._files: dict[FileId, LocalFile] = {}
        self._replaced: set[FileId] = set()  # another file of this id is being stored
        self._claims: dict[FileId, trio.Event] = {}

    # Looking

    def __iter__(self) -> Iterator[LocalFile]:
        return iter(list(self._files.values()))

    def find(self, file_id: FileId) -> LocalFile | None:
        """The file by its id."""
        return self._files.get(file_id)

    def search(self, query: str) -> LocalFile | None:
        """The file by id, id prefix of at least 4 hex digits, or name; None when this host has none such.

        Raises:
          AmbiguousFile: several files fit.
        """
        text = query.lower()
        fitting = [f for f in self._files.values() if len(text) >= 4 and f.file_id.hex().startswith(text)]
        fitting = fitting or [f for f in self._files.values() if f.manifest.name == query]
        if len(fitting) > 1:
            ids = ", ".join(f.label for f in fitting[:4])
            text = f"{printable(query)!r} could be any of {len(fitting)} files ({ids}); give more of the id"
            raise AmbiguousFile(text)
        return fitting[0] if fitting else None

    # The start

    async def load(self) -> None:
        """Read the records and open what is complete; downloads are opened by those who go on with them."""
        for record in await self._database.run(self._jobs.load_all):
            manifest = await self._disk.run(Manifest.decode, record.manifest)
            file = self._files[manifest.file_id] = self._made(record, manifest)
            if record.part is None and record.state != "withdrawn":
                file.store = self._seed_store(file)
            elif record.part is not None:
                for known in await self._database.run(self._jobs.peers, manifest.file_id):
                    file.peers[known.host_id] = PeerAddress(known.host_id, known.name, "", known.address, False)
        self.work.tell()

    def close(self) -> None:
        """Close what is open; nobody may use the library any more."""
        for file in self:
            file.change_store(None)

    def _made(self, record: FileRecord, manifest: Manifest) -> LocalFile:
        file = LocalFile(record, manifest, self.attention, now=trio.current_time())
        file.disk = self.disks.of(record.rights)
        return file

    def _seed_store(self, file: LocalFile) -> SeedStore:
        path, rights = Path(os.fsdecode(file.record.path)), file.record.rights
        return SeedStore(path, file.manifest, decode_stamps(file.record.stamps), self.open_files, rights)

    def disk_of(self, file: LocalFile) -> Executor:
        """Where the disk work of a file is done: in the threads and with the rights of whom it belongs to."""
        return self.disks.of(file.record.rights)

    # Changes

    @asynccontextmanager
    async def claimed(self, file_id: FileId) -> AsyncIterator[None]:
        """Let nobody else take a file in, pause or remove it meanwhile."""
        while (earlier := self._claims.get(file_id)) is not None:
            await earlier.wait()
        done = self._claims[file_id] = trio.Event()
        try:
            yield
        finally:
            del self._claims[file_id]
            done.set()

    async def add(self, record: FileRecord, manifest: Manifest, store: PieceStore | None) -> LocalFile:
        """Take a file in, replacing what was known of the same id.

        Cancellation:
          Waits for the end: between the record and what goes by it there is no half.
        """
        with trio.CancelScope(shield=True):
            self._replaced.add(manifest.file_id)
            try:
                await self._database.run(self._jobs.add, record)
            finally:
                self._replaced.discard(manifest.file_id)
            old = self._files.pop(manifest.file_id, None)
            if old is not None:
                old.change_store(None)
                old.changed.tell()
            file = self._made(record, manifest)
            file.store = store
            self._files[manifest.file_id] = file
            if old is not None and old.record.owned and old.record.path != record.path:
                await self._disk.run(remove_own_copy, Path(os.fsdecode(old.record.path)), manifest)
        self._told(file)
        return file

    async def _store(self, file: LocalFile, change: Callable[[], None]) -> None:
        """Change what is stored of a file, unless another one, with a record of its own, has taken its place."""
        if self._files.get(file.file_id) is file and file.file_id not in self._replaced:
            await self._database.run(change)

    async def set_state(self, file: LocalFile, state: FileState, *, note: str = "") -> None:
        """Store and tell a file's new state."""
        await self._store(file, lambda: self._jobs.set_state(file.file_id, state, note))
        file.update(state=state, note=note)
        file.note, file.failure = note, None
        self._told(file)

    async def reorder(self, file: LocalFile, *, overwrite: bool, priority: Priority) -> None:
        """Store whether the download may replace what is at its destination, and how urgent it is."""
        await self._store(file, lambda: self._jobs.reorder(file.file_id, overwrite=overwrite, priority=priority))
        file.update(overwrite=overwrite, priority=priority)
        file.failure = None

    async def record_progress(self, file: LocalFile, durable: PieceSet) -> None:
        """Store that these pieces, but for those found bad meanwhile, are durable; they have been synced."""
        r, durable = file.record, PieceSet(durable.count, durable.bits & file.verified.bits)
        await self._store(
            file,
            lambda: self._jobs.record_progress(
                file.file_id,
                durable=durable.to_bytes(),
                bytes_from_peers=r.bytes_from_peers,
                bytes_local=r.bytes_local,
                pieces_rejected=r.pieces_rejected,
                seconds=r.seconds,
            ),
        )
        file.durable = durable
        file.update(durable=durable.to_bytes())
        file.changed.tell()

    async def complete(self, file: LocalFile, path: Path, stamps: Sequence[Stamp]) -> None:
        """Store and tell that the content, which is durable, is at its place; serve it from there."""
        raw, stamped, durable = os.fsencode(path), encode_stamps(stamps), file.durable.to_bytes()
        await self._store(file, lambda: self._jobs.complete(file.file_id, path=raw, stamps=stamped, durable=durable))
        file.update(state="complete", path=raw, part=None, stamps=stamped, note="")
        file.note, file.failure, file.phase = "", None, "idle"
        file.change_store(SeedStore(path, file.manifest, stamps, self.open_files, file.record.rights))
        self._told(file)

    async def remove(self, file: LocalFile, *, delete: bool, why: str) -> None:
        """Forget a file. A part is deleted; content at its destination on request, unless it is the person's own.

        Cancellation:
          Waits for the end: a part that no record names would stay for ever.
        """
        with trio.CancelScope(shield=True):
            await self._remove(file, delete, why)

    async def _remove(self, file: LocalFile, delete: bool, why: str) -> None:
        if self._files.get(file.file_id) is not file:
            return  # removed meanwhile
        await self._database.run(self._jobs.remove, file.file_id)
        del self._files[file.file_id]
        file.changed_reason = why
        file.change_store(None)
        self._told(file)
        place = file.record.place
        if file.record.part is not None:
            part = Path(os.fsdecode(file.record.part))
            await self.disk_of(file).run(discard_part, part, place)
            if file.record.owned:
                await self._disk.run(remove_own_copy, Path(os.fsdecode(file.record.path)), file.manifest)
        elif file.record.owned:
            await self._disk.run(remove_own_copy, Path(os.fsdecode(file.record.path)), file.manifest)
        elif delete and not file.record.in_place:
            path = Path(os.fsdecode(file.record.path))
            await self.disk_of(file).run(remove_content, path, file.manifest, place)

    def _told(self, file: LocalFile) -> None:
        file.changed.tell()
        self.announcements.tell()
        self.work.tell()

    def phase_changed(self, file: LocalFile) -> None:
        """A download waits or goes on: tell those who watch."""
        file.changed.tell()
        self.announcements.tell()

    # Trouble

    async def run(self) -> None:
        """Look after suspected and changed files until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            seen = 0
            async with rounds(self, self._attend) as go_round:
                while True:
                    await go_round()
                    with trio.move_on_after(SWEEP_S):  # what failed is tried again
                        seen = await self.attention.later_than(seen)

    async def _sweep(self) -> None:
        async with rounds(self, self._look_over) as go_round:
            while True:
                await go_round()
                await trio.sleep(SWEEP_S)

    async def _attend(self, file: LocalFile) -> None:
        if file.changed_reason is not None and file.record.state != "withdrawn":
            async with self.claimed(file.file_id):  # a pause meanwhile must not be lost
                await self._withdraw(file)
        elif file.suspects:
            await self._check_suspects(file)

    async def _look_over(self, file: LocalFile) -> None:
        if file.record.state == "withdrawn":
            await self._reopen_if_restored(file)
        else:
            with suppress(ContentChanged):
                await self.check_unchanged(file)

    async def _withdraw(self, file: LocalFile) -> None:
        if file.record.state != "paused":  # else it is looked at when it is resumed
            log.warning("withdrawn", file=file.label, reason=file.changed_reason)
            file.change_store(None)
            file.verified = PieceSet(file.manifest.piece_count)
            file.durable = file.verified.copy()
            await self.set_state(file, "withdrawn", note=file.changed_reason or "")
        file.changed_reason = None

    async def check_unchanged(self, file: LocalFile) -> None:
        """Look whether a complete content was written to or replaced since it was hashed; withdraw it if so.

        Raises:
          ContentChanged: it was.
        """
        if not isinstance(file.store, SeedStore):
            return
        with file.using():
            changed = await self.disk_of(file).run(file.store.changed)
        if changed is not None:
            mended = "it is the fleet's copy, and is made anew by itself"
            remedy = mended if file.record.ordered else "put it back, or upload or download it again"
            reason = f"{printable(changed[0])} {changed[1]}; {remedy}"
            if file.record.state != "paused":  # that it stays: what is put back would be served
                file.content_changed(reason)
            raise ContentChanged(f"{file.label} is no longer served: {reason}")

    async def _reopen_if_restored(self, file: LocalFile) -> None:
        """What was withdrawn is as it was when it was hashed: serve it again."""
        if file.record.part is not None:
            return
        store = self._seed_store(file)
        if await self.disk_of(file).run(store.changed) is not None:
            store.close()
            return
        log.info("restored", file=file.label)
        file.change_store(store)
        file.durable = PieceSet.from_bytes(file.manifest.piece_count, file.record.durable)
        file.verified = PieceSet(file.manifest.piece_count)
        await self.set_state(file, "complete")
        file.add_verified(file.durable)

    async def _check_suspects(self, file: LocalFile) -> None:
        pieces = PieceSet.of(file.manifest.piece_count, file.suspects)
        file.suspects.clear()
        if file.store is None:
            return
        try:
            good = await self.check(file, pieces)
        except NotPermitted:
            good = PieceSet(pieces.count)
        bad = [piece for piece in pieces if piece not in good and piece in file.verified]
        if bad:
            await self.report_bad(file, bad)

    async def check(
        self, file: LocalFile, pieces: PieceSet, progress: Callable[[int], None] = lambda _: None
    ) -> PieceSet:
        """Hash pieces on disk again; return those that match. `progress` hears of bytes hashed, from a thread."""
        with file.using() as store:
            return await run_cancellable(
                self.disk_of(file), lambda cancelled: store.check(pieces, progress=progress, cancelled=cancelled)
            )

    async def report_bad(self, file: LocalFile, bad: Sequence[int]) -> None:
        """Stop serving pieces that do not match their hashes, and say so."""
        shown = ", ".join(map(str, bad[:5])) + (" and more" if len(bad) > 5 else "")
        fault = "does not match its hash" if len(bad) == 1 else "do not match their hashes"
        note = f"{format_count(len(bad), 'piece', 'pieces')} on disk {fault} ({shown})"
        log.warning("bad pieces", file=file.label, pieces=shown, count=len(bad))
        file.remove_bad(map(file.manifest.geometry.piece, bad))
        await self.record_progress(file, file.durable.copy())
        await self._store(file, lambda: self._jobs.set_note(file.file_id, note))
        file.update(note=note)
        file.note = note
        self._told(file)

    # What the master tells

    def owned_roots(self) -> set[Path]:
        """The directories, each with one own copy in it, that records name."""
        return {Path(os.fsdecode(file.record.path)).parent for file in self._files.values() if file.record.owned}

    async def set_published(self, info: FileInfo) -> None:
        """Store that the master has the file in its catalogue; if that fails, it is published again after a restart."""
        if file := self.find(FileId(info.file_id)):
            await self._best_effort.store("published", lambda: self._jobs.set_published(file.file_id, True))
            file.update(published=True, replicas=info.replicas_wanted, expires_at=info.expires_at)
            self._told(file)

    async def set_peers(self, handout: Handout) -> None:
        """Take and store the peers of a file, from the master."""
        if file := self.find(FileId(handout.file_id)):
            known = file.peers
            file.hand_out(handout, trio.current_time())
            if file.peers != known:
                await self._save_peers(file)

    async def _save_peers(self, file: LocalFile) -> None:
        """Store the peers handed out, for a restart while the master is away."""
        known = [KnownPeer(peer.host_id, peer.name, peer.address) for peer in file.peers.values()]
        await self._best_effort.store("peers", lambda: self._jobs.save_peers(file.file_id, known))
