"""Administration of the fleet, over a Unix socket that only the master's own user and root may use."""

import os
from functools import partial
from typing import Final

import structlog
import trio

from daemons.master.connection import EXPECTED
from daemons.master.enrolment import Enrolment
from daemons.master.fleet import Fleet
from daemons.supervision import contain
from interfiles.errors import (
    InterFilesError,
    NotPermitted,
    PeerSilent,
    RemoteProtocolError,
    TransportError,
    UnknownHost,
    UnknownToken,
    UsageError,
)
from interfiles.identity.authority import digest
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, MessageStream, welcome
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import caller_uid
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import (
    DrainHost,
    ListAuthorities,
    ListTokens,
    MakeToken,
    RemoveHost,
    Result,
    RetireAuthority,
    RevokeToken,
    RotateAuthority,
    UndrainHost,
)
from interfiles.wire.handshake_messages import HELLO
from interfiles.wire.reports import AuthorityListReport, AuthorityReport, Report, encode_report

MAX_CALLERS: Final = 32
MAX_NAMED_HOSTS: Final = 100  # of each CA, in a listing
_EXPECTED: Final = (*EXPECTED, UsageError, UnknownHost, UnknownToken)

log = structlog.get_logger()


class Admin:
    """Answers one request a connection."""

    def __init__(self, fleet: Fleet, enrolment: Enrolment) -> None:
        self._fleet = fleet
        self._enrolment = enrolment

    async def handle(self, transport: Transport) -> None:
        """Serve one caller; no exception gets out."""
        await contain("admin", partial(self._converse, transport), expected=_EXPECTED, log=log)

    async def _converse(self, transport: Transport) -> None:
        uid = caller_uid(transport) if isinstance(transport, SocketTransport) else -1
        if uid not in (os.geteuid(), 0):
            refusal = NotPermitted("only the master's own user and root may administer it; try sudo")
            await MessageStream(transport, HELLO).fail(refusal.code, str(refusal))
            raise refusal
        stream, _ = await welcome(transport, "admin", lambda: "local")
        try:
            report = await self._answer(await self._hear(stream))
        except TransportError:
            raise
        except InterFilesError as e:
            await stream.fail(e.code, str(e))
            raise
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            await stream.send(Result(), encode_report(report))

    async def _hear(self, stream: MessageStream[Message]) -> Message:
        with trio.move_on_after(HANDSHAKE_TIMEOUT_S):
            return await stream.receive()
        raise PeerSilent(f"no request within {HANDSHAKE_TIMEOUT_S:.0f} s")

    async def _answer(self, asked: Message) -> Report:
        match asked:
            case MakeToken(ttl_s=ttl_s, uses=uses, name=name):
                return await self._enrolment.make_token(ttl_s=ttl_s, uses=uses, name=name)
            case ListTokens():
                return await self._enrolment.list_tokens()
            case RevokeToken(token=query):
                return await self._enrolment.revoke_token(query)
            case RemoveHost(host=host):
                return await self._fleet.remove_host(host)
            case DrainHost(host=host):
                return await self._fleet.drain_host(host, draining=True)
            case UndrainHost(host=host):
                return await self._fleet.drain_host(host, draining=False)
            case RotateAuthority():
                await self._fleet.trust.rotate()
            case RetireAuthority():
                await self._fleet.trust.retire()
            case ListAuthorities():
                pass
            case _:
                raise RemoteProtocolError(f"{type(asked).__name__} is not an administrator's request")
        return await self._authorities()

    async def _authorities(self) -> AuthorityListReport:
        hosts = await self._fleet.stored(self._fleet.catalogue.members.hosts)
        reports: list[AuthorityReport] = []
        for known in self._fleet.trust.known:
            fingerprint = digest(known.authority.certificate)
            signed = [host.name for host in hosts if host.authority == fingerprint]
            reports.append(
                AuthorityReport(
                    digest=fingerprint.hex(),
                    made_at=int(known.made_at),
                    signs=not reports,
                    host_count=len(signed),
                    hosts=signed[:MAX_NAMED_HOSTS],
                )
            )
        return AuthorityListReport(authorities=reports)
