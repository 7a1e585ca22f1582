"""Hosts and tokens to fill a catalogue with."""

from interfiles.storage.catalogue import Catalogue
from interfiles.storage.members import Host
from interfiles.storage.tokens import Token

HOUR = 3600.0
TOKEN_ID = b"token-id"
SECRET_HASH = b"s" * 32
AUTHORITY = b"a" * 32


def token(
    *, made_at: float = 0, ttl: float = HOUR, uses: int | None = None, token_id: bytes = TOKEN_ID, name: str = ""
) -> Token:
    return Token(token_id, SECRET_HASH, name, made_at, made_at + ttl, uses)


def newcomer(number: int, name: str = "render", *, now: float = 0, certified_until: float = 30 * 24 * HOUR) -> Host:
    return Host(
        host_id=f"{number:032x}",
        name=name,
        is_named=False,
        zone="rack-a",
        authority=AUTHORITY,
        certified_until=certified_until,
        joined_at=now,
        address="",
        last_seen_at=now,
    )


def join(
    catalogue: Catalogue,
    number: int,
    name: str = "render",
    *,
    now: float = 0,
    token_id: bytes = TOKEN_ID,
    secret_hash: bytes = SECRET_HASH,
    came_from: str = "10.0.0.9",
    certified_until: float = 30 * 24 * HOUR,
) -> Host:
    """Let a host in by a token, and return it as it is called then."""
    host = newcomer(number, name, now=now, certified_until=certified_until)
    return catalogue.members.enrol(token_id, secret_hash, host, tokens=catalogue.tokens, came_from=came_from)
