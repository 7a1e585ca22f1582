"""What goes from one peer to another, in hand-made time: one block a piece; the source was asked for all of them."""

import random

import pytest

from interfiles.errors import RemoteProtocolError
from interfiles.geometry import BLOCK_BYTES, Block, PieceIndex
from interfiles.swarm.decisions import Arrival, Cancelled, Decision
from interfiles.swarm.peer_timing import KNOWN_BLOCKS
from interfiles.swarm.request_scheduler import RequestScheduler
from tests.swarm.pieces import geometry, pieces, write

FEW, MANY = 10, 20
SEVEN = PieceIndex(7)
RNG = random.Random(1)


def fetching(count: int) -> RequestScheduler:
    """The source has been asked for so many pieces, all there are; b then gains piece 7."""
    made = RequestScheduler(geometry(count, piece_size=BLOCK_BYTES), pieces("." * count))
    made.add_peer("source", pieces("#" * count), 0.0)
    made.add_peer("b", pieces("." * count), 0.0)
    assert len(made.next_asks("source", 0.0, RNG).asks) == count
    made.add_haves("b", [7])
    return made


def ask(made: RequestScheduler, peer: str, now: float = 0.1) -> Decision:
    decision = made.next_asks(peer, now, RNG)
    made.check_invariants()
    return decision


def begin(made: RequestScheduler, peer: str, piece: int) -> Arrival:
    arrival = made.on_block(peer, piece, 0, BLOCK_BYTES, 0.1)
    made.check_invariants()
    return arrival


def end(made: RequestScheduler, peer: str, piece: int) -> None:
    made.on_block_end(peer, BLOCK_BYTES, 0.2)
    write(made, peer, Block(PieceIndex(piece), 0, BLOCK_BYTES), 0.2)
    made.on_verified(PieceIndex(piece))
    made.check_invariants()


def test_what_waits_at_the_source_goes_to_who_has_it_now_once_the_source_lets_go() -> None:
    made = fetching(FEW)
    assert ask(made, "b") == Decision([], [Cancelled("source", SEVEN, even_begun=False)])
    assert ask(made, "b") == Decision(), "one at a time"
    assert made.on_dropped("source", 7) == ["b"], "which has waited for it"
    assert ask(made, "b").asks == [7]
    begin(made, "b", 7)
    end(made, "b", 7)
    with pytest.raises(RemoteProtocolError, match="had not been taken back"):
        made.on_dropped("source", 7)


def test_what_it_had_begun_comes_from_it_and_nowhere_else() -> None:
    made = fetching(FEW)
    ask(made, "b")
    assert begin(made, "source", 7) == Arrival(Block(SEVEN, 0, BLOCK_BYTES))
    assert ask(made, "b") == Decision()
    end(made, "source", 7)
    assert not made.on_dropped("source", 7)
    assert 7 in made.picker.held
    assert ask(made, "b") == Decision()


def test_who_has_many_to_choose_from_is_not_waited_for() -> None:
    made = fetching(MANY)
    assert ask(made, "b") == Decision([SEVEN], [Cancelled("source", SEVEN, even_begun=False)])
    assert not made.on_dropped("source", 7)


def test_one_that_stalls_is_waited_for_no_longer_and_not_told_twice() -> None:
    made = fetching(FEW)
    ask(made, "b")
    told = made.expire(60.0)
    made.check_invariants()
    assert [stall.pieces for stall in told] == [FEW]
    cancelled = told[0].cancelled
    assert {entry.piece for entry in cancelled} == {*range(FEW)} - {7}
    assert all(entry.even_begun for entry in cancelled)
    assert ask(made, "b", 60.0).asks == [7]
    assert not made.on_dropped("source", 7), "late"


def test_one_that_is_slow_is_waited_for_no_longer() -> None:
    made = fetching(FEW)
    ask(made, "b")
    assert ask(made, "b", 30.0).asks == [7], "silent, but not yet stalled, as far as this has looked"


def test_one_that_goes_leaves_what_it_did_not_let_go() -> None:
    made = fetching(FEW)
    ask(made, "b")
    made.remove_peer("source")
    assert ask(made, "b").asks == [7]


def test_who_begins_first_is_taken_though_it_was_taken_back() -> None:
    made = fetching(MANY)
    assert ask(made, "b").asks == [7]
    assert begin(made, "source", 7).cancelled == [Cancelled("b", SEVEN, even_begun=True)]
    end(made, "source", 7)
    assert begin(made, "b", 7) == Arrival(None), "b had begun too, and is dropped"
    assert not made.on_dropped("source", 7)
    assert not made.on_dropped("b", 7)


