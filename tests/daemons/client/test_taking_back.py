"""Pieces that are taken back from one server and asked of another: whoever begins first is taken, once."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.geometry import MIB
from interfiles.wire import peer_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out
from tests.daemons.client.setting import link, until
from tests.daemons.client.test_fetch_session import fetch_from, fetched_from
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file, noise, uploaded

PIECES = 24  # many, so that who was asked for all of them is not waited for


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE)


@pytest.fixture
def large(tmp_path: Path) -> Content:
    """Three pieces of four blocks."""
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(12 * MIB, 5))
    return uploaded(path, piece_size=4 * MIB)


class Hesitates(Server):
    """Answers nothing, not even a `Cancel`, before a piece is taken back from it; `then` is what it answers first."""

    def __init__(self, world: World, content: Content, name: str) -> None:
        super().__init__(world, content, name)
        self.taken_back: int | None = None

    async def answer(self, stream: Stream, piece: int) -> None:
        if self.taken_back is None:
            await until(lambda: self.cancels, within_s=1e6)
            self.taken_back = self.cancels[0]
            await self.then(stream, self.taken_back)
        elif piece != self.taken_back:
            await super().answer(stream, piece)

    async def then(self, stream: Stream, piece: int) -> None:
        """Answer about a piece that it owes no more."""


class Sends(Hesitates):
    """The piece that was taken back, as if it had begun to before it heard."""

    async def then(self, stream: Stream, piece: int) -> None:
        await super(Hesitates, self).answer(stream, piece)


async def take_over(world: World, first: Server, second: Server) -> None:
    """Download from the first, and when it has been asked for all, from the second too."""
    content = first.content
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, first)
    await until(lambda: len(first.asked) == content.manifest.piece_count)
    await hand_out(world, first, second)


async def is_complete(world: World, content: Content) -> dict[str, int]:
    """Wait for it; return who sent how much of it."""
    report = await world.daemon.wait(content.manifest)
    assert (world.daemon.got / content.manifest.name).read_bytes() == content.data
    assert report.pieces_rejected == 0
    return report.bytes_from_peers


class Late(Server):
    """Answers, each piece after a while."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await trio.sleep(1.0)
        await super().answer(stream, piece)


async def test_a_piece_taken_back_too_late_is_kept_if_nobody_else_has_begun_it(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    first, second = Sends(world, content, "first"), Late(world, content, "second")
    await take_over(world, first, second)
    await until(lambda: first.taken_back is not None)
    taken = first.taken_back
    assert taken is not None
    await until(lambda: taken in second.cancels, within_s=0.1)
    assert (await is_complete(world, content))["first"] >= PIECE
    assert taken not in second.answered[1:], "it was waiting there, and is not sent twice"
    assert not fetched_from(log_records, "first")
    assert not fetched_from(log_records, "second")


async def test_a_piece_of_several_blocks_that_was_begun_comes_to_its_end_and_from_nobody_else(
    world: World, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    """Of so few pieces it may well have begun the one that is taken back, so its word is waited for."""
    first, second = Sends(world, large, "first"), Server(world, large, "second")
    await take_over(world, first, second)
    sent = await is_complete(world, large)
    assert first.taken_back is not None
    assert sum(sent.values()) == large.manifest.size
    assert sent["first"] >= first.content.manifest.piece_size
    assert first.taken_back not in second.asked
    assert not fetched_from(log_records, "first")
    assert not fetched_from(log_records, "second")


class FindsItNot(Hesitates):
    """Had refused the piece before it heard that it was taken back."""

    async def then(self, stream: Stream, piece: int) -> None:
        await stream.send(m.NotFound([piece]))


class SendsAfterDropping(Hesitates):
    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        await super().drop(stream, pieces)
        await super(Hesitates, self).answer(stream, pieces[0])


class DropsTwice(Hesitates):
    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        await super().drop(stream, pieces)
        await super().drop(stream, pieces)


class FindsItNotAfterDropping(Hesitates):
    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        await super().drop(stream, pieces)
        await stream.send(m.NotFound(pieces))


async def test_a_refusal_that_crossed_the_cancel_is_no_mistake(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    first, second = FindsItNot(world, content, "first"), Server(world, content, "second")
    world.network.set_link(second.ip, link(rate=1e6))
    await take_over(world, first, second)
    await is_complete(world, content)
    assert first.taken_back is not None
    assert first.asked.count(first.taken_back) == 1, "it counts as lacking it"
    assert not fetched_from(log_records, "first")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (SendsAfterDropping, "came, which was not asked for"),
        (DropsTwice, "was dropped, which had not been taken back"),
        (FindsItNotAfterDropping, "was not found, which was not asked for"),
    ],
)
async def test_who_said_that_it_dropped_a_piece_speaks_of_it_no_more(
    world: World,
    content: Content,
    log_records: LogRecords,
    kind: type[Hesitates],
    reason: str,
    autojump_clock: MockClock,
) -> None:
    first, second = kind(world, content, "first"), Server(world, content, "second")
    world.network.set_link(second.ip, link(rate=1e6))
    await take_over(world, first, second)
    await is_complete(world, content)
    assert reason in fetched_from(log_records, "first")[0]["reason"]


# Waiting


class IsBusyAfterThree(Server):
    """Is quick at first, and then busy for a time; `gaps_s` are between what it says."""

    def __init__(self, world: World, content: Content, name: str, gaps_s: Sequence[float]) -> None:
        super().__init__(world, content, name)
        self.gaps_s = gaps_s

    async def answer(self, stream: Stream, piece: int) -> None:
        if len(self.answered) == 4:
            for gap_s in self.gaps_s:
                await stream.send(m.Busy())
                await trio.sleep(gap_s)
        await super().answer(stream, piece)


@pytest.mark.parametrize("gap_s", [0.5, 1.0, 1.1, 1.6])
async def test_a_quick_server_that_has_others_to_serve_is_waited_for(
    world: World, content: Content, log_records: LogRecords, gap_s: float, autojump_clock: MockClock
) -> None:
    """It says so about every second: that the next time is a little late is no stall."""
    server = IsBusyAfterThree(world, content, "busy", [gap_s] * 60)
    await fetch_from(world, server)
    assert server.cancels == []
    assert server.asked == list(range(PIECES))
    assert not [record for record in log_records.records if record["event"] == "stalled"]


async def test_a_server_that_is_busy_and_then_silent_has_stalled(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    server = IsBusyAfterThree(world, content, "busy", [1.0, 1.0, 100.0])
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await until(lambda: len(server.answered) == 4)
    began = trio.current_time()
    await until(lambda: server.cancels)
    assert 2.5 < trio.current_time() - began < 7


@pytest.mark.parametrize("piece_mib", [1, 4])
async def test_what_is_asked_of_a_server_that_is_busy_for_ever_comes_from_another(
    world: World, tmp_path: Path, piece_mib: int, autojump_clock: MockClock
) -> None:
    """Also from one that needs seconds for a piece."""
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(3 * piece_mib * MIB, 5))
    content = uploaded(path, piece_size=piece_mib * MIB)
    busy, slow = IsBusyAfterThree(world, content, "busy", [1.0] * 10_000), Server(world, content, "slow")
    busy.answered = [0, 0, 0]
    world.network.set_link(slow.ip, link(rate=1e6))
    await take_over(world, busy, slow)
    assert await is_complete(world, content) == {"slow": content.manifest.size}
    assert trio.current_time() < 60
