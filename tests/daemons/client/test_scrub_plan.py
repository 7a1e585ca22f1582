"""The plan of the scrub: every copy in its time, none too often, spread out."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemons.client.scrub_plan import MAX_SCRUB_RATE, MIN_SCRUB_RATE, SPARE, SPREAD, Aged, plan_scrubs

DAY = 86_400.0
MONTH = 30 * DAY
TB = 10**12

ages = st.floats(0, 2 * MONTH)
copies = st.lists(st.builds(Aged, st.integers(0, 20 * TB), ages), max_size=30)
fleets = st.lists(st.integers(0, 5 * TB), min_size=1, max_size=12)


@dataclass(frozen=True)
class Read:
    """A scrub of one copy, as it was carried out: `age_s` when it ended."""

    copy: int
    began_at: float
    age_s: float


def carried_out(sizes: list[int], ages_s: list[float], for_s: float, *, look_s: float = DAY / 6) -> list[Read]:
    """Carry out the plans for a while as a disk does that takes no time of its own."""
    now, last, reads = 0.0, [-age for age in ages_s], list[Read]()
    while now < for_s:
        planned_at = now
        plan = plan_scrubs([Aged(size, now - at) for size, at in zip(sizes, last, strict=True)], MONTH)
        for copy in plan.due:
            began_at, now = now, now + sizes[copy] / plan.rate + 0.001
            reads.append(Read(copy, began_at, now - last[copy]))
            last[copy] = now
            if now > planned_at + look_s:
                break
        else:
            now += look_s
    return reads


@given(copies)
def test_what_is_over_its_time_is_due_and_what_is_young_is_not(copies: list[Aged]) -> None:
    plan = plan_scrubs(copies, MONTH)
    due = set(plan.due)
    assert len(due) == len(plan.due)
    assert {at for at, copy in enumerate(copies) if copy.age_s >= MONTH} <= due
    youngest = MONTH * (1 - SPREAD - SPARE) - 1
    assert not {at for at, copy in enumerate(copies) if copy.age_s < youngest} & due
    assert MIN_SCRUB_RATE <= plan.rate <= MAX_SCRUB_RATE


@given(copies)
def test_the_oldest_come_first(copies: list[Aged]) -> None:
    due = [copies[at].age_s for at in plan_scrubs(copies, MONTH).due]
    assert due == sorted(due, reverse=True)
    rest = [copy.age_s for at, copy in enumerate(copies) if at not in plan_scrubs(copies, MONTH).due]
    assert not due or not rest or min(due) >= max(rest)


@given(copies)
def test_who_is_late_reads_as_quickly_as_is_allowed(copies: list[Aged]) -> None:
    late = [copy for copy in copies if copy.age_s >= MONTH]
    assert not late or plan_scrubs(copies, MONTH).rate == MAX_SCRUB_RATE


@given(fleets)
def test_every_copy_is_scrubbed_within_its_time_and_seldom_more_than_twice(sizes: list[int]) -> None:
    reads = carried_out(sizes, [0.0] * len(sizes), 4 * MONTH)
    for copy in range(len(sizes)):
        mine = [read for read in reads if read.copy == copy]
        assert all(read.age_s <= MONTH for read in mine)
        assert len(mine) >= 3
        assert all(later.began_at - earlier.began_at > MONTH * (0.4 - SPARE) for earlier, later in pairwise(mine))


@given(fleets, st.data())
def test_a_host_that_was_off_for_long_catches_up_once(sizes: list[int], data: st.DataObject) -> None:
    off = [data.draw(st.floats(MONTH, 100 * MONTH)) for _ in sizes]
    reads = carried_out(sizes, off, 3 * MONTH)
    catching_up_s = sum(sizes) / MAX_SCRUB_RATE
    first = [next(read for read in reads if read.copy == copy) for copy in range(len(sizes))]
    assert max(read.began_at for read in first) <= catching_up_s + len(sizes)
    again = [read for read in reads if read not in first]
    assert all(read.age_s <= MONTH for read in again)
    assert len(again) <= len(sizes) * 7, "once every 0.45 of the time at most"


def test_copies_that_came_on_one_day_are_spread_over_half_of_the_time() -> None:
    reads = carried_out([TB] * 10, [0.0] * 10, MONTH)
    began = [read.began_at / DAY for read in reads[:10]]
    assert began[0] == pytest.approx(0.45 * 30, abs=0.3)
    assert all(1.2 < later - earlier < 1.8 for earlier, later in pairwise(began))


def test_nothing_to_do() -> None:
    assert plan_scrubs([], MONTH).due == ()
    assert plan_scrubs([Aged(0, 0.0)], MONTH).due == ()
    assert plan_scrubs([Aged(0, MONTH)], MONTH).due == (0,)


def test_one_large_copy_is_read_at_the_rate_that_it_needs() -> None:
    plan = plan_scrubs([Aged(20 * TB, 0.45 * MONTH + 1)], MONTH)
    assert plan.due == (0,)
    assert plan.rate == pytest.approx(20 * TB / (MONTH / 2), rel=0.01)
