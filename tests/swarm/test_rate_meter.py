import pytest

from interfiles.swarm.rate_meter import RateMeter


def test_a_steady_flow_reads_as_its_rate_from_the_start() -> None:
    meter = RateMeter(10.0)
    assert meter.rate(10.0) == 0.0
    for step in range(1, 50):
        meter.add(100, 10.0 + step / 10)
        assert meter.rate(10.0 + step / 10) == pytest.approx(1000, rel=0.1)
    assert meter.total == 4900


def test_silence_brings_the_rate_down_by_half_each_half_life() -> None:
    meter = RateMeter(0.0)
    for step in range(1, 101):
        meter.add(100, step / 10)
    before = meter.rate(10.0)
    assert meter.rate(11.0) == pytest.approx(before / 2, rel=0.1)
    assert meter.rate(40.0) < 1


def test_a_clock_that_stands_still_or_steps_back_does_no_harm() -> None:
    meter = RateMeter(5.0)
    meter.add(100, 5.0)
    meter.add(100, 4.0)
    assert meter.rate(5.0) >= 0
