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


def test_hosts_that_come_late_cost_the_others_nothing_to_speak_of() -> None:
    without, found = simulate(40, 300, seed=2), simulate(44, 300, seed=2, late=4 / 44)
    assert found["complete"] == found["living"] == 44
    assert found["p100"] <= without["p100"] + 0.03
    assert found["late_p100"] <= 1.25


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


class TestZones:
    def test_each_piece_crosses_a_thin_link_about_once(self) -> None:
        found = simulate(40, 300, seed=7, zones=2)
        assert found["complete"] == found["living"] == 40
        assert found["crossed"] <= 1.15
        assert found["p100"] <= 1.3
        assert found["most_dialled"] <= 2 * DEGREE

    def test_hosts_that_die_gateways_too_keep_nobody_waiting(self) -> None:
        found = simulate(40, 200, seed=8, dying=0.3, zones=2)
        assert found["complete"] == found["living"] == 28
        assert found["crossed"] <= 1.3

    def test_all_gateways_of_a_zone_but_one_die(self) -> None:
        simulation = Simulation(20, 100, seed=9, zones=2)
        gateways = [host for host in simulation.hosts if host.zone == 1 and len(host.scheduler.abroad.foreign) > 0]
        simulation.run(until=lambda: simulation.crossed[1] > 30)
        for host in gateways[1:]:
            simulation.kill(host)
        simulation.run()
        assert all(host.done_at is not None for host in simulation.receivers)

    def test_many_small_zones_get_each_piece_about_once(self) -> None:
        found = simulate(30, 100, seed=10, zones=15, between=100)
        assert found["complete"] == 30
        assert found["crossed"] <= 1.15

    def test_each_host_in_a_zone_of_its_own(self) -> None:
        found = simulate(20, 100, seed=11, zones=20, between=100)
        assert found["complete"] == 20
        assert found["crossed"] <= 1.15
