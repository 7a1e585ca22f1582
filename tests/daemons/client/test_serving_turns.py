"""Who is served with what, and when: turns, cancellations, and what a server says to those who wait."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.geometry import MIB
from interfiles.manifest import FileId
from interfiles.swarm.upload_queue import SLOTS, STUCK_S
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from tests.daemons.client.peers import Fetcher, Server, fetching, hand_out
from tests.daemons.client.setting import DAEMON_IP, link, until
from tests.daemons.client.test_served_content import edit_secretly
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file, noise, uploaded

RATE = 1e6  # of the daemon's line: a piece of the smallest size takes a quarter of a second, a block a whole one

Heard = list[tuple[float, Message]]


@pytest.fixture
def large(tmp_path: Path) -> Content:
    """Two pieces of four blocks."""
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(8 * MIB, 5))
    return uploaded(path, piece_size=4 * MIB)


@pytest.fixture
def many(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "many", size=12 * PIECE)


async def hear(fetcher: Fetcher, heard: Heard) -> None:
    """Read for ever, and say when what came."""
    while True:
        message, _ = await fetcher.receive()
        heard.append((trio.current_time(), message))


async def heard_within(fetcher: Fetcher, seconds: float) -> list[Message]:
    """What comes from now on; no message may be on its way at the end."""
    heard: Heard = []
    with trio.move_on_after(seconds):
        await hear(fetcher, heard)
    assert fetcher.stream.payload_left == 0
    return [message for _, message in heard]


@asynccontextmanager
async def all_slots_taken(world: World, content: Content) -> AsyncIterator[list[Fetcher]]:
    """As many fetchers as there are slots ask for everything and read nothing."""
    async with AsyncExitStack() as stack:
        taking = [await stack.enter_async_context(fetching(world, content.manifest.file_id)) for _ in range(SLOTS)]
        for fetcher in taking:
            await fetcher.ask(*content.manifest.geometry.pieces())
        await trio.sleep(0.01)
        yield taking


async def fetched(world: World, content: Content) -> FileId:
    """Have the daemon serve a content whose pieces are larger than it would make them."""
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, Server(world, content, "source"))
    await world.daemon.wait(content.manifest)
    return content.manifest.file_id


# Cancel


async def test_a_piece_cancelled_between_two_of_its_blocks_stops_after_the_current_one(
    world: World, large: Content, autojump_clock: MockClock
) -> None:
    file_id = await fetched(world, large)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0, 1)
        assert await fetcher.answers(1) == [m.Piece(0, 0)]
        await fetcher.cancel(0, 1)
        assert await heard_within(fetcher, 10) == [m.Piece(0, MIB), m.Dropped([0, 1])]
        await fetcher.ask(0)
        again = [m.Piece(0, at * MIB) for at in range(4)]
        assert await heard_within(fetcher, 20) == again, "asked for again it comes from its beginning"


async def test_the_others_go_on_when_a_piece_that_had_begun_is_cancelled(
    world: World, large: Content, autojump_clock: MockClock
) -> None:
    file_id = await fetched(world, large)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0, 1)
        assert await fetcher.answers(1) == [m.Piece(0, 0)]
        await fetcher.cancel(0)
        rest = [m.Piece(1, at * MIB) for at in range(4)]
        assert await heard_within(fetcher, 10) == [m.Piece(0, MIB), m.Dropped([0]), *rest]


async def test_a_cancel_of_the_last_block_comes_too_late_and_is_answered_after_it(
    world: World, large: Content, autojump_clock: MockClock
) -> None:
    file_id = await fetched(world, large)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        await fetcher.answers(3)
        await fetcher.cancel(0)
        assert await heard_within(fetcher, 10) == [m.Piece(0, 3 * MIB), m.Dropped([0])]


async def test_each_cancel_is_answered_once_whatever_was_asked_for(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0, 5, 6, 7)
        await fetcher.cancel(6, 9)
        await fetcher.cancel(6)
        came = await heard_within(fetcher, 10)
    assert [answer.piece for answer in came if isinstance(answer, m.Piece)] == [0, 5, 7]
    assert sorted(piece for answer in came if isinstance(answer, m.Dropped) for piece in answer.pieces) == [6, 6, 9]
    assert isinstance(came[1], m.Dropped), "it is told before another piece begins"


async def test_what_is_cancelled_and_asked_for_again_at_once_comes_after_the_answer(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0, 1)
        await trio.sleep(0.1)
        await fetcher.cancel(0, 1)
        await fetcher.ask(0)
        assert await heard_within(fetcher, 10) == [m.Piece(0, 0), m.Dropped([0, 1]), m.Piece(0, 0)]


# NotFound


async def partial(world: World, content: Content, held: list[int]) -> None:
    """Have the daemon download these pieces and no more."""
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, Server(world, content, "source", claimed=content.pieces(*held)))

    async def is_here() -> bool:
        return (await world.daemon.transfer()).bytes_done == len(held) * PIECE

    await until(is_here)


async def test_what_is_not_held_is_refused_together_and_the_rest_is_sent(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await partial(world, many, [2, 3])
    async with fetching(world, many.manifest.file_id) as fetcher:
        await fetcher.ask(*many.manifest.geometry.pieces())
        came = await heard_within(fetcher, 5)
    assert came == [m.NotFound([0, 1, *range(4, 12)]), m.Piece(2, 0), m.Piece(3, 0)]


async def test_refusals_that_pile_up_are_told_by_as_many_as_a_message_lists(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await partial(world, many, [2])
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, many.manifest.file_id) as fetcher:
        await fetcher.ask(2)
        await trio.sleep(0.01)
        await fetcher.transport.send_all(encode_frame(m.Ask([0])) * 300)
        assert await heard_within(fetcher, 5) == [m.Piece(2, 0), m.NotFound([0] * 256), m.NotFound([0] * 44)]


async def test_a_refusal_that_is_taken_back_is_told_before_it_is_dropped(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    """The other way round a fetcher would hear of a piece that it does not ask for."""
    await partial(world, many, [2])
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, many.manifest.file_id) as fetcher:
        await fetcher.ask(2)
        await trio.sleep(0.01)
        await fetcher.ask(0)
        await fetcher.cancel(0)
        assert await heard_within(fetcher, 5) == [m.Piece(2, 0), m.NotFound([0]), m.Dropped([0])]


async def test_a_piece_that_is_withdrawn_while_it_is_waited_for_is_refused(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(many)
    edit_secretly(many, 7 * PIECE + 7)
    async with fetching(world, file_id) as other, fetching(world, file_id) as fetcher:
        await other.ask(7)
        await other.answers(1)
        world.network.set_link(DAEMON_IP, link(rate=RATE))
        await fetcher.ask(*range(12))
        await trio.sleep(0.1)
        await other.stream.send(m.Complaint(7))
        came = await heard_within(fetcher, 10)
    assert [answer.piece for answer in came if isinstance(answer, m.Piece)] == [8, 9, 10, 11, 0, 1, 2, 3, 4, 5, 6]
    assert [answer for answer in came if not isinstance(answer, m.Piece)] == [m.NotFound([7])]


# Turns


async def test_each_piece_is_sent_once_before_any_twice(world: World, many: Content, autojump_clock: MockClock) -> None:
    file_id = await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    async with fetching(world, file_id) as one, fetching(world, file_id) as other, trio.open_nursery() as nursery:
        heard: tuple[Heard, Heard] = ([], [])
        for fetcher, each in zip((one, other), heard, strict=True):
            nursery.start_soon(hear, fetcher, each)
            await fetcher.ask(*range(12))
        await trio.sleep(20)
        nursery.cancel_scope.cancel()
    pieces = [[answer.piece for _, answer in each if isinstance(answer, m.Piece)] for each in heard]
    assert not set(pieces[0][:6]) & set(pieces[1][:6])
    assert [sorted(each) for each in pieces] == [list(range(12))] * 2


async def test_nobody_is_told_to_wait_while_there_are_slots(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=RATE))
    heard: list[Heard] = [[] for _ in range(SLOTS)]
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for each in heard:
            fetcher = await stack.enter_async_context(fetching(world, file_id))
            nursery.start_soon(hear, fetcher, each)
            await fetcher.ask(*range(12))
        await trio.sleep(60)
        nursery.cancel_scope.cancel()
    assert [type(message) for each in heard for _, message in each] == [m.Piece] * 12 * SLOTS


async def test_who_waits_is_told_so_every_second_until_it_is_served(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    await trio.sleep(0.37)  # the daemon's own seconds are others
    heard: Heard = []
    async with all_slots_taken(world, many), fetching(world, many.manifest.file_id) as waiting:
        asked_at = trio.current_time()
        await waiting.ask(*range(12))
        with trio.move_on_after(STUCK_S + 3):
            await hear(waiting, heard)
    kinds = [type(message) for _, message in heard]
    busy = kinds.count(m.Busy)
    assert kinds == [m.Busy] * busy + [m.Piece] * 12
    times = [asked_at, *(at for at, _ in heard[: busy + 1])]
    assert times[1] - asked_at < 0.01
    assert max(after - before for before, after in pairwise(times)) < 1.6, "a silence is a stall"
    assert busy <= STUCK_S + 2, "and no more often"


async def test_who_takes_all_back_while_it_waits_is_told_of_no_more_waiting(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    async with all_slots_taken(world, many), fetching(world, many.manifest.file_id) as waiting:
        await waiting.ask(1, 2)
        assert await waiting.answers(1) == [m.Busy()]
        await waiting.cancel(1, 2)
        assert await heard_within(waiting, STUCK_S - 1) == [m.Dropped([1, 2])]


async def test_a_slot_that_is_freed_by_who_leaves_goes_to_who_waits(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    async with all_slots_taken(world, many) as taking, fetching(world, many.manifest.file_id) as waiting:
        await waiting.ask(4)
        assert await waiting.answers(1) == [m.Busy()]
        taking[3].stream.close()
        assert await waiting.answers(1, within_s=0.1) == [m.Piece(4, 0)]


async def test_a_slot_that_is_freed_by_a_cancel_goes_to_who_waits(
    world: World, large: Content, autojump_clock: MockClock
) -> None:
    """A fetcher that reads, cancels all, and stays."""
    file_id = await fetched(world, large)
    world.network.set_link(DAEMON_IP, link(rate=RATE * 8))
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        taking = [await stack.enter_async_context(fetching(world, file_id)) for _ in range(SLOTS)]
        for fetcher in taking:
            nursery.start_soon(hear, fetcher, [])
            await fetcher.ask(0)
        async with fetching(world, file_id) as waiting:
            await waiting.ask(1)
            assert await waiting.answers(1) == [m.Busy()]
            await taking[3].cancel(0)
            came = await waiting.answers(2, within_s=2.5)
            assert came[-1] == m.Piece(1, 0), "when the block that was under way was sent, and this one's first"
        nursery.cancel_scope.cancel()
