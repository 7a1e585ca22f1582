"""Who belongs to the fleet, and who does no more: the catalogue's tables of hosts."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, cast

from interfiles.errors import NotAdmitted, Refused, UnknownHost, printable
from interfiles.storage.database import Database, Row
from interfiles.storage.tokens import Tokens, TokenUse
from interfiles.units import DAY

MAX_HOSTS: Final = 10_000
MAX_NAME_CHARACTERS: Final = 63
REVOKED_LONGER_S: Final = 1 * DAY  # than its certificate is good: clocks differ
_SHOWN_MATCHES: Final = 5

SCHEMA: Final = """
CREATE TABLE hosts (
    host_id TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    is_named INTEGER NOT NULL,          -- by its token: it cannot choose another name
    zone TEXT NOT NULL,
    authority BLOB NOT NULL,            -- digest of the CA that signed its latest certificate
    certified_until REAL NOT NULL,
    joined_at REAL NOT NULL,
    address TEXT NOT NULL,              -- HOST:PORT; empty before the first registration
    last_seen_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE revoked (                  -- hosts that were removed while they had a certificate
    host_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    certified_until REAL NOT NULL
) WITHOUT ROWID;
"""
ADDED: Final = """
ALTER TABLE hosts ADD COLUMN draining INTEGER NOT NULL DEFAULT 0;  -- its copies are to be on others
"""

_HOST_COLUMNS: Final = (
    "host_id, name, is_named, zone, authority, certified_until, joined_at, address, last_seen_at, draining"
)
_JOIN_ANEW: Final = "join it anew with a token from `interfiles token` on the master's host"


@dataclass(frozen=True, slots=True)
class Host:
    """A host of the fleet. `address` as HOST:PORT, empty before it registered first. Times in Unix seconds.

    `is_named`: its name came with its token. `authority`: digest of the CA that signed its latest certificate, which is
    good until `certified_until`.
    """

    host_id: str
    name: str
    is_named: bool
    zone: str
    authority: bytes
    certified_until: float
    joined_at: float
    address: str
    last_seen_at: float
    draining: bool = False


class Members:
    """Hosts in the database. Blocking; a method that returns has made its change durable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def enrol(self, token_id: bytes, secret_hash: bytes, newcomer: Host, *, tokens: Tokens, came_from: str) -> Host:
        """Use a token once for `newcomer`, who joins now from this IP address; return it with its unique name.

        Raises:
          InvalidToken: the token is unknown, its secret is wrong, or it is revoked, expired or used up.
          Refused: the fleet is full, or the name that comes with the token is another host's.
        """
        with self._database.transaction():
            token = tokens.use(token_id, secret_hash, now=newcomer.joined_at)
            if self.count() >= MAX_HOSTS:
                raise Refused(f"the fleet has {MAX_HOSTS:,} hosts, the most there can be; remove some first")
            if token.name and self._is_taken(token.name):
                raise Refused(f"a host called {token.name} belongs to the fleet already; remove that one first")
            name = token.name or unique_name(newcomer.name, self._is_taken)
            host = replace(newcomer, name=name, is_named=bool(token.name))
            self._database.rows(
                f"INSERT INTO hosts ({_HOST_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                *(host.host_id, host.name, host.is_named, host.zone, host.authority, host.certified_until),
                *(host.joined_at, host.address, host.last_seen_at),
            )
            tokens.record_use(token_id, TokenUse(host.joined_at, host.host_id, host.name, came_from))
        return host

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

    def register(self, host_id: str, *, name: str, zone: str, address: str) -> Host:
        """Keep what a host says of itself, its name made unique; return it as it is then.

        Raises:
          NotAdmitted: there is no such host.
        """
        with self._database.transaction():
            host = self.host(host_id)
            name = host.name if host.is_named else self._name_of(host, name)
            if (name, zone, address) == (host.name, host.zone, host.address):
                return host
            self._database.rows(
                "UPDATE hosts SET name = ?, zone = ?, address = ? WHERE host_id = ?", name, zone, address, host_id
            )
        return self.host(host_id)

    def certify(self, host_id: str, *, authority: bytes, certified_until: float) -> None:
        """Keep which CA has signed a host's new certificate, and until when one of those that it has is good.

        Raises:
          NotAdmitted: there is no such host.
        """
        with self._database.transaction():
            self.host(host_id)
            self._database.rows(
                "UPDATE hosts SET authority = ?, certified_until = MAX(certified_until, ?) WHERE host_id = ?",
                *(authority, certified_until, host_id),
            )

    def not_certified_by(self, authority: bytes) -> list[Host]:
        """The hosts whose latest certificate another CA has signed, by name."""
        rows = self._database.rows(f"SELECT {_HOST_COLUMNS} FROM hosts WHERE authority != ? ORDER BY name", authority)
        return [_host(row) for row in rows]

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

    def remove(self, query: str, *, now: float) -> Host:
        """Take a host, by name, id or id prefix of at least 4 hex digits, out of the fleet; its certificate is void.

        Raises:
          UnknownHost: there is none, or the prefix fits several.
        """
        with self._database.transaction():
            host = self._find(query)
            self._database.rows("DELETE FROM hosts WHERE host_id = ?", host.host_id)
            self._database.rows("DELETE FROM revoked WHERE certified_until < ?", now - REVOKED_LONGER_S)
            self._database.rows("INSERT INTO revoked VALUES (?, ?, ?)", host.host_id, host.name, host.certified_until)
        return host

    def find(self, query: str) -> Host:
        """The host of this name, id or id prefix of at least 4 hex digits.

        Raises:
          UnknownHost: there is none, or the prefix fits several.
        """
        return self._find(query)

    def set_draining(self, query: str, draining: bool) -> Host:
        """Keep whether a host, by name, id or id prefix of at least 4 hex digits, gives its copies to others.

        Raises:
          UnknownHost: there is none, or the prefix fits several.
        """
        with self._database.transaction():
            host = self._find(query)
            self._database.rows("UPDATE hosts SET draining = ? WHERE host_id = ?", draining, host.host_id)
        return replace(host, draining=draining)

    def revoked(self) -> list[str]:
        """Ids of the hosts that were removed while they had a certificate."""
        return [cast("str", row[0]) for row in self._database.rows("SELECT host_id FROM revoked ORDER BY host_id")]

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
    made = Host(*row)  # type: ignore[arg-type]  # the columns have the fields' types
    return replace(made, is_named=bool(made.is_named), draining=bool(made.draining))
