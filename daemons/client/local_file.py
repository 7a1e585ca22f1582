"""One file as this host has it: the state that sessions, the master link and the CLI look at.

Each field has one writer: `Library` for the record, `Download` for what is being fetched. Everybody else reads.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import trio

from daemons.client.notice import Notice
from interfiles.errors import InterFilesError, StorageFailed, printable
from interfiles.manifest import FileId, Manifest, short_id
from interfiles.piece_set import PieceSet
from interfiles.swarm.rate_meter import RateMeter
from interfiles.swarm.upload_queue import SentCounts
from interfiles.wire.master_messages import AbsentHolder, Handout, Holding, PeerAddress

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from interfiles.geometry import Block, PieceIndex
    from interfiles.storage.executor import Executor
    from interfiles.storage.piece_store import PieceStore
    from interfiles.storage.records import FileRecord

Phase = Literal["idle", "checking", "waiting", "fetching", "finishing"]
FETCHING_STATES = ("downloading", "finishing")
COMPLETE_STATES = ("seeding", "complete")


class LocalFile:
    """A file of this host's library.

    `verified`: pieces that match their hashes and may be served; `durable`: those among them that survive a crash.
    `gained`: pieces in the order in which they were verified since the daemon started.
    `sent`: how often each piece was sent since then.
    `offers`: what the peers of a running download hold, by host.
    `disk`: where its disk work is done, None: where the daemon does its own.
    `note`: in words what is the matter; `failure`: why the last run of the download ended, None if it goes on.
    `attention`: told when the library has to look: at `suspects`, or at `changed_reason`, why the content is not what
    was hashed.
    """

    def __init__(self, record: FileRecord, manifest: Manifest, attention: Notice, *, now: float) -> None:
        self.attention = attention
        self.record = record
        self.manifest = manifest
        self.store: PieceStore | None = None
        self.disk: Executor | None = None
        self._users: dict[PieceStore, int] = {}
        recorded = PieceSet.from_bytes(manifest.piece_count, record.durable)
        self.durable = recorded if record.state != "withdrawn" else PieceSet(manifest.piece_count)
        self.verified = self.durable.copy()
        self.gained: list[PieceIndex] = []
        self.sent = SentCounts(manifest.piece_count)
        self.offers: Mapping[str, PieceSet] = {}
        self.suspects: set[PieceIndex] = set()
        self.changed_reason: str | None = None
        self.changed = Notice()
        self.handed_out = Notice()
        self.peers: dict[str, PeerAddress] = {}
        self.gateways: list[str] = []
        self.absent: list[AbsentHolder] = []
        self.handed_out_at = now
        self.connected = 0
        self.phase: Phase = "idle"
        self.checked_bytes = 0
        self.note = record.note
        self.failure: InterFilesError | None = None
        self.started_at = now
        self.down = RateMeter(now)
        self.up = RateMeter(now)

    @property
    def file_id(self) -> FileId:
        return self.manifest.file_id

    @property
    def label(self) -> str:
        """How logs and messages name the file."""
        return f"{printable(self.manifest.name)} ({short_id(self.file_id)})"

    @property
    def is_complete(self) -> bool:
        """Every piece is durable and the content is at its place."""
        return self.record.state in COMPLETE_STATES and self.durable.is_full

    @property
    def is_fetching(self) -> bool:
        """A download that should make progress."""
        return self.record.state in FETCHING_STATES

    @property
    def doing(self) -> str:
        """In a word, what becomes of a file that is not complete."""
        if self.is_fetching and self.phase != "idle":
            return self.phase
        return "damaged" if self.record.state in COMPLETE_STATES else self.record.state

    @property
    def refusal(self) -> str | None:
        """Why the file is not served now; None while it is."""
        if self.changed_reason is not None:
            return self.changed_reason
        if self.record.state == "withdrawn":
            return self.note or "the file was withdrawn"
        if self.record.state == "paused":
            return "the file is paused on this host"
        return None if self.store is not None else "the file is not ready yet"

    @property
    def bytes_done(self) -> int:
        """Verified bytes."""
        geometry = self.manifest.geometry
        if not self.verified:
            return 0
        last = geometry.piece(geometry.piece_count - 1)
        short = geometry.piece_size - geometry.piece_length(last) if last in self.verified else 0
        return len(self.verified) * geometry.piece_size - short

    def update(self, **changes: object) -> None:
        """Replace fields of the record, as the library has just stored them."""
        self.record = replace(self.record, **changes)  # type: ignore[arg-type]

    def hand_out(self, handout: Handout, now: float) -> None:
        """The master has said who the peers are."""
        self.peers = {peer.host_id: peer for peer in handout.peers}
        self.gateways = list(handout.gateways)
        self.absent, self.handed_out_at = list(handout.absent), now
        self.handed_out.tell()
        self.changed.tell()

    def add_verified(self, pieces: Iterable[PieceIndex]) -> None:
        """These pieces match their hashes now."""
        for piece in pieces:
            if piece not in self.verified:
                self.verified.add(piece)
                self.gained.append(piece)
        self.changed.tell()

    def remove_bad(self, pieces: Iterable[PieceIndex]) -> None:
        """These pieces do not match their hashes any more."""
        for piece in pieces:
            self.verified.discard(piece)
            self.durable.discard(piece)
        self.changed.tell()

    def add_sent(self, count: int) -> None:
        """So many payload bytes were sent to a peer."""
        self.up.add(count, trio.current_time())

    def suspect(self, piece: PieceIndex) -> None:
        """A peer got this piece with a wrong hash: have it checked on disk."""
        self.suspects.add(piece)
        self.attention.tell()

    def content_changed(self, reason: str) -> None:
        """The file on disk is not what was hashed: serve it no more."""
        self.changed_reason = reason
        self.changed.tell()
        self.attention.tell()

    def reading(self, block: Block) -> AbstractContextManager[list[tuple[int, int, int]] | None]:
        """Open descriptors of a block's bytes, `(fd, offset, count)`, good inside; None: for a thread to read.

        Raises:
          ContentChanged: a file on disk is not what was hashed.
          StorageFailed: it cannot be read, or nothing is open any more.
        """
        if self.store is None:
            raise StorageFailed(f"{self.label} is not open")
        return self.store.reading(block)

    async def read(self, block: Block, disk: Executor) -> bytes | bytearray:
        """Read a block in a thread.

        Raises:
          ContentChanged, StorageFailed: as `reading`.
        """
        with self.using() as store:
            return await (self.disk or disk).run(store.read, block)

    @contextmanager
    def using(self) -> Iterator[PieceStore]:
        """Keep the store open while a thread works with it.

        Raises:
          StorageFailed: there is none.
        """
        store = self.store
        if store is None:
            raise StorageFailed(f"{self.label} has no content on this host: {self.refusal or self.record.state}")
        self._users[store] = self._users.get(store, 0) + 1
        try:
            yield store
        finally:
            self._users[store] -= 1
            if not self._users[store]:
                del self._users[store]
                if store is not self.store:
                    store.close()

    def change_store(self, store: PieceStore | None) -> None:
        """Serve from another store, or none, from now on; the old one closes when nobody uses it any more."""
        old, self.store = self.store, store
        if old is not None and old not in self._users:
            old.close()

    def rates(self, now: float) -> tuple[int, int]:
        """Bytes a second from and to peers; what has ended is at rest at once."""
        down = int(self.down.rate(now)) if self.phase == "fetching" else 0
        return down, int(self.up.rate(now)) if self.refusal is None else 0

    def holding(self, now: float) -> Holding:
        """What the master is told."""
        pieces, note = len(self.verified), printable(self.note)[:200]
        if note and self.record.owner is not None:  # it may name paths of theirs, and the fleet shows it to everybody
            note = "the user whose file it is can see why by interfiles status on that host"
        (down, up), ordered = self.rates(now), self.record.ordered
        match self.record.state:
            case "withdrawn":
                return Holding(self.file_id, "none", 0, 0, 0, note, False)
            case "paused":
                return Holding(self.file_id, "paused", pieces, 0, 0, note, ordered)
            case "seeding" | "complete":
                state: Literal["complete", "damaged"] = "complete" if self.is_complete else "damaged"
                return Holding(self.file_id, state, pieces, down, up, note, ordered)
            case _:
                waiting = self.phase == "waiting"
                return Holding(self.file_id, "waiting" if waiting else "fetching", pieces, down, up, note, ordered)
