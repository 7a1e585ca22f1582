"""Who dials whom in a fleet of zones: the own zone, and a few who look abroad."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.handout import DEGREE, handouts
from interfiles.placement.zones import GATEWAYS, Handed, Member, zoned_handouts
from tests.placement.test_handout import reached

SALT = b"salt"

fleets = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.builds(Member, st.sampled_from(["", "a", "b", "c"]), st.booleans()),
    max_size=60,
)


def fleet(**sizes: int) -> dict[str, Member]:
    """So many hosts a zone; the first of all holds the file."""
    hosts = [(f"{zone}-{number:03}", zone) for zone, size in sizes.items() for number in range(size)]
    return {host: Member(zone, complete=not at) for at, (host, zone) in enumerate(hosts)}


def fetching(members: dict[str, Member]) -> list[str]:
    return [host for host, member in members.items() if not member.complete]


def handed(members: dict[str, Member], *, salt: bytes = SALT) -> dict[str, Handed]:
    return zoned_handouts(members, fetching(members), salt=salt)


def abroad(members: dict[str, Member], host: str, told: Handed) -> list[str]:
    return [peer for peer in told.peers if members[peer].zone != members[host].zone]


@given(fleets, st.binary(max_size=4))
def test_peers_are_other_members_without_repetition_and_at_most_the_degree(
    members: dict[str, Member], salt: bytes
) -> None:
    told = handed(members, salt=salt)
    assert sorted(told) == sorted(fetching(members))
    for host, its in told.items():
        assert host not in its.peers
        assert set(its.peers) <= set(members)
        assert len(set(its.peers)) == len(its.peers) <= DEGREE


@given(fleets)
def test_the_order_of_the_members_changes_nothing(members: dict[str, Member]) -> None:
    assert handed(members) == handed(dict(reversed(members.items())))


@given(fleets)
def test_what_one_has_everybody_gets(members: dict[str, Member]) -> None:
    everybody = {host: Member(member.zone, complete=False) for host, member in members.items()}
    peers = {host: list(its.peers) for host, its in handed(everybody).items()}
    assert all(reached(start, peers) == set(members) for start in members)


@pytest.mark.parametrize("sizes", [{"a": 20, "b": 20}, {f"z{n}": 2 for n in range(30)}, {"a": 100, "b": 1, "c": 14}])
def test_every_fetcher_reaches_the_source_by_dialling(sizes: dict[str, int]) -> None:
    members = fleet(**sizes)
    source = next(host for host, member in members.items() if member.complete)
    peers = {host: list(its.peers) for host, its in handed(members).items()} | {source: []}
    assert all(source in reached(start, peers) for start in members)


def test_one_zone_is_laid_out_as_if_there_were_none() -> None:
    members = fleet(a=40)
    plain = handouts(members, fetching(members), salt=SALT)
    assert handed(members) == {host: Handed(peers) for host, peers in plain.items()}


def test_only_a_few_of_a_zone_are_given_peers_abroad_and_these_know_one_another() -> None:
    members = fleet(a=30, b=40)
    told = handed(members)
    for zone in "ab":
        in_zone = {host: its for host, its in told.items() if members[host].zone == zone}
        sharing = {host for host, its in in_zone.items() if abroad(members, host, its)}
        assert len(sharing) == GATEWAYS
        assert all(set(its.gateways) == sharing for its in in_zone.values())
        for host in sharing:
            assert sharing - {host} <= set(told[host].peers)
            assert len(abroad(members, host, told[host])) == DEGREE - 8


def test_those_that_fetch_are_gateways_and_know_one_that_holds_all() -> None:
    members = fleet(a=30, b=20)
    told = handed(members)
    assert all("a-000" in told[host].peers for host in told["a-001"].gateways)
    assert not any("a-000" in abroad(members, host, its) for host, its in told.items())


def test_a_source_alone_in_its_zone_is_dialled_by_the_gateways_of_others() -> None:
    members = fleet(a=1, b=20)
    dialling = {host for host, its in handed(members).items() if "a-000" in its.peers}
    assert len(dialling) == GATEWAYS


def test_a_host_alone_in_its_zone_has_all_its_peers_abroad() -> None:
    members = fleet(a=30, b=1, c=30)
    assert len(handed(members)["b-000"].peers) == 2 * GATEWAYS
    assert handed(members)["b-000"].gateways == ["b-000"]


def test_of_many_small_zones_nobody_is_dialled_by_many_more_than_others() -> None:
    told = handed(fleet(**{f"z{number}": 2 for number in range(30)}))
    dialled = Counter(peer for its in told.values() for peer in its.peers)
    assert min(dialled.values()) >= DEGREE - 4
    assert max(dialled.values()) <= DEGREE + 4


def test_one_that_joins_or_leaves_changes_the_peers_of_few() -> None:
    before = fleet(a=60, b=60, c=60)
    old = handed(before)
    for newcomer in ("a-new", "b-new", "c-new"):
        new = handed({**before, newcomer: Member(newcomer[0], complete=False)})
        changed = [host for host in old if set(old[host].peers) != set(new[host].peers)]
        assert len(changed) <= 3 * DEGREE


def test_a_gateway_that_is_gone_is_replaced() -> None:
    members = fleet(a=30, b=30)
    old = handed(members)["b-000"].gateways
    told = handed({host: member for host, member in members.items() if host != old[0]})
    new = told[old[1]].gateways
    assert len(new) == GATEWAYS
    assert set(old[1:]) < set(new)
