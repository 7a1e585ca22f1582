"""Who belongs to the fleet, and the tokens that let others in: the catalogue's tables of hosts and tokens."""

import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from interfiles.errors import InvalidToken, NotAdmitted, Refused, UnknownHost, printable
from interfiles.storage.database import Database, Row
from interfiles.units import DAY, format_count, format_duration

MAX_HOSTS: Final = 10_000
MAX_NAME_CHARACTERS: Final = 63
KEPT_AFTER_EXPIRY_S: Final = 30 * DAY  # so long an expired token is told from one that never was
_SHOWN_MATCHES: Final = 5

SCHEMA: Final = """
CREATE TABLE tokens (
    token_id BLOB PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    name TEXT NOT NULL,
    made_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    uses INTEGER,                       -- how many hosts it is good for; NULL: any number
    used INTEGER NOT NULL DEFAULT 0,
    last_used_at REAL
) WITHOUT ROWID;
CREATE TABLE hosts (
    host_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    zone TEXT NOT NULL,
    credential_hash BLOB NOT NULL,
    joined_at REAL NOT NULL,
    address TEXT NOT NULL,              -- HOST:PORT; empty before the first registration
    last_seen_at REAL NOT NULL
) WITHOUT ROWID;
"""

_HOST_COLUMNS: Final = "host_id, name, zone, credential_hash, joined_at, address, last_seen_at"
_NEW_TOKEN: Final = "get a new one with `interfiles token` on the master's host"
_JOIN_ANEW: Final = "join it anew, in a new state directory, with a token from `interfiles token` on the master's host"


