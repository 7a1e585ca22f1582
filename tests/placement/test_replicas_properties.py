"""What holds of every plan, whatever the fleet looks like; and that plans, carried out, come to an end."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.placement.places import Places
from interfiles.placement.replicas import Placing
from interfiles.placement.standing import (
    COMPLETE,
    Action,
    Copy,
    FileView,
    HostView,
    Order,
    Policy,
    Release,
    standing,
    urgency,
)
from tests.placement.views import GIB, NAMES, planned, some_files, some_hosts

NOW = 100.0
POLICIES = st.builds(Policy, st.integers(0, 6), st.integers(1, 3), st.sampled_from([0.0, 600.0]))
ROOMY = Policy(max_arriving=1000, max_arriving_per_host=1000, trim_after_s=0.0)


def carried_out(files: list[FileView], hosts: dict[str, HostView], made: list[Action]) -> dict[bytes, FileView]:
    """The files once every order has been taken and every release answered."""
    copies: dict[bytes, dict[str, Copy]] = {one.file_id: dict(one.copies) for one in files}
    for action in made:
        match action:
            case Order():
                copies[action.file_id][action.host_id] = "arriving"
            case Release():
                del copies[action.file_id][action.host_id]
    return {one.file_id: replace(one, copies=copies[one.file_id]) for one in files}


def loaded(files: list[FileView], hosts: dict[str, HostView], made: list[Action]) -> dict[str, HostView]:
    """The hosts once every order has been taken."""
    sizes, later = {one.file_id: one.size for one in files}, dict(hosts)
    for action in made:
        if isinstance(action, Order):
            host = later[action.host_id]
            later[action.host_id] = replace(host, arriving=host.arriving + 1, free=host.free - sizes[action.file_id])
    return later


@given(some_hosts(), some_files(), POLICIES)
def test_orders_keep_to_what_is_wanted_and_to_what_fits(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    made, by_id = planned(files, hosts, policy, NOW), {one.file_id: one for one in files}
    given_to, room = Counter[str](), Counter[str]()
    for action in made:
        if isinstance(action, Order):
            one, host = by_id[action.file_id], hosts[action.host_id]
            assert host.state == "live"
            assert action.host_id not in one.copies
            assert max(host.rests_until, one.refused_by.get(action.host_id, 0.0)) <= NOW
            given_to[action.host_id] += 1
            room[action.host_id] += one.size
    for host_id, count in given_to.items():
        assert room[host_id] <= hosts[host_id].free
        assert hosts[host_id].arriving + count <= policy.max_arriving_per_host
    cap = policy.max_arriving_per_host
    under_way = sum(min(host.arriving, cap) for host in hosts.values() if host.state != "gone")
    assert not given_to or under_way + given_to.total() <= policy.max_arriving
    after = carried_out(files, hosts, made)
    for one in files:
        before, stand = standing(one, hosts), standing(after[one.file_id], hosts)
        assert stand.complete + stand.under_way <= max(before.wanted, before.complete + before.under_way)


@given(some_hosts(), some_files(), POLICIES)
def test_releases_leave_what_is_wanted_and_what_is_peoples_own(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    made, by_id = planned(files, hosts, policy, NOW), {one.file_id: one for one in files}
    after = carried_out(files, hosts, made)
    for action in made:
        if isinstance(action, Release):
            one = by_id[action.file_id]
            assert one.copies[action.host_id] in ("ordered", "arriving")
            if action.host_id in hosts and hosts[action.host_id].state == "draining":
                assert one.copies[action.host_id] == "arriving", "it would not count"
                continue
            assert one.surplus_since is not None
            assert NOW - one.surplus_since >= policy.trim_after_s
            held = after[action.file_id].copies.items()
            live = [host for host, copy in held if copy in COMPLETE and host in hosts and hosts[host].state == "live"]
            assert len(live) >= one.wanted


@given(some_hosts(), some_files(), POLICIES)
def test_a_plan_carried_out_leaves_nothing_to_do_that_could_have_been_done(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    """Asked again with its orders under way, the planner orders nothing new unless it was held up by its own bounds."""
    made = planned(files, hosts, policy, NOW)
    views = list(carried_out(files, hosts, made).values())
    later = loaded(files, hosts, made)
    assert planned(views, later, policy, NOW) == []


@given(some_hosts(), some_files(), POLICIES)
def test_the_same_question_has_the_same_answer_in_whatever_order_it_is_asked(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    made = planned(files, hosts, policy, NOW)
    assert planned(files, hosts, policy, NOW) == made
    again = planned(files[::-1], hosts, policy, NOW)
    orders, others = ([one for one in each if isinstance(one, Order)] for each in (made, again))
    assert orders == others


@given(some_hosts(), some_files(), POLICIES)
def test_each_file_that_lacks_copies_gets_one_or_is_told_why_not(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    made = planned(files, hosts, policy, NOW)
    ordered = {action.file_id for action in made if isinstance(action, Order)}
    for one in files:
        placing = Placing(Places(hosts, policy.max_arriving_per_host), policy, NOW)
        why, hint = placing.why_not(one), placing.hint(one)
        if why is None:
            assert placing.choose(one) is not None
        else:
            assert one.file_id not in ordered
            assert why.obstacle in obstacles(one, hosts)
            assert why.text
        assert hint in (None, why) or (hint.obstacle, why and why.obstacle) == ("turn", "busy")


def obstacles(one: FileView, hosts: dict[str, HostView]) -> set[str]:
    """What can be said of a file by a plain look at one host after the other."""
    sources = [h for h, copy in one.copies.items() if copy in COMPLETE and h in hosts]
    if not any(hosts[host].state in ("live", "draining") for host in sources):
        return {"no-source"}
    others = [host_id for host_id, host in hosts.items() if host.state == "live" and host_id not in one.copies]
    if not others:
        return {"no-host"}
    roomy = [host_id for host_id in others if hosts[host_id].free >= one.size]
    awake = [h for h in roomy if max(hosts[h].rests_until, one.refused_by.get(h, 0.0)) <= NOW]
    if awake:
        return {"busy", "turn"} | ({"no-room", "resting"} if len(awake) < len(roomy) or roomy else set())
    return {"resting", "no-room"} if roomy else {"no-room"}


@given(some_hosts(), some_files(), POLICIES)
def test_whoever_waits_for_its_turn_is_no_more_endangered_than_who_got_one(
    hosts: dict[str, HostView], files: list[FileView], policy: Policy
) -> None:
    made, stands = planned(files, hosts, policy, NOW), {one.file_id: (one, standing(one, hosts)) for one in files}
    keys = {file_id: urgency(one, stand) for file_id, (one, stand) in stands.items()}
    got = {action.file_id for action in made if isinstance(action, Order)}
    served = [keys[action.file_id] for action in made if isinstance(action, Order)]
    assert served == sorted(served)
    later = loaded(files, hosts, made)
    placing = Placing(Places(later, policy.max_arriving_per_host), policy, NOW)
    whys = [(one, placing.why_not(one)) for one in carried_out(files, hosts, made).values()]
    waiting = [keys[one.file_id] for one, why in whys if why and why.obstacle == "turn" and one.file_id not in got]
    assert not served or not waiting or max(served) < min(waiting)


@given(some_hosts(states=("live", "live", "suspect", "gone")), some_files(most=1))
def test_the_spread_is_as_even_as_can_be(hosts: dict[str, HostView], files: list[FileView]) -> None:
    for one in files:
        made = planned([one], hosts, ROOMY, NOW)
        chosen = [action.host_id for action in made if isinstance(action, Order)]
        if chosen:
            able = [
                host_id
                for host_id, host in hosts.items()
                if host.state == "live" and host_id not in one.copies and host.free >= one.size
                if max(host.rests_until, one.refused_by.get(host_id, 0.0)) <= NOW
            ]
            assert len(chosen) == min(standing(one, hosts).missing, len(able))
            best = min(unevenness(one, hosts, places) for places in combinations(able, len(chosen)))
            assert unevenness(one, hosts, chosen) == best


def unevenness(one: FileView, hosts: dict[str, HostView], more: tuple[str, ...] | list[str]) -> int:
    """The sum of squares of the copies of each zone: the least where they are as even as can be."""
    there = [h for h, c in one.copies.items() if c != "stuck" and h in hosts and hosts[h].state in ("live", "suspect")]
    return sum(count**2 for count in Counter(hosts[host].zone for host in (*there, *more)).values())


RELEASABLE: tuple[Copy, ...] = ("own", "ordered", "ordered", "arriving")


@given(
    st.lists(st.tuples(st.sampled_from(["", "r1", "r2"]), st.sampled_from(RELEASABLE), st.integers(0, 3)), max_size=8),
    st.integers(1, 4),
)
def test_what_is_given_up_leaves_the_spread_as_even_as_can_be(placed: list[tuple[str, Copy, int]], wanted: int) -> None:
    named = dict(zip(NAMES, placed, strict=False))
    hosts = {name: HostView(name, zone, "live", free * GIB) for name, (zone, _, free) in named.items()}
    one = FileView(bytes(32), GIB, wanted, {name: copy for name, (_, copy, _) in named.items()}, NOW)
    whole = {name: copy for name, copy in one.copies.items() if copy in COMPLETE}
    made = planned([one], hosts, ROOMY, NOW)
    given_up = [action.host_id for action in made if isinstance(action, Release) and action.host_id in whole]
    may_go = [name for name, copy in whole.items() if copy == "ordered"]
    assert len(given_up) == min(len(may_go), max(0, len(whole) - wanted))
    assert set(given_up) <= set(may_go)

    def spread(gone: Collection[str]) -> int:
        left = {name: copy for name, copy in whole.items() if name not in gone}
        return unevenness(replace(one, copies=left), hosts, ())

    assert spread(given_up) == min(map(spread, combinations(may_go, len(given_up))))


class Model:
    """A fleet that carries out what it is told, late, and at times not at all."""

    def __init__(self, hosts: dict[str, HostView], files: list[FileView]) -> None:
        self.hosts, self.files, self.now = hosts, files, NOW

    def step(self, data: st.DataObject, *, failing: bool) -> None:
        """One plan, carried out; each copy on its way may then have arrived, or failed."""
        self.now += 10
        for action in planned(self.seen(), self.loaded(), Policy(trim_after_s=20), self.now):
            (at,) = [number for number, one in enumerate(self.files) if one.file_id == action.file_id]
            self.change(at, action.host_id, "arriving" if isinstance(action, Order) else None)
        for at, one in enumerate(self.files):
            for host_id, copy in list(one.copies.items()):
                if copy in ("arriving", "coming"):
                    became = data.draw(st.sampled_from(["arriving", "failed", "done"])) if failing else "done"
                    if became != "arriving":
                        finished: Copy = "ordered" if copy == "arriving" else "own"
                        self.change(at, host_id, finished if became == "done" else None)

    def change(self, at: int, host_id: str, copy: Copy | None) -> None:
        """One host has another copy of one file."""
        copies = {host: one for host, one in self.files[at].copies.items() if host != host_id}
        self.files[at] = replace(self.files[at], copies=copies | ({host_id: copy} if copy is not None else {}))

    def seen(self) -> list[FileView]:
        """The files, with when each was seen first to have too many copies."""
        for at, one in enumerate(self.files):
            since = (one.surplus_since or self.now) if standing(one, self.hosts).has_surplus else None
            self.files[at] = replace(one, surplus_since=since)
        return list(self.files)

    def loaded(self) -> dict[str, HostView]:
        """The hosts, with what each fetches by order."""
        arriving = Counter(h for one in self.files for h, copy in one.copies.items() if copy == "arriving")
        return {host_id: replace(host, arriving=arriving[host_id]) for host_id, host in self.hosts.items()}


@settings(max_examples=50)
@given(some_hosts(), some_files(), st.data())
def test_a_fleet_with_room_settles_once_nothing_more_fails(
    hosts: dict[str, HostView], files: list[FileView], data: st.DataObject
) -> None:
    ready = {h: replace(host, free=1000 * GIB, rests_until=-1.0, arriving=0) for h, host in hosts.items()}
    fleet = Model(ready, [replace(one, refused_by={}, surplus_since=None) for one in files])
    for _ in range(data.draw(st.integers(0, 4))):
        fleet.step(data, failing=True)
    for _ in range(40):
        fleet.step(data, failing=False)
    made = planned(fleet.seen(), fleet.loaded(), Policy(trim_after_s=20), fleet.now)
    assert made == []
    for one in fleet.files:
        stand = standing(one, ready)
        placing = Placing(Places(fleet.loaded(), 2), Policy(trim_after_s=20), fleet.now)
        assert stand.is_settled or stand.has_surplus or placing.obstacle(one) in ("no-source", "no-host")
        if stand.has_surplus:  # what is there too much of cannot be relied upon, or is peoples' own
            live = [h for h, c in one.copies.items() if h in ready and ready[h].state == "live" and c in COMPLETE]
            assert len(live) <= one.wanted or all(one.copies[host] == "own" for host in live)
