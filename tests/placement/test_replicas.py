"""The planner of replicas, by scenarios: who is to get a copy, who may give one up, and why nobody is."""

from dataclasses import replace

import pytest

from interfiles.placement import replicas
from interfiles.placement.places import Places
from interfiles.placement.replicas import Placing
from interfiles.placement.standing import FileView, HostView, Policy, cause, standing
from tests.placement.views import GIB, file, hosts, ordered, planned, released

NOW = 100.0
POLICY = Policy(trim_after_s=600)


def orders(files: list[FileView], views: dict[str, HostView], policy: Policy = POLICY) -> list[tuple[str, str]]:
    return ordered(planned(files, views, policy, NOW))


def trims(files: list[FileView], views: dict[str, HostView]) -> list[tuple[str, str]]:
    return released(planned(files, views, POLICY, NOW))


def why_not(one: FileView, views: dict[str, HostView], policy: Policy = POLICY) -> tuple[str, str]:
    placing = Placing(Places(views, policy.max_arriving_per_host), policy, NOW)
    assert placing.choose(one) is None
    why = placing.why_not(one)
    assert why is not None
    return why.obstacle, why.text


class TestWhere:
    def test_an_upload_goes_to_zones_that_have_none_of_it(self) -> None:
        fleet = hosts("a:r1 b:r1 c:r2 d:r2 e:r3 f:r3")
        places = orders([file("a=own")], fleet)
        assert sorted(fleet[host].zone for _, host in places) == ["r2", "r3"]

    def test_within_a_zone_it_goes_where_most_is_free(self) -> None:
        fleet = hosts("a b c d", c={"free": 900 * GIB})
        assert orders([file("a=own", wanted=2)], fleet) == [("f", "c")]

    def test_where_about_as_much_is_free_it_goes_to_the_host_that_fetches_least(self) -> None:
        fleet = hosts("a b c", b={"free": 110 * GIB, "arriving": 1})
        assert orders([file("a=own", wanted=2)], fleet) == [("f", "c")]

    def test_files_placed_at_one_moment_spread_over_hosts_that_are_alike(self) -> None:
        fleet = hosts("a " + " ".join(f"host-{number}" for number in range(16)))
        files = [file("a=own", wanted=2, name=f"f{number}") for number in range(32)]
        places = [host for _, host in orders(files, fleet)]
        assert sorted(places) == sorted([f"host-{number}" for number in range(16)] * 2)

    def test_a_copy_on_its_way_counts_by_whomever_it_is_wanted(self) -> None:
        assert orders([file("a=own b=coming c=arriving")], hosts("a b c d")) == []

    def test_a_copy_that_does_not_get_on_does_not_count(self) -> None:
        assert orders([file("a=own b=ordered c=stuck")], hosts("a b c d")) == [("f", "d")]

    def test_a_suspect_host_keeps_its_copies_and_gets_none(self) -> None:
        assert orders([file("a=own b=ordered c=ordered")], hosts("a b=suspect c d")) == []
        assert orders([file("a=own")], hosts("a b=suspect c")) == [("f", "c")]

    def test_a_draining_host_is_a_source_whose_copy_does_not_count(self) -> None:
        assert orders([file("a=own", wanted=1)], hosts("a=draining b")) == [("f", "b")]

    def test_a_zone_of_busy_hosts_is_waited_for(self) -> None:
        fleet = hosts("a:r1 b:r1 c:r2", c={"arriving": 2})
        assert orders([file("a=own", wanted=2)], fleet) == []
        assert why_not(file("a=own", wanted=2), fleet) == ("busy", "waits for c to finish other copies")

    def test_a_zone_without_room_is_not(self) -> None:
        assert orders([file("a=own", wanted=2)], hosts("a:r1 b:r1 c:r2", c={"free": 0})) == [("f", "b")]


