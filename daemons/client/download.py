"""Fetching one file: from a part on disk and a list of peers to content at its destination.

A `PeerKeeper` holds the sessions, which share one scheduler. Verified pieces are served at once and recorded once they
are synced. Everything is level-triggered: the part on disk, the record and the handout say what is left to do, so a
restart or a resumed pause simply runs this again.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import structlog
import trio

from daemons.client.cancellable import run_cancellable
from daemons.client.peer_keeper import TICK_S, PeerKeeper
from daemons.client.rate_gate import Flow
from interfiles.errors import (
    InterFilesError,
    NoSpace,
    NotPermitted,
    StorageFailed,
    VerificationFailed,
)
from interfiles.piece_set import PieceSet
from interfiles.storage import finishing
from interfiles.storage.acting import can_act
from interfiles.storage.part_store import PartStore
from interfiles.swarm.request_scheduler import RequestScheduler

if TYPE_CHECKING:
    from random import Random

    from daemons.client.fleet_network import FleetNetwork
    from daemons.client.library import Library
    from daemons.client.local_file import LocalFile
    from daemons.client.rate_gate import RateGate
    from interfiles.geometry import Block, PieceIndex

SOME_PEER: Final = "?"  # no host's name: whoever sent what a crash kept from being recorded
SYNC_S: Final = 2.0  # verified pieces are durable within so long, and the disk's time ...
SYNC_BYTES: Final = (
    256 << 20
)  # ... or once so much is verified: a crash costs re-hashing at most this, a quarter second

log = structlog.get_logger()


class Download:
    """One run of fetching one file. Implements `PieceSink` for its sessions."""

    def __init__(
        self,
        file: LocalFile,
        library: Library,
        network: FleetNetwork,
        rng: Random,
        gate: RateGate,
        *,
        zone: str,
    ) -> None:
        self._file = file
        self._library = library
        self._network = network
        self._disk = library.disk_of(file)
        self._rng = rng
        self._flow = Flow(gate, file.file_id.hex(), lambda: file.record.priority)
        self._zone = zone
        self._scheduler = RequestScheduler(file.manifest.geometry, file.verified)
        self._scope = trio.CancelScope()
        self._failed: InterFilesError | None = None
        self._unsynced_bytes = 0
        self._uncounted = Counter[str]()  # bytes of verified pieces, by who sent them, since the record was told
        self._synced_at = trio.current_time()

    async def run(self) -> None:
        """Fetch what is missing and put the file in its place.

        Raises:
          InterFilesError: the disk does not take it; trying again later may help.

        Cancellation:
          What is verified stays on disk and counts; what is recorded as durable is.
        """
        file = self._file
        try:
            if file.record.state == "downloading":
                await self._open_part()
                await self._fetch()
                await self._library.set_state(file, "finishing")
            try:
                await self._finish()
            except StorageFailed:  # the part is gone, or not whole: the next run fetches what is missing
                await self._library.set_state(file, "downloading")
                raise
        finally:
            self._flow.close()
            self._put_down_counts()
            file.phase, file.connected = "idle", 0
            if isinstance(file.store, PartStore):  # the next run opens it anew, and trusts what the record says
                file.change_store(None)

    # The part

    @property
    def _part(self) -> PartStore:
        assert isinstance(self._file.store, PartStore)
        return self._file.store

    async def _open_part(self) -> None:
        """Open the part and hash what it may hold beyond the record: nothing that is on disk is fetched again."""
        file, record = self._file, self._file.record
        assert record.part is not None
        part = Path(os.fsdecode(record.part))
        file.phase, file.checked_bytes = "checking", 0
        open_files, durable = self._library.open_files, file.durable
        store = file.store if isinstance(file.store, PartStore) else None  # laid out a moment ago
        if store is None:
            store = file.store = await self._disk.run(
                lambda: PartStore.open(part, file.manifest, durable, open_files, record.rights, record.place)
            )
        file.verified = PieceSet(store.held.count, store.held.bits)
        doubtful = PieceSet(store.held.count, store.doubtful.bits & ~store.held.bits)
        here = file.manifest.zero_pieces()
        if record.overwrite:  # before the doubtful ones are hashed: what a run before this copied counts as copied
            reused = await self._reuse(store, store.held.complement())
            here.bits |= reused.bits
            doubtful.bits &= ~reused.bits
            file.add_verified(reused)
        file.add_verified(await self._library.check(file, doubtful, self._count_checked))
        self._count_found(here)
        self._scheduler = RequestScheduler(file.manifest.geometry, file.verified)
        await self._sync()
        file.note, file.failure = "", None  # whatever went wrong before, the disk takes it now

    async def _reuse(self, store: PartStore, wanted: PieceSet) -> PieceSet:
        """Copy what the content to be replaced has of these pieces."""
        record = self._file.record
        if record.rights is not None and not can_act():
            return PieceSet(wanted.count)  # the daemon may read what the owner may not
        replaced = Path(os.fsdecode(record.path))
        return await run_cancellable(
            self._disk,
            lambda cancelled: store.reuse(
                replaced, wanted, owner=record.rights, progress=self._count_checked, cancelled=cancelled
            ),
        )

    def _count_found(self, here: PieceSet) -> None:
        """Count what is verified and was never counted: `here` came from this host, the rest from peers.

        A crash took with it the knowledge from which.
        """
        file, record = self._file, self._file.record
        uncounted = file.bytes_done - sum(record.bytes_from_peers.values())
        found = self._bytes_in(PieceSet(here.count, here.bits & file.verified.bits & ~file.durable.bits))
        local = max(record.bytes_local, min(record.bytes_local + found, uncounted))
        file.update(bytes_local=local)
        if uncounted > local:
            self._uncounted[SOME_PEER] += uncounted - local

    def _count_checked(self, count: int) -> None:
        self._file.checked_bytes += count

    def _bytes_in(self, pieces: PieceSet) -> int:
        geometry = self._file.manifest.geometry
        return sum(geometry.piece_length(piece) for piece in pieces)

    async def _sync(self) -> None:
        """Make what is verified durable, then record it."""
        durable, self._unsynced_bytes = self._file.verified.copy(), 0
        self._put_down_counts()
        now = trio.current_time()
        self._file.update(seconds=self._file.record.seconds + now - self._synced_at)
        self._synced_at = now
        await self._disk.run(self._part.sync)
        await self._library.record_progress(self._file, durable)

    async def _finish(self) -> None:
        file, record = self._file, self._file.record
        assert record.part is not None
        file.phase = "finishing"
        self._library.phase_changed(file)
        part, destination = Path(os.fsdecode(record.part)), Path(os.fsdecode(record.path))
        mask = record.owner.umask if record.owner is not None else None
        stamps = await self._disk.run(
            lambda: finishing.finish(
                *(part, destination, file.manifest), overwrite=record.overwrite, place=record.place, mask=mask
            )
        )
        with trio.CancelScope(shield=True):  # else the record would not know of what stands there now
            await self._library.complete(file, destination, stamps)
        log.info("complete", file=file.label, rejected=record.pieces_rejected, fetched=file.down.total)

    # The peers

    async def _fetch(self) -> None:
        keeper = PeerKeeper(*(self._file, self._scheduler, self, self._network, self._flow, self._rng), zone=self._zone)
        self._file.offers = self._scheduler.offers
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_phase)
                nursery.start_soon(self._sync_now_and_then)
                nursery.start_soon(keeper.run)
                while not self._scheduler.picker.is_complete:
                    self._update_phase()
                    keeper.tell_priority()
                    if self._scheduler.picker.held.bits & ~self._file.verified.bits:
                        self._fail(VerificationFailed("pieces went bad on the disk"))  # the next run fetches them again
                    seen = self._file.changed.count
                    await self._file.changed.later_than(seen)
                self._scope.cancel()
        if self._failed is not None:
            raise self._failed
        await self._sync()

    def _update_phase(self) -> None:
        connected = self._scheduler.peers()
        useful = any(self._scheduler.is_useful(peer) for peer in connected)
        phase: Literal["fetching", "waiting"] = "fetching" if useful else "waiting"
        file = self._file
        if (file.phase, file.connected) != (phase, len(connected)):
            file.phase, file.connected = phase, len(connected)
            self._library.phase_changed(file)

    async def _watch_phase(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            self._update_phase()

    async def _sync_now_and_then(self) -> None:
        while True:
            with trio.move_on_after(SYNC_S):
                while self._unsynced_bytes < SYNC_BYTES:
                    await self._file.changed.later_than(self._file.changed.count)
            if self._unsynced_bytes:
                try:
                    await self._sync()
                except (NoSpace, NotPermitted, StorageFailed) as e:
                    self._fail(e)

    # What sessions bring (PieceSink)

    async def write_block(self, block: Block, data: memoryview) -> None:
        """Write a block to the part; a disk that refuses ends this run of the download."""
        offset = self._file.manifest.geometry.piece_offset(block.piece) + block.offset
        try:
            if self._part.is_scattered(offset, block.length):
                await self._disk.run(self._part.write, offset, data)
            else:
                self._part.write(offset, data)
        except (NoSpace, NotPermitted, StorageFailed) as e:
            self._fail(e)
            raise

    def add_fetched(self, count: int) -> None:
        """So many payload bytes came, whatever becomes of them."""
        self._file.down.add(count, trio.current_time())

    def add_verified(self, piece: PieceIndex, peer_name: str) -> None:
        """A piece may be served, and counts once it is synced."""
        length = self._file.manifest.geometry.piece_length(piece)
        self._unsynced_bytes += length
        self._uncounted[peer_name] += length
        self._file.add_verified([piece])

    def _put_down_counts(self) -> None:
        """Have the record know who sent what."""
        counts = self._uncounted + Counter(self._file.record.bytes_from_peers)
        self._uncounted.clear()
        self._file.update(bytes_from_peers=dict(counts))

    def add_rejected(self, piece: PieceIndex) -> None:
        """A piece's hash did not match."""
        self._file.update(pieces_rejected=self._file.record.pieces_rejected + 1)
        self._file.changed.tell()

    def _fail(self, error: InterFilesError) -> None:
        self._failed = error
        self._scope.cancel()
