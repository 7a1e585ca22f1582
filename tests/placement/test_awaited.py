"""Who is waited for before anything is ordered."""

from interfiles.placement.awaited import LAST_SEEN_EVERY_S, Awaited
from interfiles.placement.host_facts import Room
from interfiles.wire.master_messages import HostState

GRACE_S = 120.0


def room(name: str, state: HostState, *, known: bool, heard_at: float = 0.0) -> Room:
    return Room(name, name, "", state, 0, is_known=known, heard_at=heard_at, draining=False)


def test_a_new_master_without_hosts_waits_for_nobody() -> None:
    assert not Awaited(GRACE_S).look([], 0.0)


def test_after_an_hour_away_it_waits_for_all_that_were_up() -> None:
    awaited = Awaited(GRACE_S)
    lost = [room("a", "gone", known=False, heard_at=-3600.0), room("b", "gone", known=False, heard_at=-3650.0)]
    assert awaited.look(lost, 0.0)
    assert awaited.look([room("a", "live", known=True), lost[1]], 10.0)
    assert not awaited.look([room("a", "live", known=True), room("b", "live", known=True)], 20.0)


def test_nobody_is_waited_for_longer_than_the_grace_time() -> None:
    awaited = Awaited(GRACE_S)
    gone = room("b", "gone", known=False, heard_at=-10.0)
    assert awaited.look([gone], 0.0)
    assert awaited.look([gone], GRACE_S - 1)
    assert not awaited.look([gone], GRACE_S)


def test_who_was_gone_long_before_is_not_waited_for() -> None:
    long_ago = room("old", "gone", known=False, heard_at=-GRACE_S - LAST_SEEN_EVERY_S - 11.0)
    awaited = Awaited(GRACE_S)
    assert awaited.look([long_ago, room("a", "suspect", known=False, heard_at=-10.0)], 0.0)
    assert not awaited.look([long_ago, room("a", "live", known=True)], 1.0)


def test_one_that_comes_and_never_says_what_it_holds_is_waited_for_once() -> None:
    awaited = Awaited(GRACE_S)
    assert not awaited.look([], 0.0)
    assert awaited.look([room("mute", "live", known=False)], 10.0)
    assert awaited.look([room("mute", "suspect", known=False)], 50.0)
    assert not awaited.look([room("mute", "live", known=False)], 10.0 + GRACE_S)
