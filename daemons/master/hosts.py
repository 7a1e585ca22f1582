"""Hosts' connections: who is let in, and what is done with what they say.

A connection becomes TLS, is greeted, and then either enrols a host and ends, or registers one and is that host's until
either end closes it. Until it is a host's it waits in the lobby. Anything that the other end may bring about ends that
connection and nothing else.
"""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import structlog
import trio

from daemons.master.connection import EXPECTED, MIN_PAYLOAD_BYTES_PER_S, Connection
from daemons.master.enrolment import Enrolment
from daemons.master.fleet import Fleet
from daemons.master.requests import LARGE_PAYLOAD_BYTES, Request, Requests
from daemons.supervision import contain
from interfiles.errors import InterFilesError, PeerGone, PeerSilent, RemoteProtocolError, TransportError, UsageError
from interfiles.identity.subject import Certified
from interfiles.transport.base import Address, Transport
from interfiles.transport.lobby import Lobby
from interfiles.transport.message_stream import MessageStream, welcome
from interfiles.transport.tls import TlsTransport
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Role
from interfiles.wire.master_messages import (
    Authorities,
    Declined,
    Enrol,
    Forget,
    GetAuthorities,
    Heard,
    Heartbeat,
    Holding,
    LeftOver,
    ListFiles,
    ListHolders,
    ListHosts,
    Proof,
    Publish,
    Register,
    Remove,
    Renew,
    Renewed,
    Resolve,
    SetReplicas,
)

ADMISSION_TIMEOUT_S: Final = 10.0  # to enrol or register
MAX_STRANGERS: Final = 1024  # connections that are not proved to be a host's yet: a fleet may come back all at once
PAYLOAD_TIMEOUT_S: Final = 30.0  # beside what its bytes take at `MIN_PAYLOAD_BYTES_PER_S`
MAX_REQUESTS: Final = 16  # of one host at once; more wait unread

log = structlog.get_logger()


