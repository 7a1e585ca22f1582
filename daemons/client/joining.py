"""Becoming a member of a fleet: once in a host's life, or again after it was removed.

1. Ask whoever answers at the token's address for the CA's certificates, and take the one whose digest the token has.
2. Connect again, and let the master prove itself by that CA.
3. Only then send the token's secret, and a signing request for a key that never leaves this host.
"""

from __future__ import annotations

import hmac
import random
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.client.membership import check_minted
from daemons.supervision import Backoff
from interfiles.errors import (
    CertificateRefused,
    HandshakeFailed,
    InterFilesError,
    NotAdmitted,
    PeerSilent,
    RateLimited,
    RemoteProtocolError,
    TransportError,
    UntrustedPeer,
    from_wire,
    printable,
)
from interfiles.identity import contexts
from interfiles.identity.authority import digest, is_issued_by, new_key, request_for
from interfiles.identity.contexts import Credentials
from interfiles.storage.records import Identity
from interfiles.transport.base import Address, Network
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.tls import TlsTransport, secure
from interfiles.wire import master_messages as m
from interfiles.wire.handshake_messages import Failure

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from interfiles.identity.token import JoinToken
    from interfiles.wire.codec import Message

ENROL_TIMEOUT_S: Final = 10.0
RETRY_FLOOR_S: Final = 0.5
RETRY_CAP_S: Final = 10.0

log = structlog.get_logger()


async def join(
    network: Network,
    token: JoinToken,
    *,
    name: str,
    zone: str,
    rng: random.Random,
    wall_clock: Callable[[], float],
) -> Identity:
    """Show the token to its master and return the identity that the master mints; retry for ever while none answers.

    Raises:
      InvalidToken: the master refuses the token: unknown, expired or spent.
      UntrustedPeer: what answers is not the master that made the token; it has not seen the secret.
      CertificateExpired, CertificateNotYetValid: a clock is wrong, the master's or this host's.
      ProtocolError: what answers is not a master of this version.

    Cancellation:
      The master may have admitted the host all the same; joining again makes another one.
    """
    backoff = Backoff(rng, floor_s=RETRY_FLOOR_S, cap_s=RETRY_CAP_S)
    while True:
        for master in token.masters:
            try:
                return await _join(network, master, token, name=name, zone=zone, now=wall_clock())
            except HandshakeFailed:
                raise
            except (TransportError, RateLimited) as e:
                log.warning("cannot join yet", master=master, reason=str(e))
        await trio.sleep(backoff.next())


async def is_removed(network: Network, identity: Identity, token: JoinToken) -> bool:
    """Whether this host is of its fleet no more: its master says so, or refuses its certificate, and `token` is of
    another CA than signed that. False also where it cannot be asked.

    Whoever answers at the master's address can refuse a certificate; who has joined by a CA that is still in use is not
    made to forget it by that.
    """
    context = contexts.dialling(Credentials(identity.chain, identity.key, identity.authorities))
    for master in identity.masters:
        try:
            with trio.move_on_after(ENROL_TIMEOUT_S):
                transport = await _dial_master(network, Address.parse(master), context)
                stream, _ = await greet(transport, "fleet", "master")
                stream.close()
        except NotAdmitted:
            return True
        except CertificateRefused:
            signers = [known for known in identity.authorities if is_issued_by(identity.chain, known)]
            return token.authority not in map(digest, signers)
        except InterFilesError as e:
            log.info("cannot ask the master whether this host was removed", master=master, reason=str(e))
    return False


async def _join(network: Network, master: str, token: JoinToken, *, name: str, zone: str, now: float) -> Identity:
    address = Address.parse(master)
    authority = await _ask_authority(network, address, token)
    key = new_key()
    enrolled = await _enrol(
        network, address, authority, m.Enrol(token.token_id, token.secret, name, zone, request_for(key)), now=now
    )
    subject = check_minted(enrolled.chain, key, enrolled.authorities)
    if subject.role != "host":
        raise RemoteProtocolError(f"the master sent a certificate that is not good: it is {subject}'s")
    return Identity(
        fleet=subject.fleet,
        host_id=subject.host_id,
        name=enrolled.name,
        zone=zone,
        key=key,
        chain=enrolled.chain,
        authorities=tuple(enrolled.authorities),
        masters=tuple(token.masters),
    )


async def _ask_authority(network: Network, address: Address, token: JoinToken) -> str:
    """The certificate of the CA that the token names, from whoever answers: nobody is believed yet."""
    transport = await secure(await network.dial(address), contexts.asking(), accepted=False)
    stream, _ = await greet(transport, "fleet", "stranger")
    try:
        match await _ask(stream, m.GetAuthorities()):
            case m.Authorities(certificates=certificates):
                for certificate in certificates:
                    if hmac.compare_digest(_digest(certificate), token.authority):
                        return certificate
                raise UntrustedPeer(
                    f"what answers at {address} is not the master that made this token (its CA is another one), so it "
                    "was not shown the secret; check the address, or get a new token with `interfiles token`"
                )
            case other:
                raise RemoteProtocolError(f"{type(other).__name__} came in place of Authorities")
    finally:
        stream.close()


async def _enrol(network: Network, address: Address, authority: str, asked: m.Enrol, *, now: float) -> m.Enrolled:
    transport = await _dial_master(network, address, contexts.joining(authority))
    try:
        assert transport.certified is not None
        transport.certified.check_time(now)
        stream, _ = await greet(transport, "fleet", "master")
        match await _ask(stream, asked):
            case m.Enrolled() as enrolled:
                return enrolled
            case other:
                raise RemoteProtocolError(f"{type(other).__name__} came in place of Enrolled")
    finally:
        transport.close()


async def _dial_master(network: Network, address: Address, context: ssl.SSLContext) -> TlsTransport:
    transport = await secure(await network.dial(address), context, accepted=False)
    if transport.certified is None or transport.certified.subject.role != "master":
        transport.close()
        raise UntrustedPeer(f"at {address} answers {transport.certified and transport.certified.subject}, no master")
    return transport


async def _ask(stream: MessageStream[Message], request: Message) -> Message:
    with trio.move_on_after(ENROL_TIMEOUT_S):
        await stream.send(request)
        answer = await stream.receive()
        if isinstance(answer, Failure):
            raise from_wire(answer.code, printable(answer.text))
        return answer
    raise PeerSilent(f"the master did not answer within {ENROL_TIMEOUT_S:.0f} s")


def _digest(certificate: str) -> bytes:
    try:
        return digest(certificate)
    except ValueError as e:
        raise RemoteProtocolError("a certificate of the CA is malformed") from e
