"""Becoming a member of a fleet: once in a host's life."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.supervision import Backoff
from interfiles.errors import PeerSilent, RemoteProtocolError, TransportError, from_wire, printable
from interfiles.storage.jobs import Identity
from interfiles.transport.base import Address, Network
from interfiles.transport.message_stream import greet
from interfiles.wire import master_messages as m
from interfiles.wire import session
from interfiles.wire.handshake_messages import Failure

if TYPE_CHECKING:
    from interfiles.identity.token import JoinToken

ENROL_TIMEOUT_S: Final = 10.0
RETRY_FLOOR_S: Final = 0.5
RETRY_CAP_S: Final = 10.0

log = structlog.get_logger()


async def join(network: Network, token: JoinToken, *, name: str, zone: str, rng: random.Random) -> Identity:
    """Show the token to its master and return the identity that the master mints; retry for ever while none answers.

    Raises:
      InvalidToken: the master refuses the token: unknown, expired or spent.
      ProtocolError: what answers is not a master of this version.

    Cancellation:
      The master may have admitted the host all the same; joining again makes another one.
    """
    backoff = Backoff(rng, floor_s=RETRY_FLOOR_S, cap_s=RETRY_CAP_S)
    while True:
        for master in token.masters:
            try:
                return await _enrol(network, master, token, name=name, zone=zone)
            except TransportError as e:
                log.warning("the master does not answer", master=master, reason=str(e))
        await trio.sleep(backoff.next())


async def _enrol(network: Network, master: str, token: JoinToken, *, name: str, zone: str) -> Identity:
    transport = await network.dial(Address.parse(master))
    stream, _ = await greet(transport, "fleet", session.Identity())
    try:
        with trio.move_on_after(ENROL_TIMEOUT_S):
            await stream.send(m.Enrol(token.token_id, token.secret, name, zone))
            match await stream.receive():
                case m.Enrolled(fleet=fleet, host_id=host_id, name=given, credential=credential):
                    return Identity(fleet, host_id, given, zone, credential, tuple(token.masters))
                case Failure(code=code, text=text):
                    raise from_wire(code, printable(text))
                case other:
                    raise RemoteProtocolError(f"{type(other).__name__} came in place of Enrolled")
        raise PeerSilent(f"the master did not answer within {ENROL_TIMEOUT_S:.0f} s")
    finally:
        stream.close()
