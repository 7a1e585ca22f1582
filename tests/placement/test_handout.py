"""Who dials whom: everybody in a small swarm, a random regular graph in a larger one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.handout import COMPLETE_PEERS, DEGREE, handouts

SALT = b"salt"

names = st.text("abcdefgh", min_size=1, max_size=4)
swarms = st.dictionaries(names, st.booleans(), max_size=60)


def swarm(count: int, *, complete: int = 0) -> dict[str, bool]:
    """`count` hosts, the first `complete` of which have everything."""
    return {f"host-{number:04}": number < complete for number in range(count)}


def reached(start: str, peers: dict[str, list[str]]) -> set[str]:
    """Whoever can be reached from `start` by dialling."""
    found, edge = {start}, [start]
    while edge:
        news = {peer for host in edge for peer in peers[host]} - found
        found |= news
        edge = list(news)
    return found


@given(swarms, st.integers(min_value=1, max_value=14), st.binary(max_size=4))
def test_peers_are_other_members_without_repetition_and_at_most_the_degree(
    members: dict[str, bool], degree: int, salt: bytes
) -> None:
    for asker, peers in handouts(members, [*members, "outsider"], salt=salt, degree=degree).items():
        assert asker not in peers
        assert set(peers) <= set(members)
        assert len(set(peers)) == len(peers) <= degree
        assert len(peers) == min(degree, len(set(members) - {asker}))


@given(swarms)
def test_whole_copies_are_always_among_the_peers(members: dict[str, bool]) -> None:
    for asker, peers in handouts(members, members, salt=SALT).items():
        others = sum(complete for host, complete in members.items() if host != asker)
        assert sum(members[peer] for peer in peers) >= min(COMPLETE_PEERS, others)


@given(swarms)
def test_the_order_in_which_members_are_given_changes_nothing(members: dict[str, bool]) -> None:
    shuffled = dict(sorted(members.items(), reverse=True))
    assert handouts(members, members, salt=SALT) == handouts(shuffled, members, salt=SALT)


def test_in_a_small_swarm_everybody_dials_everybody() -> None:
    members = swarm(DEGREE + 1)
    for asker, peers in handouts(members, members, salt=SALT).items():
        assert set(peers) == set(members) - {asker}


def test_in_a_large_swarm_nobody_is_dialled_by_many_more_than_others() -> None:
    members = swarm(500)
    dialled = Counter(peer for peers in handouts(members, members, salt=SALT).values() for peer in peers)
    assert min(dialled.values()) >= DEGREE - 3
    assert max(dialled.values()) <= DEGREE + 3


def test_a_large_swarm_hangs_together() -> None:
    members = swarm(500, complete=1)
    peers = handouts(members, members, salt=SALT)
    assert all(reached(start, peers) == set(members) for start in list(members)[:20])


def test_with_one_source_everybody_gets_it() -> None:
    members = swarm(200, complete=1)
    assert all(
        "host-0000" in peers for host, peers in handouts(members, members, salt=SALT).items() if host != "host-0000"
    )


def test_many_whole_copies_share_the_askers() -> None:
    members = swarm(200, complete=20)
    askers = [host for host, complete in members.items() if not complete]
    chosen = handouts(members, askers, salt=SALT)
    load = Counter(peer for peers in chosen.values() for peer in peers if members[peer])
    assert len(load) == 20
    assert max(load.values()) < 60  # each of 180 askers has at least two


@pytest.mark.parametrize("complete", [0, 3, 100])
def test_one_that_joins_or_leaves_changes_the_peers_of_few(complete: int) -> None:
    before = swarm(200, complete=complete)
    after = {**before, "newcomer": False}
    askers = list(before)
    old, new = handouts(before, askers, salt=SALT), handouts(after, askers, salt=SALT)
    changed = [asker for asker in askers if set(old[asker]) != set(new[asker])]
    assert 0 < len(changed) <= 3 * DEGREE


def test_another_salt_gives_another_graph() -> None:
    members = swarm(100)
    assert handouts(members, members, salt=b"a") != handouts(members, members, salt=b"b")
