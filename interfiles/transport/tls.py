"""TLS 1.3 over any transport.

An `ssl.SSLObject` between two memory BIOs; large reads of the inner transport fill one, large writes empty the other.
So there are few system calls whatever the size of TLS records, and it runs over the network in memory just as well.
`trio.SSLStream` is several times slower (docs/decisions.md).

The end of the stream is not authenticated: nobody sends close_notify. Every message says how long it is and every
request has an answer, so an end that comes too early is an error already.

In TLS 1.3 the dialler is done before the acceptor has seen its certificate. A refusal arrives with the first read, and
only the greeting that follows tells both that they are connected.
"""

import os
import ssl
from collections.abc import Callable
from typing import Final, cast

import trio

from interfiles.errors import (
    CertificateRefused,
    ContentChanged,
    HandshakeFailed,
    PeerGone,
    PeerSilent,
    StorageFailed,
    TransportError,
    UntrustedPeer,
)
from interfiles.identity import contexts
from interfiles.identity.subject import Certified
from interfiles.transport.base import Address, Transport
from interfiles.transport.scratch import Scratch

TLS_HANDSHAKE_TIMEOUT_S: Final = 10.0
ALERT_TIMEOUT_S: Final = 2.0
CIPHERTEXT_BYTES: Final = 256 << 10  # read from and written to the inner transport at once
MAX_SILENT_CIPHERTEXT_BYTES: Final = 64 << 10  # without content: a handshake takes a tenth, a record a quarter
_FIRST_CIPHERTEXT_BYTES: Final = 16 << 10  # until a read fills it: what OpenSSL is given at once it keeps room for
_HANDSHAKE_BYTES: Final = 4 << 10  # and thousands of strangers cost less

_RECORD_BYTES: Final = (16 << 10) + 261  # the most that a record takes (RFC 8446, 5.2)
_MAX_HEAD_BYTES: Final = 4 << 10
_PLAINTEXT: Final = Scratch(_MAX_HEAD_BYTES + CIPHERTEXT_BYTES)  # files are read into it and encrypted from it
_CIPHERTEXT: Final = Scratch(CIPHERTEXT_BYTES)  # what has come, until OpenSSL has it

_END_OF_FILE: Final = "the connection ended within the handshake"
# What OpenSSL calls the alerts of a peer that does not like our certificate (RFC 8446, 6.2).
_ABOUT_CERTIFICATES: Final = ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")


