"""What the background may fetch beside people's downloads."""

import pytest

from interfiles.swarm.spare_rate import BEST_SHARE, FADING_S, MIN_SPARE_RATE, SUSTAINED_LOOKS, SpareRate

LINE = 100e6


def shared(*, line: float, people_at_most: float, seconds: int, spare: SpareRate) -> tuple[float, float]:
    """What both get in the end, where TCP shares a line evenly between those who want more than they get."""
    people = background = 0.0
    for second in range(seconds):
        limit = spare.update(people, background, float(second))
        wanted = line if limit is None else float(limit)
        people = min(people_at_most, max(line / 2, line - wanted))
        background = min(wanted, line - people)
    return people, background


def test_people_keep_four_fifths_of_the_line() -> None:
    people, background = shared(line=LINE, people_at_most=LINE, seconds=60, spare=SpareRate())
    assert people > 0.8 * LINE
    assert background > 0.08 * LINE


def test_where_their_sources_are_slow_the_background_goes_on() -> None:
    spare = SpareRate()
    for look in range(SUSTAINED_LOOKS):
        spare.update(None, LINE, look - SUSTAINED_LOOKS)
    people, background = shared(line=LINE, people_at_most=LINE / 100, seconds=60, spare=spare)
    assert people == LINE / 100
    assert background > 0.07 * LINE


def test_alone_it_is_not_held_back_and_never_put_off() -> None:
    spare = SpareRate()
    assert spare.update(None, 5e6, 0.0) is None
    assert spare.update(1.0, 0.0, 100 * FADING_S) == MIN_SPARE_RATE


def test_a_burst_is_not_taken_for_what_the_line_carries() -> None:
    spare = SpareRate()
    for look in range(100):
        rate = spare.update(None if look < 50 else LINE / 100, 40 * LINE if look % 9 == 0 else LINE, float(look))
    assert rate == pytest.approx(BEST_SHARE * LINE, rel=0.15), "and not of forty times as much"