@dataclass(frozen=True, slots=True)
class Token:
    """A join token as stored. `uses`: how many hosts it is good for, None for any number. Times in Unix seconds."""

    token_id: bytes
    secret_hash: bytes = field(repr=False)
    name: str
    made_at: float
    expires_at: float
    uses: int | None


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the fleet. `address` as HOST:PORT, empty before it registered first. Times in Unix seconds."""

    host_id: str
    name: str
    zone: str
    credential_hash: bytes = field(repr=False)
    joined_at: float
    address: str
    last_seen_at: float


class Members:
    """Hosts and tokens in the database. Blocking; a method that returns has made its change durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Tokens

    def add_token(self, token: Token) -> None:
        """Keep a new token, and drop those that expired long ago."""
        with self._database.transaction():
            self._database.rows("DELETE FROM tokens WHERE expires_at < ?", token.made_at - KEPT_AFTER_EXPIRY_S)
            self._database.rows(
                "INSERT INTO tokens (token_id, secret_hash, name, made_at, expires_at, uses) VALUES (?, ?, ?, ?, ?, ?)",
                token.token_id,
                token.secret_hash,
                token.name,
                token.made_at,
                token.expires_at,
                token.uses,
            )

    def enrol(self, token_id: bytes, secret_hash: bytes, newcomer: Host) -> tuple[Host, str]:
        """Use a token once for `newcomer`, who joins now; return the host with its unique name, and the token's name.

        Raises:
          InvalidToken: the token is unknown, its secret is wrong, or it is expired or used up.
          Refused: the fleet is full.
        """
        with self._database.transaction():
            token_name = self._use_token(token_id, secret_hash, newcomer.joined_at)
            if self.count() >= MAX_HOSTS:
                raise Refused(f"the fleet has {MAX_HOSTS:,} hosts, the most there can be; remove some first")
            name = unique_name(newcomer.name, self._is_taken)
            self._database.rows(
                f"INSERT INTO hosts ({_HOST_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
                newcomer.host_id,
                name,
                newcomer.zone,
                newcomer.credential_hash,
                newcomer.joined_at,
                newcomer.address,
                newcomer.last_seen_at,
            )
        return self.host(newcomer.host_id), token_name

    def _use_token(self, token_id: bytes, secret_hash: bytes, now: float) -> str:
        row = self._database.row(
            "SELECT secret_hash, name, made_at, expires_at, uses, used FROM tokens WHERE token_id = ?", token_id
        )
        # one answer to both, so that nobody learns which ids exist
        if row is None or not hmac.compare_digest(cast("bytes", row[0]), secret_hash):
            raise InvalidToken(f"this token is not one of this master's; {_NEW_TOKEN}")
        name, made_at, expires_at, uses, used = cast("tuple[str, float, float, int | None, int]", row[1:])
        if now >= expires_at:
            age, life = format_duration(now - made_at), format_duration(expires_at - made_at)
            raise InvalidToken(f"this token has expired (made {age} ago, good for {life}); {_NEW_TOKEN}")
        if uses is not None and used >= uses:
            raise InvalidToken(f"this token is used up (it was good for {format_count(uses, 'host')}); {_NEW_TOKEN}")
        self._database.rows("UPDATE tokens SET used = used + 1, last_used_at = ? WHERE token_id = ?", now, token_id)
        return name

    # Hosts

    def count(self) -> int:
        """How many hosts the fleet has."""
        (row,) = self._database.rows("SELECT count(*) FROM hosts")
        return cast("int", row[0])

    def hosts(self) -> list[Host]:
        """Every host, by name."""
        return [_host(row) for row in self._database.rows(f"SELECT {_HOST_COLUMNS} FROM hosts ORDER BY name")]

    def host(self, host_id: str) -> Host:
        """One host.

        Raises:
          NotAdmitted: there is none of this id.
        """
        row = self._database.row(f"SELECT {_HOST_COLUMNS} FROM hosts WHERE host_id = ?", host_id)
        if row is None:
            raise NotAdmitted(f"this host is not of this fleet, or was removed from it; {_JOIN_ANEW}")
        return _host(row)

    def register(self, host_id: str, credential_hash: bytes, *, name: str, zone: str, address: str) -> Host:
        """Check a host's credential and keep what it says of itself, its name made unique; return it as it is then.

        Raises:
          NotAdmitted: there is no such host, or its credential is another.
        """
        with self._database.transaction():
            host = self.host(host_id)
            if not hmac.compare_digest(host.credential_hash, credential_hash):
                raise NotAdmitted(f"this host's credential is not the one that the master gave it; {_JOIN_ANEW}")
            name = self._name_of(host, name)
            if (name, zone, address) == (host.name, host.zone, host.address):
                return host
            self._database.rows(
                "UPDATE hosts SET name = ?, zone = ?, address = ? WHERE host_id = ?", name, zone, address, host_id
            )
        return self.host(host_id)

    def _name_of(self, host: Host, wanted: str) -> str:
        """A host that was given `wanted-2` keeps that while `wanted` is another's."""
        if wanted == host.name or not self._is_taken(wanted, besides=host.host_id):
            return wanted
        if re.fullmatch(re.escape(wanted) + r"-\d+", host.name, re.IGNORECASE):
            return host.name
        return unique_name(wanted, self._is_taken)

    def _is_taken(self, name: str, *, besides: str = "") -> bool:
        return bool(self._database.rows("SELECT 1 FROM hosts WHERE name = ? AND host_id != ?", name, besides))

    def touch(self, last_seen_at: Mapping[str, float]) -> None:
        """Keep when hosts were heard from last, all at once."""
        with self._database.transaction():
            for host_id, at in last_seen_at.items():
                self._database.rows("UPDATE hosts SET last_seen_at = ? WHERE host_id = ?", at, host_id)

    def remove(self, query: str) -> Host:
        """Take a host, by name, id or id prefix of at least 4 hex digits, out of the fleet; its credential is void.

        Raises:
          UnknownHost: there is none, or the prefix fits several.
        """
        with self._database.transaction():
            host = self._find(query)
            self._database.rows("DELETE FROM hosts WHERE host_id = ?", host.host_id)
        return host

    def _find(self, query: str) -> Host:
        found = self._database.rows(f"SELECT {_HOST_COLUMNS} FROM hosts WHERE name = ?", query)
        if not found and re.fullmatch("[0-9a-f]{4,32}", query):
            found = self._database.rows(
                f"SELECT {_HOST_COLUMNS} FROM hosts WHERE host_id >= ? AND host_id < ? ORDER BY name",
                query,
                query + "g",
            )
        if not found:
            raise UnknownHost(f"no host goes by '{printable(query)}'; see `interfiles hosts`")
        if len(found) > 1:
            some = ", ".join(f"{host.host_id} ({host.name})" for host in map(_host, found[:_SHOWN_MATCHES]))
            raise UnknownHost(f"{len(found)} hosts have an id that begins with {query}: {some}; give more of it")
        return _host(found[0])


def unique_name(wanted: str, is_taken: Callable[[str], bool]) -> str:
    """`wanted`, or the first of `wanted-2`, `wanted-3` … that is free."""
    name, number = wanted, 1
    while is_taken(name):
        number += 1
        suffix = f"-{number}"
        name = wanted[: MAX_NAME_CHARACTERS - len(suffix)] + suffix
    return name


def _host(row: Row) -> Host:
    return Host(*cast("tuple[str, str, str, bytes, float, str, float]", row))
