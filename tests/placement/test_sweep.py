"""A look at everything, spread over its time."""

from itertools import pairwise

from interfiles.placement.sweep import Sweep


def sweep_until(sweep: Sweep, now: float, *, left: int, page: int = 10) -> int:
    """Look at as many of the files that are left as are due, page by page; return how many are left then."""
    while sweep.is_behind(now):
        if not sweep.is_under_way:
            sweep.begin(now)
        if not left:
            sweep.end()
            break
        sweep.saw(min(page, left), b"x")
        left -= min(page, left)
    return left


def test_the_first_is_done_at_once_and_the_next_in_its_time() -> None:
    sweep = Sweep(60)
    assert sweep_until(sweep, 100, left=1000) == 0
    assert not sweep.is_behind(159.9)
    left = [sweep_until(sweep, 160, left=1000)]
    for now in range(162, 222, 2):
        left.append(sweep_until(sweep, now, left=left[-1]))
    looked_at = [before - after for before, after in pairwise(left)]
    assert left[-1] == 0
    assert max(looked_at) <= 40, "a thirtieth each two seconds, in whole pages"
    assert not sweep.is_under_way
    assert not sweep.is_behind(219.9)
    assert sweep.is_behind(220)


def test_what_came_meanwhile_is_looked_at_as_well() -> None:
    sweep = Sweep(60)
    sweep_until(sweep, 0, left=100)
    left = sweep_until(sweep, 60, left=1000)
    assert left == 990
    assert sweep_until(sweep, 119, left=left) == 900, "a hundred were known of"
    assert sweep_until(sweep, 120, left=900) == 0
