"""The least time that a file can take, by rates that a person can check by head."""

import pytest

from benchmarks.bounds import equal_uplinks_s, fluid_s


def test_the_file_leaves_the_source_once_and_its_last_piece_doubles() -> None:
    assert equal_uplinks_s(1000, pieces=100, rate=10, receivers=8) == pytest.approx(100 * 1.03)


def test_one_receiver_takes_as_long_as_the_file() -> None:
    assert equal_uplinks_s(1000, pieces=100, rate=10, receivers=1) == pytest.approx(100)


@pytest.mark.parametrize(
    ("source_up", "ups", "downs", "link", "seconds"),
    [
        (10, [1000, 1000], [1000, 1000], None, 100),  # the source
        (1000, [1000, 1000], [1000, 20], None, 50),  # the slowest receiver
        (10, [5, 5, 5], [1000, 1000, 1000], None, 120),  # all that send
        (10, [1000, 1000], [1000, 1000], 4, 250),  # the link between the zones
    ],
)
def test_what_is_scarcest_counts(
    source_up: float, ups: list[float], downs: list[float], link: float | None, seconds: float
) -> None:
    assert fluid_s(1000, source_up, ups, downs, link=link) == pytest.approx(seconds)
