"""Who dials whom: everybody in a small swarm, a random regular graph in a larger one."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from interfiles.placement.handout import DEGREE, handouts

SALT = b"salt"

names = st.text("abcdefgh", min_size=1, max_size=4)
swarms = st.lists(names, unique=True, max_size=60)


def swarm(count: int) -> list[str]:
    return [f"host-{number:04}" for number in range(count)]


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
    members: list[str], degree: int, salt: bytes
) -> None:
    for asker, peers in handouts(members, [*members, "outsider"], salt=salt, degree=degree).items():
        assert asker not in peers
        assert set(peers) <= set(members)
        assert len(set(peers)) == len(peers) <= degree
        assert len(peers) == min(degree, len(set(members) - {asker}))


@given(swarms)
def test_the_order_in_which_members_are_given_changes_nothing(members: list[str]) -> None:
    shuffled = sorted(members, reverse=True)
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


def test_a_large_swarm_hangs_together_so_what_one_has_everybody_gets() -> None:
    members = swarm(500)
    peers = handouts(members, members, salt=SALT)
    assert all(reached(start, peers) == set(members) for start in members[:20])


def test_the_source_of_a_large_swarm_is_dialled_no_more_than_others() -> None:
    members = swarm(1000)
    chosen = handouts(members, members[1:], salt=SALT)
    assert DEGREE - 3 <= sum(members[0] in peers for peers in chosen.values()) <= DEGREE + 3


def test_one_that_joins_or_leaves_changes_the_peers_of_few() -> None:
    before = swarm(200)
    after = [*before, "newcomer"]
    askers = list(before)
    old, new = handouts(before, askers, salt=SALT), handouts(after, askers, salt=SALT)
    changed = [asker for asker in askers if set(old[asker]) != set(new[asker])]
    assert 0 < len(changed) <= 3 * DEGREE


def test_another_salt_gives_another_graph() -> None:
    members = swarm(100)
    assert handouts(members, members, salt=b"a") != handouts(members, members, salt=b"b")
