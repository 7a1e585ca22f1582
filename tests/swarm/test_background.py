"""Downloads in the background leave four fifths of a sender's line to the others, whatever hosts they are of."""

import pytest

from interfiles.geometry import MIB
from interfiles.swarm.upload_queue import OPEN_S, SentCounts, UploadQueue
from tests.swarm.test_upload_queue import Line

PIECES = [(MIB // 4, 1e6), (MIB, 12.5e6), (MIB, 25e6), (4 * MIB, 12.5e6), (16 * MIB, 125e6)]


@pytest.mark.parametrize(("piece_bytes", "rate"), PIECES)
@pytest.mark.parametrize("background", [1, 2, 7, 20])
def test_others_keep_four_fifths_of_the_line(background: int, piece_bytes: int, rate: float) -> None:
    lows = {f"low{n}": 1e12 for n in range(1, background + 1)}
    line = Line(rate, piece_bytes, apart=True, normal=1e12, **lows)
    line.rates(60 * piece_bytes / rate)
    got = line.rates(600 * piece_bytes / rate)
    assert got["normal"] > 0.8 * sum(got.values())
    assert sum(got.values()) > 0.8 * rate, "of which steps in time lose some"
    assert sum(got[low] for low in lows) > 0.07 * rate, "nor do they starve"


@pytest.mark.parametrize(("piece_bytes", "rate"), PIECES)
def test_who_is_slow_by_itself_keeps_no_background_from_an_idle_line(piece_bytes: int, rate: float) -> None:
    line = Line(rate, piece_bytes, apart=True, low=1e12)
    line.rates(30 * piece_bytes / rate)
    slow = Line(rate, piece_bytes, apart=True, low=1e12, normal=rate / 20)
    slow.rates(200 * piece_bytes / rate)
    got = slow.rates(400 * piece_bytes / rate)
    assert got["normal"] > 0.9 * rate / 20
    assert got["low"] > 0.6 * rate / 2, "half of the line is the other's, which leaves it idle"


def test_what_is_on_the_line_when_another_comes_counts_as_its_share() -> None:
    lows = {f"low{n}": 1e12 for n in range(1, 5)}
    line = Line(1.25e6, MIB // 4, apart=True, **lows)
    line.rates(10.0)
    before = sum(line.got[low] for low in lows)
    line.join("normal", 1e12)
    while line.got["normal"] < 35:
        line.rates(0.05)
    assert sum(line.got[low] for low in lows) == before, "four were being sent, and each makes up for ten"
    while line.got["normal"] < 60:
        line.rates(0.05)
    assert 0 < sum(line.got[low] for low in lows) - before <= 3


def test_it_waits_for_who_has_just_come_and_learns_what_there_is() -> None:
    queue = UploadQueue()
    queue.add("low", SentCounts(8), MIB, 0.0, weight=0.25)
    queue.ask("low", 0xFF, 0.0)
    assert queue.next("low", 0.0) == 0
    queue.add("normal", SentCounts(8), MIB, 1.0)
    assert queue.next("low", 1.1) is None
    assert queue.grant(1.0 + OPEN_S - 0.01) == []
    assert queue.grant(1.0 + OPEN_S) == ["low"], "the other asks for nothing"


def test_alone_it_has_the_whole_line() -> None:
    line = Line(12.5e6, MIB, apart=True, low1=1e12, low2=1e12)
    assert sum(line.rates(60.0).values()) > 0.95 * 12.5e6


@pytest.mark.parametrize("background", [2, 7])
def test_one_at_a_time_is_sent_something_beside_others(background: int) -> None:
    lows = {f"low{n}": 1e12 for n in range(1, background + 1)}
    line = Line(1.25e6, MIB // 4, apart=True, normal=1e12, **lows)
    line.rates(5.0)
    for _ in range(400):
        line.rates(0.05)
        assert sum(name in line.left for name in lows) <= 1
