"""What a hostile master, or a bad disk, can do by orders and challenges."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import NoSpace
from interfiles.storage.database import Value
from interfiles.storage.executor import InlineExecutor
from interfiles.storage.leftovers import leftovers_in
from interfiles.storage.piece_store import keyed_digest
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from tests.daemons.client.world import World
from tests.storage.contents import Content, a_file

T = TypeVar("T")
Args = TypeVarTuple("Args")


def replicas(world: World) -> list[Path]:
    return list((world.daemon.state / "replicas").glob("*/*"))


async def test_an_order_answered_with_another_file_costs_no_copy_of_a_persons(
    world: World, autojump_clock: MockClock, content: Content
) -> None:
    await world.daemon.upload(content.root, copy=True)  # the person may delete the original now
    (copy,) = (world.daemon.state / "copies").glob("*/*")
    wanted = b"x" * 32

    async def answer(stream, message: Message) -> bool:  # type: ignore[no-untyped-def]
        if isinstance(message, m.Resolve) and message.query == wanted.hex():
            await stream.send(m.Resolved(message.request, world.master.info(content.manifest.file_id)))
            return True
        return False

    world.master.answer = answer
    await world.master.push(m.Order(wanted, content.manifest.size))
    await trio.sleep(5)
    assert copy.exists(), "the person's own copy was deleted"


async def test_an_order_of_a_size_that_is_not_the_files_keeps_to_the_quota(
    world: World, autojump_clock: MockClock, content: Content
) -> None:
    world.daemon.quota = content.manifest.size // 2
    await world.daemon.restart()
    await trio.sleep(5)
    world.master.catalogue[content.manifest.file_id] = content.manifest
    await world.master.push(m.Order(content.manifest.file_id, 0))
    await trio.sleep(5)
    (declined,) = world.master.messages(m.Declined)
    assert isinstance(declined, m.Declined)
    assert declined.text == "it has room for 393 kB of copies, by its quota of 393 kB, this one needs 786 kB"
    assert (declined.code, declined.rest_s, declined.whole_host) == ("no-space", 0.0, True)
    assert replicas(world) == []


class HangsOnChallenges(InlineExecutor):
    """A disk that never answers for one kind of work, as a dead NFS server."""

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        if function.__name__ == keyed_digest.__name__:
            await trio.sleep_forever()
        return await super().run(function, *args)


async def test_a_disk_that_does_not_answer_challenges_holds_up_no_orders(
    world: World, autojump_clock: MockClock, tmp_path: Path
) -> None:
    world.daemon.disk = HangsOnChallenges()
    await world.daemon.restart()
    await trio.sleep(5)
    mine, other = a_file(tmp_path / "mine" / "mine"), a_file(tmp_path / "other" / "other", seed=9)
    await world.seed(mine)
    world.master.catalogue[other.manifest.file_id] = other.manifest
    for number in range(4):
        await world.master.push(m.Challenge(number + 1, mine.manifest.file_id, 0, bytes(32)))
    await trio.sleep(3600)
    await world.master.push(m.Order(other.manifest.file_id, other.manifest.size))
    await trio.sleep(60)
    assert other.manifest.file_id in world.master.holdings, "the order is never looked at"


async def test_clearing_room_counts_what_others_have_reserved(
    world: World, autojump_clock: MockClock, tmp_path: Path
) -> None:
    """Two orders at once, a quota of three, and two leftovers: one of them must go."""
    from tests.daemons.client.setting import SlowExecutor

    one, two = (a_file(tmp_path / f"{n}" / f"w{n}", seed=30 + n) for n in range(2))
    size = one.manifest.size
    place = world.daemon.state / "leftovers"
    for number in range(2):
        left = place / f"{bytes([number + 1] * 32).hex()}-{size}"
        left.mkdir(parents=True)
        (left / "x").write_bytes(bytes(size))
    world.daemon.quota = 3 * size
    world.daemon.disk = SlowExecutor(lambda: 0.01)
    await world.daemon.restart()
    await trio.sleep(5)
    for each in (one, two):
        world.master.catalogue[each.manifest.file_id] = each.manifest
        await world.master.push(m.Order(each.manifest.file_id, size))
    await trio.sleep(5)
    assert len(replicas(world)) == 2
    assert len(leftovers_in(place)) == 1, "replicas and leftovers together are over the quota"


async def test_a_replica_that_cannot_be_given_up_is_declined_all_the_same(
    world: World, autojump_clock: MockClock, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, and so the job store, which is on it, cannot forget the record either."""
    from interfiles.storage.jobs import JobStore
    from interfiles.storage.part_store import PartStore

    def full(*_: object, **__: object) -> object:
        raise NoSpace("the disk is full")

    world.master.catalogue[content.manifest.file_id] = content.manifest
    await world.master.push(m.Order(content.manifest.file_id, content.manifest.size))
    await trio.sleep(3)
    assert content.manifest.file_id in world.master.holdings
    monkeypatch.setattr(PartStore, "open", full)
    monkeypatch.setattr(JobStore, "remove", full)
    await world.daemon.restart()
    await trio.sleep(60)
    assert world.master.messages(m.Declined), "the master waits for ten minutes"


async def test_a_full_disk_kept_a_replica_that_it_had_no_room_for(
    world: World, autojump_clock: MockClock, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job store, on the same disk, could not forget it while it was there: the master took it to be on its way."""
    from interfiles.storage.jobs import JobStore

    change = JobStore._change

    def full(jobs: JobStore, sql: str, *values: Value) -> None:
        if replicas(world):
            raise NoSpace("the disk is full")
        change(jobs, sql, *values)

    world.master.catalogue[content.manifest.file_id] = content.manifest
    await world.master.push(m.Order(content.manifest.file_id, content.manifest.size))
    await trio.sleep(3)
    assert content.manifest.file_id in world.master.holdings
    monkeypatch.setattr(JobStore, "_change", full)
    await world.daemon.restart()
    await trio.sleep(10)
    assert world.master.messages(m.Declined)
    assert world.master.holdings[content.manifest.file_id].state == "none"
    assert not replicas(world)
