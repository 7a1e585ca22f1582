"""What is kept of hosts step by step is what a look at all of them would find."""

from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.places import Places
from interfiles.placement.replicas import Placing, plan
from interfiles.placement.standing import FileView, HostView, Policy
from tests.placement.views import hosts, some_files, some_hosts

NOW = 100.0


@given(st.lists(some_hosts(), min_size=1, max_size=5), some_files(), st.integers(1, 3))
def test_hosts_that_changed_again_and_again_are_as_if_they_had_always_been_so(
    changes: list[dict[str, HostView]], files: list[FileView], most: int
) -> None:
    places, policy = Places({}, most), Policy(max_arriving_per_host=most)
    for number, change in enumerate(changes):
        for host_id in set(places.hosts) - change.keys():
            places.drop(host_id)
        for host_id, host in change.items():
            places.put(host_id, host)
        places.wake(NOW + number)
        places.check_invariants(NOW + number)
        fresh = Places(change, most)
        assert plan(files, places, policy, NOW + number) == plan(files, fresh, policy, NOW + number)
        for one in files:
            told, found = (Placing(each, policy, NOW + number).why_not(one) for each in (places, fresh))
            assert told == found


@given(some_hosts(), some_files())
def test_a_plan_leaves_the_hosts_as_they_were(views: dict[str, HostView], files: list[FileView]) -> None:
    places = Places(views, 2)
    plan(files, places, Policy(), NOW)
    assert places.hosts == views
    places.check_invariants(NOW)


def test_a_host_that_rests_is_none_to_choose_until_its_time_is_over() -> None:
    places = Places(hosts("a b", a={"rests_until": 150.0}), 2)
    assert (list(places.ready(0)), list(places.resting(0)), places.live()) == (["b"], ["a"], 2)
    places.wake(149.0)
    assert list(places.ready(0)) == ["b"]
    places.wake(150.0)
    assert sorted(places.ready(0)) == ["a", "b"]
    assert places.is_any_able


def test_one_that_is_put_again_and_again_while_it_rests_is_woken_once() -> None:
    (host,) = hosts("a", a={"rests_until": 150.0}).values()
    places = Places({}, 2)
    for _ in range(1000):
        places.put("a", host)
    places.wake(150.0)
    places.check_invariants(150.0)
    assert list(places.ready(0)) == ["a"]
