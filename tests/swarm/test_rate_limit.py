"""The limit on a rate, in hand-made time: never more than it, nearly all of it, at once another, and fair."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.swarm import rate_limit as rl
from interfiles.swarm.rate_limit import RateLimit, SlotCount, Turn

RATES = st.integers(rl.MIN_RATE, 10**9)
RATE = 1_000_000


class Saturated:
    """Flows that always have more to send, and wake `late_s` after the moment when they may."""

    def __init__(self, limit: RateLimit, weights: dict[str, float], *, late_s: float = 0.0) -> None:
        self.limit, self.weights, self.late_s, self.now = limit, weights, late_s, 0.0
        self.turns = {flow: self.join(flow) for flow in weights}
        self.passed: list[tuple[float, str, int]] = []

    def join(self, flow: str) -> Turn:
        return self.limit.join(flow, self.limit.part_bytes(1 << 20), self.weights[flow])

    def step(self, *, until: float = float("inf")) -> bool:
        """Pass the next part if that is before `until`."""
        first = self.limit.first()
        assert first is not None
        wait_s = self.limit.wait_s(first, self.now)
        if self.now + wait_s + self.late_s > until:
            self.now = until
            return False
        self.now += wait_s + (self.late_s if wait_s else 0.0)
        assert self.limit.take(first, self.now)
        self.passed.append((self.now, first.flow, first.count))
        self.turns[first.flow] = self.join(first.flow)
        return True

    def run(self, until: float) -> None:
        while self.step(until=until):
            pass

    def bytes_by_flow(self) -> Counter[str]:
        counted = Counter[str]()
        for _, flow, count in self.passed:
            counted[flow] += count
        return counted


def check_never_more(passed: list[tuple[float, str, int]], rate: int, burst: float) -> None:
    """Over no interval more than rate times time and a burst: the least slack so far must never be passed by it."""
    sent, highest = 0, float("-inf")
    for at, _, count in passed:
        highest = max(highest, at * rate - sent)
        sent += count
        assert sent - at * rate + highest <= burst + 1 + 1e-6 * sent


@settings(max_examples=60, deadline=None)
@given(RATES, st.integers(1, 8), st.sampled_from([0.0, 0.001, 0.04]))
def test_no_more_than_the_rate_passes_and_no_less_than_nineteen_twentieths(
    rate: int, flows: int, late_s: float
) -> None:
    made = Saturated(RateLimit(rate, 0.0), dict.fromkeys("abcdefgh"[:flows], 1.0), late_s=late_s)
    made.run(1.0)
    warm = made.limit.passed
    made.run(11.0)
    check_never_more(made.passed, rate, made.limit.burst)
    assert made.limit.passed - warm >= 0.95 * rate * 10


@settings(max_examples=100, deadline=None)
@given(RATES, st.lists(st.tuples(st.floats(0, 2), st.sampled_from("abc"), st.integers(1, 300_000)), max_size=40))
def test_who_comes_now_and_then_gets_no_more_either(rate: int, comers: list[tuple[float, str, int]]) -> None:
    limit, now = RateLimit(rate, 0.0), 0.0
    passed: list[tuple[float, str, int]] = []
    for pause_s, flow, wanted in comers:
        now += pause_s
        turn = limit.join(flow, limit.part_bytes(wanted), 1.0)
        now += limit.wait_s(turn, now)
        assert limit.take(turn, now)
        passed.append((now, flow, turn.count))
    check_never_more(passed, rate, limit.burst)
    assert limit.first() is None


@pytest.mark.parametrize("other", [RATE * 10, RATE // 10])
def test_another_rate_holds_from_that_moment(other: int) -> None:
    made = Saturated(RateLimit(RATE, 0.0), {"a": 1.0, "b": 1.0})
    made.run(2.0)
    before = made.limit.passed
    made.limit.change(other, made.now)
    made.turns = {flow: made.join(flow) for flow in made.weights}
    made.run(3.0)
    assert made.limit.passed - before == pytest.approx(other, rel=0.1, abs=2 * RATE * rl.PART_S)
    made.run(13.0)
    check_never_more([entry for entry in made.passed if entry[0] > 3.0], other, made.limit.burst)


def test_without_a_limit_nobody_waits() -> None:
    limit = RateLimit(RATE, 0.0)
    waiting = [limit.join(flow, 250_000, 1.0) for flow in "abc"]
    assert limit.wait_s(waiting[0], 0.0) == pytest.approx(0.1)
    assert limit.wait_s(waiting[1], 0.0) == float("inf")
    limit.change(None, 0.0)
    assert limit.part_bytes(1 << 20) == 1 << 20
    waiting = [limit.join(flow, 250_000, 1.0) for flow in "abc"]
    for turn in reversed(waiting):
        assert limit.wait_s(turn, 0.0) == 0.0
        assert limit.take(turn, 0.0)
    limit.change(RATE, 100.0)
    turn = limit.join("a", 50_000, 1.0)
    assert not limit.take(turn, 100.0), "what did not pass before gives no credit"


def test_what_passed_without_a_limit_is_no_debt_under_the_next() -> None:
    limit = RateLimit(None, 0.0)
    for second in range(10):
        assert limit.take(limit.join("a", 250_000, 1.0), float(second))
    limit.change(rl.MIN_RATE, 10.0)
    assert limit.wait_s(limit.join("a", 1_000, 1.0), 10.0) == pytest.approx(0.1)


def test_what_was_on_credit_is_no_debt_under_another_limit() -> None:
    limit = RateLimit(RATE, 0.0)
    assert limit.take(limit.join("a", 256 << 10, 1.0), 10.0)
    limit.change(rl.MIN_RATE, 10.0)
    assert limit.wait_s(limit.join("a", 1_000, 1.0), 10.0) == pytest.approx(0.1)


def test_a_change_ends_all_turns_and_who_joins_again_stands_where_it_stood() -> None:
    limit = RateLimit(100 * RATE, 0.0)
    first, second = limit.join("low", limit.part_bytes(1 << 20), 0.25), limit.join("high", 1_000, 4.0)
    limit.leave(gone := limit.join("gone", 1_000, 1.0))
    limit.change(RATE // 10, 1.0)
    assert [limit.is_ended(turn) for turn in (first, second, gone)] == [True] * 3
    assert not limit.take(first, 100.0)
    limit.leave(first)
    assert limit.first() is None
    again = limit.join("low", limit.part_bytes(1 << 20), 0.25)
    assert again.count <= RATE // 10 * rl.PART_S
    assert again.start == first.start, "what did not pass does not count"
    assert not limit.is_ended(again)
    assert limit.take(again, 101.0)


def test_who_waits_no_more_keeps_nobody_and_gives_nothing_away() -> None:
    limit = RateLimit(RATE, 0.0)
    first, second = limit.join("a", 50_000, 1.0), limit.join("b", 50_000, 1.0)
    assert not limit.take(second, 10.0), "the other is first"
    limit.leave(first)
    assert limit.take(second, 10.0)
    assert (limit.first(), limit.passed) == (None, 50_000)


def test_what_was_more_than_a_burst_is_made_good_for() -> None:
    limit = RateLimit(rl.MIN_RATE, 0.0)
    turn = limit.join("a", 256 << 10, 1.0)
    assert limit.take(turn, 10.0)
    small = limit.join("a", 1, 1.0)
    assert limit.wait_s(small, 10.0) == pytest.approx((256 << 10) / rl.MIN_RATE, rel=0.05)


@pytest.mark.parametrize("rate", [20_000, RATE, 12_500_000])
def test_flows_share_by_their_weights(rate: int) -> None:
    made = Saturated(RateLimit(rate, 0.0), {"low": 0.25, "normal": 1.0, "high": 4.0})
    made.run(60.0)
    given_bytes = made.bytes_by_flow()
    assert given_bytes["high"] / given_bytes["normal"] == pytest.approx(4, rel=0.1)
    assert given_bytes["normal"] / given_bytes["low"] == pytest.approx(4, rel=0.1)


def test_flows_that_weigh_the_same_share_evenly_whatever_they_ask_for_at_once() -> None:
    limit, passed = RateLimit(RATE, 0.0), Counter[str]()
    sizes, now = {"large": 100_000, "small": 3_000}, 0.0
    for flow, size in sizes.items():
        limit.join(flow, size, 1.0)
    while now < 20:
        first = limit.first()
        assert first is not None
        now += limit.wait_s(first, now)
        assert limit.take(first, now)
        passed[first.flow] += first.count
        limit.join(first.flow, sizes[first.flow], 1.0)
    assert passed["large"] == pytest.approx(passed["small"], rel=0.05)


def test_who_was_away_is_owed_nothing() -> None:
    limit = RateLimit(RATE, 0.0)
    made = Saturated(limit, {"a": 1.0})
    made.run(10.0)
    made.weights["b"] = 1.0
    made.turns["b"] = made.join("b")
    made.run(20.0)
    late = Counter[str]()
    for at, flow, count in made.passed:
        late[flow] += count if at > 10 else 0
    assert late["a"] == pytest.approx(late["b"], rel=0.05)


def test_the_least_of_eight_waits_less_than_a_second_at_twenty_kilobytes() -> None:
    made = Saturated(RateLimit(20_000, 0.0), dict.fromkeys("abcdefgh", 1.0))
    made.run(60.0)
    for name in "abcdefgh":
        times = [at for at, flow, _ in made.passed if flow == name]
        assert max(after - before for before, after in pairwise(times)) < 0.5


def test_a_limit_has_as_many_slots_as_fill_it_and_no_more() -> None:
    assert [SlotCount(rate, 8).slots for rate in (None, rl.MIN_RATE, RATE, 12_500_000, 10**9)] == [8, 1, 1, 5, 8]
    made = SlotCount(None, 8)
    assert made.adapt(RATE, 0, is_line=True) == 1, "another limit begins anew"
    assert made.adapt(RATE, 0.5 * RATE, is_line=False) == 1
    assert [made.adapt(RATE, 0.5 * RATE, is_line=True) for _ in range(9)] == [2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert {made.adapt(RATE, RATE, is_line=True) for _ in range(rl.FULL_ROUNDS - 1)} == {8}
    assert made.adapt(RATE, RATE, is_line=True) == 7
    assert {made.adapt(RATE, RATE, is_line=True) for _ in range(20 * rl.FULL_ROUNDS)} == set(range(1, 8))
    assert made.adapt(None, 0, is_line=True) == 8
