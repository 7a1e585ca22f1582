"""What the client daemon must not forget: who it is, the files it holds or fetches, and how far each has come."""

import json
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

from interfiles.priority import Priority
from interfiles.storage.acting import Owner
from interfiles.storage.database import Database, Row, Value
from interfiles.storage.places import Place
from interfiles.storage.records import CopyRecord, FileRecord, FileState, Identity, KnownPeer, ScrubRecord

_APPLICATION_ID: Final = 0x49464A42  # "IFJB"
_FLAGS: Final = frozenset({"overwrite", "published", "owned", "in_place", "ordered", "again"})

# What is large and does not change (manifest) and what changes often (progress) have their own tables: SQLite writes a
# whole row for a change in any of it.
_SCHEMA: Final = (
    """
    CREATE TABLE identity (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        fleet TEXT NOT NULL, host_id TEXT NOT NULL, name TEXT NOT NULL, zone TEXT NOT NULL,
        key TEXT NOT NULL, chain TEXT NOT NULL, authorities TEXT NOT NULL, masters TEXT NOT NULL,
        removed TEXT NOT NULL
    ) STRICT;
    CREATE TABLE revoked (host_id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    CREATE TABLE files (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        file_id BLOB NOT NULL UNIQUE,
        path BLOB NOT NULL, part BLOB, state TEXT NOT NULL, overwrite INTEGER NOT NULL,
        uploaded_at INTEGER NOT NULL, uploaded_by TEXT NOT NULL, replicas INTEGER NOT NULL,
        published INTEGER NOT NULL, note TEXT NOT NULL, owned INTEGER NOT NULL,
        in_place INTEGER NOT NULL, owner TEXT NOT NULL, place TEXT NOT NULL
    ) STRICT;
    CREATE TABLE manifests (
        file_id BLOB PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE, manifest BLOB NOT NULL
    ) STRICT;
    CREATE TABLE stamps (
        file_id BLOB PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE, stamps BLOB NOT NULL
    ) STRICT;
    CREATE TABLE progress (
        file_id BLOB PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE,
        durable BLOB NOT NULL, bytes_local INTEGER NOT NULL, bytes_from_peers TEXT NOT NULL,
        pieces_rejected INTEGER NOT NULL, seconds REAL NOT NULL
    ) STRICT;
    CREATE TABLE peers (
        file_id BLOB NOT NULL REFERENCES files (file_id) ON DELETE CASCADE, rank INTEGER NOT NULL,
        host_id TEXT NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL,
        PRIMARY KEY (file_id, rank)
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE copies (
        part BLOB PRIMARY KEY, file_id BLOB NOT NULL, destination BLOB NOT NULL, overwrite INTEGER NOT NULL,
        owner TEXT NOT NULL, place TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE files ADD COLUMN priority TEXT NOT NULL DEFAULT 'normal';
    """,
    """
    ALTER TABLE files ADD COLUMN ordered INTEGER NOT NULL DEFAULT 0;
    CREATE TABLE unwanted (  -- removed here by hand
        file_id BLOB PRIMARY KEY, removed_at REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    CREATE TABLE scrubs (
        file_id BLOB PRIMARY KEY REFERENCES files (file_id) ON DELETE CASCADE,
        scrubbed_at REAL NOT NULL, position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    """
    ALTER TABLE files ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE files ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
    """,
)
_LOAD_ALL: Final = """
    SELECT file_id, manifest, path, part, state, overwrite, uploaded_at, uploaded_by, replicas, published, stamps,
           durable, bytes_local, bytes_from_peers, pieces_rejected, seconds, note, owned,
           in_place, owner, place, priority, ordered, expires_at, again
    FROM files JOIN manifests USING (file_id) JOIN stamps USING (file_id) JOIN progress USING (file_id)
    ORDER BY number
"""


class JobStore:
    """The database at `path`, made if it is not there.

    A method that returns has made its change durable; within `transaction`, its end makes all of them durable at once.
    May be called from several threads.

    Raises (every method that reads or changes):
      NoSpace: the disk is full; nothing was changed.
      StorageFailed: the disk failed or the database is damaged; nothing was changed.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
          Refused: it is of another program or of a newer version.
          NotPermitted: it may not be opened.
        """
        self._database: Final = Database(
            path,
            what="client's database",
            remedy="move it away, join again, and upload or download again what this host had",
            application_id=_APPLICATION_ID,
            schema=_SCHEMA,
        )
        self._lock: Final = threading.RLock()
        self._is_in_transaction = False

    def close(self) -> None:
        """Close it; closing twice is allowed."""
        with self._lock:
            self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes within durable together: all of them, or none if an exception passes through.

        Other threads wait meanwhile. A transaction within a transaction is part of the outer one.
        """
        with self._lock:
            if self._is_in_transaction:
                yield
                return
            self._is_in_transaction = True
            try:
                with self._database.transaction():
                    yield
            finally:
                self._is_in_transaction = False

    def load_identity(self) -> Identity | None:
        """Who this host is; None before it has joined."""
        with self._lock:
            row = self._database.row(
                "SELECT fleet, host_id, name, zone, key, chain, authorities, masters, removed FROM identity"
            )
        if row is None:
            return None
        fleet, host_id, name, zone, key, chain, authorities, masters, removed = cast("tuple[str, ...]", row)
        trusted, known_masters = tuple(json.loads(authorities)), tuple(json.loads(masters))
        return Identity(fleet, host_id, name, zone, key, chain, trusted, known_masters, removed)

    def save_identity(self, identity: Identity) -> None:
        """Keep who this host is, in place of whoever it was."""
        i = identity
        self._change(
            "REPLACE INTO identity VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(i.fleet, i.host_id, i.name, i.zone, i.key, i.chain, json.dumps(i.authorities), json.dumps(i.masters)),
            i.removed,
        )

    def save_newcomer(self, identity: Identity) -> None:
        """Keep who this host is now that it has joined, in place of whoever it was in whatever fleet.

        What it has uploaded is to be published again.
        """
        with self.transaction():
            self.save_identity(identity)
            self._change("DELETE FROM revoked")
            self._change("UPDATE files SET published = 0, again = 1 WHERE (in_place = 1 OR owned = 1) AND ordered = 0")

    def load_revoked(self) -> set[str]:
        """Ids of the hosts that are not of the fleet any more, as far as this host was told."""
        with self._lock:
            return {cast("str", row[0]) for row in self._database.rows("SELECT host_id FROM revoked")}

    def save_revoked(self, host_ids: Iterable[str], *, replace: bool) -> None:
        """Keep who is not of the fleet any more, beside or in place of those kept before."""
        with self.transaction():
            if replace:
                self._change("DELETE FROM revoked")
            for host_id in host_ids:
                self._change("INSERT OR IGNORE INTO revoked VALUES (?)", host_id)

    def add(self, record: FileRecord) -> None:
        """Keep a file, in place of all that was kept of the same file id."""
        r = record
        with self.transaction():
            self.remove(r.file_id)
            self._change(
                """
                INSERT INTO files (file_id, path, part, state, overwrite, uploaded_at, uploaded_by, replicas, published,
                                   note, owned, in_place, owner, place, priority, ordered, expires_at,
                                   again)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                """,
                *(r.file_id, r.path, r.part, r.state, r.overwrite, r.uploaded_at, r.uploaded_by, r.replicas),
                *(r.published, r.note, r.owned, r.in_place),
                *(_encoded(r.owner), _encoded(r.place), r.priority, r.ordered, r.expires_at, r.again),
            )
            self._change("DELETE FROM unwanted WHERE file_id = ?", r.file_id)
            self._change("INSERT INTO manifests VALUES (?, ?)", r.file_id, r.manifest)
            self._change("INSERT INTO stamps VALUES (?, ?)", r.file_id, r.stamps)
            peers = json.dumps(dict(r.bytes_from_peers))
            self._change(
                "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?)",
                *(r.file_id, r.durable, r.bytes_local, peers, r.pieces_rejected, r.seconds),
            )

    def remove(self, file_id: bytes) -> None:
        """Forget a file and its peers; nothing happens where there is none."""
        self._change("DELETE FROM files WHERE file_id = ?", file_id)

    def keep_away(self, file_id: bytes, now: float) -> None:
        """Keep that a file was removed here by hand at this moment (Unix seconds), until it is added again."""
        self._change("REPLACE INTO unwanted VALUES (?, ?)", file_id, now)

    def is_unwanted(self, file_id: bytes, since: float) -> bool:
        """Whether a file was removed here by hand since then (Unix seconds); what was removed before is forgotten."""
        with self.transaction():
            self._change("DELETE FROM unwanted WHERE removed_at < ?", since)
            return self._database.row("SELECT 1 FROM unwanted WHERE file_id = ?", file_id) is not None

    def load_all(self) -> list[FileRecord]:
        """Every file, the one added first at the front."""
        with self._lock:
            return [_record(row) for row in self._database.rows(_LOAD_ALL)]

    def record_progress(
        self,
        file_id: bytes,
        *,
        durable: bytes,
        bytes_from_peers: Mapping[str, int],
        bytes_local: int,
        pieces_rejected: int,
        seconds: float,
    ) -> None:
        """Keep how far a download is; `durable` only after `PartStore.sync` has returned."""
        self._change(
            "UPDATE progress SET durable = ?, bytes_from_peers = ?, bytes_local = ?, pieces_rejected = ?, seconds = ?"
            " WHERE file_id = ?",
            *(durable, json.dumps(dict(bytes_from_peers)), bytes_local, pieces_rejected, seconds, file_id),
        )

    def set_state(self, file_id: bytes, state: FileState, note: str = "") -> None:
        """Keep what is done with a file, and in words why."""
        self._change("UPDATE files SET state = ?, note = ? WHERE file_id = ?", state, note, file_id)

    def set_note(self, file_id: bytes, note: str) -> None:
        """Keep in words what is the matter with a file."""
        self._change("UPDATE files SET note = ? WHERE file_id = ?", note, file_id)

    def reorder(self, file_id: bytes, *, overwrite: bool, priority: Priority) -> None:
        """Keep whether a download may replace what is at its destination, and how urgent it is."""
        self._change("UPDATE files SET overwrite = ?, priority = ? WHERE file_id = ?", overwrite, priority, file_id)

    def complete(self, file_id: bytes, *, path: bytes, stamps: bytes, durable: bytes) -> None:
        """Keep that a download is complete, at `path` and nowhere else, its peers no longer needed."""
        with self.transaction():
            self._change(
                "UPDATE files SET state = 'complete', note = '', path = ?, part = NULL WHERE file_id = ?", path, file_id
            )
            self._change("UPDATE stamps SET stamps = ? WHERE file_id = ?", stamps, file_id)
            self._change("UPDATE progress SET durable = ? WHERE file_id = ?", durable, file_id)
            self._change("DELETE FROM peers WHERE file_id = ?", file_id)

    def set_published(self, file_id: bytes, published: bool) -> None:
        """Keep whether the master has the file in its catalogue."""
        self._change("UPDATE files SET published = ? WHERE file_id = ?", published, file_id)

    def save_peers(self, file_id: bytes, peers: Sequence[KnownPeer]) -> None:
        """Keep the peers of a file, in place of those before: after a restart, it goes on without the master."""
        with self.transaction():
            self._change("DELETE FROM peers WHERE file_id = ?", file_id)
            for rank, peer in enumerate(peers):
                self._change(
                    "INSERT INTO peers SELECT file_id, ?, ?, ?, ? FROM files WHERE file_id = ?",
                    *(rank, peer.host_id, peer.name, peer.address, file_id),
                )

    def peers(self, file_id: bytes) -> list[KnownPeer]:
        """The peers kept of a file, in the order in which they were saved."""
        with self._lock:
            rows = self._database.rows(
                "SELECT host_id, name, address FROM peers WHERE file_id = ? ORDER BY rank", file_id
            )
        return [KnownPeer(*cast("tuple[str, str, str]", row)) for row in rows]

    def add_copy(self, copy: CopyRecord) -> None:
        """Keep a copy that is to be made, in place of one with the same part."""
        c = copy
        self._change(
            "REPLACE INTO copies VALUES (?, ?, ?, ?, ?, ?)",
            *(c.part, c.file_id, c.destination, c.overwrite, _encoded(c.owner), _encoded(c.place)),
        )

    def remove_copy(self, copy: CopyRecord) -> None:
        """Forget a copy: it is made, or given up."""
        self._change("DELETE FROM copies WHERE part = ?", copy.part)

    def load_copies(self) -> list[CopyRecord]:
        """Every copy that is to be made."""
        with self._lock:
            rows = self._database.rows("SELECT part, file_id, destination, overwrite, owner, place FROM copies")
        return [CopyRecord(**_parsed(dict(zip(CopyRecord.__slots__, row, strict=True)))) for row in rows]

    def load_scrubs(self, now: float) -> dict[bytes, ScrubRecord]:
        """What is kept of the scrub, by file id. `now`: Unix seconds.

        A time after it, by a clock that was wrong, is now from here on: else no scrub would be due before that time.
        """
        self._change("UPDATE scrubs SET scrubbed_at = ? WHERE scrubbed_at > ?", now, now)
        with self._lock:
            rows = self._database.rows("SELECT file_id, scrubbed_at, position FROM scrubs")
        records = [ScrubRecord(*cast("tuple[bytes, float, int]", row)) for row in rows]
        return {record.file_id: record for record in records}

    def save_scrubs(self, records: Iterable[ScrubRecord]) -> None:
        """Keep how far the scrub of files is; those that are gone meanwhile are left out."""
        with self.transaction():
            for record in records:
                self._change(
                    "REPLACE INTO scrubs SELECT file_id, ?, ? FROM files WHERE file_id = ?",
                    *(record.scrubbed_at, record.position, record.file_id),
                )

    def _change(self, sql: str, *values: Value) -> None:
        with self._lock:
            self._database.rows(sql, *values)


def _record(row: Row) -> FileRecord:
    fields = _parsed(dict(zip(FileRecord.__slots__, row, strict=True)))
    return FileRecord(**{**fields, "bytes_from_peers": json.loads(fields["bytes_from_peers"])})


def _encoded(value: Owner | Place | None) -> str:
    return value.encode() if value is not None else ""


def _parsed(columns: dict[str, Value]) -> dict[str, Any]:
    """The columns as a record's fields, whose types the tables' columns have."""
    fields: dict[str, Any] = dict(columns)
    for flag in _FLAGS & fields.keys():
        fields[flag] = bool(fields[flag])
    fields["owner"] = Owner.decode(fields["owner"]) if fields["owner"] else None
    fields["place"] = Place.decode(fields["place"]) if fields["place"] else None
    return fields
