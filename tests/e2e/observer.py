"""A peer that only looks: which pieces of a file a client would serve now."""

import trio

from interfiles.control import connect
from interfiles.piece_set import PieceSet
from interfiles.transport.base import Address
from interfiles.transport.message_stream import greet
from interfiles.transport.plain import TcpNetwork
from interfiles.wire.peer_messages import Bitfield, Open
from interfiles.wire.session import Identity
from tests.e2e.processes import Daemon, FleetError, listening_port

TIMEOUT_S = 10.0


def served_pieces(daemon: Daemon, file_id: str, count: int) -> PieceSet:
    """Ask a client which of the `count` pieces of a file it has verified; none while it does not serve the file."""

    async def ask() -> PieceSet:
        with trio.fail_after(TIMEOUT_S):
            async with connect(daemon.socket) as client:
                fleet = (await client.status()).fleet
            transport = await TcpNetwork().dial(Address("127.0.0.1", listening_port(daemon)))
            stream, _ = await greet(transport, "swarm", Identity(fleet=fleet))
            try:
                await stream.send(Open(bytes.fromhex(file_id)))
                if not isinstance(await stream.receive(), Bitfield):
                    return PieceSet(count)
                return PieceSet.from_bytes(count, await stream.receive_payload())
            finally:
                stream.close()

    try:
        return trio.run(ask)
    except trio.TooSlowError as e:
        raise FleetError(f"{daemon.name} did not say what it serves within {TIMEOUT_S:.0f} s") from e
