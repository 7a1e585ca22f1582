"""Who is waited for before anything is ordered."""

from interfiles.placement.awaited import LAST_SEEN_EVERY_S, Awaited
from interfiles.placement.host_facts import Room
from interfiles.wire.master_messages import HostState

GRACE_S = 120.0


def room(name: str, state: HostState, *, known: bool = False, heard_at: float = 0.0) -> Room:
    return Room(name, name, "", state, 0, is_known=known, heard_at=heard_at, draining=False)


def live(name: str, *, known: bool = True, heard_at: float = 0.0) -> Room:
    return room(name, "live", known=known, heard_at=heard_at)


def look(awaited: Awaited, rooms: list[Room], now: float) -> bool:
    for one in rooms:
        awaited.put(one)
    return awaited.look(now)


def test_a_host_that_was_removed_is_not_waited_for() -> None:
    awaited = Awaited(GRACE_S)
    assert look(awaited, [room("a", "gone", heard_at=-10.0), room("b", "gone", heard_at=-10.0)], 0.0)
    assert look(awaited, [live("a")], 1.0)
    awaited.drop("b")
    assert not awaited.look(2.0)


def test_a_new_fleet_waits_for_nobody() -> None:
    awaited = Awaited(GRACE_S)
    assert not look(awaited, [], 0.0)
    assert not look(awaited, [live("first")], 1.0)


def test_after_an_hour_away_it_waits_for_all_that_were_up() -> None:
    awaited = Awaited(GRACE_S)
    lost = [room("a", "gone", heard_at=-3600.0), room("b", "gone", heard_at=-3650.0)]
    assert look(awaited, lost, 0.0)
    assert look(awaited, [live("a"), lost[1]], 10.0)
    assert not look(awaited, [live("a"), live("b")], 20.0)


def test_nobody_is_waited_for_longer_than_the_grace_time_after_the_first_is_back() -> None:
    awaited = Awaited(GRACE_S)
    gone = room("b", "gone", heard_at=-10.0)
    assert look(awaited, [gone, room("a", "gone", heard_at=-10.0)], 0.0)
    assert look(awaited, [gone, live("a")], 50.0)
    assert look(awaited, [gone, live("a")], 50.0 + GRACE_S - 1)
    assert not look(awaited, [gone, live("a")], 50.0 + GRACE_S)


def test_who_was_gone_long_before_is_not_waited_for() -> None:
    long_ago = room("old", "gone", heard_at=-GRACE_S - LAST_SEEN_EVERY_S - 11.0)
    awaited = Awaited(GRACE_S)
    assert look(awaited, [long_ago, room("a", "suspect", heard_at=-10.0)], 0.0)
    assert not look(awaited, [long_ago, live("a")], 1.0)


def test_when_the_master_was_cut_off_it_waits_for_all_that_it_lost() -> None:
    awaited = Awaited(GRACE_S)
    assert not look(awaited, [live("a"), live("b")], 0.0)
    lost = [room("a", "gone", known=True, heard_at=1000.0), room("b", "gone", known=True, heard_at=1001.0)]
    assert look(awaited, lost, 1500.0)
    assert look(awaited, [live("a"), lost[1]], 1600.0), "the other may be a moment later"
    assert not look(awaited, [live("a"), live("b")], 1601.0)


def test_one_of_several_that_is_lost_is_not_waited_for() -> None:
    awaited = Awaited(GRACE_S)
    assert not look(awaited, [live("a"), live("b")], 0.0)
    assert not look(awaited, [live("a"), room("b", "suspect", known=True, heard_at=100.0)], 130.0)


def test_one_that_comes_back_and_never_says_what_it_holds_is_waited_for_once() -> None:
    awaited = Awaited(GRACE_S)
    long_ago = room("mute", "gone", heard_at=-1e6)
    assert look(awaited, [room("a", "gone", heard_at=-10.0), long_ago], 0.0)
    assert not look(awaited, [live("a"), long_ago], 1.0)
    assert look(awaited, [live("a"), live("mute", known=False)], 10.0)
    assert look(awaited, [live("a"), room("mute", "suspect")], 50.0)
    assert not look(awaited, [live("a"), live("mute", known=False)], 10.0 + GRACE_S)


def test_a_new_host_that_never_says_what_it_holds_is_not_waited_for() -> None:
    awaited = Awaited(GRACE_S)
    assert look(awaited, [room("a", "gone", heard_at=-10.0)], 0.0)
    assert look(awaited, [live("a", known=False)], 1.0)
    assert not look(awaited, [live("a")], 2.0)
    assert not look(awaited, [live("a"), live("mute", known=False)], 10.0)
    assert not look(awaited, [live("a"), room("mute", "suspect")], 50.0)
    assert not look(awaited, [live("a"), live("mute", known=False)], 60.0)


def test_one_that_said_what_it_holds_and_was_away_for_a_moment_is_not_waited_for() -> None:
    awaited = Awaited(GRACE_S)
    assert not look(awaited, [live("a")], 0.0)
    assert not look(awaited, [live("a"), live("new")], 10.0)
    assert not look(awaited, [live("a"), room("new", "suspect", known=True, heard_at=19.0)], 20.0)
    assert not look(awaited, [live("a"), live("new")], 30.0)
