"""What the reconciler sees of the fleet's hosts: how many could hold copies, and which of them drain."""

import pytest

from interfiles.placement.doubts import Doubts
from interfiles.placement.fleet_view import FleetView
from interfiles.placement.orders import Orders
from interfiles.placement.registry import Registry
from interfiles.placement.standing import Policy

GRACE_S = 120.0


class Fleet:
    """Five hosts that were there before the master started; `told`: how many of them have said what they hold."""

    def __init__(self, told: int) -> None:
        self.registry = Registry(heartbeat_s=10.0, grace_s=GRACE_S)
        self._view = FleetView(self.registry, Orders(), Doubts(), Policy())
        for number in range(5):
            self.registry.admit(f"h{number}", f"h{number}", "", "", heard_at=-1.0)
        for number in range(told):
            self.registry.register(f"h{number}", f"h{number}", "", "", 0.0)
            self.registry.apply(f"h{number}", [], replace=True)

    def view(self, now: float) -> FleetView:
        """As it is by then."""
        self._view.refresh(now)
        return self._view


@pytest.mark.parametrize("told", [3, 5])
def test_those_that_drain_could_hold_no_copy_though_some_hosts_are_awaited_until_they_drain_no_more(told: int) -> None:
    fleet = Fleet(told)
    assert fleet.view(1.0).is_awaiting(1.0) == (told < 5)
    assert fleet.view(1.0).able(1.0) == 5
    for number in (0, 1):
        fleet.registry.set_draining(f"h{number}", True)
    assert fleet.view(2.0).able(2.0) == 3
    fleet.registry.set_draining("h0", False)
    assert fleet.view(3.0).able(3.0) == 4
    fleet.registry.remove("h1")
    assert fleet.view(4.0).able(4.0) == 4
    assert fleet.view(4.0).draining(4.0) == set()


def test_once_nobody_is_awaited_any_more_those_that_are_gone_could_hold_none_either() -> None:
    fleet = Fleet(told=3)
    fleet.registry.set_draining("h0", True)
    assert fleet.view(1.0).is_awaiting(1.0)
    now = GRACE_S + 2
    assert not fleet.view(now).is_awaiting(now)
    assert fleet.view(now).able(now) == 2


def test_of_those_that_drain_only_they_are_told_that_have_said_what_they_hold() -> None:
    fleet = Fleet(told=3)
    for number in (0, 4):
        fleet.registry.set_draining(f"h{number}", True)
    assert fleet.view(1.0).draining(1.0) == {"h0"}
