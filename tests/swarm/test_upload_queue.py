"""The line for upload slots, in hand-made time."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.geometry import MIB, PieceIndex
from interfiles.swarm.upload_queue import HOLD_S, OPEN_S, STUCK_S, TURN_BYTES, SentCounts, UploadQueue
from tests.swarm.pieces import pieces

COUNT = 8
ALL = (1 << COUNT) - 1


def queue_of(*fetchers: str, slots: int = 1, piece_bytes: int = MIB, sent: SentCounts | None = None) -> UploadQueue:
    """A queue whose fetchers all fetch one file of eight pieces, and ask for nothing yet."""
    queue, counts = UploadQueue(slots), sent or SentCounts(COUNT)
    for fetcher in fetchers:
        queue.add(fetcher, counts, piece_bytes, 0)
    return queue


def test_each_piece_goes_out_once_before_any_goes_out_twice() -> None:
    queue = queue_of("a", "b", "c", slots=3)
    for fetcher in "abc":
        assert queue.ask(fetcher, ALL, 0.0) == [fetcher]
    rounds = [queue.next("abc"[turn % 3], 0.0) for turn in range(3 * COUNT)]
    assert rounds[:COUNT] == list(range(COUNT)), "in the order of the content"
    assert sorted(map(str, rounds)) == sorted(map(str, 3 * list(range(COUNT)))), "and everybody gets everything"


def test_only_what_was_asked_for_is_sent_and_only_once() -> None:
    queue = queue_of("a")
    queue.ask("a", pieces("..#..#..").bits, 0.0)
    assert [queue.next("a", 0.0) for _ in range(3)] == [2, 5, None]


def test_of_what_was_sent_as_often_the_next_in_order_goes() -> None:
    queue = queue_of("a")
    queue.ask("a", pieces("....##..").bits, 0.0)
    assert queue.next("a", 0.0) == 4
    queue.ask("a", pieces("##....##").bits, 0.0)
    assert [queue.next("a", 0.0) for _ in range(5)] == [5, 6, 7, 0, 1]


def test_what_was_not_sent_to_its_end_does_not_count_as_sent() -> None:
    counts = SentCounts(COUNT)
    queue = queue_of("a", "b", slots=2, sent=counts)
    queue.ask("a", 0b11, 0.0)
    queue.ask("b", 0b11, 0.0)
    assert queue.next("a", 0.0) == 0
    counts.undo(PieceIndex(0))
    assert [queue.next("a", 0.0), queue.next("b", 0.0)] == [1, 0]


def test_what_is_taken_back_is_not_sent() -> None:
    queue = queue_of("a")
    queue.ask("a", ALL, 0.0)
    queue.cancel("a", pieces("##.#####").bits, 0.0)
    assert [queue.next("a", 0.0), queue.next("a", 0.0)] == [2, None]


def test_who_finds_no_slot_waits_and_has_the_next_that_is_free() -> None:
    queue = queue_of("a", "b", "c", slots=2)
    assert queue.ask("a", 1, 0.0) == ["a"]
    assert queue.ask("b", 1, 0.0) == ["b"]
    assert queue.ask("c", 1, 0.0) == []
    assert queue.is_waiting("c")
    assert queue.next("c", 0.0) is None, "without a slot nothing is sent"
    assert queue.next("a", 0.0) == 0
    assert queue.grant(0.0) == [], "it is being sent"
    assert queue.next("a", 0.0) is None
    assert queue.grant(0.0) == ["c"]
    assert not queue.is_waiting("c")


def test_a_slot_is_free_when_its_fetcher_is_gone() -> None:
    queue = queue_of("a", "b")
    queue.ask("a", 1, 0.0)
    queue.ask("b", 1, 0.0)
    assert queue.drop("a", 0.0) == ["b"]
    assert queue.drop("nobody", 0.0) == []


def test_who_took_back_everything_is_passed_over_in_line() -> None:
    queue = queue_of("a", "b", "c")
    for fetcher in "abc":
        queue.ask(fetcher, 1, 0.0)
    assert queue.cancel("b", 1, 0.0) == []
    assert queue.drop("a", 0.0) == ["c"]
    assert queue.ask("b", 1, 0.0) == [], "and stands in line again when it asks again"
    assert queue.drop("c", 0.0) == ["b"]


def test_a_turn_ends_where_others_wait_and_goes_on_where_nobody_does() -> None:
    queue = queue_of("a", "b", piece_bytes=TURN_BYTES // 2)
    queue.ask("a", ALL, 0.0)
    assert [queue.next("a", 0.0) for _ in range(3)] == [0, 1, 2]
    queue.ask("b", ALL, 0.0)
    assert queue.next("a", 0.0) is None
    assert queue.grant(0.0) == ["b"]
    assert [queue.next("b", 0.0) for _ in range(3)] == [3, 4, None]
    assert queue.grant(0.0) == ["a"], "b is not owed what a had before it came"


def test_the_line_is_fair_by_bytes_whatever_the_pieces() -> None:
    queue = UploadQueue(slots=1)
    queue.add("large", SentCounts(1000), 16 * MIB, 0)
    queue.add("small", SentCounts(1000), MIB // 4, 0)
    given_bytes = {"large": 0, "small": 0}
    turn = [*queue.ask("large", (1 << 1000) - 1, 0.0), *queue.ask("small", (1 << 1000) - 1, 0.0)]
    for _ in range(2000):
        while queue.next(turn[0], 0.0) is not None:
            given_bytes[turn[0]] += 16 * MIB if turn[0] == "large" else MIB // 4
        turn = queue.grant(0.0)
        if not turn:
            break
    assert given_bytes["small"] == 250 * MIB, "all of it"
    assert given_bytes["large"] >= 250 * MIB


def test_who_takes_nothing_keeps_its_slot_from_nobody() -> None:
    queue = queue_of("stuck", "b")
    queue.ask("stuck", ALL, 0.0)
    assert queue.next("stuck", 0.0) == 0
    queue.ask("b", 1, 1.0)
    assert queue.grant(STUCK_S - 0.1) == []
    assert queue.grant(STUCK_S) == ["b"]
    assert queue.next("stuck", STUCK_S + 1) == 1, "it goes on with its own"


BITS = 1 << 4000


def shares(queue: UploadQueue, *fetchers: str, rounds: int) -> list[int]:
    """Pieces that each gets of so many, one after the other, when all want everything."""
    got, having = Counter[str](), list[str]()
    for fetcher in fetchers:
        having += queue.ask(fetcher, BITS - 1, 0.0)
    for turn in range(rounds):
        while queue.next(having[turn % len(having)], 0.0) is None:
            having = [name for name in having if name != having[turn % len(having)]] + queue.grant(0.0)
        got[having[turn % len(having)]] += 1
        having += queue.grant(0.0)
    return [got[fetcher] for fetcher in fetchers]


@pytest.mark.parametrize("piece_bytes", [MIB // 4, MIB, 4 * MIB])
def test_the_line_counts_bytes_by_weight(piece_bytes: int) -> None:
    queue = UploadQueue(1)
    for name, weight in {"low": 0.25, "normal": 1.0, "other": 1.0, "high": 4.0}.items():
        queue.add(name, SentCounts(4000), piece_bytes, 0, weight=weight)
    low, normal, other, high = shares(queue, "low", "normal", "other", "high", rounds=1500)
    assert high / normal == pytest.approx(4, rel=0.3)
    assert normal == pytest.approx(other, rel=0.1)
    assert normal / low == pytest.approx(4, rel=0.3)


def test_several_slots_count_by_weight_too_where_one_is_enough_for_the_heaviest() -> None:
    queue = UploadQueue(2)
    for name, weight in {"low": 0.25, "normal": 1.0, "other": 1.0}.items():
        queue.add(name, SentCounts(4000), MIB, 0, weight=weight)
    low, normal, other = shares(queue, "low", "normal", "other", rounds=1500)
    assert normal == pytest.approx(other, rel=0.1)
    assert 3.5 < normal / low < 6, "by weight, and what the background leaves besides"


def test_two_of_one_host_share_by_weight_though_there_are_slots() -> None:
    queue = UploadQueue(8)
    for name, weight in {"low": 0.25, "high": 4.0}.items():
        queue.add(name, SentCounts(4000), MIB, 0, host="the same", weight=weight)
    queue.add("another's", SentCounts(4000), MIB, 0, host="another", weight=0.25)
    low, high, _ = shares(queue, "low", "high", "another's", rounds=1000)
    assert 14 < high / low < 22, "by weight, and what the background leaves besides"


def test_who_is_of_the_same_host_waits_for_nobody_that_wants_nothing_or_is_stuck() -> None:
    queue = UploadQueue(8)
    for name, weight in {"low": 0.25, "high": 4.0}.items():
        queue.add(name, SentCounts(COUNT), MIB, -OPEN_S, host="the same", weight=weight)
    queue.ask("low", ALL, 0.0)
    assert [queue.next("low", 0.0) for _ in range(3)] == [0, 1, 2], "alone"
    queue.ask("high", 1, 0.0)
    assert queue.next("low", 0.0) is None
    assert queue.next("high", 0.0) == 0
    assert queue.grant(HOLD_S - 0.1) == []
    assert queue.grant(HOLD_S) == ["low"], "the other takes nothing"
    assert queue.next("low", STUCK_S) == 3
    queue.drop("high", STUCK_S)
    queue.add("high", SentCounts(COUNT), MIB, STUCK_S, host="the same", weight=4.0)
    queue.ask("high", 1, STUCK_S)
    queue.weigh("high", 0.25, STUCK_S)
    assert queue.next("low", STUCK_S) == 4, "of the same weight, they go at once"


def test_who_waits_for_another_of_the_same_host_goes_when_that_takes_all_back_or_weighs_no_more() -> None:
    queue = UploadQueue(8)
    for name, weight in {"first": 1.0, "heavy": 4.0, "last": 1.0}.items():
        queue.add(name, SentCounts(COUNT), MIB, 0, host="the same", weight=weight)
        assert queue.ask(name, ALL, 0.0) == [name]
    assert [queue.next("first", 0.0), queue.next("first", 0.0)] == [0, None]
    assert [queue.next("heavy", 0.0), queue.next("heavy", 0.0)] == [0, None]
    assert queue.grant(0.0) == [], "the first waits for the heavy one, and that for the last"
    assert queue.cancel("heavy", ALL, 0.0) == ["first"]
    assert queue.ask("heavy", ALL, 0.0) == []
    assert queue.weigh("heavy", 1.0, 0.0) == ["heavy"]


class Line:
    """Downloads share a line evenly, each with at most its own rate, in bytes a second; all of one host, or `apart`."""

    def __init__(self, line: float, piece_bytes: int, *, apart: bool = False, **own: float) -> None:
        self.line, self.piece_bytes, self.apart, self.steps = line, piece_bytes, apart, 0
        self.queue, self.got, self.left, self.own = (
            UploadQueue(8),
            Counter[str](),
            dict[str, float](),
            dict[str, float](),
        )
        for name, rate in own.items():
            self.join(name, rate)

    def join(self, name: str, own: float) -> None:
        """Another download begins, at most at its own rate."""
        self.own[name] = own
        weight = {"low": 0.25, "normal": 1.0, "high": 4.0}[name.rstrip("0123456789")]
        now, host = self.steps * 0.01, name if self.apart else "the same"
        self.queue.add(name, SentCounts(4000), self.piece_bytes, now, host=host, weight=weight)
        self.left.update(dict.fromkeys(self.queue.ask(name, BITS - 1, now), 0.0))

    def run(self, seconds: float) -> tuple[float, float]:
        """Bytes a second that low and high get from now on."""
        got = self.rates(seconds)
        return got["low"], got["high"]

    def rates(self, seconds: float) -> dict[str, float]:
        """Bytes a second that each gets from now on."""
        before = self.got.copy()
        for _ in range(round(seconds / 0.01)):
            self.steps += 1
            for name in list(self.left):
                self.send(name, min(self.own[name], self.line / len(self.left)) * 0.01)
            if self.steps % 25 == 0:
                self.give_slots()
        return {name: (self.got[name] - before[name]) * self.piece_bytes / seconds for name in self.own}

    def send(self, name: str, count: float) -> None:
        self.left[name] -= count
        while self.left[name] <= 0:
            if self.queue.next(name, self.steps * 0.01) is None:
                del self.left[name]
                self.give_slots()
                return
            self.got[name] += 1
            self.left[name] += self.piece_bytes

    def give_slots(self) -> None:
        self.left.update(dict.fromkeys(self.queue.grant(self.steps * 0.01), 0.0))


@pytest.mark.parametrize(("piece_bytes", "rate"), [(MIB // 4, 1e6), (MIB, 25e6), (4 * MIB, 4e6), (4 * MIB, 25e6)])
def test_two_of_one_host_share_a_line_by_weight_however_slow_it_is(piece_bytes: int, rate: float) -> None:
    line = Line(rate, piece_bytes, low=1e9, high=1e9)
    line.run(200 * piece_bytes / rate)
    low, high = line.run(1700 * piece_bytes / rate)
    assert high / low == pytest.approx(16, rel=0.3)
    assert low + high > 0.8 * rate, "of which steps in time lose some"


@pytest.mark.parametrize(("slow", "quick"), [("high", "low"), ("low", "high")])
def test_one_that_is_slow_by_itself_keeps_no_other_of_its_host_from_an_idle_line(slow: str, quick: str) -> None:
    line = Line(1e9, MIB // 4, apart=False, **{slow: MIB / 4 / 4.9, quick: 15 * MIB})
    rates = dict(zip(("low", "high"), line.run(60.0), strict=True))
    assert rates[quick] > 0.85 * 15 * MIB
    assert rates[slow] == pytest.approx(MIB / 4 / 4.9, rel=0.1)


def test_who_was_slow_by_itself_is_not_owed_for_all_that_time() -> None:
    line = Line(12 * MIB, MIB // 4, low=12 * MIB, high=MIB / 4 / 4.9)
    line.run(60.0)
    line.own["high"] = 12 * MIB
    line.run(5.0)
    low, high = line.run(10.0)
    assert high / low == pytest.approx(16, rel=0.3)


def test_who_is_slow_by_a_limit_is_not_stuck() -> None:
    queue = queue_of("slow", "b")
    queue.ask("slow", ALL, 0.0)
    assert queue.next("slow", 0.0) == 0
    queue.ask("b", 1, 0.0)
    for second in range(60):
        queue.moves("slow", float(second))
        assert queue.grant(second + 0.9) == []
    queue.moves("b", 60.0)
    assert queue.grant(60.0 + STUCK_S) == ["b"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, ALL), st.booleans()), max_size=60))
def test_slots_are_bounded_and_everybody_is_served_in_the_end(steps: list[tuple[str, int, bool]]) -> None:
    queue = queue_of(*"abcde", slots=2)
    wanted, slots = dict.fromkeys("abcde", 0), set[str]()

    def send(fetcher: str) -> None:
        piece = queue.next(fetcher, 0.0)
        if piece is None:
            slots.discard(fetcher)
            slots.update(queue.grant(0.0))
        else:
            assert wanted[fetcher] >> piece & 1
            wanted[fetcher] &= ~(1 << piece)

    for fetcher, asked, is_cancel in steps:
        if is_cancel:
            slots.update(queue.cancel(fetcher, asked, 0.0))
            wanted[fetcher] &= ~asked
        else:
            slots.update(queue.ask(fetcher, asked, 0.0))
            wanted[fetcher] |= asked
        assert len(slots) <= 2
        if slots:
            send(min(slots))
    for _ in range(200):
        for fetcher in list(slots):
            send(fetcher)
        assert len(slots) <= 2
    assert not any(wanted.values())
    assert not queue.waiting()
