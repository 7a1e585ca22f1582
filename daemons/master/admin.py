"""Administration of the fleet, over a Unix socket that only the master's own user and root may use."""

import os
from collections.abc import Mapping
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
    Refused,
    RemoteProtocolError,
    TransportError,
    UnknownHost,
    UnknownToken,
    UsageError,
)
from interfiles.identity.authority import digest
from interfiles.placement.events import Event
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, MessageStream, welcome
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import caller_uid
from interfiles.wire.admin_reports import AuthorityListReport, AuthorityReport, EventListReport, EventReport
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import (
    DrainHost,
    ListAuthorities,
    ListEvents,
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
from interfiles.wire.reports import Report, encode_report

MAX_CALLERS: Final = 32
MAX_WAITING: Final = 16  # of them, for events: room is left for those who have something to do
EVENTS_A_PAGE: Final = 256
MAX_NAMED_HOSTS: Final = 100  # of each CA, in a listing
_EXPECTED: Final = (*EXPECTED, UsageError, UnknownHost, UnknownToken)

log = structlog.get_logger()


class Admin:
    """Answers one request a connection."""

    def __init__(self, fleet: Fleet, enrolment: Enrolment) -> None:
        self._fleet = fleet
        self._enrolment = enrolment
        self._waiting = 0

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
            report = await self._answer(await self._hear(stream), stream)
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

    async def _answer(self, asked: Message, stream: MessageStream[Message]) -> Report:
        match asked:
            case MakeToken(ttl_s=ttl_s, uses=uses, name=name):
                return await self._enrolment.make_token(ttl_s=ttl_s, uses=uses, name=name)
            case ListTokens():
                return await self._enrolment.list_tokens()
            case RevokeToken(token=query):
                return await self._enrolment.revoke_token(query)
            case RemoveHost(host=host):
                return await self._fleet.remove_host(host)
            case DrainHost(host=host, only_look=True):
                return await self._fleet.look_at_drain(host)
            case DrainHost(host=host):
                return await self._fleet.drain_host(host, draining=True)
            case UndrainHost(host=host):
                return await self._fleet.drain_host(host, draining=False)
            case ListEvents():
                return await self._list_events(asked, stream)
            case RotateAuthority():
                await self._fleet.trust.rotate()
            case RetireAuthority():
                await self._fleet.trust.retire()
            case ListAuthorities():
                pass
            case _:
                raise RemoteProtocolError(f"{type(asked).__name__} is not an administrator's request")
        return await self._authorities()

    async def _list_events(self, asked: ListEvents, stream: MessageStream[Message]) -> EventListReport:
        events = self._fleet.events
        newest = events.log.newest
        after = min(asked.after, newest) if asked.log == events.log_id else max(0, newest - asked.last)
        if after == newest and asked.wait_s:
            await self._wait_for_event(after, asked.wait_s, stream)
        page = events.log.since(after, EVENTS_A_PAGE)
        unnamed = {event.file for event in page.events if event.file and not event.file_name}
        names = await self._fleet.stored(self._fleet.catalogue.names, unnamed) if unnamed else {}
        return EventListReport(
            log=events.log_id,
            events=[_event_report(event, names) for event in page.events],
            next=page.events[-1].sequence if page.events else after,
            more=page.more,
            missed=page.missed,
        )

    async def _wait_for_event(self, after: int, wait_s: float, stream: MessageStream[Message]) -> None:
        """Wait for an event, or for so long. A caller who leaves meanwhile ends the conversation, and says nothing.

        Raises:
          Refused: too many wait.
          ExceptionGroup: of PeerGone, when the caller left.
        """
        if self._waiting >= MAX_WAITING:
            raise Refused(f"{MAX_WAITING} commands wait for events already; end one of them")
        self._waiting += 1
        try:
            with trio.move_on_after(wait_s):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_hear_leaving, stream)
                    await self._fleet.events.wait(after)
                    nursery.cancel_scope.cancel()
        finally:
            self._waiting -= 1

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


async def _hear_leaving(stream: MessageStream[Message]) -> None:
    message = await stream.receive()
    raise RemoteProtocolError(f"{type(message).__name__} came while a request was under way")


def _event_report(event: Event, names: Mapping[bytes, str]) -> EventReport:
    return EventReport(
        sequence=event.sequence,
        at=event.at,
        kind=event.kind,
        host=event.host,
        host_name=event.host_name,
        file=event.file.hex(),
        file_name=event.file_name or names.get(event.file, ""),
        reason=event.reason,
    )
