"""Servers that do everything a server may not, and what is logged of each."""

import trio

from interfiles.wire import peer_messages as m
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import Failure
from tests.daemons.client.peers import Server, Stream
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, noise

PIECES = 12


class Stalls(Server):
    """Claims everything and sends nothing."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await trio.sleep_forever()


class StallsWithinABlock(Server):
    """Sends half of each block."""

    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, data),) = self.blocks(piece)
        await stream.transport.send_all(encode_frame(message, len(data)) + data[: len(data) // 2])
        await trio.sleep_forever()


class Trickles(Server):
    """Sends a byte twice a second: never quite silent."""

    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, data),) = self.blocks(piece)
        await stream.transport.send_all(encode_frame(message, len(data)))
        for byte in data:
            await stream.transport.send_all(bytes([byte]))
            await trio.sleep(0.5)


class LacksTheFirst(Server):
    """Claims all but the first piece, which it is never asked for."""

    def __init__(self, world: World, content: Content, name: str) -> None:
        super().__init__(world, content, name, claimed=content.pieces(*range(1, PIECES + 1)))


class SendsAnotherPiece(LacksTheFirst):
    async def answer(self, stream: Stream, piece: int) -> None:
        await super().answer(stream, 0)


class SendsWhatNobodyAskedFor(LacksTheFirst):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await super().answer(stream, 0)


class SendsTwice(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await super().answer(stream, piece)
        await super().answer(stream, piece)


class BeginsInTheMiddle(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        ((_, data),) = self.blocks(piece)
        await stream.send(m.Piece(piece, len(data) // 2), data[len(data) // 2 :])


class SendsSmallerBlocks(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        ((_, data),) = self.blocks(piece)
        await stream.send(m.Piece(piece, 0), data[: len(data) // 2])
        await stream.send(m.Piece(piece, len(data) // 2), data[len(data) // 2 :])


class SendsFromBeyondThePiece(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Piece(piece, PIECE), b"!")


class SendsAPieceThatIsNone(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Piece(PIECES + 1, 0), self.content.piece(piece))


class SendsTooMuch(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, data),) = self.blocks(piece)
        await stream.send(message, data + b"!")


class SendsTooLittle(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        ((message, data),) = self.blocks(piece)
        await stream.send(message, data[:-1])


class SendsNothing(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Piece(piece, 0))


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
    """Says what keeps a fetcher waiting, and nothing else, for ever."""

    async def answer(self, stream: Stream, piece: int) -> None:
        while True:
            await stream.send(m.Busy())
            await trio.sleep(1)


class IsBusyWithoutEnd(Server):
    """Says it faster than anybody would."""

    async def answer(self, stream: Stream, piece: int) -> None:
        while True:
            await stream.send(m.Busy())
            await trio.sleep(0.005)


class IsBusyAndSilentThen(Server):
    """Is always busy, and answers no `Cancel`."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Busy())

    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        await trio.sleep_forever()


class FindsNothing(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.NotFound([piece]))


class FindsNothingAndGainsItAgain(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.NotFound([piece]))
        await stream.send(m.Have([piece]))


class FindsNothingUnasked(LacksTheFirst):
    async def open(self, stream: Stream) -> None:
        await super().open(stream)
        await stream.send(m.NotFound([0]))


class FindsNothingOfAPieceThatIsNone(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.NotFound([PIECES + 1]))


class FindsNothingTwice(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.NotFound([piece, piece]))


class DropsWhatIsWanted(Server):
    """Says that it heard of a cancellation that nobody sent."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Dropped([piece]))


class DropsAPieceThatIsNone(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.send(m.Dropped([PIECES + 1]))


class ClosesAfterEachBlock(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await super().answer(stream, piece)
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
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.transport.send_all(encode_frame(m.Piece(piece, 0))[:-1])
        await trio.sleep_forever()


class SendsNoise(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.transport.send_all(noise(4096, piece))


class SendsAHugeHeader(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        await stream.transport.send_all(MAX_HEADER_BYTES.to_bytes(4, "big") + bytes(4) + bytes(MAX_HEADER_BYTES))


class ReadsNothing(Server):
    """Sends what it guesses, and reads nothing that it is asked."""

    async def converse(self, stream: Stream) -> None:
        await stream.receive()
        await self.open(stream)
        await trio.sleep_forever()


HOSTILE: dict[type[Server], str] = {
    Stalls: "",
    StallsWithinABlock: "",
    Trickles: "",
    SendsAnotherPiece: "byte 0 of piece 0 came, which was not asked for",
    SendsWhatNobodyAskedFor: "byte 0 of piece 0 came, which was not asked for",
    SendsTwice: r"byte 0 of piece \d+ came, which was not asked for",
    BeginsInTheMiddle: r"byte (131072|5) of piece \d+ came, which was not asked for",
    SendsSmallerBlocks: r"block of (131072|5) bytes came, (262144|10) were due",
    SendsFromBeyondThePiece: "block of 1 bytes came",
    SendsAPieceThatIsNone: "piece 13 is outside 0..12",
    SendsTooMuch: r"block of (262145|11) bytes came, (262144|10) were due",
    SendsTooLittle: r"block of (262143|9) bytes came, (262144|10) were due",
    SendsNothing: "block of 0 bytes came",
    HasAShortBitfield: "1 byte",
    HasALongBitfield: "3 bytes",
    SetsSpareBits: "a bit above piece 12 is set",
    OpensWithAPiece: "Piece came in place of Bitfield",
    OpensTwice: "Bitfield came twice",
    GainsAPieceThatIsNone: "piece 13 is outside 0..12",
    GainsForEver: "",
    IsAlwaysBusy: "",
    IsBusyWithoutEnd: "",
    IsBusyAndSilentThen: "",
    FindsNothing: "",
    FindsNothingAndGainsItAgain: "",
    FindsNothingUnasked: "piece 0 was not found, which was not asked for",
    FindsNothingOfAPieceThatIsNone: "piece 13 is outside 0..12",
    FindsNothingTwice: r"piece \d+ was not found, which was not asked for",
    DropsWhatIsWanted: r"piece \d+ was dropped, which had not been taken back",
    DropsAPieceThatIsNone: "piece 13 is outside 0..12",
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
