"""The line for upload slots, in hand-made time."""

from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.geometry import MIB, PieceIndex
from interfiles.swarm.upload_queue import STUCK_S, TURN_BYTES, SentCounts, UploadQueue
from tests.swarm.pieces import pieces

COUNT = 8
ALL = (1 << COUNT) - 1


def queue_of(*fetchers: str, slots: int = 1, piece_bytes: int = MIB, sent: SentCounts | None = None) -> UploadQueue:
    """A queue whose fetchers all fetch one file of eight pieces, and ask for nothing yet."""
    queue, counts = UploadQueue(slots), sent or SentCounts(COUNT)
    for fetcher in fetchers:
        queue.add(fetcher, counts, piece_bytes)
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
    queue.cancel("a", pieces("##.#####").bits)
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
    queue.cancel("b", 1)
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
    queue.add("large", SentCounts(1000), 16 * MIB)
    queue.add("small", SentCounts(1000), MIB // 4)
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
            queue.cancel(fetcher, asked)
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
