"""An SQLite database that one daemon owns: durable at every commit, and its failures in sentences.

One connection, WAL and synchronous=FULL: a transaction that has ended survives a kill and a loss of power. Blocking;
called in threads, by one at a time.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from interfiles.errors import NoSpace, NotPermitted, Refused, StorageFailed, printable

Value = None | int | float | str | bytes
Row = tuple[Value, ...]

_HEADER_BYTES: Final = 100
_BUSY_TIMEOUT_MS: Final = 5_000  # only a person's own tool may hold the database beside us, and briefly


class Database:
    """The database at `path`, made if it is not there.

    `what` names it to a person, `remedy` says what to do when it is damaged. `application_id` tells it from other
    programs' databases. `schema[i]` is the script that takes version `i` to version `i + 1`.

    Raises (every method, and `transaction` on leaving):
      NoSpace: the disk is full; nothing of the transaction is kept.
      StorageFailed: the disk failed or the database is damaged; nothing of the transaction is kept.
    """

    def __init__(self, path: Path, *, what: str, remedy: str, application_id: int, schema: Sequence[str]) -> None:
        """Open it.

        Raises:
          Refused: it is of another program or of a newer version.
          NotPermitted: it may not be opened.
        """
        self._shown = f"the {what} {printable(str(path))}"
        self._remedy = remedy
        with self._failures():
            self._make_private(path)
            if 0 < path.stat().st_size < _HEADER_BYTES:  # SQLite would take it for a new one
                raise StorageFailed(f"{self._shown} is damaged (it is cut short); {remedy}")
            self._connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                self._connection.set_busy_timeout(_BUSY_TIMEOUT_MS)
                self._open(application_id, schema)
            except BaseException:
                self._connection.close()
                raise

    def _make_private(self, path: Path) -> None:
        """SQLite gives its other files the mode of this one."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except PermissionError as e:
            raise NotPermitted(f"{self._shown} cannot be opened: {e.strerror}") from e
        except OSError as e:
            raise StorageFailed(f"{self._shown} cannot be opened: {e.strerror}") from e

    def _open(self, application_id: int, schema: Sequence[str]) -> None:
        version, found_id = self._connection.pragma("user_version"), self._connection.pragma("application_id")
        is_empty = not self.rows("SELECT 1 FROM sqlite_schema LIMIT 1")
        if found_id != application_id and not (is_empty and found_id == 0):
            raise Refused(f"{self._shown} belongs to another program; move it away")
        if version > len(schema):
            raise Refused(
                f"{self._shown} was written by a newer InterFiles (version {version}, this one knows {len(schema)}); "
                "install the newer one again"
            )
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "full")
        self._connection.pragma("foreign_keys", True)
        if version < len(schema):
            with self.transaction():
                for script in schema[version:]:
                    self._connection.execute(script)
                self._connection.pragma("application_id", application_id)
                self._connection.pragma("user_version", len(schema))

    def rows(self, sql: str, *values: Value) -> list[Row]:
        """Run one statement and return its rows; a change outside `transaction` is durable on return."""
        with self._failures():
            return list(self._connection.execute(sql, values))

    def row(self, sql: str, *values: Value) -> Row | None:
        """Run one statement and return its first row, if any."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make the changes within durable together when it ends; none of them if an exception passes through."""
        with self._failures():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # a full disk has rolled it back already
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close it; closing twice is allowed."""
        with self._failures():
            self._connection.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except apsw.FullError as e:
            raise NoSpace(f"{self._shown} cannot be written: its disk is full; free some room") from e
        except (apsw.NotADBError, apsw.CorruptError) as e:
            raise StorageFailed(f"{self._shown} is damaged ({e}); {self._remedy}") from e
        except (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.BusyError, apsw.PermissionsError) as e:
            raise StorageFailed(f"{self._shown} cannot be used: {e}") from e