class TestWhoIsFirst:
    def test_the_file_with_the_fewest_copies_left(self) -> None:
        fleet = hosts("a b c d")
        files = [file("a=own b=ordered", name="safe"), file("a=own", name="endangered", wanted=2)]
        assert orders(files, fleet, Policy(max_arriving=1))[0][0] == "endangered"

    def test_a_copy_on_a_gone_host_is_none(self) -> None:
        fleet = hosts("a b=gone c d")
        files = [file("a=own b=ordered", name="one left"), file("a=own c=ordered", name="two left", wanted=4)]
        assert orders(files, fleet, Policy(max_arriving=1))[0][0] == "one left"

    @pytest.mark.parametrize(
        "hopeless",
        [
            file("gone=own"),  # no source
            file("a=own b=ordered small=ordered", wanted=9),  # no host
            file("a=own", size=90 * GIB),  # no room
            file("a=own", refused_by={"b": NOW + 9, "small": NOW + 9}),  # resting
        ],
    )
    def test_files_that_nobody_could_hold_stand_in_nobodys_way(self, hopeless: FileView) -> None:
        fleet = hosts("a b small gone=gone", b={"free": 2 * GIB}, small={"free": 2 * GIB})
        ahead = [replace(hopeless, file_id=bytes([0, number]) * 16) for number in range(replicas.MAX_LOOKED_AFTER + 1)]
        assert orders([*ahead, file("a=own b=ordered")], fleet) == [("f", "small")]

    def test_copies_on_their_way_to_gone_hosts_take_up_no_place(self) -> None:
        fleet = hosts("a b x=gone", x={"arriving": 40})
        assert orders([file("a=own", wanted=2)], fleet) == [("f", "b")]

    def test_what_a_host_fetches_that_nobody_ordered_takes_up_no_place_of_others(self) -> None:
        fleet = hosts("a b x", x={"arriving": 40})
        assert orders([file("a=own", wanted=2)], fleet) == [("f", "b")]

    def test_no_more_than_may_be_under_way_at_once(self) -> None:
        fleet = hosts("a b c d", a={"arriving": 1})
        files = [file("a=own", wanted=4, name=f"f{number}") for number in range(9)]
        assert len(orders(files, fleet, Policy(max_arriving=5))) == 4
        assert len(orders(files, fleet, Policy(max_arriving_per_host=1))) == 3


