"""Two hundred hosts in virtual time, and what becomes of their copies when racks, networks and hosts fail."""

from contextlib import closing
from pathlib import Path

import apsw
import pytest
import trio
from trio.testing import MockClock

from daemons.master.challenges import EACH_HOST_S
from daemons.master.reconciler import COALESCE_S
from interfiles.placement.doubts import ASK_AGAIN_S, DOUBT_S
from interfiles.wire import master_messages as m
from tests.sim.scripted_hosts import CATALOGUE, GRACE_S, TAKES_S, TRIM_S, Answer, ScriptedFleet, scripted_fleet

ROUND_S = 2.0
AT_ONCE = 32  # copies that may be under way


def waves(copies: int) -> float:
    """For how long so many copies are made at most, as many at once as may be."""
    return (copies + AT_ONCE - 1) // AT_ONCE * (TAKES_S + 3 * ROUND_S)


def failures(fleet: ScriptedFleet) -> list[tuple[str, str]]:
    """The host and the reason of every copy that could not be made."""
    return [(event.host_name, event.reason) for event in fleet.log() if event.kind == "failed"]


async def test_a_rack_fails(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        rack = fleet.hosts[:20]
        lost = sum(len(host.held) for host in rack)
        for host in rack:
            host.disconnect()
        await trio.sleep(GRACE_S - 5)
        assert fleet.told(m.Order) == 0, "within the grace time nothing moves"
        assert min(fleet.copies()) == 2
        await fleet.until(lambda: min(fleet.copies()) == 3, within_s=5 + waves(lost), keep=fleet.keep_caps)
        assert fleet.told(m.Order) == lost, "each copy is made once"
        await trio.sleep(ROUND_S)
        assert fleet.happened("ordered") == fleet.happened("complete") == lost
        assert fleet.most_in_a_zone() == 1
        for host in rack:
            host.connect()
        await trio.sleep(TRIM_S - 5)
        assert fleet.told(m.Release) == 0
        await trio.sleep(60)
        assert fleet.copies() == [3] * len(fleet.files)
        assert fleet.most_in_a_zone() == 1


async def test_all_hosts_are_restarted_one_after_the_other(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        for host in fleet.hosts:
            host.disconnect()
            await trio.sleep(3)
            host.connect()
        await trio.sleep(GRACE_S + 70)
        assert fleet.nothing_was_moved()


async def test_a_host_takes_nearly_the_grace_time_to_restart(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        for host in fleet.hosts[:20]:
            host.disconnect()
        await trio.sleep(GRACE_S - 5)
        for host in fleet.hosts[:20]:
            host.connect()
        await trio.sleep(TRIM_S)
        assert fleet.nothing_was_moved()


async def test_a_partition_heals(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        away = fleet.hosts[100:]
        own = [(host, file_id) for host in fleet.hosts for file_id, one in host.held.items() if not one.ordered]
        for host in away:
            host.disconnect()
        reachable = [file_id for file_id in fleet.files if fleet.sources(file_id)]
        lost = sum(3 - len(fleet.sources(file_id)) for file_id in reachable)

        def is_whole() -> bool:
            return all(len(fleet.sources(file_id)) == 3 for file_id in reachable)

        await fleet.until(is_whole, within_s=GRACE_S + 5 + waves(lost), keep=fleet.keep_caps)
        assert fleet.told(m.Order) == lost
        for host in away:
            host.connect()
        assert sum(fleet.copies()) == 600 + lost
        await trio.sleep(TRIM_S - 5)
        assert fleet.told(m.Release) == 0, "what is too much is kept for a while"

        def keep() -> None:
            assert min(fleet.copies()) >= 3

        await fleet.until(lambda: fleet.copies() == [3] * len(fleet.files), within_s=120, keep=keep)
        await trio.sleep(ROUND_S)
        assert fleet.told(m.Release) == fleet.happened("released") == lost
        assert all(file_id in host.held for host, file_id in own)
        assert fleet.most_in_a_zone() == 1


async def test_a_host_that_comes_and_goes(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        flapping = fleet.hosts[0]
        for number in range(200):  # more than fits into one announcement
            flapping.held[b"%032d" % number] = m.Holding(b"%032d" % number, "complete", 1, 0, 0, "", False)
        for _ in range(150):
            flapping.disconnect()
            await trio.sleep(0.7)
            flapping.connect()
            await trio.sleep(3.3)
        assert fleet.nothing_was_moved()


async def test_orders_go_past_a_host_that_comes_and_goes(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is the one with the most room, and never there long enough to answer."""
    async with scripted_fleet(tmp_path) as fleet:
        flapping = fleet.hosts[0]
        flapping.free, flapping.answers = 1 << 50, "silent"
        for host in fleet.hosts[180:]:
            host.disconnect()
        await trio.sleep(1)  # so that it is there when the others are found gone
        for _ in range(150):
            flapping.disconnect()
            await trio.sleep(2)
            flapping.connect()
            await trio.sleep(2)
        assert min(fleet.copies()) == 3
        assert 1 <= flapping.told(m.Order) <= 8
        assert failures(fleet) == [(flapping.name, "its connection ended before it answered")] * flapping.told(m.Order)


@pytest.mark.parametrize(
    ("answers", "most_orders", "reason"),
    [
        ("silent", 8, "it did not answer within 30 s"),
        ("full", 8, "no room"),
        ("stuck", 8, "no room"),
        ("decline", 32, "no room"),
    ],
)
async def test_a_host_that_does_not_do_what_it_is_told(
    answers: Answer, most_orders: int, reason: str, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        bad = fleet.hosts[0]
        bad.free, bad.answers = 1 << 50, answers
        for host in fleet.hosts[140:]:
            host.disconnect()
        await fleet.until(lambda: bool(fleet.reconciler.why_no_orders(bad.host_id)), within_s=GRACE_S + 100)
        why = fleet.reconciler.why_no_orders(bad.host_id)
        assert why.startswith("it failed and is given no copies for "), "for a minute, the first time"
        await fleet.until(lambda: min(fleet.copies()) == 3, within_s=GRACE_S + waves(180) + 60, keep=fleet.keep_caps)
        assert 1 <= bad.told(m.Order) <= most_orders
        assert failures(fleet) == [(bad.name, reason)] * bad.told(m.Order)


async def test_a_host_that_has_not_what_it_says(tmp_path: Path, autojump_clock: MockClock) -> None:
    """It is found out by challenges, and then every file has as many true copies as are wanted, as long as it lies."""
    async with scripted_fleet(tmp_path) as fleet:
        liar = fleet.hosts[0]
        liar.lies = set(liar.held)
        assert sorted(set(fleet.copies())) == [2, 3]
        await fleet.until(lambda: set(fleet.copies()) == {3}, within_s=6 * EACH_HOST_S)
        await trio.sleep(2 * DOUBT_S)
        assert set(fleet.copies()) == {3}
        assert (fleet.told(m.Order), fleet.told(m.Release)) == (len(liar.lies), 0), "a doubt outlives its hour"
        doubted = [(event.host_name, event.file) for event in fleet.log() if event.kind == "corrupt"]
        assert sorted(doubted) == sorted((liar.name, file_id) for file_id in liar.lies), "each is told once"

        liar.lies = set()
        await trio.sleep(2 * ASK_AGAIN_S + TRIM_S + 60)
        assert fleet.copies() == [3] * len(fleet.files), "its copies count again, and what is too much is given up"
        assert fleet.happened("released") == fleet.told(m.Release) > 0


async def test_what_nobody_told_is_found_within_about_a_minute(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        more, less = fleet.files[17], fleet.files[42]
        with closing(apsw.Connection(str(tmp_path / CATALOGUE))) as behind_its_back, behind_its_back:
            for file_id, count in ((more, 4), (less, 2)):
                behind_its_back.execute("UPDATE files SET replicas = ? WHERE file_id = ?", (count, file_id))
        await fleet.until(lambda: fleet.told(m.Order) == 1, within_s=60 + ROUND_S)
        await fleet.until(lambda: len(fleet.sources(more)) == 4, within_s=TAKES_S + ROUND_S)
        await fleet.until(lambda: len(fleet.sources(less)) == 2, within_s=TRIM_S + ROUND_S)
        assert (fleet.told(m.Order), fleet.told(m.Release)) == (1, 1)
        assert sorted(fleet.copies()) == [2, *[3] * (len(fleet.files) - 2), 4]


@pytest.mark.parametrize("away_s", [5.0, GRACE_S - 5, 5 * GRACE_S])
async def test_the_master_is_away_and_hosts_come_back_little_by_little(
    away_s: float, tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        fleet.stop_master()
        await trio.sleep(away_s)
        fleet.restart_master()
        for host in fleet.hosts:
            await trio.sleep(0.2)
            host.connect()
        await trio.sleep(TRIM_S + 100)
        assert fleet.nothing_was_moved()


async def test_the_master_is_restarted_while_copies_are_made(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with scripted_fleet(tmp_path) as fleet:
        for host in fleet.hosts[:20]:
            host.disconnect()
        await fleet.until(lambda: fleet.under_way().total() == AT_ONCE, within_s=GRACE_S + 10)
        fleet.stop_master()
        await trio.sleep(10)
        fleet.restart_master()
        for host in fleet.hosts[20:]:
            await trio.sleep(0.05)
            host.connect()
        await fleet.until(lambda: min(fleet.copies()) == 3, within_s=2 * GRACE_S + waves(60), keep=fleet.keep_caps)
        assert fleet.told(m.Order) == 60, "what was under way is not ordered anew"


async def test_what_was_ordered_of_a_host_that_dies_before_it_answers_is_ordered_elsewhere_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scripted_fleet(tmp_path, hosts=20, files=1) as fleet:
        (file_id,) = fleet.files
        for host in fleet.hosts:
            host.answers = "silent"
        holder = next(host for host in fleet.hosts if file_id in host.held and host.held[file_id].ordered)
        holder.hold(file_id, "none", 0)
        await fleet.until(lambda: fleet.told(m.Order) == 1, within_s=5)
        (asked,) = (host for host in fleet.hosts if host.told(m.Order))
        asked.disconnect()
        await fleet.until(lambda: fleet.told(m.Order) == 2, within_s=2)
        (other,) = (host for host in fleet.hosts if host.told(m.Order) and host is not asked)
        other.wire = None  # it is removed from the fleet
        del fleet.connections[other.host_id]
        fleet.reconciler.forget_host(other.host_id)
        fleet.reconciler.touch(fleet.registry.remove(other.host_id))
        await fleet.until(lambda: fleet.told(m.Order) == 3, within_s=2)


async def test_a_host_that_has_made_a_copy_is_given_the_next_in_the_same_moment(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with scripted_fleet(tmp_path, hosts=4, files=40, zones=4) as fleet:
        gone, *rest = fleet.hosts
        for host in rest:
            host.takes_s = 0.2
        began, lost = trio.current_time(), len(gone.held)
        assert lost == 30, "each of them can be on one other host only"
        gone.disconnect()
        await fleet.until(lambda: min(fleet.copies()) == 3, within_s=GRACE_S + 15)
        took = trio.current_time() - began - GRACE_S
        assert took < lost / 3 / 2 * (0.2 + 4 * COALESCE_S), "two at once on each of three hosts"
