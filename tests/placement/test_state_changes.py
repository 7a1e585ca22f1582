"""The states of hosts as they change: each change is told once."""

from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.host_facts import StateChange
from interfiles.placement.registry import Registry
from tests.placement.test_registry import GRACE_S, HEARTBEAT_S, fleet


def changes(registry: Registry, now: float) -> list[tuple[str, str, str]]:
    return [(change.name, change.before, change.after) for change in registry.state_changes(now)]


def test_a_host_begins_with_its_own_state() -> None:
    registry = Registry(heartbeat_s=HEARTBEAT_S, grace_s=GRACE_S)
    registry.admit("a", "a", "", "", heard_at=-500)
    registry.admit("b", "b", "", "", heard_at=0)
    assert changes(registry, 0) == []
    registry.register("a", "a", "", "a:4851", 1)
    registry.register("b", "b", "", "b:4851", 1)
    assert changes(registry, 1) == [("a", "gone", "live"), ("b", "suspect", "live")]
    assert changes(registry, 1) == []


def test_silence_makes_a_host_suspect_then_gone_and_each_is_told_once_with_its_length() -> None:
    registry = fleet("a", "b")
    assert changes(registry, 0) == []
    for now in range(10, 300, 10):
        registry.hear("b", now)
        registry.expire(now)
        told = registry.state_changes(now)
        if now == 30:
            assert told == [StateChange("a", "a", "live", "suspect", 30.0)]
        elif now == 130:
            assert told == [StateChange("a", "a", "suspect", "gone", 130.0)]
        else:
            assert told == []


def test_a_gone_host_that_registers_is_live_and_one_that_is_heard_too() -> None:
    registry = fleet("a")
    registry.state_changes(0)
    registry.lose("a")
    assert changes(registry, 1) == [("a", "live", "suspect")]
    assert changes(registry, 121) == [("a", "suspect", "gone")]
    registry.register("a", "b", "", "a:4851", 122)
    assert changes(registry, 122) == [("b", "gone", "live")]
    registry.expire(150)
    registry.hear("a", 151)
    assert changes(registry, 151) == [], "what nobody looked at in between is no change"


def test_one_host_can_be_looked_at_alone() -> None:
    registry = fleet("a", "b")
    registry.state_changes(0)
    registry.lose("a")
    registry.lose("b")
    assert [change.host_id for change in registry.state_changes(1, ["b", "nobody"])] == ["b"]
    assert [change.host_id for change in registry.state_changes(1)] == ["a"]


def test_a_removed_host_is_not_told_of_and_a_new_one_of_the_same_id_begins_anew() -> None:
    registry = fleet("a")
    registry.state_changes(0)
    registry.lose("a")
    registry.remove("a")
    assert changes(registry, 1) == []
    assert (registry.name("a"), registry.name("b")) == ("", "")
    registry.admit("a", "new", "", "", heard_at=1)
    assert registry.name("a") == "new"
    assert changes(registry, 1) == []


STEPS = st.sampled_from(["register", "hear", "lose", "expire", "look", "pass 5 s", "pass 100 s"])


@given(st.lists(STEPS, max_size=60))
def test_what_is_told_adds_up_to_the_state_that_is(steps: list[str]) -> None:
    registry, now = fleet("a"), 0.0
    registry.state_changes(now)
    known = "live"
    for step in steps:
        match step:
            case "register":
                registry.register("a", "a", "", "", now)
            case "hear":
                registry.hear("a", now)
            case "lose":
                registry.lose("a")
            case "expire":
                registry.expire(now)
            case "look":
                for change in registry.state_changes(now):
                    assert change.before == known
                    assert change.after != known
                    known = change.after
                assert known == registry.state("a", now)
            case _:
                now += float(step.split()[1])
