"""Where the master keeps its CAs: certificates in the catalogue, private keys in files that only its user may read."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from interfiles.errors import StorageFailed, printable
from interfiles.identity.authority import Authority, digest
from interfiles.storage.database import Database
from interfiles.storage.failures import translated
from interfiles.storage.syncing import sync_descriptor
from interfiles.storage.tree import open_directory

SCHEMA: Final = """
CREATE TABLE authorities (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    certificate TEXT NOT NULL UNIQUE,
    cross_certificate TEXT NOT NULL,    -- signed by the CA before it; empty for the first
    made_at REAL NOT NULL
);
"""
_SHOWN_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class StoredAuthority:
    """A CA of the fleet. `cross_certificate`: its certificate as the CA before it has signed it, PEM, or empty.

    `made_at` in Unix seconds.
    """

    authority: Authority
    cross_certificate: str
    made_at: float


class Authorities:
    """The CAs of a fleet. Blocking; a method that returns has made its change durable."""

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._directory = directory

    def load(self) -> list[StoredAuthority]:
        """Every CA, the newest first.

        Raises:
          StorageFailed: a key file is missing, damaged or another's.
        """
        rows = self._database.rows(
            "SELECT certificate, cross_certificate, made_at FROM authorities ORDER BY number DESC"
        )
        return [self._stored(*cast("tuple[str, str, float]", row)) for row in rows]

    def add(self, made: StoredAuthority) -> None:
        """Keep a CA, which is the newest from now on. Its key is on disk before anything names it."""
        self._write_key(made.authority)
        self._database.rows(
            "INSERT INTO authorities (certificate, cross_certificate, made_at) VALUES (?, ?, ?)",
            *(made.authority.certificate, made.cross_certificate, made.made_at),
        )

    def remove(self, authority: Authority) -> None:
        """Forget a CA; its key is destroyed."""
        self._database.rows("DELETE FROM authorities WHERE certificate = ?", authority.certificate)
        path = self._key_path(authority.certificate)
        with translated(path, "removed"):
            path.unlink(missing_ok=True)
            self._sync_directories()

    def _stored(self, certificate: str, cross_certificate: str, made_at: float) -> StoredAuthority:
        path = self._key_path(certificate)
        try:
            authority = Authority(certificate, path.read_text(errors="replace"))
            authority.check()
        except (OSError, StorageFailed) as e:
            reason = e.strerror if isinstance(e, OSError) else str(e)
            raise StorageFailed(
                f"the CA's key {printable(str(path))} cannot be used: {reason}; put it back from a backup"
            ) from e
        return StoredAuthority(authority, cross_certificate, made_at)

    def _write_key(self, authority: Authority) -> None:
        path = self._key_path(authority.certificate)
        with translated(path, "written"):
            self._directory.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(authority.key)
                file.flush()
                os.fsync(descriptor)
            self._sync_directories()

    def _sync_directories(self) -> None:
        for directory in (self._directory, self._directory.parent):
            descriptor = open_directory(directory)
            try:
                sync_descriptor(descriptor)
            finally:
                os.close(descriptor)

    def _key_path(self, certificate: str) -> Path:
        return self._directory / f"{digest(certificate).hex()[:_SHOWN_DIGITS]}.key"
