"""When copies are hashed again and how quickly: restarts, busy hours, clocks that are set; in virtual time."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client import scrubber
from daemons.client.scrub_plan import MAX_SCRUB_RATE
from tests.conftest import LogRecords
from tests.daemons.client.peers import fetching
from tests.daemons.client.scrubs import EVERY, Hashed, download, pieces_of, remembered, scrub_of, scrubbing, watched
from tests.daemons.client.setting import SlowExecutor, link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Hashed]:
    """What is hashed from the disk from now on."""
    return watched(monkeypatch)


# What is read, and when


async def test_an_upload_counts_as_scrubbed_and_is_read_again_within_its_time(
    world: World, content: Content, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    await world.seed(content)
    began = trio.current_time()
    await trio.sleep(0.4 * EVERY)
    assert hashed == []
    await until(lambda: len(hashed) == 4, within_s=0.6 * EVERY, every_s=10)
    assert pieces_of(hashed, content) == [0, 1, 2, 3]
    assert hashed[-1].at <= began + EVERY
    await trio.sleep(3 * EVERY)
    assert 12 <= len(hashed) <= 4 * 8
    assert (await scrub_of(world)).damaged == 0


async def test_a_download_counts_as_scrubbed_when_it_is_complete(
    world: World, content: Content, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    await download(world, content)
    await trio.sleep(0.4 * EVERY)
    assert hashed == []
    await trio.sleep(0.3 * EVERY)
    assert pieces_of(hashed, content) == [0, 1, 2, 3]


async def test_what_came_at_once_is_not_read_at_once(
    world: World, tmp_path: Path, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    for number in range(6):
        await world.seed(a_file(tmp_path / "original" / f"{number}.bin", size=PIECE, seed=number))
    await until(lambda: len(hashed) == 6, within_s=EVERY, every_s=10)
    assert len({one.name for one in hashed}) == 6
    times = sorted(one.at for one in hashed)
    assert times[-1] - times[0] > 0.3 * EVERY


async def test_nothing_is_read_where_it_is_turned_off(
    world: World, content: Content, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await scrubbing(world, None)
    await trio.sleep(5 * EVERY)
    assert hashed == []
    assert (await world.daemon.status()).scrub is None


async def test_one_that_is_paused_or_gone_is_left_out(
    world: World, content: Content, tmp_path: Path, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    other = a_file(tmp_path / "original" / "other.bin", seed=8)
    await scrubbing(world)
    await world.seed(content)
    await world.seed(other)
    await world.daemon.pause(content.manifest)
    await world.daemon.remove(other.manifest)
    await trio.sleep(2 * EVERY)
    assert hashed == []
    await world.daemon.resume(content.manifest)
    await trio.sleep(0.1 * EVERY)
    assert pieces_of(hashed, content) == [0, 1, 2, 3], "it is late, not new"


@pytest.mark.parametrize("change", ["pause", "remove", "replace"])
async def test_one_that_is_stopped_in_the_middle_is_read_no_further(
    world: World, tmp_path: Path, hashed: list[Hashed], change: str, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "weights.bin", size=40 * PIECE)
    await world.seed(content)
    world.daemon.disk = SlowExecutor(lambda: 0.5)
    await scrubbing(world)
    await until(lambda: len(hashed) == 10)
    if change == "pause":
        await world.daemon.pause(content.manifest)
    elif change == "remove":
        await world.daemon.remove(content.manifest)
    else:
        await world.seed(content)
    read = len(hashed)
    assert read < 25
    await trio.sleep(0.4 * EVERY)
    assert len(hashed) <= read + 1
    assert (await scrub_of(world)).file == ""


# Restarts and clocks


async def test_a_restart_does_not_begin_from_the_front(
    world: World, tmp_path: Path, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "weights.bin", size=100 * PIECE)
    await world.seed(content)
    world.daemon.disk = SlowExecutor(lambda: 2.0)
    await scrubbing(world)
    for _ in range(6):
        read = len(hashed)
        with trio.move_on_after(100):
            await until(lambda read=read: len(hashed) >= read + 40, within_s=200, every_s=1)  # type: ignore[misc]
        await world.daemon.restart()
    assert set(pieces_of(hashed, content)) == set(range(100))
    assert len(hashed) < 100 + 6 * 40


async def test_ages_last_over_a_restart(
    world: World, content: Content, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    await world.seed(content)
    await trio.sleep(0.3 * EVERY)
    await world.daemon.stop()
    assert content.manifest.file_id in remembered(world)
    await world.daemon.start()
    assert hashed == []
    await until(lambda: len(hashed) == 4, within_s=0.7 * EVERY, every_s=10)


@pytest.mark.parametrize("jump_s", [-100 * EVERY, 100 * EVERY])
async def test_a_clock_that_is_set_changes_nothing_while_the_daemon_runs(
    world: World, content: Content, hashed: list[Hashed], jump_s: float, autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    await world.seed(content)
    await trio.sleep(0.2 * EVERY)
    world.daemon.clock_ahead_s = jump_s
    await trio.sleep(0.2 * EVERY)
    assert hashed == []
    await trio.sleep(0.6 * EVERY)
    assert 4 <= len(hashed) <= 8, "at 0.45 of the period and of the next"
    await trio.sleep(2 * EVERY)
    assert 12 <= len(hashed) <= 28


@pytest.mark.parametrize("jump_s", [-100 * EVERY, 100 * EVERY])
async def test_a_clock_that_is_set_between_two_starts_costs_or_delays_one_scrub(
    world: World, content: Content, hashed: list[Hashed], jump_s: float, autojump_clock: MockClock
) -> None:
    await scrubbing(world)
    await world.seed(content)
    await trio.sleep(30)
    for _ in range(5):  # back and forth, and yet it comes to a scrub every hour
        world.daemon.clock_ahead_s += jump_s
        await world.daemon.restart()
        jump_s = -jump_s
        await trio.sleep(0.25 * EVERY)
        world.daemon.clock_ahead_s += jump_s
        await world.daemon.restart()
        jump_s = -jump_s
        await trio.sleep(EVERY)
    assert 5 * 4 <= len(hashed) <= 5 * 4 * 4


async def test_a_clock_that_was_ahead_once_does_not_keep_restarts_from_scrubbing(
    world: World, content: Content, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    world.daemon.clock_ahead_s = 10_000 * EVERY
    await scrubbing(world)
    await world.seed(content)
    await trio.sleep(100)
    world.daemon.clock_ahead_s = 0.0
    for _ in range(5):
        await world.daemon.restart()
        await trio.sleep(0.25 * EVERY)
    assert len(hashed) >= 4


# How quickly


async def test_the_rate_is_kept_and_a_quarter_of_it_while_the_host_is_busy(
    world: World, tmp_path: Path, hashed: list[Hashed], monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(scrubber, "MAX_SCRUB_RATE", PIECE)
    monkeypatch.setattr("daemons.client.scrub_plan.MAX_SCRUB_RATE", PIECE)
    content = a_file(tmp_path / "original" / "weights.bin", size=200 * PIECE)
    file_id = await world.seed(content)
    await scrubbing(world, 60)  # so that it is always late
    await trio.sleep(20)
    assert 18 <= len(hashed) <= 21
    world.network.set_link("10.0.1.1", link(rate=4e6))
    async with fetching(world, file_id, ip="10.0.1.1") as fetcher:
        with trio.move_on_after(20):
            before = len(hashed)
            for piece in range(200):
                await fetcher.ask(piece)
                await fetcher.receive()
    assert 4 <= len(hashed) - before <= 8
    await trio.sleep(5)
    before = len(hashed)
    await trio.sleep(20)
    assert 18 <= len(hashed) - before <= 21


async def test_it_makes_room_while_somebody_hashes(
    world: World, tmp_path: Path, hashed: list[Hashed], autojump_clock: MockClock
) -> None:
    busy = [False]
    made = scrubber.Scrubber(
        *(None, None, None),  # type: ignore[arg-type]
        every_s=EVERY,
        wall_clock=lambda: 0.0,
        is_disk_busy=lambda: busy[0],
    )
    made._library = []  # type: ignore[assignment]
    made._planned_at = trio.current_time()
    seconds = []
    for busy[0] in (False, True):
        began = trio.current_time()
        await made._rest(MAX_SCRUB_RATE, began)
        seconds.append(trio.current_time() - began)
    assert seconds == [pytest.approx(1.0), pytest.approx(4.0)]


async def test_a_disk_that_never_answers_holds_up_nobody_elses_files(
    world: World,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
    log_records: LogRecords,
    autojump_clock: MockClock,
) -> None:
    await world.seed(content)
    monkeypatch.setattr(scrubber, "SCRUB_STUCK_S", 20)
    await scrubbing(world)
    answers = trio.Event()

    async def run(function: Callable[..., object], *args: object) -> object:
        await answers.wait()
        return function(*args)

    world.daemon.disk.run = run  # type: ignore[method-assign,assignment]
    await trio.sleep(0.8 * EVERY)
    said = [record for record in log_records.records if "has not answered" in str(record.get("reason", ""))]
    assert len(said) == 1
    answers.set()
    await trio.sleep(2 * EVERY)
    assert (await scrub_of(world)).finished_at is not None
