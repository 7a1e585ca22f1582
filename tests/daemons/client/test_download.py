"""One run of a download: disks that fail, pieces that go bad, and cancellation anywhere."""

import errno
import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.fetch_session import FetchSession
from daemons.client.library import Library
from daemons.client.rate_gate import Flow, RateGate
from interfiles.errors import NoSpace
from interfiles.geometry import MIB, Block, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.storage.jobs import JobStore
from interfiles.storage.part_store import PartStore
from interfiles.swarm.request_scheduler import RequestScheduler
from interfiles.wire import peer_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import fleet_network
from tests.daemons.client.hostile_servers import Trickles
from tests.daemons.client.peers import Server, Stream, fetching, hand_out, honest_copy, serving
from tests.daemons.client.setting import link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file, noise, uploaded

PIECES = 12


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE + 10)


@pytest.fixture
def server(world: World, content: Content) -> Server:
    """An honest server that needs three seconds for it all."""
    made = Server(world, content, "honest")
    world.network.set_link(made.ip, link(rate=1e6))
    return made


async def begin(world: World, server: Server) -> None:
    """Start to download, and wait for the first pieces."""
    await world.daemon.download(server.content.manifest, detach=True)
    await hand_out(world, server)
    await until(lambda: _pieces(world, 3))


async def _pieces(world: World, count: int) -> bool:
    return (await world.daemon.transfer()).bytes_done >= count * PIECE


async def is_right(world: World, content: Content) -> None:
    """The download is complete, nothing else lies beside it, and it is served."""
    report = await world.daemon.wait(content.manifest)
    assert report.state == "complete"
    assert (world.daemon.got / content.manifest.name).read_bytes() == content.data
    assert os.listdir(world.daemon.got) == [content.manifest.name]
    assert await honest_copy(world, content) == content.data


DISK_ERRORS = {
    "full": (errno.ENOSPC, "No space left on device; make room"),
    "over quota": (errno.EDQUOT, "quota exceeded"),
    "broken": (errno.EIO, "Input/output error"),
    "read-only": (errno.EROFS, "Read-only file system"),
}


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
@pytest.mark.parametrize(("number", "words"), DISK_ERRORS.values(), ids=DISK_ERRORS)
async def test_a_disk_that_fails_stops_the_download_which_goes_on_when_it_works(
    world: World,
    content: Content,
    server: Server,
    failing: Failing,
    log_records: LogRecords,
    call: str,
    number: int,
    words: str,
    autojump_clock: MockClock,
) -> None:
    await begin(world, server)
    is_broken = True
    failing(call, number, when=lambda *_: is_broken)
    await until(lambda: _is_failed(world))
    transfer = await world.daemon.transfer()
    assert words in transfer.note
    assert str(world.daemon.got) in transfer.note
    answered = len(server.answered)
    await trio.sleep(60)
    assert len(server.answered) - answered < 3 * 3 * 4, "it tries now and then, and fetches next to nothing meanwhile"
    failures = [r for r in log_records.records if r["event"] == "failed" and "downloading" in r["task"]]
    assert 3 <= len(failures) <= 12
    is_broken = False
    await is_right(world, content)
    assert all(record["level"] != "error" for record in log_records.records)


async def _is_failed(world: World) -> bool:
    return bool((await world.daemon.transfer()).note)