class TestWhyNot:
    def test_no_source(self) -> None:
        text = "no host that is up has all of it (b had it last)"
        assert why_not(file("a=stuck b=own", wanted=1), hosts("a b=gone c")) == ("no-source", text)
        assert why_not(file("a=coming"), hosts("a b")) == ("no-source", "no host has all of it")

    def test_no_host(self) -> None:
        text = "no other host could hold one (2 live hosts, all with some of it or set against it)"
        assert why_not(file("a=own b=ordered"), hosts("a b")) == ("no-host", text)

    def test_a_copy_that_is_not_whole_is_named(self) -> None:
        text = "no other host could hold one (2 live hosts, all with some of it or set against it; not whole or not {})"
        assert why_not(file("a=own b=stuck c=stuck"), hosts("a b c=gone d=gone"))[1].endswith("on b; 2 gone)")
        assert why_not(file("a=own b=stuck"), hosts("a b"))[1] == text.format("wanted on b")
        assert why_not(file("a=own b=stuck c=stuck"), hosts("a b c"))[1].endswith("not wanted on b and 1 more)")

    @pytest.mark.parametrize(
        ("fleet", "there"),
        [
            ("a=draining", "no live host; a drains, which `interfiles hosts undrain` ends"),
            ("a=draining b=draining", "no live host; 2 hosts drain, which `interfiles hosts undrain` ends"),
            ("a=draining b=suspect c=gone d=gone", "no live host; a drains, which {}; 1 suspect; 2 gone"),
            ("a c=gone", "1 live host, all with some of it or set against it; 1 gone"),
            ("a b=draining", "1 live host, all with some of it or set against it; b drains, which {}"),
        ],
    )
    def test_hosts_that_could_if_people_or_time_helped_are_named(self, fleet: str, there: str) -> None:
        there = there.format("`interfiles hosts undrain` ends")
        assert why_not(file("a=own"), hosts(fleet)) == ("no-host", f"no other host could hold one ({there})")

    def test_no_room(self) -> None:
        fleet = hosts("a b c", b={"free": GIB // 2}, c={"free": -5})
        text = "no other live host has room for 1.1 GB (b has the most: 537 MB)"
        assert why_not(file("a=own"), fleet) == ("no-room", text)

    def test_resting(self) -> None:
        fleet = hosts("a b c", b={"rests_until": NOW + 90})
        text = "2 hosts with room failed lately; c is tried again in 30 s"
        assert why_not(file("a=own", refused_by={"c": NOW + 30}), fleet) == ("resting", text)

    def test_its_turn(self) -> None:
        fleet = hosts("a b c", b={"arriving": 1})
        text = "as many copies are under way as there may be at once (1)"
        assert why_not(file("a=own", wanted=2), fleet, Policy(max_arriving=1)) == ("turn", text)

    def test_the_question_alone_orders_nothing(self) -> None:
        fleet, one = hosts("a b c"), file("a=own")
        placing = Placing(Places(fleet, 2), Policy(max_arriving=1), NOW)
        assert [placing.why_not(one) for _ in range(3)] == [None, None, None]


class TestCause:
    @pytest.mark.parametrize(
        ("copies", "wanted", "text"),
        [
            ("a=own", 3, "3 copies are wanted, 1 is there"),
            ("a=own b=arriving c=coming", 4, "4 copies are wanted, 1 is there and 2 under way"),
            ("a=own b=ordered x=ordered", 3, "3 copies are wanted, 2 are there; not counted: x (gone)"),
            ("a=own s=ordered y=ordered x=arriving", 3, "3 copies are wanted, 2 are there; not counted: {}"),
            ("x=own", 1, "a copy is wanted, none is there; not counted: x (gone)"),
            ("a=own b=stuck", 2, "2 copies are wanted, 1 is there; not counted: b (not whole or not wanted)"),
            ("a=own z=ordered", 2, "2 copies are wanted, 1 is there"),
        ],
    )
    def test_says_whose_copies_do_not_count(self, copies: str, wanted: int, text: str) -> None:
        one, fleet = file(copies, wanted=wanted), hosts("a b c s=suspect x=gone y=draining")
        assert cause(one, standing(one, fleet), fleet) == text.format("x (gone), y (draining)")

    def test_names_few(self) -> None:
        fleet = hosts("a " + " ".join(f"x{number}=gone" for number in range(5)))
        one = file("a=own " + " ".join(f"x{number}=ordered" for number in range(5)), wanted=6)
        text = "6 copies are wanted, 1 is there; not counted: x0 (gone), x1 (gone), x2 (gone), 2 more"
        assert cause(one, standing(one, fleet), fleet) == text


class TestDraining:
    def test_what_is_on_its_way_there_by_order_is_given_up_at_once(self) -> None:
        fleet = hosts("a b c=draining")
        enough, lacking = file("a=own b=own c=arriving", wanted=2), file("a=own c=arriving", wanted=2, name="g")
        assert not standing(enough, fleet).is_settled
        assert trims([enough, lacking], fleet) == [("f", "c"), ("g", "c")]
        assert orders([enough, lacking], fleet) == [("g", "b")]

    def test_what_is_there_or_is_fetched_by_somebody_stays(self) -> None:
        fleet = hosts("a b c=draining d=draining e=gone")
        assert trims([file("a=own b=own c=ordered d=coming e=arriving", wanted=2)], fleet) == []


class TestTrims:
    def test_not_before_it_is_time(self) -> None:
        fleet, copies = hosts("a b c"), "a=own b=ordered c=ordered"
        assert trims([file(copies, wanted=2, surplus_since=NOW - 599)], fleet) == []
        assert trims([file(copies, wanted=2, surplus_since=None)], fleet) == []
        assert len(trims([file(copies, wanted=2, surplus_since=NOW - 600)], fleet)) == 1

    def test_of_the_fullest_zone_first_there_where_least_is_free(self) -> None:
        fleet = hosts("a:r1 b:r2 c:r2 d:r2", c={"free": GIB})
        one = file("a=own b=ordered c=ordered d=ordered", wanted=3, surplus_since=-1000.0)
        assert trims([one], fleet) == [("f", "c")]

    def test_what_is_on_its_way_goes_before_what_is_there(self) -> None:
        one = file("a=own b=ordered c=arriving", wanted=2, surplus_since=-1000.0)
        assert trims([one], hosts("a b c")) == [("f", "c")]

    def test_nobodys_own_copy_goes(self) -> None:
        one = file("a=own b=own c=own d=ordered", wanted=1, surplus_since=-1000.0)
        assert trims([one], hosts("a b c d")) == [("f", "d")]

    def test_a_copy_on_a_suspect_host_is_not_relied_upon(self) -> None:
        one = file("a=own b=ordered c=ordered", wanted=2, surplus_since=-1000.0)
        assert standing(one, hosts("a b c=suspect")).has_surplus
        assert trims([one], hosts("a b c=suspect")) == []

    def test_many_are_trimmed_little_by_little(self) -> None:
        fleet, copies = hosts("a b"), "a=own b=ordered"
        files = [file(copies, wanted=1, surplus_since=-1000.0, name=f"f{number}") for number in range(200)]
        assert len(trims(files, fleet)) == replicas.MAX_LOOKED_AFTER
