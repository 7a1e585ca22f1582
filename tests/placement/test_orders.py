"""The reconciler's memory: what became of an order, by what the host announces or does not."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from interfiles.placement import orders as o
from interfiles.placement.orders import Ended, Orders
from interfiles.wire.master_messages import Holding, HoldingState

FILE = b"f" * 32
OTHER = b"o" * 32
SIZE = 1 << 30
UP = {"a", "b"}
MINUTE = 60.0
UNANSWERED = Ended("a", "failed", "it did not answer within 30 s")
COMPLETE = Ended("a", "complete")


def held(state: HoldingState = "fetching", pieces: int = 0, *, ordered: bool = True) -> dict[str, Holding]:
    """What host a announces."""
    return {"a": Holding(FILE, state, pieces, 0, 0, "", ordered)}


def stalled_at(pieces: list[int], up: list[set[str]]) -> float | None:
    """When a copy stalls that is looked at every minute of a day, if it does; the lists are gone through again."""
    orders = Orders()
    orders.ordered(FILE, "a", SIZE, 0)
    for minute in range(24 * 60):
        found = held("fetching", pieces[minute % len(pieces)])
        if orders.notice(FILE, found, up[minute % len(up)], minute * MINUTE):
            return minute * MINUTE
    return None


@pytest.fixture
def asked() -> Orders:
    """Host a was told at 0 to get a copy."""
    orders = Orders()
    orders.ordered(FILE, "a", SIZE, 0)
    return orders


@pytest.fixture
def arriving(asked: Orders) -> Orders:
    """It has begun to, at 1."""
    assert asked.notice(FILE, held(), UP, 1) == []
    return asked


class TestAnOrder:
    def test_counts_from_the_moment_that_it_is_given(self, asked: Orders) -> None:
        assert asked.copies(FILE, {}, 0) == {"a": "arriving"}
        assert (asked.arriving("a"), asked.asked_bytes("a")) == (1, SIZE)

    def test_may_be_declined_by_who_was_given_it(self, arriving: Orders) -> None:
        assert arriving.may_decline(FILE, "a", 2)
        assert not arriving.may_decline(FILE, "b", 2)
        assert not arriving.may_decline(OTHER, "a", 2)
        arriving.released(FILE, "a", 2)
        assert not arriving.may_decline(FILE, "a", 2)

    def test_that_was_given_up_may_be_declined_with_a_reason_a_moment_later(self, arriving: Orders) -> None:
        arriving.notice(FILE, {}, UP, 5)
        assert arriving.may_decline(FILE, "a", 6)
        assert not arriving.may_decline(FILE, "a", 5 + o.MIN_REST_S)

    def test_takes_room_on_the_host_until_that_counts_it_itself(self, arriving: Orders) -> None:
        assert (arriving.arriving("a"), arriving.asked_bytes("a")) == (1, 0)

    def test_comes_to_its_end_when_the_copy_is_whole(self, arriving: Orders) -> None:
        assert arriving.notice(FILE, held("complete", 4), UP, 2) == [COMPLETE]
        assert arriving.notice(FILE, held("complete", 4), UP, 3) == []
        assert arriving.copies(FILE, held("complete", 4), 3) == {"a": "ordered"}
        assert arriving.arriving("a") == 0

    def test_may_be_carried_out_between_two_looks(self, asked: Orders) -> None:
        assert asked.notice(FILE, held("complete", 4), UP, 2) == [COMPLETE]

    def test_that_is_not_answered_fails_and_rests_the_host(self, asked: Orders) -> None:
        assert asked.notice(FILE, {}, UP, o.ANSWER_S - 1) == []
        assert asked.notice(FILE, {}, UP, o.ANSWER_S) == [UNANSWERED]
        assert asked.copies(FILE, {}, o.ANSWER_S) == {}
        assert asked.rests_until("a") == o.ANSWER_S + o.MIN_REST_S
        assert asked.failures_in_a_row("a") == 1

    def test_that_is_given_up_by_the_host_fails(self, arriving: Orders) -> None:
        assert arriving.notice(FILE, {}, UP, 5) == [Ended("a", "failed", "it has given the copy up")]
        assert arriving.rests_until("a") == 5 + o.MIN_REST_S

    def test_that_is_declined_on_the_way_fails_once_and_counts_no_more(self, arriving: Orders) -> None:
        arriving.declined(FILE, "a", rest_s=0, whole_host=True, now=5)
        assert arriving.notice(FILE, held(pieces=1), UP, 5) == []
        assert arriving.copies(FILE, held(pieces=1), 5) == {"a": "stuck"}
        assert (arriving.arriving("a"), arriving.rests_until("a")) == (0, 5 + o.MIN_REST_S)
        assert arriving.is_going(FILE)
        assert arriving.notice(FILE, {}, UP, 6) == [], "the reason was told"
        assert not arriving.is_going(FILE)
        assert arriving.watched() == set()
        assert arriving.rests_until("a") == 5 + o.MIN_REST_S

    def test_that_is_declined_and_carried_out_all_the_same_is_a_copy(self, arriving: Orders) -> None:
        arriving.declined(FILE, "a", rest_s=0, whole_host=True, now=5)
        assert arriving.notice(FILE, held("waiting"), UP, o.STALLED_S) == []
        assert arriving.notice(FILE, held("complete", 4), UP, 1000) == [COMPLETE]
        assert arriving.copies(FILE, held("complete", 4), 1000) == {"a": "ordered"}
        assert arriving.failures_in_a_row("a") == 0

    def test_that_is_declined_again_and_again_fails_once(self, arriving: Orders) -> None:
        arriving.declined(FILE, "a", rest_s=0, whole_host=True, now=5)
        assert arriving.notice(FILE, held(), UP, 6) == []
        assert not arriving.may_decline(FILE, "a", 7)

    def test_that_is_declined_unseen_is_not_watched_for(self, asked: Orders) -> None:
        asked.declined(FILE, "a", rest_s=0, whole_host=True, now=5)
        assert asked.copies(FILE, {}, 5) == {}
        assert asked.notice(FILE, {}, UP, 5) == []
        assert asked.watched() == set()
        asked.declined(OTHER, "a", rest_s=0, whole_host=True, now=5)
        assert asked.watched() == set()

    def test_to_a_host_that_is_away_neither_fails_nor_ends(self, arriving: Orders) -> None:
        assert arriving.notice(FILE, held(), {"b"}, 10_000) == []
        assert arriving.copies(FILE, held(), 10_000) == {"a": "arriving"}
        assert arriving.notice(FILE, held(), UP, 10_001) == [], "it has its time again when it is back"

    def test_that_has_bad_bytes_is_on_its_way_again_as_its_host_mends_it(self, arriving: Orders) -> None:
        arriving.notice(FILE, held("complete", 4), UP, 2)
        assert arriving.notice(FILE, held("damaged", 3), UP, 100) == []
        assert arriving.copies(FILE, held("damaged", 3), 100) == {"a": "arriving"}
        assert (arriving.watched(), arriving.arriving("a")) == ({FILE}, 1)
        assert arriving.notice(FILE, held("fetching", 3), UP, 101) == []
        assert arriving.copies(FILE, held("fetching", 3), 101) == {"a": "arriving"}
        assert arriving.notice(FILE, held("complete", 4), UP, 102) == [COMPLETE]
        assert (arriving.watched(), arriving.arriving("a")) == (set(), 0)

    def test_that_has_bad_bytes_and_is_not_mended_soon_does_not_count(self, arriving: Orders) -> None:
        arriving.notice(FILE, held("complete", 4), UP, 2)
        for now in (100, 100 + o.MEND_S - 1):
            assert arriving.notice(FILE, held("damaged", 3), UP, now) == []
            assert arriving.copies(FILE, held("damaged", 3), now) == {"a": "arriving"}
        for now in (100 + o.MEND_S, 10_000):
            assert arriving.notice(FILE, held("damaged", 3), UP, now) == []
            assert arriving.copies(FILE, held("damaged", 3), now) == {"a": "stuck"}
            assert arriving.arriving("a") == 0
        assert arriving.notice(FILE, held("fetching", 3), UP, 10_001) == []
        assert arriving.copies(FILE, held("fetching", 3), 10_001) == {"a": "arriving"}, "better late than never"

    def test_what_a_person_has_is_not_mended_by_itself(self) -> None:
        orders = Orders()
        assert orders.notice(FILE, held("damaged", 3, ordered=False), UP, 0) == []
        assert orders.copies(FILE, held("damaged", 3, ordered=False), 0) == {"a": "stuck"}

    def test_that_a_person_takes_over_is_none_any_more(self, arriving: Orders) -> None:
        assert arriving.notice(FILE, held(ordered=False), UP, 2) == []
        assert arriving.arriving("a") == 0
        assert arriving.notice(FILE, {}, UP, 3) == [], "nobody is to blame for it"
        assert arriving.rests_until("a") < 0

    def test_for_what_a_person_fetches_is_counted_from_then_on(self) -> None:
        orders = Orders()
        orders.notice(FILE, held(ordered=False), UP, 0)
        assert orders.arriving("a") == 0
        orders.notice(FILE, held(), UP, 1)
        assert orders.arriving("a") == 1

    def test_under_way_is_found_again_after_the_memory_is_lost(self) -> None:
        orders = Orders()
        assert orders.copies(FILE, held(), 0) == {"a": "arriving"}
        assert orders.notice(FILE, held(), UP, 0) == []
        assert orders.arriving("a") == 1


class TestStalls:
    def test_a_copy_that_gains_nothing_for_long_fails_once(self, arriving: Orders) -> None:
        late = 1 + o.STALLED_S
        assert arriving.notice(FILE, held(), UP, late - 1) == []
        assert arriving.copies(FILE, held(), late) == {"a": "stuck"}
        (ended,) = arriving.notice(FILE, held(), UP, late)
        assert (ended.outcome, ended.stalled) == ("failed", True)
        arriving.released(FILE, "a", late)
        assert arriving.notice(FILE, held(), UP, late + 1) == []
        assert arriving.notice(FILE, {}, UP, late + 2) == [Ended("a", "released")]

    def test_one_that_gains_a_piece_now_and_then_does_not(self, arriving: Orders) -> None:
        for pieces in range(1, 5):
            assert arriving.notice(FILE, held(pieces=pieces), UP, pieces * (o.STALLED_S - 1)) == []
        assert arriving.copies(FILE, held(pieces=4), 4 * o.STALLED_S) == {"a": "arriving"}

    def test_one_that_loses_a_piece_and_gets_it_again_gains_nothing(self) -> None:
        assert stalled_at([5, 4], [UP]) == o.STALLED_S

    def test_one_that_comes_and_goes_has_its_time_again_a_few_times_only(self) -> None:
        away = [{"b"}, UP, UP, UP]
        assert stalled_at([5], away) == 4 * o.MAX_RETURNS * MINUTE + o.STALLED_S
        assert stalled_at(list(range(24 * 60)), away) is None

    def test_one_that_was_away_for_a_day_has_its_time_again(self) -> None:
        assert stalled_at([5], [{"b"}] * 20 * 60 + [UP] * 4 * 60) == 20 * 60 * MINUTE + o.STALLED_S - MINUTE

    def test_what_a_person_fetches_slowly_is_not_counted_on_and_left_alone(self) -> None:
        orders = Orders()
        orders.notice(FILE, held(ordered=False), UP, 0)
        assert orders.notice(FILE, held(ordered=False), UP, o.STALLED_S) == []
        assert orders.copies(FILE, held(ordered=False), o.STALLED_S) == {"a": "stuck"}


class TestReleases:
    def test_a_copy_does_not_count_once_it_is_to_go(self) -> None:
        orders, whole = Orders(), held("complete", 4)
        orders.released(FILE, "a", 0)
        assert orders.copies(FILE, whole, 0) == {"a": "stuck"}
        assert orders.is_releasing(FILE, "a")
        assert orders.notice(FILE, whole, UP, 1) == []
        assert orders.notice(FILE, {}, UP, 2) == [Ended("a", "released")]
        assert not orders.is_releasing(FILE, "a")

    def test_a_host_that_keeps_it_all_the_same_has_a_copy_again(self) -> None:
        orders, whole = Orders(), held("complete", 4)
        orders.released(FILE, "a", 0)
        assert orders.notice(FILE, whole, UP, o.ANSWER_S) == []
        assert orders.copies(FILE, whole, o.ANSWER_S) == {"a": "ordered"}

    def test_copies_too_many_are_timed_without_a_break(self) -> None:
        orders = Orders()
        assert orders.surplus_since(FILE, 5, has_surplus=True) == 5
        assert orders.surplus_since(FILE, 9, has_surplus=True) == 5
        assert orders.surplus_since(FILE, 10, has_surplus=False) is None
        assert orders.surplus_since(FILE, 11, has_surplus=True) == 11


class TestFailing:
    def decline(self, orders: Orders, now: float, *, whole_host: bool, rest_s: float = 0.0) -> None:
        orders.ordered(FILE, "a", SIZE, now)
        orders.declined(FILE, "a", rest_s=rest_s, whole_host=whole_host, now=now)

    def test_a_host_rests_twice_as_long_each_time_in_a_row(self) -> None:
        orders, now, rests = Orders(), 0.0, list[float]()
        for _ in range(9):
            self.decline(orders, now, whole_host=True)
            rests.append(orders.rests_until("a") - now)
            now = orders.rests_until("a")
        assert rests[:3] == [60, 120, 240]
        assert rests[-1] == o.MAX_REST_S

    def test_what_fails_at_the_same_time_is_one_failure(self) -> None:
        orders = Orders()
        for file_id in (FILE, OTHER):
            orders.ordered(file_id, "a", SIZE, 0)
        assert orders.notice(FILE, {}, UP, 40) == orders.notice(OTHER, {}, UP, 40) == [UNANSWERED]
        assert (orders.failures_in_a_row("a"), orders.rests_until("a")) == (1, 40 + o.MIN_REST_S)

    def test_one_file_that_is_declined_is_not_asked_for_again_soon_and_others_are(self) -> None:
        orders = Orders()
        self.decline(orders, 0, whole_host=False)
        assert orders.refused_by(FILE, 1) == {"a": o.MIN_REST_S}
        assert orders.rests_until("a") < 0
        assert orders.refused_by(FILE, o.MIN_REST_S) == {}

    def test_a_host_that_does_not_want_a_file_is_no_place_for_it(self) -> None:
        orders = Orders()
        self.decline(orders, 0, whole_host=False, rest_s=86_400)
        assert orders.copies(FILE, {}, 86_399) == {"a": "stuck"}
        orders.settle(FILE)
        assert orders.copies(FILE, {}, 86_399) == {"a": "stuck"}, "nor is it asked later"
        assert orders.copies(FILE, {}, 86_400) == {}
        assert orders.refused_by(FILE, 1) == {}, "it has not failed"

    def test_a_host_that_declines_everything_rests_in_the_end(self) -> None:
        orders = Orders()
        for number in range(o.MAX_DECLINES):
            assert orders.rests_until("a") < 0
            self.decline(orders, number, whole_host=False)
        assert orders.rests_until("a") == o.MAX_DECLINES - 1 + o.MIN_REST_S

    def test_an_order_carried_out_makes_up_for_all(self) -> None:
        orders = Orders()
        self.decline(orders, 0, whole_host=True)
        orders.ordered(FILE, "a", SIZE, 100)
        assert orders.notice(FILE, held("complete", 4), UP, 101) == [COMPLETE]
        assert (orders.failures_in_a_row("a"), orders.rests_until("a")) == (0, float("-inf"))

    def test_a_copy_that_is_declined_on_its_way_does_not_count_while_the_host_cannot_let_go_of_it(
        self, arriving: Orders
    ) -> None:
        """As where the disk is so full that the host cannot even write down that it has given the copy up."""
        arriving.notice(FILE, held(pieces=3), UP, 2)
        arriving.declined(FILE, "a", rest_s=0, whole_host=True, now=3)
        assert arriving.notice(FILE, held(pieces=3), UP, 4) == []
        assert arriving.copies(FILE, held(pieces=3), 4) == {"a": "stuck"}
        assert arriving.arriving("a") == 0
        assert not arriving.may_decline(FILE, "a", 5), "that it cannot is known"
        assert arriving.notice(FILE, {}, UP, 6) == [], "and told"
        assert arriving.copies(FILE, {}, 6) == {}

    def test_a_connection_lost_before_an_answer_is_a_failure(self, asked: Orders) -> None:
        assert asked.lost("b", 1) == []
        assert asked.lost("a", 1) == [FILE]
        assert asked.copies(FILE, {}, 1) == {}
        assert asked.rests_until("a") == 1 + o.MIN_REST_S
        assert asked.lost("a", 2) == []

    def test_one_lost_on_the_way_is_none(self, arriving: Orders) -> None:
        assert arriving.lost("a", 2) == []
        assert arriving.copies(FILE, held(), 2) == {"a": "arriving"}
        assert arriving.notice(FILE, held("complete", 4), UP, 50) == [COMPLETE], "it is back, and has gone on meanwhile"


class TestForgetting:
    def test_a_file(self, asked: Orders) -> None:
        asked.forget_file(FILE)
        assert asked.copies(FILE, {}, 0) == {}
        assert asked.arriving("a") == 0

    def test_a_host(self, asked: Orders) -> None:
        asked.declined(OTHER, "a", rest_s=0, whole_host=True, now=0)
        asked.forget_host("a")
        assert not asked.copies(FILE, {}, 0)
        assert not asked.refused_by(OTHER, 1)
        assert (asked.arriving("a"), asked.failures_in_a_row("a")) == (0, 0)


class OrdersMachine(RuleBasedStateMachine):
    """Whatever is done and announced, the counts are right, and nothing is kept of what is forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.orders, self.now = Orders(), 0.0
        self.held: dict[bytes, dict[str, Holding]] = {FILE: {}, OTHER: {}}

    files, hosts = st.sampled_from([FILE, OTHER]), st.sampled_from(["a", "b", "c"])

    @rule(file_id=files, host=hosts)
    def order(self, file_id: bytes, host: str) -> None:
        if host not in self.orders.copies(file_id, self.held[file_id], self.now):
            self.orders.ordered(file_id, host, SIZE, self.now)

    @rule(file_id=files, host=hosts)
    def release(self, file_id: bytes, host: str) -> None:
        if host in self.held[file_id]:
            self.orders.released(file_id, host, self.now)

    @rule(file_id=files, host=hosts, whole_host=st.booleans())
    def decline(self, file_id: bytes, host: str, whole_host: bool) -> None:
        self.orders.declined(file_id, host, rest_s=0.0, whole_host=whole_host, now=self.now)
        assert host in self.orders.refused_by(file_id, self.now)

    @rule(file_id=files, host=hosts, state=st.sampled_from(["fetching", "waiting", "paused", "complete", "none"]))
    def announce(self, file_id: bytes, host: str, state: HoldingState) -> None:
        self.held[file_id].pop(host, None)
        if state != "none":
            self.held[file_id][host] = Holding(file_id, state, int(self.now), 0, 0, "", len(host) + self.now % 2 > 1)

    @rule(host=hosts)
    def lose(self, host: str) -> None:
        self.orders.lost(host, self.now)

    @rule(host=hosts)
    def forget_host(self, host: str) -> None:
        self.orders.forget_host(host)
        for held in self.held.values():
            held.pop(host, None)
        assert self.orders.arriving(host) == self.orders.asked_bytes(host) == 0

    @rule(file_id=files)
    def forget_file(self, file_id: bytes) -> None:
        self.orders.forget_file(file_id)
        assert self.orders.copies(file_id, {}, self.now) == {}

    @rule(seconds=st.sampled_from([1.0, 31.0, 601.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(file_id=files, up=st.sets(hosts))
    def notice(self, file_id: bytes, up: set[str]) -> None:
        for ended in self.orders.notice(file_id, self.held[file_id], up, self.now):
            assert ended.outcome != "failed" or ended.host_id in up, "nobody is blamed who cannot be heard"
            if ended.stalled:
                self.orders.released(file_id, ended.host_id, self.now)
        copies = self.orders.copies(file_id, self.held[file_id], self.now)
        assert set(copies) >= set(self.held[file_id])

    @invariant()
    def consistent(self) -> None:
        self.orders.check_invariants()


TestOrdersMachine = OrdersMachine.TestCase