async def test_a_note_about_the_disk_goes_when_the_disk_works(
    world: World, content: Content, server: Server, failing: Failing, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    is_broken = True
    failing("pwrite", errno.ENOSPC, when=lambda *_: is_broken)
    await until(lambda: _is_failed(world))
    is_broken = False
    world.network.set_link(server.ip, link(rate=100_000))
    await until(lambda: _is_fetching(world))
    assert not (await world.daemon.transfer()).note


async def _is_fetching(world: World) -> bool:
    return (await world.daemon.transfer()).state == "fetching"


async def test_a_database_that_fails_stops_the_download_which_goes_on_when_it_works(
    world: World, content: Content, server: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    await begin(world, server)

    def fail(*_: object, **__: object) -> None:
        raise NoSpace("the disk of the client's database is full")

    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "record_progress", fail)
        patched.setattr(JobStore, "complete", fail)
        await until(lambda: _is_failed(world))
        await trio.sleep(20)
        assert (await world.daemon.transfer()).note == "the disk of the client's database is full"
    await is_right(world, content)


async def test_nothing_is_fetched_again_after_a_failure(
    world: World, content: Content, server: Server, failing: Failing, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    is_broken = True
    failing("pwrite", errno.EIO, when=lambda *_: is_broken)
    await until(lambda: _is_failed(world))
    is_broken = False
    report = await world.daemon.wait(content.manifest)
    assert len(server.answered) <= PIECES + 1 + 4, "twice only what was under way"
    assert (report.bytes_from_peers, report.bytes_local) == ({"honest": report.size}, 0)


# Pieces that go bad on the disk while the rest is fetched


def spoil(world: World, content: Content, piece: int) -> None:
    """Change a byte of a piece in the part."""
    (part,) = world.daemon.got.glob("*.part")
    with open(part, "r+b") as file:
        file.seek(piece * PIECE + 7)
        file.write(bytes([content.data[piece * PIECE + 7] ^ 1]))


async def first_held(world: World, content: Content) -> int:
    """A piece that the daemon serves already."""
    async with fetching(world, content.manifest.file_id) as fetcher:
        assert fetcher.bitfield is not None
        return next(iter(PieceSet.from_bytes(content.manifest.piece_count, fetcher.bitfield)))


async def test_a_piece_found_bad_by_verify_is_fetched_again(
    world: World, content: Content, server: Server, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    piece = await first_held(world, content)
    spoil(world, content, piece)
    assert piece in (await world.daemon.verify(content.manifest)).bad_pieces
    await is_right(world, content)
    assert server.answered.count(piece) == 2


async def test_a_piece_found_bad_by_a_peer_is_fetched_again(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    piece = PieceIndex(await first_held(world, content))
    spoil(world, content, piece)
    async with fetching(world, content.manifest.file_id) as fetcher:
        await fetcher.ask(piece)
        while not isinstance((await fetcher.receive())[0], m.Piece):
            pass
        await fetcher.stream.send(m.Complaint(piece))
        await is_right(world, content)


async def test_a_piece_found_bad_while_the_download_is_finished_is_not_served(
    world: World, content: Content, server: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    complete = Library.complete

    async def complete_late(library: Library, file, path, stamps) -> None:  # type: ignore[no-untyped-def]
        file.suspect(PieceIndex(3))
        await trio.sleep(1)
        await complete(library, file, path, stamps)

    monkeypatch.setattr(Library, "complete", complete_late)
    await begin(world, server)
    bad = PieceSet.of(content.manifest.piece_count, [PieceIndex(3)])
    monkeypatch.setattr(PartStore, "check", lambda _, pieces, **__: PieceSet(pieces.count, pieces.bits & ~bad.bits))
    await until(lambda: _local_state(world, content, "partial"))
    async with fetching(world, content.manifest.file_id) as fetcher:
        assert fetcher.bitfield == PieceSet(bad.count, bad.complement().bits).to_bytes()


async def _local_state(world: World, content: Content, state: str) -> bool:
    local = (await world.daemon.stat(content.manifest)).local
    return local.state == state and not local.doing.startswith(("fetching", "finishing", "waiting", "checking"))


async def test_a_piece_that_trickles_is_taken_over_whenever_it_turns_out_so(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    """Also when the quick peer had nothing left to do by then, so that no news of its own comes any more."""
    trickling, quick = Trickles(world, content, "trickling"), Server(world, content, "quick")
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, trickling)
    await trio.sleep(1)
    assert trickling.answered
    await hand_out(world, quick, trickling)
    report = await world.daemon.wait(content.manifest, timeout_s=20)
    assert report.bytes_from_peers == {"quick": content.manifest.size}


async def test_a_part_that_somebody_cuts_short_is_mended(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = Server(world, content, "slow")
    world.network.set_link(server.ip, link(rate=PIECE / 2))
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    await trio.sleep(10)
    (part,) = world.daemon.got.iterdir()
    os.truncate(part, 100)
    await world.daemon.wait(content.manifest)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data


# What a person sees


async def test_a_large_piece_on_a_slow_line_is_being_fetched_and_not_waited_for(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(16 * MIB, 5))
    server = Server(world, uploaded(path, piece_size=16 * MIB), "slow")
    world.network.set_link(server.ip, link(rate=0.5e6))
    await world.daemon.download(server.content.manifest, detach=True)
    await hand_out(world, server)
    await trio.sleep(5)
    transfer = await world.daemon.transfer()
    assert (transfer.state, transfer.bytes_done, transfer.peers) == ("fetching", 0, 1)
    assert transfer.down == pytest.approx(0.5e6, rel=0.3)
    report = await world.daemon.wait(server.content.manifest, timeout_s=6)
    assert report.state == "complete", "bytes that come are progress, though the only piece takes half a minute"


# Cancellation


class Sink:
    """Takes what a session fetches, in memory, waiting a moment over each block."""

    def __init__(self) -> None:
        self.blocks: dict[tuple[int, int], bytes] = {}
        self.verified: set[int] = set()
        self.rejected: set[int] = set()

    async def write_block(self, block: Block, data: memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.blocks[block.piece, block.offset] = bytes(data)
        await trio.lowlevel.checkpoint()

    def add_verified(self, piece: PieceIndex, peer_name: str) -> None:
        assert piece not in self.verified
        self.verified.add(piece)

    def add_rejected(self, piece: PieceIndex) -> None:
        self.rejected.add(piece)

    def add_fetched(self, count: int) -> None:
        pass


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th step that any task makes."""

    def __init__(self, scope: trio.CancelScope, step: int) -> None:
        self.scope = scope
        self.left = step

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel()


class WrongAtTimes(Server):
    """Is busy, lacks and spoils a piece each, so that a cancellation may come upon any of it."""

    async def answer(self, stream: Stream, piece: int) -> None:
        match len(self.answered) % 6:
            case 3:
                await stream.send(m.Busy())
                await super().answer(stream, piece)
            case 4:
                for message, data in self.blocks(piece):
                    await stream.send(message, bytes(len(data)))
            case 5:
                await stream.send(m.NotFound([piece]))
            case _:
                await super().answer(stream, piece)


async def test_cancellation_at_every_step_leaves_the_scheduler_whole(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "original" / "large"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(noise(5 * MIB, 5))
    content = uploaded(path, piece_size=2 * MIB)
    first, second = WrongAtTimes(world, content, "first"), Server(world, content, "second")
    await serving(world, first, second)
    network = fleet_network(world.network, "asker", "10.0.0.77")
    steps, ended_by_itself = 0, False
    while not ended_by_itself:
        steps += 7
        scheduler, sink = RequestScheduler(content.manifest.geometry, PieceSet(3)), Sink()
        sessions: dict[str, FetchSession] = {}
        with trio.CancelScope() as scope:
            instrument = CancelAt(scope, steps)
            trio.lowlevel.add_instrument(instrument)
            async with trio.open_nursery() as nursery:
                for server in (first, second):
                    made = FetchSession(
                        *(server.peer, content.manifest, scheduler, sink),
                        flow=Flow(RateGate(None), "the file", lambda: "normal"),
                        sessions=sessions,
                        rng=random.Random(steps),
                    )
                    sessions[server.host_id] = made
                    nursery.start_soon(made.run, network)
                await until(lambda: scheduler.picker.is_complete)  # noqa: B023
                ended_by_itself = True
                nursery.cancel_scope.cancel()
        trio.lowlevel.remove_instrument(instrument)
        scheduler.check_invariants()
        assert not scheduler.peers()
        assert not scheduler.picker.inflight
        assert set(scheduler.picker.held) == sink.verified
        for piece in sink.verified:
            blocks = sorted(key for key in sink.blocks if key[0] == piece)
            assert b"".join(sink.blocks[key] for key in blocks) == content.piece(piece)
    assert steps > 100
    await until(lambda: world.connections == 1)