class TlsTransport:
    """One end of a TLS connection; `secure` makes it.

    `certified`: what the other end's certificate says, None where it showed none.
    """

    def __init__(self, inner: Transport, context: ssl.SSLContext, *, accepted: bool) -> None:
        self.certified: Certified | None = None
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=accepted)
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)  # any writable buffer will do
        self._ciphertext = _CIPHERTEXT.view[:_HANDSHAKE_BYTES]
        self._was_filled = False
        self._silent_bytes = 0
        self._is_dry = False  # OpenSSL has nothing to give until it is given more

    @property
    def remote(self) -> Address | None:
        return self._inner.remote

    async def handshake(self) -> None:
        """Agree on keys and see who the other end is.

        Raises:
          HandshakeFailed, PeerGone: see `secure`.
        """
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise PeerGone(_END_OF_FILE) from None
            except ssl.SSLError as e:
                await self._tell_alert()
                raise _handshake_error(e) from e
        await self._flush()
        self.certified = contexts.certified(self._tls)
        self._ciphertext = _CIPHERTEXT.view[:_FIRST_CIPHERTEXT_BYTES]
        self._was_filled = False
        self._silent_bytes = 0

    async def wait_readable(self) -> None:
        if self._is_dry:
            await self._inner.wait_readable()
        else:
            await trio.lowlevel.checkpoint()

    async def receive_some_into(self, buffer: memoryview) -> int:
        got, size, read = 0, len(buffer), self._read
        while True:
            if self._is_dry and not await self._fill():
                return 0
            try:
                while got < size:  # one read gives at most a record, 16 KiB: 64 times a block, so there is little here
                    count = read(size - got, buffer[got:])
                    if count == 0:  # the other end says that it sends no more; an SSLZeroReturnError comes elsewhere
                        return got
                    got += count
                    self._silent_bytes = 0
                return got
            except ssl.SSLWantReadError:
                self._is_dry = True
                if got:
                    return got
            except ssl.SSLZeroReturnError:
                return got
            except ssl.SSLError as e:
                raise _stream_error(e) from e

    def promise(self, count: int) -> None:
        """Ciphertext is longer than what it holds, so at least as much of it is to come, but for what is here.

        OpenSSL may hold a part of a record beside, of which it does not tell.
        """
        self._inner.promise(count - self._incoming.pending - self._tls.pending() - _RECORD_BYTES)

    async def send_all(self, data: bytes | memoryview) -> None:
        left = memoryview(data)
        while left:
            self._write(left[:CIPHERTEXT_BYTES])
            left = left[CIPHERTEXT_BYTES:]
            await self._flush()

    async def send_file(self, fd: int, offset: int, count: int, *, head: bytes = b"") -> None:
        if len(head) > _MAX_HEAD_BYTES:
            await self.send_all(head)
            head = b""
        end, length, plaintext = offset + count, len(head), _PLAINTEXT.view
        plaintext[:length] = head
        while offset < end or length:
            got = _read(fd, offset, plaintext[length : length + min(end - offset, CIPHERTEXT_BYTES)])
            if not got and offset < end:
                raise ContentChanged(f"the file ends {end - offset} bytes too early")
            offset += got
            self._write(plaintext[: length + got])
            length = 0
            await self._flush()

    def close(self) -> None:
        self._inner.close()

    def _write(self, plaintext: memoryview) -> None:
        try:
            self._tls.write(plaintext)  # a memory BIO takes all of it
        except ssl.SSLError as e:
            raise _stream_error(e) from e

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._inner.send_all(self._outgoing.read())

    async def _fill(self) -> bool:
        """Wait for ciphertext; return False at the end of the stream.

        Raises:
          PeerGone: there was much of it already, and nothing in it: OpenSSL would change keys for ever.
        """
        if max(self._silent_bytes, self._outgoing.pending) > MAX_SILENT_CIPHERTEXT_BYTES:
            raise PeerGone(f"over {MAX_SILENT_CIPHERTEXT_BYTES >> 10} KiB were about TLS alone; that is no honest host")
        if self._was_filled and not self._silent_bytes and len(self._ciphertext) < CIPHERTEXT_BYTES:
            self._ciphertext = _CIPHERTEXT.view
        count = await self._inner.receive_some_into(self._ciphertext)
        self._incoming.write(self._ciphertext[:count])
        self._is_dry = False
        self._was_filled = count == len(self._ciphertext)
        self._silent_bytes += count
        return count > 0

    async def _tell_alert(self) -> None:
        """Let the other end know why, if it still listens: else it would see no more than an end.

        What it still sends is read and dropped, within bounds, until it closes: a socket that is closed over unread
        bytes resets the connection, and the alert is lost.
        """
        if not self._outgoing.pending:  # it was the other end that gave up
            return
        with trio.move_on_after(ALERT_TIMEOUT_S, shield=True):
            try:
                await self._flush()
                left = MAX_SILENT_CIPHERTEXT_BYTES
                while left > 0 and (count := await self._inner.receive_some_into(self._ciphertext)):
                    left -= count
                    await trio.lowlevel.checkpoint()
            except TransportError:
                pass


async def secure(inner: Transport, context: ssl.SSLContext, *, accepted: bool) -> TlsTransport:
    """Make TLS of a connection; `accepted`: at the end that was dialled.

    Raises:
      UntrustedPeer: the other end's certificate is not of this fleet.
      CertificateRefused: the other end says so of ours.
      HandshakeFailed: what it says is no TLS 1.3.
      PeerGone, PeerSilent: it went away, or took too long.
        The connection is closed then, as it is on cancellation.
    """
    try:
        made = TlsTransport(inner, context, accepted=accepted)
        with trio.move_on_after(TLS_HANDSHAKE_TIMEOUT_S):
            await made.handshake()
            return made
        raise PeerSilent(f"no TLS handshake within {TLS_HANDSHAKE_TIMEOUT_S:.0f} s")
    except BaseException:
        inner.close()
        raise


def _handshake_error(error: ssl.SSLError) -> TransportError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return UntrustedPeer(f"the other end's certificate is not of this fleet: {error.verify_message}")
    if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return UntrustedPeer("the other end shows no certificate, as only a host that joins may do, to its master")
    if _is_refusal(error):
        return _refused(error)
    return HandshakeFailed(f"the other end and this one do not come to TLS 1.3 ({_words(error)})")


def _stream_error(error: ssl.SSLError) -> TransportError:
    if _is_refusal(error):
        return _refused(error)
    return PeerGone(f"the connection was damaged on its way ({_words(error)})")


def _is_refusal(error: ssl.SSLError) -> bool:
    reason = error.reason or ""
    return "ALERT" in reason and any(part in reason for part in _ABOUT_CERTIFICATES)


def _refused(error: ssl.SSLError) -> CertificateRefused:
    return CertificateRefused(f"the other end does not accept this end's certificate ({_words(error)})")


def _words(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).replace("_", " ").lower()


def _read(fd: int, offset: int, buffer: memoryview) -> int:
    try:
        return os.preadv(fd, [buffer], offset)
    except OSError as e:
        raise StorageFailed(f"the disk cannot read the file: {e.strerror}") from e
