"""Limits in virtual time: exact, at once, for nobody a stall; and priorities, by their weights."""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.callers import Caller
from daemons.client.peer_keeper import SESSION_RATE
from daemons.client.rate_gate import Limits, RateGate
from interfiles.errors import NotPermitted, Refused
from interfiles.geometry import MIB
from interfiles.priority import Priority
from interfiles.storage.acting import Owner
from interfiles.swarm.peer_timing import PeerTiming
from interfiles.swarm.upload_queue import STUCK_S
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.control_messages import Limit
from tests.conftest import LogRecords
from tests.daemons.client.peers import Fetcher, Server, fetching, hand_out
from tests.daemons.client.setting import DAEMON_IP, link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

PIECES = 32
WARM_S = 2.0
NORMAL: Priority = "normal"


@pytest.fixture
def many(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "many", size=PIECES * PIECE)


class Taker:
    """A fetcher that takes all that it is sent, for ever; what came of payloads is kept with the time.

    `stalls`: how often this host would have been given up, as every fetcher reckons.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self.fetcher = fetcher
        self.came: list[tuple[float, int]] = []
        self.timing = PeerTiming(trio.current_time())
        self.stalls = 0
        self.rate: float | None = None

    async def run(self) -> None:
        stream, buffer = self.fetcher.stream, memoryview(bytearray(MIB))
        await self.fetcher.ask(*range(PIECES))
        while True:
            message = await stream.receive()
            length = stream.payload_left
            self.hear(message)
            while stream.payload_left:
                count = await stream.receive_some_payload_into(buffer[: stream.payload_left])
                self.came.append((trio.current_time(), count))
                self.hear(None, count)
                if self.rate is not None:
                    await trio.sleep(count / self.rate)
            if isinstance(message, m.Piece):
                self.timing.add_block(length, trio.current_time())
                await self.fetcher.ask(message.piece)

    def hear(self, message: Message | None, count: int = 0) -> None:
        now = trio.current_time()
        self.stalls += now >= self.timing.deadline()
        match message:
            case m.Busy():
                self.timing.hear_busy(now)
            case m.Piece():
                self.timing.begin_block(now)
            case _:
                self.timing.hear(now, count)

    def bytes_between(self, start: float, end: float) -> int:
        return sum(count for at, count in self.came if start < at <= end)


@asynccontextmanager
async def taking(
    world: World, content: Content, *priorities: Priority, one_host: bool = False
) -> AsyncIterator[list[Taker]]:
    """Fetchers of these priorities, each from a host of its own, or all from one."""
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        takers = []
        for number, priority in enumerate(priorities):
            name = "fetcher" if one_host else f"fetcher-{number}"
            fetcher = await stack.enter_async_context(fetching(world, name=name))
            await fetcher.open(content.manifest.file_id, priority)
            takers.append(Taker(fetcher))
        for taker in takers:
            nursery.start_soon(taker.run)
        yield takers
        nursery.cancel_scope.cancel()


async def passing(takers: list[Taker], seconds: float) -> list[int]:
    """What each gets of content from now on."""
    began = trio.current_time()
    await trio.sleep(seconds)
    return [taker.bytes_between(began, began + seconds) for taker in takers]


# Up


@pytest.mark.parametrize("receivers", [1, 8])
@pytest.mark.parametrize("rate", [20_000, 100_000, 1_000_000, 12_500_000])
async def test_what_is_sent_is_the_limit_within_a_twentieth(
    world: World, many: Content, rate: int, receivers: int, autojump_clock: MockClock
) -> None:
    world.daemon.limit_up = rate
    await world.daemon.restart()
    await world.seed(many)
    async with taking(world, many, *[NORMAL] * receivers) as takers:
        await trio.sleep(WARM_S)
        passed = await passing(takers, 10.0)
        assert sum(passed) == pytest.approx(10 * rate, rel=0.05)
        assert not any(taker.stalls for taker in takers)


@pytest.mark.parametrize("rate", [20_000, 200_000])
async def test_a_limit_is_kept_to_at_once_by_what_is_under_way_and_lifted_at_once(
    world: World, many: Content, rate: int, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=20e6))
    async with taking(world, many, *[NORMAL] * 8) as takers:
        await trio.sleep(WARM_S)
        assert sum(await passing(takers, 2.0)) > 35e6
        assert (await world.daemon.limit(up=rate)).limit_up == rate
        await trio.sleep(0.5)  # what was in the line by then
        assert sum(await passing(takers, 10.0)) == pytest.approx(10 * rate, rel=0.05)
        report = await world.daemon.limit()
        assert report.up == pytest.approx(rate, rel=0.2, abs=20_000), "the rate shown is smoothed"
        assert (await world.daemon.status()).limit_up == rate
        assert not any(taker.stalls for taker in takers)
        assert (await world.daemon.limit(up=0)).limit_up is None
        assert sum(await passing(takers, 2.0)) > 30e6


async def test_receivers_that_are_slower_than_the_limit_do_not_keep_it_from_others(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    world.daemon.limit_up = 1_000_000
    await world.daemon.restart()
    await world.seed(many)
    async with taking(world, many, *[NORMAL] * 6) as takers:
        for taker in takers:
            taker.rate = 250_000
        await trio.sleep(15)
        assert sum(await passing(takers, 10.0)) > 0.9 * 10e6


async def test_what_is_too_low_or_another_command_changes_nothing(world: World, autojump_clock: MockClock) -> None:
    with pytest.raises(Refused, match=r"a limit of 5\.0 kB/s is too low; the least is 10\.0 kB/s; .*interfiles pause"):
        await world.daemon.limit(up=50_000, down=5000)
    report = await world.daemon.limit()
    assert (report.limit_up, report.limit_down, report.up, report.down) == (None, None, 0, 0)


async def test_members_of_the_group_may_look_and_not_change(autojump_clock: MockClock) -> None:
    limits, member = Limits(up=RateGate(None), down=RateGate(50_000)), Caller(Owner(1000, 1000))
    limits.change(member, Limit(None, None))
    for wanted in (Limit(0, None), Limit(None, 0), Limit(20_000, 20_000)):
        with pytest.raises(NotPermitted, match="only its own user and root may change them, everybody may look"):
            limits.change(member, wanted)
    assert (limits.up.rate, limits.down.rate) == (None, 50_000)
    limits.change(Caller(), Limit(20_000, 0))
    assert (limits.up.rate, limits.down.rate) == (20_000, None)


# Down


@pytest.mark.parametrize("rate", [100_000, 1_000_000])
async def test_what_is_fetched_is_the_limit_within_a_twentieth(
    world: World, tmp_path: Path, rate: int, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=rate * 12)
    world.daemon.limit_down = rate
    await world.daemon.restart()
    await world.daemon.download(content.manifest, detach=True)
    servers = [Server(world, content, f"server-{number}") for number in range(3)]
    began = trio.current_time()
    await hand_out(world, *servers)
    report = await world.daemon.wait(content.manifest)
    took = trio.current_time() - began
    assert report.size / took <= 1.05 * rate
    assert report.size / took >= 0.9 * rate, "with what it takes to find peers, and to finish"
    assert (world.daemon.got / "large").read_bytes() == content.data
    assert not [record for record in log_records.records if record["event"] == "stalled"]
    came = sum(world.network.bytes_sent(server.ip, DAEMON_IP) for server in servers)
    assert came < 1.1 * report.size, "no piece comes twice for want of patience"


async def test_a_very_low_limit_of_its_own_is_nobodys_stall(
    world: World, tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "small", size=5 * PIECE)
    await world.daemon.limit(down=10_000)
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, *[Server(world, content, f"server-{number}") for number in range(4)])
    await world.daemon.wait(content.manifest, timeout_s=30)
    assert trio.current_time() > 120
    assert not [record for record in log_records.records if record["event"] == "stalled"]


async def test_lifting_a_limit_frees_who_waits(world: World, many: Content, autojump_clock: MockClock) -> None:
    await world.daemon.limit(down=10_000)
    await world.daemon.download(many.manifest, detach=True)
    await hand_out(world, Server(world, many, "server"))
    await trio.sleep(20)
    assert (await world.daemon.transfer()).bytes_done <= PIECE
    await world.daemon.limit(down=0)
    with trio.fail_after(3):
        await world.daemon.wait(many.manifest)


async def test_a_low_limit_has_use_for_few_peers(world: World, many: Content, autojump_clock: MockClock) -> None:
    servers = [Server(world, many, f"server-{number}") for number in range(4)]
    for server in servers:
        world.network.set_link(server.ip, link(rate=50_000))
    await world.daemon.download(many.manifest, detach=True)
    await hand_out(world, *servers)

    async def peers() -> int:
        return (await world.daemon.transfer()).peers

    for rate, count in ((0, 4), (2 * SESSION_RATE, 2), (0, 4)):
        await world.daemon.limit(down=rate)
        await trio.sleep(3)
        assert await peers() == count


# Priorities


@pytest.mark.parametrize("rate", [100_000, 1_000_000, 12_500_000])
async def test_a_limited_sender_shares_by_priority(
    world: World, many: Content, rate: int, autojump_clock: MockClock
) -> None:
    world.daemon.limit_up = rate
    await world.daemon.restart()
    await world.seed(many)
    seconds = max(20.0, 50e6 / rate)
    async with taking(world, many, "high", "low", "normal") as takers:
        await trio.sleep(WARM_S)
        high, low, normal = await passing(takers, seconds)
        assert not any(taker.stalls for taker in takers)
    assert high / normal == pytest.approx(4, rel=0.25)
    assert normal / low == pytest.approx(4, rel=0.35)


async def test_two_that_weigh_the_same_get_the_same(world: World, many: Content, autojump_clock: MockClock) -> None:
    world.daemon.limit_up = 1_000_000
    await world.daemon.restart()
    await world.seed(many)
    async with taking(world, many, "normal", "normal") as takers:
        await trio.sleep(WARM_S)
        one, other = await passing(takers, 20.0)
    assert one == pytest.approx(other, rel=0.1)


async def test_two_downloads_of_one_host_share_a_slow_sender_without_a_limit(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=4e6))
    async with taking(world, many, "high", "low", one_host=True) as (high, low):
        await trio.sleep(WARM_S)
        passed = await passing([high, low], 20.0)
        assert passed[0] / passed[1] == pytest.approx(16, rel=0.35)
        await low.fetcher.stream.send(m.Prefer("high"))
        await trio.sleep(WARM_S)
        passed = await passing([high, low], 20.0)
    assert passed[0] == pytest.approx(passed[1], rel=0.15)


async def test_one_that_reads_slowly_keeps_no_other_of_its_host_from_the_line(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=4e6))
    async with taking(world, many, "high", "low", one_host=True) as (high, low):
        high.rate = 60_000
        await trio.sleep(WARM_S)
        passed = await passing([high, low], 20.0)
    assert passed[0] == pytest.approx(20 * high.rate, rel=0.3)
    assert passed[1] > 0.8 * 20 * 4e6


@pytest.mark.parametrize("rate", [None, 1_000_000])
async def test_who_reads_nothing_keeps_nobody_of_any_priority(
    world: World, many: Content, rate: int | None, autojump_clock: MockClock
) -> None:
    world.daemon.limit_up = rate
    await world.daemon.restart()
    await world.seed(many)
    world.network.set_link(DAEMON_IP, link(rate=4e6))
    async with taking(world, many, "low", one_host=True) as [low], fetching(world) as stuck:
        await stuck.open(many.manifest.file_id, "high")
        await stuck.ask(*range(PIECES))
        await trio.sleep(2 * STUCK_S)
        [passed] = await passing([low], 10.0)
    assert passed > 0.9 * 10 * (rate or 4e6)


async def downloads(world: World, tmp_path: Path, *priorities: Priority) -> list[Content]:
    """Begin a download of each priority, each with a server of its own."""
    contents = []
    for number, priority in enumerate(priorities):
        content = a_file(tmp_path / "original" / f"file-{number}", size=20 * MIB, seed=number)
        await world.daemon.download(content.manifest, detach=True, priority=priority)
        await hand_out(world, Server(world, content, f"server-{number}"))
        contents.append(content)
    return contents


async def done_bytes(world: World) -> dict[str, int]:
    return {transfer.name: transfer.bytes_done for transfer in (await world.daemon.status()).transfers}


async def test_downloads_share_the_limit_of_their_own_host_by_priority(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    await world.daemon.limit(down=1_000_000)
    await downloads(world, tmp_path, "high", "normal", "normal")
    await trio.sleep(1)
    before = await done_bytes(world)
    await trio.sleep(20)
    after = await done_bytes(world)
    gained = [after[name] - before[name] for name in sorted(after)]
    assert gained[0] / gained[1] == pytest.approx(4, rel=0.25)
    assert gained[1] == pytest.approx(gained[2], rel=0.15)


async def test_a_download_that_gets_nothing_keeps_no_other_from_the_limit(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    await world.daemon.limit(down=1_000_000)
    lost = a_file(tmp_path / "original" / "lost", size=20 * MIB, seed=9)
    await world.daemon.download(lost.manifest, detach=True, priority="high")
    await hand_out(world, Silent(world, lost, "silent"))
    await downloads(world, tmp_path, "low")
    await trio.sleep(15)
    assert (await done_bytes(world))["file-0"] > 0.9 * 13e6


class Silent(Server):
    """It never answers."""

    async def answer(self, stream: object, piece: int) -> None:
        await trio.sleep_forever()


async def test_a_priority_is_kept_and_can_be_changed_while_it_runs(
    world: World, many: Content, autojump_clock: MockClock
) -> None:
    server = Told(world, many, "server")
    world.network.set_link(server.ip, link(rate=100_000))
    await world.daemon.download(many.manifest, detach=True, priority="low")
    await hand_out(world, server)
    await until(lambda: server.told)
    await world.daemon.download(many.manifest, detach=True, priority="high")
    await until(lambda: len(server.told) == 2, within_s=1)
    await world.daemon.download(many.manifest, detach=True)
    assert (await world.daemon.transfer()).priority == "high", "who says nothing changes nothing"
    await world.daemon.restart()
    assert (await world.daemon.transfer()).priority == "high"
    await until(lambda: len(server.told) == 3)
    assert list(server.told) == ["low", "high", "high"]


class Told(Server):
    """Keeps the priorities that it is told."""

    def __init__(self, world: World, content: Content, name: str) -> None:
        super().__init__(world, content, name)
        self.told: deque[Priority] = deque()

    def hear(self, message: object) -> None:
        if isinstance(message, m.Open | m.Prefer):
            self.told.append(message.priority)
