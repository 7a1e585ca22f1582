"""Rot that is found by hashing everything again, in virtual time: found, withdrawn and told; and what is none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client import scrubber
from daemons.client.callers import Caller
from daemons.client.local_file import LocalFile
from daemons.client.notice import Notice
from interfiles.storage.acting import Owner
from interfiles.storage.records import FileRecord
from tests.conftest import LogRecords
from tests.daemons.client.peers import fetching
from tests.daemons.client.scrubs import (
    EVERY,
    Hashed,
    download,
    pieces_of,
    rot,
    scrub_of,
    scrubbing,
    warnings,
    watched,
)
from tests.daemons.client.setting import SlowExecutor, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file, path_of


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Hashed]:
    """What is hashed from the disk from now on."""
    return watched(monkeypatch)


async def test_rot_is_found_withdrawn_and_told(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    rot(content, 1, 3)
    await scrubbing(world)
    await until(lambda: warnings(log_records, "rot"))
    await until(lambda: len(warnings(log_records, "bad pieces")) == 2 or world.master.holdings[file_id].pieces == 2)
    assert [record["piece"] for record in warnings(log_records, "rot")] == [1, 3]
    stat = await world.daemon.stat(content.manifest)
    assert (stat.local.state, stat.local.doing, stat.local.pieces) == ("partial", "damaged", 2)
    assert stat.local.note == "2 pieces on disk do not match their hashes (1, 3)"
    await until(lambda: world.master.holdings[file_id].state == "damaged")
    async with fetching(world, file_id) as fetcher:
        await fetcher.ask(0)
        assert (await fetcher.receive())[1] == content.piece(0)
    await until(_is_at_rest(world))
    report = await scrub_of(world)
    assert (report.damaged, report.due, report.finished_at is not None) == (1, 0, True)


async def test_a_file_that_goes_while_it_is_scrubbed_was_logged_as_a_failure(
    world: World, tmp_path: Path, hashed: list[Hashed], log_records: LogRecords, autojump_clock: MockClock
) -> None:
    """As a replica does when it is repaired: `failed task="scrubbing …" reason="… has no content on this host"`."""
    content = a_file(tmp_path / "original" / "weights.bin", size=60 * PIECE)
    await world.seed(content)
    await scrubbing(world)
    await until(lambda: hashed)
    await world.daemon.remove(content.manifest)
    await trio.sleep(EVERY)
    assert 0 < len(hashed) < 60
    assert [record for record in log_records.records if str(record.get("task", "")).startswith("scrubbing")] == []


def _is_at_rest(world: World) -> Callable[[], object]:
    async def look() -> bool:
        report = await scrub_of(world)
        return report.due == 0 and not report.file

    return look


async def test_what_rots_later_is_told_with_what_was_bad_before_and_stays_through_a_restart(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    rot(content, 3)
    await scrubbing(world)
    await until(lambda: warnings(log_records, "bad pieces"))
    rot(content, 0)
    await trio.sleep(1.1 * EVERY)
    await world.daemon.restart()
    local = (await world.daemon.stat(content.manifest)).local
    assert (local.pieces, local.note) == (2, "2 pieces on disk do not match their hashes (0, 3)")


async def test_a_download_mends_what_the_scrub_has_found(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await download(world, content)
    rot(content, 2, root=world.daemon.got / "weights.bin")
    await scrubbing(world)
    await until(lambda: warnings(log_records, "bad pieces"), within_s=2 * EVERY, every_s=10)
    report = await download(world, content, overwrite=True)
    assert report.bytes_from_peers == {"honest": PIECE}
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data
    assert (await scrub_of(world)).damaged == 0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_what_a_person_has_changed_is_no_rot(
    world: World, content: Content, log_records: LogRecords, hashed: list[Hashed], when: str, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.stop()
    if when == "meanwhile":
        world.daemon.disk = SlowExecutor(lambda: 0.5)
    else:
        content.root.write_bytes(b"another " * 10_000)
    world.daemon.scrub_every_s = EVERY
    await world.daemon.start()
    if when == "meanwhile":
        await until(lambda: hashed)
        content.root.write_bytes(content.data[:PIECE] + b"edited" * 100_000)
    await trio.sleep(100)
    local = (await world.daemon.stat(content.manifest)).local
    assert (local.state, local.doing) == ("none", "withdrawn")
    assert "weights.bin has changed" in local.note
    assert warnings(log_records, "rot") == warnings(log_records, "bad pieces") == []


async def test_what_a_disk_does_not_give_is_bad(
    world: World, content: Content, failing: Failing, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    failing("preadv", 5, when=lambda fd, _, offset, *_flags: offset < PIECE and path_of(fd) == str(content.root))
    await scrubbing(world)
    await until(lambda: warnings(log_records, "bad pieces"))
    assert (await world.daemon.stat(content.manifest)).local.pieces == 3


async def test_many_bad_pieces_are_reported_a_few_times(
    world: World, tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "weights.bin", size=60 * PIECE)
    await world.seed(content)
    rot(content, *range(60))
    world.daemon.disk = SlowExecutor(lambda: 0.2)
    await scrubbing(world)
    await trio.sleep(0.2 * EVERY)
    assert len(warnings(log_records, "rot")) == 60
    assert 1 < len(warnings(log_records, "bad pieces")) < 10
    assert (await world.daemon.stat(content.manifest)).local.pieces == 0


async def test_one_that_may_not_be_read_is_tried_again_later_and_holds_up_no_other(
    world: World,
    content: Content,
    tmp_path: Path,
    failing: Failing,
    monkeypatch: pytest.MonkeyPatch,
    hashed: list[Hashed],
    log_records: LogRecords,
    autojump_clock: MockClock,
) -> None:
    other = a_file(tmp_path / "original" / "other.bin", seed=8)
    await world.seed(content)
    await world.seed(other)
    monkeypatch.setattr(scrubber, "SCRUB_RETRY_S", 60)
    failing("open", 13, when=lambda path, *_, **__: os.fsencode(path).endswith(b"weights.bin"))
    await scrubbing(world)
    await trio.sleep(0.4 * EVERY)
    assert pieces_of(hashed, content) == [0, 0], "once a minute"
    assert pieces_of(hashed, other) == [0, 1, 2, 3]
    assert warnings(log_records, "bad pieces") == []


async def test_another_users_file_is_not_named(content: Content, autojump_clock: MockClock) -> None:
    record = FileRecord(
        *(content.manifest.file_id, content.manifest.encode(), b"/secret", None, "seeding", False, 0, "x", 0, False),
        *(b"", content.all_pieces.to_bytes(), 0, {}, 0, 0.0, "", False),
        owner=Owner(1000, 1000),
    )
    file = LocalFile(record, content.manifest, Notice(), now=0.0)
    made = scrubber.Scrubber(
        *([], None, None),  # type: ignore[arg-type]
        every_s=EVERY,
        wall_clock=lambda: 0.0,
        is_disk_busy=lambda: False,
    )
    made._current = scrubber._Kept(file, 0.0, position=1)
    for caller in (Caller(), Caller(Owner(1000, 1000))):
        report = made.report(caller)
        assert report is not None
        assert (report.name, report.size, report.bytes_done) == ("weights.bin", content.manifest.size, PIECE)
    hidden = made.report(Caller(Owner(1001, 1001)))
    assert hidden is not None
    assert (hidden.file, hidden.name, hidden.size, hidden.bytes_done) == ("", "", 0, 0)
