"""Servers that do everything a server may not, and what is logged of each."""

import trio

from interfiles.wire import peer_messages as m
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import Failure
from tests.daemons.client.peers import Server, Stream
from tests.storage.contents import PIECE, noise

PIECES = 12


class Stalls(Server):
    """Claims everything and sends nothing."""

    async def answer(self, stream: Stream, request: m.Request) -> None:
        await trio.sleep_forever()


class StallsWithinABlock(Server):
    """Sends half of each block."""

    async def answer(self, stream: Stream, request: m.Request) -> None:
        frame = encode_frame(m.Piece(request.piece, request.offset), request.length)
        await stream.transport.send_all(frame + self.data(request)[: request.length // 2])
        await trio.sleep_forever()


class Trickles(Server):
    """Sends a byte twice a second: never quite silent."""

    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.transport.send_all(encode_frame(m.Piece(request.piece, request.offset), request.length))
        for byte in self.data(request):
            await stream.transport.send_all(bytes([byte]))
            await trio.sleep(0.5)


class SendsAnotherPiece(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        other = replace_piece(request, (request.piece + PIECES // 2) % PIECES)
        await stream.send(m.Piece(other.piece, other.offset), self.data(other))


def replace_piece(request: m.Request, piece: int) -> m.Request:
    return m.Request(piece, request.offset, PIECE)


class SendsWhatNobodyAskedFor(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.Piece(0, 0), self.content.piece(0))


class SendsTwice(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await super().answer(stream, request)
        await super().answer(stream, request)


class SendsTooMuch(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Piece(request.piece, request.offset), self.data(request) + b"!")


class SendsTooLittle(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Piece(request.piece, request.offset), self.data(request)[:-1])


class SendsNothing(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Piece(request.piece, request.offset))


class HasAShortBitfield(Server):
    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), self.claimed.to_bytes()[:-1])


class HasALongBitfield(Server):
    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), self.claimed.to_bytes() + bytes(1))


class SetsSpareBits(Server):
    async def open(self, stream: Stream) -> None:
        await stream.send(m.Bitfield(), b"\xff\xff")


class OpensWithAPiece(Server):
    async def open(self, stream: Stream) -> None:
        await stream.send(m.Piece(0, 0), self.content.piece(0))


class OpensTwice(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await super().open(stream)


class GainsAPieceThatIsNone(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.Have([PIECES + 1]))


class GainsForEver(Server):
    """Says again and again that it has gained everything, and sends nothing."""

    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        while True:
            await stream.send(m.Have(list(range(PIECES + 1))))
            await trio.sleep(0.01)


class IsAlwaysBusy(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Busy(request.piece, request.offset, 200))


class IsBusyAtOnce(Server):
    """Always busy, and asks to be asked again at once."""

    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.Busy(request.piece, request.offset, 0))


class IsBusyUnasked(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.Busy(0, 0, 600_000))


class FindsNothing(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.NotFound(request.piece, request.offset))


class FindsNothingAndGainsItAgain(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.send(m.NotFound(request.piece, request.offset))
        await stream.send(m.Have([request.piece]))


class FindsNothingUnasked(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.NotFound(0, 0))


class ClosesAfterEachBlock(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await super().answer(stream, request)
        stream.close()


class WithdrawsAtOnce(Server):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.Withdrawn("\x1b[2Jgone\u202e"))


class RefusesInStrangeWords(Server):
    """Ends the conversation with a code that stands for something of this host's own."""

    async def open(self, stream: Stream) -> None:
        await stream.send(Failure("no-space", "your disk is full\x1b[2J"))


class SpeaksAnotherProtocol(Server):
    async def converse(self, stream: Stream) -> None:
        await stream.receive()
        await stream.transport.send_all(b"SSH-2.0-OpenSSH_9.9\r\n")
        await trio.sleep_forever()


class SaysNothing(Server):
    async def converse(self, stream: Stream) -> None:
        await trio.sleep_forever()


class SendsHalfAHeader(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.transport.send_all(encode_frame(m.Piece(request.piece, request.offset))[:-1])
        await trio.sleep_forever()


class SendsNoise(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.transport.send_all(noise(4096, request.piece))


class SendsAHugeHeader(Server):
    async def answer(self, stream: Stream, request: m.Request) -> None:
        await stream.transport.send_all(MAX_HEADER_BYTES.to_bytes(4, "big") + bytes(4) + bytes(MAX_HEADER_BYTES))


class ReadsNothing(Server):
    """Sends what it guesses, and reads no request."""

    async def converse(self, stream: Stream) -> None:
        await stream.receive()
        await self.open(stream)
        await trio.sleep_forever()


HOSTILE: dict[type[Server], str] = {
    Stalls: "",
    StallsWithinABlock: "",
    Trickles: "",
    SendsAnotherPiece: "which was not asked for",
    SendsWhatNobodyAskedFor: "piece 0 from byte 0 came, which was not asked for",
    SendsTwice: "which was not asked for",
    SendsTooMuch: r"block of (262145|11) bytes came, (262144|10) were asked for",
    SendsTooLittle: "were asked for",
    SendsNothing: "block of 0 bytes came",
    HasAShortBitfield: "1 byte",
    HasALongBitfield: "3 bytes",
    SetsSpareBits: "a bit above piece 12 is set",
    OpensWithAPiece: "Piece came in place of Bitfield",
    OpensTwice: "Bitfield came twice",
    GainsAPieceThatIsNone: "piece 13 is outside 0..12",
    GainsForEver: "",
    IsAlwaysBusy: "",
    IsBusyAtOnce: "",
    IsBusyUnasked: "which was not asked for",
    FindsNothing: "",
    FindsNothingAndGainsItAgain: "",
    FindsNothingUnasked: "which was not asked for",
    ClosesAfterEachBlock: "closed (the connection|it)",
    WithdrawsAtOnce: r"hostile stops serving it: \\x1b\[2Jgone\\u202e",
    RefusesInStrangeWords: r"hostile does not serve it: your disk is full\\x1b",
    SpeaksAnotherProtocol: "header length",
    SaysNothing: "",
    SendsHalfAHeader: "",
    SendsNoise: "header",
    SendsAHugeHeader: "header",
    ReadsNothing: "",
}
