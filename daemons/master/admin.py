"""Administration of the fleet, over a Unix socket that only the master's own user and root may use."""

import os
from functools import partial
from typing import Final

import structlog
import trio

from daemons.master.connection import EXPECTED
from daemons.master.fleet import Fleet
from daemons.supervision import contain
from interfiles.errors import (
    InterFilesError,
    NotPermitted,
    PeerSilent,
    RemoteProtocolError,
    TransportError,
    UnknownHost,
    UsageError,
)
from interfiles.transport.base import Transport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, MessageStream, welcome
from interfiles.transport.plain import SocketTransport
from interfiles.transport.unix import caller_uid
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import MakeToken, RemoveHost, Result
from interfiles.wire.handshake_messages import HELLO
from interfiles.wire.reports import Report, encode_report
from interfiles.wire.session import Identity

MAX_CALLERS: Final = 32
_EXPECTED: Final = (*EXPECTED, UsageError, UnknownHost)

log = structlog.get_logger()


class Admin:
    """Answers one request a connection."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def handle(self, transport: Transport) -> None:
        """Serve one caller; no exception gets out."""
        await contain("admin", partial(self._converse, transport), expected=_EXPECTED, log=log)

    async def _converse(self, transport: Transport) -> None:
        uid = caller_uid(transport) if isinstance(transport, SocketTransport) else -1
        if uid not in (os.geteuid(), 0):
            refusal = NotPermitted("only the master's own user and root may administer it; try sudo")
            await MessageStream(transport, HELLO).fail(refusal.code, str(refusal))
            raise refusal
        stream, _ = await welcome(transport, "admin", Identity(fleet=self._fleet.fleet_id))
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
            case MakeToken(ttl_s=ttl_s, uses=uses):
                return await self._fleet.make_token(ttl_s=ttl_s, uses=uses, name="")
            case RemoveHost(host=host):
                return await self._fleet.remove_host(host)
            case _:
                raise RemoteProtocolError(f"{type(asked).__name__} is not an administrator's request")