def test_what_was_taken_back_and_begun_elsewhere_is_dropped() -> None:
    made = fetching(MANY)
    ask(made, "b")
    assert begin(made, "b", 7).block is not None
    assert begin(made, "source", 7) == Arrival(None)


def test_what_was_taken_back_is_not_asked_of_the_same_peer_before_it_has_heard() -> None:
    made = fetching(MANY)
    ask(made, "b")
    made.remove_peer("b")
    assert ask(made, "source", 0.2).asks == []
    made.on_dropped("source", 7)
    assert ask(made, "source", 0.2).asks == [7]


def test_a_piece_that_is_not_found_after_all_is_free_once_that_is_settled() -> None:
    made = fetching(FEW)
    ask(made, "b")
    made.on_not_found("source", 7)
    assert made.on_dropped("source", 7)
    assert ask(made, "source").asks == []
    assert ask(made, "b").asks == [7]


def test_what_nobody_waits_for_any_more_may_be_asked_of_all_that_offer_it() -> None:
    made = fetching(FEW)
    made.add_peer("c", pieces("." * FEW), 0.0)
    ask(made, "b")
    made.remove_peer("b")
    assert made.on_dropped("source", 7) == ["source"], "c does not have it"
    assert ask(made, "source").asks == [7]


def on_slow_lines(*, arrived: dict[str, int]) -> RequestScheduler:
    """Four pieces are coming, each from another peer; so many bytes of each are here after 2.5 s. All have all."""
    made = RequestScheduler(geometry(5, piece_size=BLOCK_BYTES), pieces("....#"))
    for number, (name, count) in enumerate(arrived.items()):
        made.add_peer(name, pieces("".join("#" if at == number else "." for at in range(5))), 0.0)
        assert ask(made, name, 0.0).asks == [number]
        begin(made, name, number)
        made.timing(name).hear(2.5, count)
    made.add_peer("idle", pieces("#####"), 0.0)
    return made


def test_nobody_loses_what_is_coming_for_being_as_slow_as_all_are() -> None:
    made = on_slow_lines(arrived=dict.fromkeys("abcd", BLOCK_BYTES // 2))
    assert ask(made, "idle", 2.6) == Decision()


def test_a_first_block_that_came_in_a_burst_says_little() -> None:
    made = on_slow_lines(arrived=dict.fromkeys("abcd", BLOCK_BYTES // 2))
    made.timing("idle").start(2.5)
    made.on_block_end("idle", BLOCK_BYTES, 2.51)
    assert ask(made, "idle", 2.6) == Decision()
    for _ in range(KNOWN_BLOCKS):
        made.on_block_end("idle", BLOCK_BYTES, 2.52)
    assert ask(made, "idle", 2.6) == Decision(), "a piece that is as quick as is usual is not worth fetching twice"


def test_who_is_much_slower_than_all_loses_what_is_coming() -> None:
    made = on_slow_lines(arrived={"a": BLOCK_BYTES // 2, "b": BLOCK_BYTES // 2, "c": BLOCK_BYTES // 2, "slow": 1000})
    assert ask(made, "idle", 2.6) == Decision([PieceIndex(3)], [Cancelled("slow", PieceIndex(3), even_begun=True)])


def test_the_word_of_a_peer_is_waited_for_while_what_it_sends_is_in_front_of_it() -> None:
    made = RequestScheduler(geometry(3, piece_size=BLOCK_BYTES), pieces("..."))
    for name, offered in {"a": "##.", "b": ".#.", "c": "..#"}.items():
        made.add_peer(name, pieces(offered), 0.0)
    assert (ask(made, "a", 0.0).asks, ask(made, "c", 0.0).asks) == ([0, 1], [2])
    begin(made, "a", 0)
    begin(made, "c", 2)
    for name in ("a", "c"):
        made.timing(name).hear(2.0, BLOCK_BYTES // 2)
    assert ask(made, "b", 2.1) == Decision([], [Cancelled("a", PieceIndex(1), even_begun=False)])
    assert ask(made, "b", 4.0) == Decision(), "a piece takes some four seconds here"
    end(made, "c", 2)
    assert ask(made, "b", 4.0).asks == [1], "nothing says so any more"
