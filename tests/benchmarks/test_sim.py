"""The scheduler, upload queue and handout that ship, in small fleets in virtual time. The figures are of no clock."""

import pytest

from benchmarks.sim import Simulation, simulate
from interfiles.placement.handout import DEGREE


def test_everybody_has_the_file_soon_after_the_source_has_sent_it_once() -> None:
    found = simulate(40, 300, seed=1)
    assert found["complete"] == found["living"] == 40
    assert found["p100"] <= 1.25
    assert found["source_sent"] <= 1.25
    assert found["duplicates"] <= 0.02
    assert found["most_dialled"] <= DEGREE + 3


def test_hosts_that_die_on_the_way_cost_the_others_little() -> None:
    found = simulate(40, 300, seed=2, dying=0.1)
    assert found["complete"] == found["living"] == 36
    assert found["p100"] <= 1.5


def test_with_unequal_links_the_slowest_has_the_file_near_its_bound() -> None:
    found = simulate(24, 200, seed=3, mixed=True)
    assert found["complete"] == 24
    assert found["p100"] <= 1.3


def test_the_source_may_die_once_the_others_hold_everything_between_them() -> None:
    simulation = Simulation(12, 100, seed=4)
    source, receivers = simulation.hosts[0], simulation.hosts[1:]

    def missing() -> int:
        held = 0
        for host in receivers:
            held |= host.scheduler.picker.held.bits
        return 100 - held.bit_count()

    simulation.run(until=lambda: missing() == 0)
    assert min(len(host.scheduler.picker.held) for host in receivers) < 100
    simulation.kill(source)
    simulation.run()
    assert all(host.done_at is not None for host in receivers)


@pytest.mark.parametrize("dying", [0.0, 0.2])
def test_the_same_seed_gives_the_same_trace_and_another_does_not(dying: float) -> None:
    traces = [simulate(10, 50, seed=seed, dying=dying)["trace"] for seed in (5, 5, 6)]
    assert traces[0] == traces[1] != traces[2]
