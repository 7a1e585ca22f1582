"""How often something may be tried: never more than the rate, and never less."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import RateLimited
from interfiles.identity.rate_limit import MAX_KEYS, Rate, RateLimiter

ENDLESS = Rate(burst=10**9, every_s=1e-9)


def is_let(limiter: RateLimiter, key: str, now: float) -> bool:
    try:
        limiter.count(key, now)
    except RateLimited:
        return False
    return True


rates = st.builds(Rate, st.integers(1, 20), st.sampled_from([0.01, 0.02, 0.1, 1.0, 7.5]))
waits = st.one_of(st.just(0.0), st.floats(0.0, 3.0), st.floats(0.0, 100.0))
begins = st.sampled_from([0.0, 1.0, 12_345.678, 1.8e9])


def most_in_a_window(let: list[float], rate: Rate) -> bool:
    """Whether no window of any length holds more than a burst and what its length brings."""
    return all(
        last - first + 1 <= rate.burst + (let[last] - let[first]) / rate.every_s + 0.05
        for first in range(len(let))
        for last in range(first, len(let))
    )


@given(rates, begins, st.lists(waits, max_size=60))
def test_in_any_window_a_key_gets_a_burst_and_what_the_time_brings(rate: Rate, now: float, pauses: list[float]) -> None:
    limiter, let = RateLimiter(each=rate, overall=ENDLESS), []
    for pause in pauses:
        now += pause
        if is_let(limiter, "a", now):
            let.append(now)
    assert most_in_a_window(let, rate)


@given(rates, begins, st.lists(st.tuples(waits, st.sampled_from("abcdef")), max_size=60))
def test_all_keys_together_get_no_more_than_the_overall_rate(
    rate: Rate, now: float, tries: list[tuple[float, str]]
) -> None:
    limiter, let = RateLimiter(each=ENDLESS, overall=rate), []
    for pause, key in tries:
        now += pause
        if is_let(limiter, key, now):
            let.append(now)
    assert most_in_a_window(let, rate)


@pytest.mark.parametrize("now", [0.3, 1.0, 12_345.678])
def test_the_only_try_of_a_burst_of_one_is_not_refused_for_a_rounding_error(now: float) -> None:
    assert now + 0.01 - now - 0.01 != 0
    assert is_let(RateLimiter(each=Rate(1, 0.01), overall=ENDLESS), "a", now)


@given(rates, begins)
def test_a_burst_is_let_at_once_and_then_one_for_each_interval(rate: Rate, now: float) -> None:
    limiter = RateLimiter(each=rate, overall=ENDLESS)
    assert [is_let(limiter, "a", now) for _ in range(rate.burst + 1)] == [True] * rate.burst + [False]
    for _ in range(30):
        now += rate.every_s
        assert is_let(limiter, "a", now + 1e-6)
    assert not is_let(limiter, "a", now + 1e-6)


@given(rates, begins)
def test_after_a_rest_a_burst_is_let_again(rate: Rate, now: float) -> None:
    limiter = RateLimiter(each=rate, overall=ENDLESS)
    for _ in range(2):
        assert all(is_let(limiter, "a", now) for _ in range(rate.burst))
        now += rate.burst * rate.every_s + 1e-6


def test_a_try_that_is_refused_does_not_count() -> None:
    limiter = RateLimiter(each=Rate(1, 1.0), overall=ENDLESS)
    limiter.count("a", 0.0)
    for _ in range(100):
        assert not is_let(limiter, "a", 0.5)
    assert is_let(limiter, "a", 1.0)


def test_who_is_refused_takes_nothing_from_the_others() -> None:
    limiter = RateLimiter(each=Rate(1, 1.0), overall=Rate(3, 1000.0))
    assert [is_let(limiter, key, 0.0) for key in "aaaaabcd"] == [True] + [False] * 4 + [True, True, False]


def test_it_says_how_long_to_wait_and_that_is_enough() -> None:
    limiter = RateLimiter(each=Rate(2, 30.0), overall=ENDLESS)
    limiter.count("a", 100.0)
    limiter.count("a", 110.0)
    with pytest.raises(RateLimited, match="too many tries to join in a short time; try again in 18 s") as refused:
        limiter.count("a", 112.0)
    wait_s = float(re.findall(r"in (\d+) s", str(refused.value))[0])
    assert is_let(limiter, "a", 112.0 + wait_s)


def test_the_longer_of_both_waits_is_told() -> None:
    limiter = RateLimiter(each=Rate(1, 5.0), overall=Rate(1, 60.0))
    limiter.count("a", 0.0)
    with pytest.raises(RateLimited, match=r"in 60 s|in 1 min"):
        limiter.count("a", 0.0)


def test_it_remembers_a_bounded_number_of_keys_and_forgets_those_that_tried_longest_ago() -> None:
    limiter = RateLimiter(each=Rate(1, 1e6), overall=ENDLESS)
    for number in range(3 * MAX_KEYS):
        limiter.count(str(number), float(number))
    assert len(limiter._full_at) == MAX_KEYS
    assert not is_let(limiter, str(3 * MAX_KEYS - 1), 3.0 * MAX_KEYS)
    assert is_let(limiter, "0", 3.0 * MAX_KEYS)
    assert len(limiter._full_at) == MAX_KEYS


def test_keys_pushed_out_on_purpose_do_not_get_past_the_overall_rate() -> None:
    limiter = RateLimiter(each=Rate(1, 1e6), overall=Rate(5, 1e6))
    assert sum(is_let(limiter, str(number), 0.0) for number in range(2 * MAX_KEYS)) == 5
