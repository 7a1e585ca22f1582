"""What the master must remember: the fleet, its files with their manifests, its hosts, tokens and CAs.

Who holds what is not here: hosts announce it after every restart.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

from interfiles.errors import AmbiguousFile, StorageFailed, UnknownFile, printable
from interfiles.storage import authorities, members, tokens
from interfiles.storage.authorities import Authorities
from interfiles.storage.database import Database, Row, Value
from interfiles.storage.members import Members
from interfiles.storage.tokens import Tokens
from interfiles.units import format_bytes
from interfiles.wire.master_messages import FileInfo

MIN_PREFIX_DIGITS: Final = 4
MAX_PAGE_ENDS: Final = 256  # remembered: so many listings may go on at once
AUTHORITIES_NAME: Final = "ca"  # the directory beside the catalogue that the CAs' private keys are in
_SHOWN_MATCHES: Final = 5
_SHOWN_DIGITS: Final = 12
_ID_DIGITS: Final = 64
_APPLICATION_ID: Final = 0x49464D31  # "IFM1"

_SCHEMA: Final = """
CREATE TABLE fleet (
    fleet_id TEXT NOT NULL,
    made_at REAL NOT NULL
);
CREATE TABLE files (
    file_id BLOB PRIMARY KEY,
    name TEXT NOT NULL,
    is_directory INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    size INTEGER NOT NULL,
    piece_size INTEGER NOT NULL,
    pieces INTEGER NOT NULL,
    uploaded_at INTEGER NOT NULL,
    uploaded_by TEXT NOT NULL,
    replicas INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX files_by_name ON files (name, file_id);
CREATE TABLE manifests (                -- apart: a listing does not read past megabytes of piece hashes
    file_id BLOB PRIMARY KEY REFERENCES files ON DELETE CASCADE,
    manifest BLOB NOT NULL
);
CREATE TABLE removed (                  -- a host that was away is told to forget these
    file_id BLOB PRIMARY KEY,
    removed_at REAL NOT NULL,
    delete_copies INTEGER NOT NULL
) WITHOUT ROWID;
"""
_ADDED: Final = """
ALTER TABLE files ADD COLUMN expires_at INTEGER NOT NULL DEFAULT 0;  -- Unix seconds; 0: never
CREATE INDEX files_by_expiry ON files (expires_at) WHERE expires_at > 0;
"""
_FILE_COLUMNS: Final = (
    "file_id, name, is_directory, entries, size, piece_size, pieces, uploaded_at, uploaded_by, replicas, expires_at"
)


class Wanted(NamedTuple):  # one is made of every file once a minute, in a quarter of the time of a dataclass
    """So many copies are wanted of a file of `size` bytes and `pieces` pieces."""

    file_id: bytes
    size: int
    pieces: int
    replicas: int
    name: str


class Catalogue:
    """The database at `path`; a new one is of the fleet `new_fleet_id`.

    Blocking; a method that returns has made its change durable.

    Raises (every method): NoSpace, StorageFailed.
    """

    def __init__(self, path: Path, *, new_fleet_id: str, now: float) -> None:
        """Open it.

        Raises:
          Refused: it is of another program or of a newer version.
          NotPermitted: it may not be opened.
          StorageFailed: it is damaged.
        """
        self._database = Database(
            path,
            what="catalogue",
            remedy="put a backup in its place, or move it away to begin a new fleet",
            application_id=_APPLICATION_ID,
            schema=[_SCHEMA + tokens.SCHEMA + members.SCHEMA + authorities.SCHEMA, _ADDED + members.ADDED],
        )
        self.members: Final = Members(self._database)
        self.tokens: Final = Tokens(self._database)
        self.authorities: Final = Authorities(self._database, path.parent / AUTHORITIES_NAME)
        self._page_ends: dict[int, tuple[str, bytes]] = {}  # by a file's number, the one before it
        keys = path.parent / AUTHORITIES_NAME
        if keys.is_dir() and any(keys.iterdir()) and not self._database.rows("SELECT 1 FROM fleet"):
            self._database.close()
            raise StorageFailed(
                f"the catalogue {printable(str(path))} is empty, and {printable(str(keys))} holds the keys of a fleet; "
                "put a backup in its place, or move the keys away too to begin a new fleet"
            )
        with self._database.transaction():
            self._database.rows(
                "INSERT INTO fleet SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM fleet)", new_fleet_id, now
            )
        (row,) = self._database.rows("SELECT fleet_id FROM fleet")
        self.fleet_id: Final = cast("str", row[0])

    def close(self) -> None:
        """Close it; closing twice is allowed."""
        self._database.close()

    def publish(self, info: FileInfo, manifest: bytes, *, keep_replicas: bool, again: bool = False) -> FileInfo:
        """Put a file into the catalogue, or keep what is there of it; return the entry. A removed file is back.

        `again`: it is not; it was published before.

        `keep_replicas`: an entry that is there keeps its number of replicas; otherwise it gets that of `info`. It keeps
        its time to expire where `info` has none.

        Raises:
          UnknownFile: `again`, and it was removed.
        """
        self._page_ends.clear()
        with self._database.transaction():
            if again and info.file_id in self.removed([info.file_id]):
                raise UnknownFile(f"{printable(info.name)} was removed from the fleet; upload it anew to share it")
            self._database.rows(
                f"INSERT INTO files ({_FILE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET replicas = iif(?, replicas, excluded.replicas), "
                "expires_at = iif(excluded.expires_at, excluded.expires_at, expires_at)",
                *(info.file_id, info.name, info.is_directory, info.entries, info.size, info.piece_size, info.pieces),
                *(info.uploaded_at, info.uploaded_by, info.replicas_wanted, info.expires_at, keep_replicas),
            )
            self._database.rows("INSERT OR IGNORE INTO manifests VALUES (?, ?)", info.file_id, manifest)
            self._database.rows("DELETE FROM removed WHERE file_id = ?", info.file_id)
        return self.file(info.file_id)

    def file(self, file_id: bytes) -> FileInfo:
        """One file.

        Raises:
          UnknownFile: it is not in the catalogue.
        """
        row = self._database.row(f"SELECT {_FILE_COLUMNS} FROM files WHERE file_id = ?", file_id)
        if row is None:
            raise _unknown_id(file_id)
        return _info(row)

    def manifest(self, file_id: bytes) -> bytes:
        """The manifest of a file.

        Raises:
          UnknownFile: it is not in the catalogue.
        """
        return cast("bytes", self._of_manifest("manifest", file_id))

    def manifest_size(self, file_id: bytes) -> int:
        """How many bytes the manifest of a file takes.

        Raises:
          UnknownFile: it is not in the catalogue.
        """
        return cast("int", self._of_manifest("length(manifest)", file_id))

    def _of_manifest(self, what: str, file_id: bytes) -> Value:
        row = self._database.row(f"SELECT {what} FROM manifests WHERE file_id = ?", file_id)
        if row is None:
            raise _unknown_id(file_id)
        return row[0]

    def find(self, query: str) -> FileInfo:
        """Find the one file of this id, id prefix of at least 4 hex digits, or name.

        A whole id is that of its file, even where another has it for a name: by an id each file can be got at.

        Raises:
          UnknownFile: there is none.
          AmbiguousFile: there are several: the sentence says how many, and names a few.
        """
        condition, values = "name = ?", list[Value]((query,))
        digits = query.lower()
        if re.fullmatch(rf"[0-9a-f]{{{_ID_DIGITS}}}", digits):
            row = self._database.row(f"SELECT {_FILE_COLUMNS} FROM files WHERE file_id = ?", bytes.fromhex(digits))
            if row is not None:
                return _info(row)
        if re.fullmatch(rf"[0-9a-f]{{{MIN_PREFIX_DIGITS},{_ID_DIGITS}}}", digits):
            # a name may look like a prefix: either is meant, so what fits both ways is ambiguous too
            condition += " OR file_id BETWEEN ? AND ?"
            values += [bytes.fromhex(digits.ljust(_ID_DIGITS, filler)) for filler in "0f"]
        found = self._database.rows(
            f"SELECT {_FILE_COLUMNS} FROM files WHERE {condition} ORDER BY uploaded_at DESC LIMIT ?",
            *values,
            _SHOWN_MATCHES + 1,
        )
        if len(found) == 1:
            return _info(found[0])
        if not found:
            raise UnknownFile(_unknown(query))
        (row,) = self._database.rows(f"SELECT count(*) FROM files WHERE {condition}", *values)
        raise AmbiguousFile(_ambiguous(query, cast("int", row[0]), [_info(row) for row in found[:_SHOWN_MATCHES]]))

    def files(self, start: int, count: int) -> tuple[list[FileInfo], bool]:
        """At most `count` files in the order of their names, from the `start`th on, and whether there are more.

        Going on where a page ended takes no longer in a long list.
        """
        order = "ORDER BY name, file_id LIMIT ?"
        if (before := self._page_ends.get(start)) is not None:
            condition, values = "(name, file_id) > (?, ?)", list[Value](before)
        else:  # counted off in the index alone, which is several times as fast as past whole rows
            condition = f"(name, file_id) >= (SELECT name, file_id FROM files {order} OFFSET ?)"
            values = [1, start]
        found = self._database.rows(f"SELECT {_FILE_COLUMNS} FROM files WHERE {condition} {order}", *values, count + 1)
        page, more = [_info(row) for row in found[:count]], len(found) > count
        if more:
            if len(self._page_ends) >= MAX_PAGE_ENDS:
                del self._page_ends[next(iter(self._page_ends))]
            self._page_ends[start + count] = page[-1].name, page[-1].file_id
        return page, more

    def set_replicas(self, file_id: bytes, replicas: int) -> FileInfo:
        """Keep how many copies of a file are wanted; return the entry.

        Raises:
          UnknownFile: it is not in the catalogue.
        """
        with self._database.transaction():
            self._database.rows("UPDATE files SET replicas = ? WHERE file_id = ?", replicas, file_id)
            return self.file(file_id)

    def wanted(self, file_ids: Sequence[bytes]) -> list[Wanted]:
        """How many copies are wanted of those of these files that are in the catalogue."""
        marks = ", ".join("?" * len(file_ids))
        return self._wanted(f"file_id IN ({marks})", *file_ids)

    def wanted_after(self, file_id: bytes, count: int) -> list[Wanted]:
        """At most `count` files in the order of their ids, behind `file_id`, which need not be one."""
        return self._wanted("file_id > ? ORDER BY file_id LIMIT ?", file_id, count)

    def _wanted(self, condition: str, *values: Value) -> list[Wanted]:
        rows = self._database.rows(
            f"SELECT file_id, size, pieces, replicas, name FROM files WHERE {condition}", *values
        )
        return list(map(Wanted._make, rows))

    def expired(self, now: float, count: int) -> list[FileInfo]:
        """At most `count` files whose time is over, the longest over first."""
        rows = self._database.rows(
            f"SELECT {_FILE_COLUMNS} FROM files WHERE expires_at > 0 AND expires_at <= ? ORDER BY expires_at LIMIT ?",
            int(now),
            count,
        )
        return [_info(row) for row in rows]

    def remove(self, file_id: bytes, *, delete: bool, now: float, is_held: bool) -> str:
        """Take a file out of the catalogue and keep a tombstone; `delete`: its copies should go too.

        Return its name, empty where it was not in the catalogue. Removing it again is allowed. `is_held`: some host has
        it, so it is known even if it was never published.

        Raises:
          UnknownFile: it is neither in the catalogue nor held, and has no tombstone.
        """
        self._page_ends.clear()
        with self._database.transaction():
            if not is_held and file_id not in self.removed([file_id]):
                self.file(file_id)
            gone = self._database.rows("DELETE FROM files WHERE file_id = ? RETURNING name", file_id)
            self._bury(file_id, delete=delete, now=now)
        return cast("str", gone[0][0]) if gone else ""

    def remove_expired(self, file_id: bytes, *, now: float) -> str | None:
        """Take a file out of the catalogue if its time is over, as `remove`; return its name, or None: it is not.

        It may have been given more time since `expired` found it, or been removed.
        """
        with self._database.transaction():
            gone = self._database.rows(
                "DELETE FROM files WHERE file_id = ? AND expires_at > 0 AND expires_at <= ? RETURNING name",
                *(file_id, int(now)),
            )
            if not gone:
                return None
            self._page_ends.clear()
            self._bury(file_id, delete=False, now=now)
        return cast("str", gone[0][0])

    def _bury(self, file_id: bytes, *, delete: bool, now: float) -> None:
        self._database.rows(
            "INSERT INTO removed VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET delete_copies = max(delete_copies, excluded.delete_copies)",
            *(file_id, now, delete),
        )

    def names(self, file_ids: Collection[bytes]) -> dict[bytes, str]:
        """The names of these files, as far as they are in the catalogue."""
        marks = ", ".join("?" * len(file_ids))
        rows = self._database.rows(f"SELECT file_id, name FROM files WHERE file_id IN ({marks})", *file_ids)
        return {cast("bytes", file_id): cast("str", name) for file_id, name in rows}

    def removed(self, file_ids: Sequence[bytes]) -> dict[bytes, bool]:
        """Which of these files are removed, and whether their copies should go too."""
        marks = ", ".join("?" * len(file_ids))
        rows = self._database.rows(f"SELECT file_id, delete_copies FROM removed WHERE file_id IN ({marks})", *file_ids)
        return {cast("bytes", file_id): bool(delete) for file_id, delete in rows}


def _info(row: Row) -> FileInfo:
    file_id, name, is_directory, *rest = cast("tuple[bytes, str, int, int, int, int, int, int, str, int, int]", row)
    return FileInfo(file_id, name, bool(is_directory), *rest)  # type: ignore[arg-type]  # as the columns have it


def _unknown_id(file_id: bytes) -> UnknownFile:
    return UnknownFile(f"no file of this fleet has the id {file_id.hex()[:_SHOWN_DIGITS]}; see `interfiles ls`")


def _unknown(query: str) -> str:
    shown = f"no file goes by '{printable(query)}'"
    if re.fullmatch(rf"[0-9a-f]{{1,{MIN_PREFIX_DIGITS - 1}}}", query.lower()):
        return f"{shown}; an id takes its first {MIN_PREFIX_DIGITS} digits or more"
    return f"{shown} in this fleet; see `interfiles ls`"


def _ambiguous(query: str, count: int, some: Sequence[FileInfo]) -> str:
    listed = ", ".join(
        f"{info.file_id.hex()[:_SHOWN_DIGITS]} ({printable(info.name)[:60]}, {format_bytes(info.size)})"
        for info in some
    )
    more = f" and {count - len(some):,} more" if count > len(some) else ""
    return f"{count:,} files go by '{printable(query)}': {listed}{more}; name one by its id"
