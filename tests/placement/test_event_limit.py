"""One host's events do not push out those of others."""

from interfiles.placement.event_limit import MAX_EVENTS_A_MINUTE, EventLimit, LeftOut


def test_so_many_are_told_and_the_others_counted_once_the_minute_is_over() -> None:
    limit = EventLimit()
    told = [limit.admits("lost", "a", now=second) for second in range(59) for _ in range(2)]
    assert told == [True] * MAX_EVENTS_A_MINUTE + [False] * (2 * 59 - MAX_EVENTS_A_MINUTE)
    assert limit.over(59.9) == []
    assert limit.over(60.0) == [LeftOut("a", "lost", 2 * 59 - MAX_EVENTS_A_MINUTE)]
    assert limit.over(1000.0) == [], "told once"
    assert limit.admits("lost", "a", now=61.0)


def test_each_host_and_each_kind_has_its_own() -> None:
    limit = EventLimit()
    while limit.admits("corrupt", "a", now=0.0):
        pass
    assert limit.admits("lost", "a", now=0.0)
    assert limit.admits("corrupt", "b", now=0.0)
    assert not limit.admits("corrupt", "a", now=0.0)


def test_where_none_is_left_out_nothing_is_counted() -> None:
    limit = EventLimit()
    assert limit.admits("failed", "a", now=0.0)
    assert limit.over(60.0) == []


def test_what_the_master_does_by_itself_is_always_told() -> None:
    limit = EventLimit()
    assert all(limit.admits("ordered", "a", now=0.0) for _ in range(10 * MAX_EVENTS_A_MINUTE))
