"""What is asked of peers in other zones: scenarios in hand-made time, pieces as strings."""

import random

import pytest

from interfiles.geometry import PieceIndex
from interfiles.swarm import abroad, peer_timing
from interfiles.swarm.abroad import share
from interfiles.swarm.decisions import Cancelled, Decision
from interfiles.swarm.request_scheduler import RequestScheduler
from tests.swarm.pieces import pieces
from tests.swarm.test_request_scheduler import answer, ask, scheduler

COUNT = 16
NONE, ALL = "." * COUNT, "#" * COUNT
GATEWAYS = ("me", "other")
MINE = [piece for piece in range(COUNT) if share(COUNT, GATEWAYS, "me") >> piece & 1]
OTHERS = [piece for piece in range(COUNT) if piece not in MINE]


def near(*names: str) -> list[str]:
    return [name for name in names if not name.startswith("far")]


def fetching(*, gateways: tuple[str, ...] = GATEWAYS, **peers: str) -> RequestScheduler:
    """Peers whose names begin with "far" are in another zone."""
    made = scheduler(NONE)
    for name, offered in peers.items():
        made.add_peer(name, pieces(offered), 0.0)
    far = [name for name in peers if name.startswith("far")]
    made.abroad.place(near=near(*peers), foreign=far, gateways=gateways, me="me", now=0.0)
    return made


def fetch(made: RequestScheduler, peer: str, asked: list[PieceIndex], now: float) -> list[PieceIndex]:
    """The peer sends what was asked; return everything asked until it has no more to send."""
    everything = list(asked)
    while asked:
        answer(made, peer, asked[0], now)
        more = ask(made, peer, now)
        everything += more
        asked = [*asked[1:], *more]
    return everything


def test_what_the_own_zone_offers_is_not_asked_of_another() -> None:
    made = fetching(gateways=(), near=ALL, far=ALL)
    assert ask(made, "far", 0.0) == []
    made = fetching(gateways=(), near="#" * 15 + ".", far=ALL)
    assert ask(made, "far", 0.0) == [15]


def test_what_only_others_offer_is_divided_among_the_gateways() -> None:
    made = fetching(far=ALL)
    assert ask(made, "far", 0.0) == MINE


def test_a_host_that_is_alone_in_its_zone_asks_for_everything() -> None:
    for gateways in ((), ("me",)):
        assert ask(fetching(gateways=gateways, far=ALL), "far", 0.0) == list(range(COUNT))


def test_a_host_that_is_no_gateway_any_more_only_helps() -> None:
    made = fetching(gateways=("other", "another"), far=ALL)
    assert ask(made, "far", 0.0) == []
    assert len(ask(made, "far", abroad.HELP_S + 0.1)) == 1


def test_until_the_own_zone_is_connected_nobody_else_is_asked_but_not_for_long() -> None:
    made = scheduler(NONE, far=ALL)
    made.abroad.place(near=["near"], foreign=["far"], gateways=[], me="me", now=0.0)
    assert ask(made, "far", 0.0) == []
    assert len(ask(made, "far", abroad.FIRST_LOOK_S)) == COUNT
    made = scheduler(NONE, far=ALL)
    made.abroad.place(near=["near"], foreign=["far"], gateways=[], me="me", now=0.0)
    made.add_peer("near", pieces(NONE), 0.1)
    assert len(ask(made, "far", 0.1)) == COUNT


def test_the_first_handout_may_be_late() -> None:
    made = scheduler(NONE)
    made.abroad.place(near=[], foreign=[], gateways=[], me="me", now=0.0)
    now = 10 * abroad.FIRST_LOOK_S
    made.abroad.place(near=["near"], foreign=["far"], gateways=[], me="me", now=now)
    made.add_peer("far", pieces(ALL), now)
    assert ask(made, "far", now) == []
    made.add_peer("near", pieces(ALL), now)
    assert ask(made, "far", now) == []


def test_a_gateway_that_is_done_helps_with_what_lies_untouched_one_piece_at_a_time() -> None:
    made, now = fetching(far=ALL, near=NONE), 1.0
    assert fetch(made, "far", ask(made, "far", now), now) == MINE
    assert ask(made, "far", now + abroad.HELP_S - 0.1) == []
    helped = []
    while asked := ask(made, "far", now + abroad.HELP_S):
        assert len(asked) == 1
        assert ask(made, "far", now + abroad.HELP_S) == [], "one at a time"
        answer(made, "far", asked[0], now + abroad.HELP_S)
        helped += asked
    assert sorted(helped) == OTHERS
    assert made.picker.is_complete


def test_what_the_zone_gets_meanwhile_is_not_fetched_to_help() -> None:
    made, now = fetching(far=ALL, near=NONE), 1.0
    fetch(made, "far", ask(made, "far", now), now)
    ask(made, "far", now)
    for piece in OTHERS[1:]:
        made.add_haves("near", [piece])
    assert ask(made, "far", now + abroad.HELP_S) == OTHERS[:1]


def test_what_is_new_abroad_is_left_to_whom_it_falls_for_a_while() -> None:
    made, now = fetching(far=NONE, near=NONE), 1.0
    assert ask(made, "far", now) == []
    now += 10 * abroad.HELP_S
    made.add_haves("far", [OTHERS[0]])
    assert ask(made, "far", now) == []
    assert ask(made, "far", now + abroad.HELP_S) == OTHERS[:1]


