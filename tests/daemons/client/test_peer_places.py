"""Who has one of the few places among the peers of a download, and how often who fails is dialled."""

from itertools import pairwise
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.peer_keeper import REDIAL_CAP_S, SESSION_RATE, USELESS_S
from interfiles.piece_set import PieceSet
from interfiles.swarm.peer_timing import FIRST_STALL_S
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out, serving
from tests.daemons.client.setting import link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

PIECES = 16
ONE_PLACE = SESSION_RATE


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE)


class Empty(Server):
    """Holds nothing and gains nothing."""

    def __init__(self, world: World, content: Content, name: str) -> None:
        super().__init__(world, content, name, claimed=PieceSet(content.manifest.piece_count))


class Absent(Server):
    """Nobody listens at its address."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()


class Silent(Server):
    """Claims everything, and never answers."""

    async def answer(self, stream: Stream, piece: int) -> None:
        await trio.sleep_forever()


class Refusing(Server):
    """Serves nobody."""

    async def open(self, stream: Stream) -> None:
        await stream.fail("unknown_file", "this host has nothing of the file")
        stream.close()


class Wrong(Server):
    """Every byte is another one."""

    async def answer(self, stream: Stream, piece: int) -> None:
        for message, data in self.blocks(piece):
            await stream.send(message, bytes(byte ^ 1 for byte in data))


@pytest.mark.parametrize("kind", [Empty, Absent, Silent, Refusing, Wrong])
@pytest.mark.parametrize("count", [1, 3])
async def test_who_is_of_no_use_keeps_the_only_place_from_nobody(
    world: World, content: Content, kind: type[Server], count: int, autojump_clock: MockClock
) -> None:
    await world.daemon.limit(down=ONE_PLACE)
    await world.daemon.download(content.manifest, detach=True)
    source = Server(world, content, "source")
    await hand_out(world, *[kind(world, content, f"first-{number}") for number in range(count)], source)
    within_s = count * {Silent: 40.0, Wrong: 3 * PIECE / ONE_PLACE + USELESS_S}.get(kind, USELESS_S + 1)
    await until(lambda: source.opened_at, within_s=within_s)
    with trio.fail_after(content.manifest.size / ONE_PLACE + 10):
        await world.daemon.wait(content.manifest)
    assert len(source.opened_at) == 1, "who is of use keeps its place"


async def test_places_go_round_among_many_that_are_of_no_use_and_nobody_is_dialled_often(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.limit(down=3 * SESSION_RATE)
    await world.daemon.download(content.manifest, detach=True)
    servers = [Empty(world, content, f"server-{number}") for number in range(14)]
    await hand_out(world, *servers)
    await trio.sleep(240)
    dials = [len(server.opened_at) for server in servers]
    assert min(dials) >= 3
    assert sum(dials) <= 3 * (240 / USELESS_S + 1)


async def test_with_places_for_all_a_peer_of_no_use_stays_connected(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    servers = [Empty(world, content, f"server-{number}") for number in range(12)]
    await hand_out(world, *servers)
    await trio.sleep(200)
    assert [len(server.opened_at) for server in servers] == [1] * 12


async def test_a_peer_that_sent_a_wrong_piece_is_left_alone_though_places_go_round(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.limit(down=ONE_PLACE)
    await world.daemon.download(content.manifest, detach=True)
    hostile = Wrong(world, content, "hostile")
    await hand_out(world, hostile, Empty(world, content, "empty"))
    await trio.sleep(300)
    assert 2 <= len(hostile.opened_at) <= 6, "10 s, doubled each time"


# Redialling


async def test_a_peer_that_gives_nothing_is_dialled_less_and_less_while_another_delivers(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=200 * PIECE)
    useless, source = Refusing(world, content, "useless"), Server(world, content, "source")
    world.network.set_link(source.ip, link(rate=content.manifest.size / 200))
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, useless, source)
    began = trio.current_time()
    await trio.sleep(150)
    assert (await world.daemon.transfer()).state == "fetching"
    assert len(useless.opened_at) < 6 + 150 / REDIAL_CAP_S * 3
    late = [at for at in useless.opened_at if at > began + 30]
    assert max(after - before for before, after in pairwise(late)) > REDIAL_CAP_S / 2


# Stalls


async def test_a_stall_of_a_peer_that_owes_only_what_is_taken_back_is_one_line(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    one = PieceSet.of(PIECES, [0])
    slow, brief = SilentToTheEnd(world, content, "slow", claimed=one), Silent(world, content, "brief", claimed=one)
    await hand_out(world, slow)
    await until(lambda: slow.asked)
    await serving(world, brief)
    await world.master.hand_out(content.manifest.file_id, slow.peer, brief.peer)
    await until(lambda: slow.cancels)
    world.network.crash(brief.ip)  # for which the piece was taken back
    await trio.sleep(FIRST_STALL_S)
    stalled = [record for record in log_records.records if record["event"] == "stalled"]
    assert [(record["peer"], record["pieces"]) for record in stalled] == [("slow", 1)]
    await hand_out(world, slow, Server(world, content, "source"))
    await world.daemon.wait(content.manifest)


class SilentToTheEnd(Silent):
    """Nor does it say that it has heard what is not wanted any more."""

    async def drop(self, stream: Stream, pieces: list[int]) -> None:
        await trio.sleep_forever()
