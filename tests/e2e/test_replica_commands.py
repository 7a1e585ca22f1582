"""Copies that the fleet keeps, as people and scripts see them, with real processes."""

from pathlib import Path

from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet


def replicas_on(fleet: Fleet, name: str) -> list[Path]:
    """The copies that a host holds by order."""
    return list((fleet.daemons[name].state / "replicas").glob("*/weights.bin"))


def test_copies_are_waited_for_and_a_host_is_drained(own_fleet: Fleet) -> None:
    own_fleet.start_master("--replicas", "2")
    source, other, third = own_fleet.start_clients("source", "other", "third")
    content = make_file(source.home / "weights.bin", 8 * MIB, seed=1)
    uploaded = own_fleet.cli(source, "upload", "-p", str(content), "--expire-in", "1h", json=True).done.json
    assert (uploaded["replicas_wanted"], uploaded["hosts"]) == (2, 3)

    waited = own_fleet.cli(third, "wait", "--replicas", "-p", uploaded["id"], "--timeout", "1m", json=True).done.json
    assert (waited["complete"], waited["replicas_wanted"], waited["why_not"]) == (2, 2, "")
    (first,) = [name for name in ("other", "third") if replicas_on(own_fleet, name)]

    state = ("--state", str(own_fleet.master.state))
    drained = own_fleet.cli(None, "hosts", "drain", first, *state)
    assert drained.done.out == f"{first} can be switched off: what it has is on other hosts too.\n"
    found = own_fleet.cli(source, "stat", "-p", uploaded["id"], json=True).done.json
    assert {(holder["name"], holder["host_state"], holder["ordered"]) for holder in found["hosts"]} == {
        ("source", "live", False),
        (first, "draining", True),
        ("third" if first == "other" else "other", "live", True),
    }
    assert (found["replicas"]["complete"], found["expires_at"]) == (2, uploaded["expires_at"])
    too_many = own_fleet.cli(other, "wait", "-p", uploaded["id"], "--replicas", "3", "--timeout", "2s")
    assert (too_many.code, too_many.out) == (6, "")
    assert "weights.bin has 2 of 3 copies after 2 s: only 2 copies are wanted; " in too_many.err

    set_to = own_fleet.cli(source, "replicas", "set", "-p", uploaded["id"], "3")
    assert set_to.done.out == (
        "weights.bin is wanted on 3 hosts; the fleet has 2 that can hold a copy, so 2 until more join.\n"
    )
    assert own_fleet.cli(None, "hosts", "undrain", first, *state).code == 0
    assert own_fleet.cli(source, "wait", "-p", uploaded["id"], "--replicas", "--timeout", "1m").done.out == (
        "weights.bin has 3 complete copies, 3 wanted.\n"
    )