def test_what_a_peer_here_has_by_now_is_taken_back_from_one_abroad() -> None:
    made = fetching(far=ALL, near=NONE)
    assert ask(made, "far", 0.0) == MINE
    made.add_haves("near", [MINE[0]])
    decision = made.next_asks("far", 0.1, random.Random(1))
    made.check_invariants()
    assert decision.cancelled == [Cancelled("far", PieceIndex(MINE[0]), even_begun=False)]
    assert made.on_dropped("far", MINE[0])
    assert ask(made, "near", 0.1) == MINE[:1]


def test_a_peer_here_takes_over_what_waits_abroad() -> None:
    made = fetching(far=ALL, near=NONE)
    ask(made, "far", 0.0)
    made.add_haves("near", [MINE[0]])
    decision = made.next_asks("near", 0.1, random.Random(1))
    assert decision == Decision([], [Cancelled("far", PieceIndex(MINE[0]), even_begun=False)])
    made.on_dropped("far", MINE[0])
    assert ask(made, "near", 0.1) == MINE[:1]


def test_another_division_takes_back_what_now_falls_to_others() -> None:
    made = fetching(gateways=("me",), far=ALL)
    assert len(ask(made, "far", 0.0)) == COUNT
    made.abroad.place(near=[], foreign=["far"], gateways=GATEWAYS, me="me", now=0.1)
    decision = made.next_asks("far", 0.1, random.Random(1))
    made.check_invariants()
    assert [entry.piece for entry in decision.cancelled] == OTHERS


@pytest.mark.parametrize("end", ["stalled", "gone"])
def test_when_the_own_zone_fails_others_are_asked(end: str) -> None:
    made = fetching(gateways=(), near=ALL, far=ALL)
    ask(made, "near", 0.0)
    assert ask(made, "far", 0.0) == []
    now = peer_timing.FIRST_STALL_S
    if end == "stalled":
        assert made.expire(now)
    else:
        made.remove_peer("near")
    assert ask(made, "far", now)


def test_a_peer_here_that_died_without_a_word_keeps_nothing_from_being_fetched() -> None:
    made, now = fetching(gateways=(), near=ALL, far=ALL), 0.0
    owed = ask(made, "near", now)
    now += peer_timing.FIRST_STALL_S
    assert made.expire(now)
    now += peer_timing.MAX_STALL_S
    assert set(owed) <= set(fetch(made, "far", ask(made, "far", now), now))
    assert not made.picker.missing


def test_a_peer_here_that_trickles_keeps_the_zone_waiting_no_longer_than_a_while() -> None:
    made = fetching(gateways=(), near=ALL, far=ALL)
    ask(made, "near", 0.0)
    for second in range(1, int(abroad.SLOW_S) + 2):
        made.timing("near").hear(float(second), 1)
    assert ask(made, "far", abroad.SLOW_S) == []
    assert made.next_asks("far", abroad.SLOW_S + 1, random.Random(1)).asks


def test_a_peer_abroad_may_be_silent_for_longer() -> None:
    made = fetching(gateways=(), far=ALL)
    ask(made, "far", 0.0)
    assert made.expire(peer_timing.FIRST_STALL_S + abroad.FAR_SILENCE_S - 0.1) == []
    assert made.expire(peer_timing.FIRST_STALL_S + abroad.FAR_SILENCE_S)


class TestShares:
    @pytest.mark.parametrize("count", [1, 7, 1000, 1024, 5000])
    def test_each_piece_falls_to_one_gateway(self, count: int) -> None:
        hosts = ["a", "b", "c", "d"]
        shares = [share(count, hosts, host) for host in hosts]
        assert sum(found.bit_count() for found in shares) == count
        assert sum(shares) == (1 << count) - 1

    def test_shares_are_about_equal(self) -> None:
        hosts = ["a", "b", "c", "d"]
        assert all(1000 < share(5000, hosts, host).bit_count() < 1500 for host in hosts)

    def test_one_that_goes_leaves_the_others_what_they_had(self) -> None:
        before = share(1000, ["a", "b", "c"], "a")
        assert share(1000, ["b", "a"], "a") & before == before

    def test_the_order_in_which_gateways_are_named_changes_nothing(self) -> None:
        assert share(100, ["a", "b"], "a") == share(100, ["b", "a"], "a")

    def test_nobody_to_share_with_is_all_and_no_gateway_nothing(self) -> None:
        assert share(3, [], "a") == 0b111
        assert share(3, ["b"], "a") == 0


def test_one_abroad_that_hangs_keeps_nobody_from_helping() -> None:
    lone = MINE[0]
    held = "".join("." if piece == lone else "#" for piece in range(COUNT))
    only = "".join("#" if piece == lone else "." for piece in range(COUNT))
    made, now = fetching(far=held, far_hung=only, near=NONE), 1.0
    assert ask(made, "far_hung", now) == [lone]
    fetch(made, "far", ask(made, "far", now), now)
    now += peer_timing.FIRST_STALL_S + abroad.FAR_SILENCE_S
    assert [entry.peer for entry in made.expire(now)] == ["far_hung"]
    assert ask(made, "far", now) == []
    assert len(ask(made, "far", now + abroad.HELP_S)) == 1
