"""Join tokens: the one line that brings a host into a fleet.

    IF1-  base32 of:  layout: u8 | token id: 8 | secret: 16 | SHA-256 of the CA's certificate: 32
                      | count: u8 | (length: u8 | HOST:PORT) … | checksum: 4

in upper case without padding, in groups of sixteen. The checksum finds a mistyped or cut token before anything is sent
anywhere. The digest tells the fleet's master from whoever else may answer at its address, before the secret is sent.
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from interfiles.errors import InvalidToken

PREFIX: Final = "IF1-"
TOKEN_ID_BYTES: Final = 8
SECRET_BYTES: Final = 16
DIGEST_BYTES: Final = 32
MAX_MASTERS: Final = 8
MAX_ADDRESS_BYTES: Final = 255
MAX_TOKEN_CHARACTERS: Final = 4096

_LAYOUT: Final = 2
_CHECKSUM_BYTES: Final = 4
_GROUP_CHARACTERS: Final = 16
_COPY_AGAIN: Final = "copy the whole line that `interfiles token` printed"
_HASH_CONTEXT: Final = "InterFiles 2026-07 hash of a random secret"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`masters`: HOST:PORT of each master, the first to be tried first; `token_id` names the secret to them.

    `authority`: the SHA-256 of the certificate (DER) of the fleet's CA.

    Raises:
      ValueError: a field is out of its bounds.
    """

    masters: tuple[str, ...]
    token_id: bytes
    secret: bytes = field(repr=False)
    authority: bytes

    def __post_init__(self) -> None:
        if len(self.token_id) != TOKEN_ID_BYTES or len(self.secret) != SECRET_BYTES:
            raise ValueError(f"token id and secret take {TOKEN_ID_BYTES} and {SECRET_BYTES} bytes")
        if len(self.authority) != DIGEST_BYTES:
            raise ValueError(f"the digest of a CA's certificate takes {DIGEST_BYTES} bytes")
        if not 0 < len(self.masters) <= MAX_MASTERS:
            raise ValueError(f"{len(self.masters)} masters are outside 1..{MAX_MASTERS}")
        for address in self.masters:
            if not (address.isascii() and address.isprintable() and 0 < len(address) <= MAX_ADDRESS_BYTES):
                raise ValueError(f"master address {address!r} is not 1..{MAX_ADDRESS_BYTES} printable ASCII characters")

    def encode(self) -> str:
        """The token as a person copies it."""
        parts = [bytes([_LAYOUT]), self.token_id, self.secret, self.authority, bytes([len(self.masters)])]
        for address in self.masters:
            parts += [bytes([len(address)]), address.encode("ascii")]
        content = b"".join(parts)
        text = base64.b32encode(content + _checksum(content)).decode("ascii").rstrip("=")
        return PREFIX + "-".join(text[at : at + _GROUP_CHARACTERS] for at in range(0, len(text), _GROUP_CHARACTERS))

    @classmethod
    def decode(cls, text: str) -> "JoinToken":
        """Read a token; case, white space and the hyphens between its groups do not matter.

        Raises:
          InvalidToken: it is not a token, cut short, mistyped, or of a newer InterFiles. The sentence never shows it.
        """
        content = _content(text)
        if content[0] != _LAYOUT:
            raise InvalidToken("this token was made by another InterFiles; install the same version on this host")
        try:
            return cls._read(content[1:])
        except (IndexError, ValueError) as e:
            raise InvalidToken(f"this token is not one that `interfiles token` prints; {_COPY_AGAIN}") from e

    @classmethod
    def _read(cls, fields: bytes) -> "JoinToken":
        """Read what follows the layout.

        Raises:
          IndexError, ValueError: it is inconsistent.
        """
        token_id, rest = fields[:TOKEN_ID_BYTES], fields[TOKEN_ID_BYTES:]
        secret, rest = rest[:SECRET_BYTES], rest[SECRET_BYTES:]
        authority, rest = rest[:DIGEST_BYTES], rest[DIGEST_BYTES:]
        masters = []
        count, rest = rest[0], rest[1:]
        for _ in range(count):
            length = rest[0]
            if len(rest) <= length:
                raise ValueError("an address is cut short")
            masters.append(rest[1 : 1 + length].decode("ascii"))
            rest = rest[1 + length :]
        if rest:
            raise ValueError(f"{len(rest)} bytes follow the last address")
        return cls(tuple(masters), token_id, secret, authority)


def hash_secret(secret: bytes) -> bytes:
    """The 32 bytes under which the secret of a token or a host is stored.

    Our secrets are random, of 128 bits and more, so one fast hash keeps them as well as a slow one would.
    """
    return blake3(secret, derive_key_context=_HASH_CONTEXT).digest()


def _content(text: str) -> bytes:
    """The checked bytes of a token, without their checksum; at least one.

    Raises:
      InvalidToken: it is not a token, or its checksum does not match.
    """
    compact = "".join(text.split()).upper() if len(text) <= MAX_TOKEN_CHARACTERS else ""
    if not compact.startswith(PREFIX):
        raise InvalidToken(f"this is not a join token: one begins with {PREFIX}; {_COPY_AGAIN}")
    digits = compact.removeprefix(PREFIX).replace("-", "")
    try:
        data = base64.b32decode(digits + "=" * (-len(digits) % 8))
    except (binascii.Error, ValueError) as e:
        raise InvalidToken(f"this token is mistyped or cut short; {_COPY_AGAIN}") from e
    content = data[:-_CHECKSUM_BYTES]
    # base32 has spare bits in its last digit: one that is mistyped there only would decode to the same bytes
    canonical = base64.b32encode(data).decode("ascii").rstrip("=") == digits
    if not content or not canonical or _checksum(content) != data[-_CHECKSUM_BYTES:]:
        raise InvalidToken(f"this token is mistyped or cut short; {_COPY_AGAIN}")
    return content


def _checksum(content: bytes) -> bytes:
    return blake3(content).digest(_CHECKSUM_BYTES)