class Hosts:
    """Serves the hosts of one fleet."""

    def __init__(self, fleet: Fleet, enrolment: Enrolment, requests: Requests) -> None:
        self._fleet = fleet
        self._enrolment = enrolment
        self._requests = requests
        self._lobby = Lobby(MAX_STRANGERS)

    async def handle(self, transport: Transport) -> None:
        """Serve one connection to its end; no exception gets out."""
        bound = log.bind(remote=str(transport.remote))
        expected = (*EXPECTED, UsageError)
        await contain("host connection", partial(self._converse, transport), expected=expected, log=bound)

    async def _converse(self, transport: Transport) -> None:
        with self._lobby.waiting(transport):
            secured = await self._fleet.trust.accept(transport)
            stream, role = await welcome(secured, "fleet", lambda: self._fleet.trust.admit(secured.certified))
            try:
                connection = await self._admit(stream, role, secured)
            except TransportError:
                raise
            except InterFilesError as e:
                await stream.fail(e.code, str(e))
                raise
        if connection is None:
            return
        try:
            await connection.run(partial(self._read, stream, connection))
        finally:
            self._fleet.detach(connection)

    # Admission

    async def _admit(self, stream: MessageStream[Message], role: Role, secured: TlsTransport) -> Connection | None:
        """Do what a newcomer may ask for, until it registers or has got what it came for.

        Raises:
          InterFilesError: it may not, or says something else.
        """
        came_from = secured.remote.host if secured.remote is not None else ""
        with trio.move_on_after(ADMISSION_TIMEOUT_S):
            while True:
                try:
                    asked = await stream.receive()
                except PeerGone:
                    if role == "host":
                        raise
                    return None  # it has what it came for
                match asked:
                    case GetAuthorities():
                        await stream.send(Authorities(self._fleet.trust.certificates, False))
                    case Enrol():
                        await stream.send(await self._enrolment.enrol(asked, came_from))
                    case Renew(request=number, signing_request=request) if secured.certified is not None:
                        self._fleet.trust.check_signer(secured.certified.certificate)
                        issued = await self._fleet.renew(secured.certified.subject.host_id, request)
                        await stream.send(Renewed(number, issued.chain, self._fleet.trust.certificates))
                        await self._fleet.trust.retire_if_unneeded()
                    case Register() if secured.certified is not None:
                        return await self._register(stream, asked, secured.certified)
                    case _:
                        raise RemoteProtocolError(f"{type(asked).__name__} came before Register")
        raise PeerSilent(f"neither enrolled nor registered within {ADMISSION_TIMEOUT_S:.0f} s")

    async def _register(self, stream: MessageStream[Message], asked: Register, certified: Certified) -> Connection:
        address = _address_of(asked, stream.transport.remote)
        host = await self._fleet.check_in(certified.subject.host_id, asked, address)
        self._fleet.trust.check_signer(certified.certificate)
        connection = Connection(stream, host.host_id, host.name, certified.certificate)
        self._fleet.attach(connection, host)
        return connection

    # Conversation

    async def _read(self, stream: MessageStream[Message], connection: Connection, nursery: trio.Nursery) -> None:
        """Act on what the host says until the connection ends; requests run in `nursery`, a bounded number at once."""
        room = trio.Semaphore(MAX_REQUESTS)
        while connection.reason is None:
            message = await connection.receive()
            if connection.reason is None:  # it may end in the moment that something comes
                await self._act(message, stream, connection, room, nursery)

    async def _act(
        self,
        message: Message,
        stream: MessageStream[Message],
        connection: Connection,
        room: trio.Semaphore,
        nursery: trio.Nursery,
    ) -> None:
        self._fleet.touch(self._fleet.registry.hear(connection.host_id, trio.current_time()))
        match message:
            case Heartbeat():
                await self._apply(message, connection)
            case Declined():
                self._fleet.reconciler.declined(connection.host_id, message)
            case Proof():
                self._fleet.challenges.hear(connection.host_id, message)
            case LeftOver(file_ids=file_ids):
                await self._forget_removed(file_ids, connection)
            case Publish() | Resolve() | ListHolders() | ListFiles() | ListHosts() | Remove() | Renew() | SetReplicas():
                await self._start(message, stream, connection, room, nursery)
            case Register():
                raise RemoteProtocolError(f"{type(message).__name__} came after Register")
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is not for a master")

    async def _start(
        self,
        message: Request,
        stream: MessageStream[Message],
        connection: Connection,
        room: trio.Semaphore,
        nursery: trio.Nursery,
    ) -> None:
        """Take a request off the stream, with its payload, and have it served once there is room."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(room)
            if stream.payload_left > LARGE_PAYLOAD_BYTES:
                await stack.enter_async_context(self._requests.large_payloads)
            payload = b""
            with trio.move_on_after(PAYLOAD_TIMEOUT_S + stream.payload_left / MIN_PAYLOAD_BYTES_PER_S) as scope:
                payload = await stream.receive_payload()
            if scope.cancelled_caught:
                raise PeerSilent(f"{connection.name} sends a payload too slowly")
            nursery.start_soon(self._serve, message, payload, connection, stack.pop_all())

    async def _serve(self, message: Request, payload: bytes, connection: Connection, held: AsyncExitStack) -> None:
        async with held:
            await self._requests.serve(message, payload, connection)

    async def _apply(self, beat: Heartbeat, connection: Connection) -> None:
        fleet, host_id = self._fleet, connection.host_id
        fleet.registry.set_room(host_id, used=beat.used, free=beat.free)
        fleet.apply(host_id, beat.holdings, replace=beat.replace)
        for holding in beat.holdings:
            if holding.state not in ("fetching", "waiting"):
                connection.handouts.pop(holding.file_id, None)  # if it fetches the file again, it is told all again
        # Applied first and looked up then, so that a removal under way sees one or the other.
        announced = [holding.file_id for holding in beat.holdings if holding.state != "none"]
        if announced:
            removed = await fleet.stored(fleet.catalogue.removed, announced)
            if connection.reason is not None:
                return
            for file_id, delete in removed.items():
                if file_id not in connection.publishing:
                    self._forget(file_id, delete, connection)
        await connection.acknowledge(Heard(beat.sequence))

    async def _forget_removed(self, file_ids: Sequence[bytes], connection: Connection) -> None:
        """Have the host forget those of these files that were removed, as it may have been away by then."""
        removed = await self._fleet.stored(self._fleet.catalogue.removed, file_ids)
        for file_id, delete in removed.items():
            await connection.acknowledge(Forget(file_id, delete))

    def _forget(self, file_id: bytes, delete: bool, connection: Connection) -> None:
        nothing = Holding(file_id, "none", 0, 0, 0, "", False)
        self._fleet.touch(self._fleet.registry.apply(connection.host_id, [nothing], replace=False))
        connection.handouts.pop(file_id, None)
        connection.push(Forget(file_id, delete))


def _address_of(asked: Register, remote: Address | None) -> Address:
    """Where a host can be reached: what it advertises, or where it comes from with its own port.

    Raises:
      UsageError: that is no address which others could dial.
    """
    if asked.advertise:
        address = Address.parse(asked.advertise, default_port=asked.listen_port)
    elif remote is not None:
        address = Address(remote.host, asked.listen_port)
    else:
        raise UsageError("this host's address is not known to the master; give it one with --advertise HOST:PORT")
    if address.port == 0:
        raise UsageError(f"nobody can dial port 0 of {address.host}; name the port in --advertise HOST:PORT")
    if address.host in ("0.0.0.0", "::"):
        raise UsageError(f"nobody can dial {address}; name this host's own address in --advertise HOST:PORT")
    return address
