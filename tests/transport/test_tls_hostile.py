"""Ends of a TLS connection that use its lesser known messages: none keeps the loop, or memory, to itself."""

import hashlib
import hmac
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from interfiles.errors import PeerGone
from interfiles.identity import authority, contexts
from interfiles.identity.authority import Authority
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.transport import tls
from interfiles.transport.base import Transport
from interfiles.transport.tls import TlsTransport, secure
from tests.transport.setups import Memory, connected

NOW: Final = 1_800_000_000.0
HASH: Final = hashlib.sha384
KEY_BYTES, NONCE_BYTES = 32, 12
HANDSHAKE_RECORD: Final = b"\x16"


def context() -> ssl.SSLContext:
    """That of a master."""
    made, key = Authority.make("ab12", now=NOW), authority.new_key()
    leaf = made.issue(authority.public_key_of(key), Subject("ab12", "master"), now=NOW)
    return contexts.accepting(Credentials(leaf, key, [made.certificate]), strangers=True)


async def secured(tmp_path: Path, log: Path | None = None) -> tuple[Transport, TlsTransport, TlsTransport]:
    """A connection by who shows no certificate: below TLS at the dialler's end, and both ends' TLS.

    `log`: where the dialler's secrets go, in the format NSS Key Log.
    """
    below, accepted = await connected(Memory(tmp_path))
    asking = contexts.asking()
    if log is not None:
        asking.keylog_filename = str(log)
    ends: list[TlsTransport] = []

    async def accept() -> None:
        ends.append(await secure(accepted, context(), accepted=True))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        dialler = await secure(below, asking, accepted=False)
    return below, dialler, ends[0]


async def test_a_peer_that_ends_tls_properly_does_not_keep_the_loop_busy(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    _, dialler, acceptor = await secured(tmp_path)
    await dialler.send_all(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        dialler._tls.unwrap()  # close_notify (RFC 8446, 6.1), which we never send ourselves
    await dialler._flush()
    buffer = memoryview(bytearray(100))
    assert await acceptor.receive_some_into(buffer) == len(b"last words")
    assert await acceptor.receive_some_into(buffer) == 0
    assert await acceptor.receive_some_into(buffer) == 0
    dialler.close()
    acceptor.close()


class KeyUpdates:
    """Writes records of the TLS 1.3 message KeyUpdate (RFC 8446, 4.6.3), which the `ssl` module cannot."""

    def __init__(self, log: Path, *, answered: bool) -> None:
        (line,) = [line for line in log.read_text().splitlines() if line.startswith("CLIENT_TRAFFIC_SECRET_0")]
        self._secret = bytes.fromhex(line.split()[2])
        self._message = b"\x18\0\0\1" + bytes([answered])

    def record(self) -> bytes:
        """The next; each is the only one under its key."""
        key, nonce = self._expand("key", KEY_BYTES), self._expand("iv", NONCE_BYTES)
        self._secret = self._expand("traffic upd", HASH().digest_size)
        plaintext = self._message + HANDSHAKE_RECORD
        head = struct.pack(">BHH", 0x17, 0x0303, len(plaintext) + 16)
        return head + AESGCM(key).encrypt(nonce, plaintext, head)

    def _expand(self, label: str, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446, 7.1), of no more than one hash's length."""
        name = b"tls13 " + label.encode()
        info = struct.pack(">HB", length, len(name)) + name + b"\0"
        return hmac.digest(self._secret, info + b"\1", HASH)[:length]


@pytest.mark.parametrize("answered", [False, True])
async def test_a_peer_that_changes_keys_for_ever_is_cut_off_before_it_costs_much(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, answered: bool
) -> None:
    below, _, acceptor = await secured(tmp_path, tmp_path / "keys")
    buffer = memoryview(bytearray(100))
    updates = KeyUpdates(tmp_path / "keys", answered=answered)
    acceptor._inner = inner = Flood(acceptor._inner, lambda: b"".join(updates.record() for _ in range(100)))
    with pytest.raises(PeerGone, match="TLS"):
        await acceptor.receive_some_into(buffer)
    assert inner.taken <= 2 * tls.MAX_SILENT_CIPHERTEXT_BYTES
    below.close()
    acceptor.close()


class Flood:
    """A transport that always has more to read, made by `more`."""

    def __init__(self, inner: Transport, more: Callable[[], bytes]) -> None:
        self.remote = inner.remote
        self.taken = 0
        self._inner = inner
        self._more = more
        self._left = b""

    def promise(self, count: int) -> None:
        pass

    async def wait_readable(self) -> None:
        pass

    async def receive_some_into(self, buffer: memoryview) -> int:
        self._left = self._left or self._more()
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        self.taken += count
        assert self.taken < 1 << 24, "nobody stops it"
        return count

    async def send_all(self, data: bytes | memoryview) -> None:
        await self._inner.send_all(data)

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        await self._inner.send_file(fd, offset, count, head=head)

    def close(self) -> None:
        self._inner.close()
