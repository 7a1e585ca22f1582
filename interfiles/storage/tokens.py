"""Join tokens in the catalogue: what lets hosts in, and who was let in by which."""

import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from interfiles.errors import InvalidToken, UnknownToken, printable
from interfiles.storage.database import Database, Row
from interfiles.units import DAY, format_count, format_duration

KEPT_AFTER_EXPIRY_S: Final = 30 * DAY  # so long an expired token is told from one that never was, and its uses kept
MAX_SHOWN_USES: Final = 100  # of one token in a listing, the latest

SCHEMA: Final = """
CREATE TABLE tokens (
    token_id BLOB PRIMARY KEY,
    secret_hash BLOB NOT NULL,
    name TEXT NOT NULL,                 -- what the host that joins by it is called; empty: as it likes
    made_at REAL NOT NULL,
    expires_at REAL NOT NULL,
    uses INTEGER,                       -- how many hosts it is good for; NULL: any number
    used INTEGER NOT NULL DEFAULT 0,
    revoked_at REAL
) WITHOUT ROWID;
CREATE TABLE token_uses (
    token_id BLOB NOT NULL REFERENCES tokens ON DELETE CASCADE,
    used_at REAL NOT NULL,
    host_id TEXT NOT NULL,
    host_name TEXT NOT NULL,
    address TEXT NOT NULL               -- the IP address that it came from
);
CREATE INDEX token_uses_by_token ON token_uses (token_id, used_at);
"""
_TOKEN_COLUMNS: Final = "token_id, secret_hash, name, made_at, expires_at, uses, used, revoked_at"
_NEW_TOKEN: Final = "get a new one with `interfiles token` on the master's host"


@dataclass(frozen=True, slots=True)
class Token:
    """A join token as stored.

    `name`: what the host is called that joins by it, empty for what it likes. `uses`: how many hosts it is good for,
    None for any number; `used`: how many have joined by it. Times in Unix seconds.
    """

    token_id: bytes
    secret_hash: bytes = field(repr=False)
    name: str
    made_at: float
    expires_at: float
    uses: int | None
    used: int = 0
    revoked_at: float | None = None

    def state(self, now: float) -> Literal["good", "expired", "used up", "revoked"]:
        """Whether it lets another host in, or why not; `now` in Unix seconds."""
        if self.revoked_at is not None:
            return "revoked"
        if now >= self.expires_at:
            return "expired"
        return "used up" if self.uses is not None and self.used >= self.uses else "good"


@dataclass(frozen=True, slots=True)
class TokenUse:
    """A host that joined by a token: when, in Unix seconds, and from which IP address."""

    used_at: float
    host_id: str
    host_name: str
    address: str


class Tokens:
    """Tokens in the database. Blocking; a method that returns has made its change durable, or is part of the caller's
    transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, token: Token) -> None:
        """Keep a new token, and drop those that expired long ago."""
        with self._database.transaction():
            self._database.rows("DELETE FROM tokens WHERE expires_at < ?", token.made_at - KEPT_AFTER_EXPIRY_S)
            self._database.rows(
                "INSERT INTO tokens (token_id, secret_hash, name, made_at, expires_at, uses) VALUES (?, ?, ?, ?, ?, ?)",
                *(token.token_id, token.secret_hash, token.name, token.made_at, token.expires_at, token.uses),
            )

    def use(self, token_id: bytes, secret_hash: bytes, *, now: float) -> Token:
        """Count a use, within the caller's transaction.

        Raises:
          InvalidToken: the token is unknown, its secret is wrong, or it is revoked, expired or used up.
        """
        row = self._database.row(f"SELECT {_TOKEN_COLUMNS} FROM tokens WHERE token_id = ?", token_id)
        # one answer to both, so that nobody learns which ids exist
        if row is None or not hmac.compare_digest(cast("bytes", row[1]), secret_hash):
            raise InvalidToken(f"this token is not one of this master's; {_NEW_TOKEN}")
        token = _token(row)
        match token.state(now):
            case "revoked":
                raise InvalidToken(f"this token was revoked; {_NEW_TOKEN}")
            case "expired":
                age, life = format_duration(now - token.made_at), format_duration(token.expires_at - token.made_at)
                raise InvalidToken(f"this token has expired (made {age} ago, good for {life}); {_NEW_TOKEN}")
            case "used up":
                good_for = format_count(token.uses or 0, "host")
                raise InvalidToken(f"this token is used up (it was good for {good_for}); {_NEW_TOKEN}")
        self._database.rows("UPDATE tokens SET used = used + 1 WHERE token_id = ?", token_id)
        return token

    def revoke_made_before(self, made_at: float, *, now: float) -> None:
        """Revoke the tokens that a retired CA's digest is in: nobody can join by them any more."""
        self._database.rows("UPDATE tokens SET revoked_at = ? WHERE revoked_at IS NULL AND made_at < ?", now, made_at)

    def record_use(self, token_id: bytes, use: TokenUse) -> None:
        """Keep who joined by a token."""
        self._database.rows(
            "INSERT INTO token_uses VALUES (?, ?, ?, ?, ?)",
            *(token_id, use.used_at, use.host_id, use.host_name, use.address),
        )

    def all(self) -> list[Token]:
        """Every token that is kept, the newest first."""
        rows = self._database.rows(f"SELECT {_TOKEN_COLUMNS} FROM tokens ORDER BY made_at DESC, token_id")
        return [_token(row) for row in rows]

    def uses(self, token_id: bytes) -> list[TokenUse]:
        """Who joined by a token, the latest first, at most `MAX_SHOWN_USES`."""
        rows = self._database.rows(
            "SELECT used_at, host_id, host_name, address FROM token_uses WHERE token_id = ? "
            "ORDER BY used_at DESC LIMIT ?",
            *(token_id, MAX_SHOWN_USES),
        )
        return [TokenUse(*cast("tuple[float, str, str, str]", row)) for row in rows]

    def revoke(self, query: str, *, now: float) -> Token:
        """Let nobody else in by a token: its id in hex digits, or the start of it.

        Raises:
          UnknownToken: there is none, or there are several.
        """
        digits = query.lower()
        found = [token for token in self.all() if digits and token.token_id.hex().startswith(digits)]
        if len(found) != 1:
            raise UnknownToken(_which(query, found))
        (token,) = found
        if token.revoked_at is None:
            self._database.rows("UPDATE tokens SET revoked_at = ? WHERE token_id = ?", now, token.token_id)
        return token


def _which(query: str, found: Sequence[Token]) -> str:
    if not found:
        return f"no token has an id that begins with '{printable(query)}'; see `interfiles token list`"
    return f"{len(found)} tokens have an id that begins with {query}; give more of it"


def _token(row: Row) -> Token:
    return Token(*cast("tuple[bytes, bytes, str, float, float, int | None, int, float | None]", row))
