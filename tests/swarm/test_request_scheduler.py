"""Scenarios in hand-made time: two blocks a piece, pieces as strings."""

import random

import pytest

from interfiles.errors import RemoteProtocolError
from interfiles.geometry import BLOCK_BYTES, Block, PieceIndex
from interfiles.swarm import asked_peer, peer_timing
from interfiles.swarm import request_scheduler as rs
from interfiles.swarm.decisions import Arrival, Cancelled, Stall
from interfiles.swarm.request_scheduler import RequestScheduler
from tests.swarm.pieces import geometry, pieces, write

PIECE = 2 * BLOCK_BYTES
RNG = random.Random(1)


def scheduler(held: str, *, piece_size: int = PIECE, **peers: str) -> RequestScheduler:
    made = RequestScheduler(geometry(len(held), piece_size=piece_size), pieces(held))
    for name, offered in peers.items():
        made.add_peer(name, pieces(offered), 0.0)
    return made


def ask(made: RequestScheduler, peer: str, now: float) -> list[PieceIndex]:
    decision = made.next_asks(peer, now, RNG)
    made.check_invariants()
    assert not decision.cancelled
    return decision.asks


def blocks(made: RequestScheduler, piece: int) -> list[Block]:
    return made.picker.geometry.blocks(PieceIndex(piece))


def answer(made: RequestScheduler, peer: str, piece: int, now: float, *, count: int | None = None) -> list[Cancelled]:
    """The peer sends a piece, or its first `count` blocks, all at once."""
    cancelled: list[Cancelled] = []
    for block in blocks(made, piece)[:count]:
        arrival = made.on_block(peer, block.piece, block.offset, block.length, now)
        assert arrival.block == block
        cancelled += arrival.cancelled
        made.on_block_end(peer, block.length, now)
        write(made, peer, block, now)
    if count is None:
        made.on_verified(PieceIndex(piece))
        made.check_invariants()
    return cancelled


def test_everything_is_asked_of_the_only_peer_that_has_it() -> None:
    made = scheduler("." * 40, a="#" * 40)
    assert ask(made, "a", 0.0) == list(range(40)), "in order: it chooses"
    assert ask(made, "a", 0.0) == []


def test_not_more_than_a_bound_is_asked_of_the_only_peer_and_more_when_half_has_come() -> None:
    count = 2 * rs.MAX_SOLE
    made = scheduler("." * count, a="#" * count)
    asked = ask(made, "a", 0.0)
    assert len(asked) == rs.MAX_SOLE
    for piece in asked[: rs.MAX_SOLE // 2 - 1]:
        answer(made, "a", piece, 0.0)
        assert not made.has_room("a")
    answer(made, "a", asked[rs.MAX_SOLE // 2], 0.0)
    assert made.has_room("a")
    assert len(ask(made, "a", 0.0)) == rs.MAX_SOLE // 2


def test_of_what_several_have_a_window_is_asked_of_each_and_nothing_twice() -> None:
    made = scheduler("........", a="########", b="########")
    asked_a, asked_b = ask(made, "a", 0.0), ask(made, "b", 0.0)
    assert len(asked_a) == len(asked_b) == asked_peer.MIN_WINDOW_PIECES
    assert not set(asked_a) & set(asked_b)


def test_what_comes_makes_room_for_more_until_all_is_held() -> None:
    made, now = scheduler("........", a="########", b="########"), 0.0
    asked = ask(made, "a", now)
    while asked:
        now += 0.01
        answer(made, "a", asked[0], now)
        asked = asked[1:] + ask(made, "a", now)
    assert made.picker.is_complete


def test_the_rarest_is_asked_first() -> None:
    made = scheduler("....", a="####", b="##.#", c="##.#", d=".#.#")
    asked = ask(made, "b", 0.0)
    assert set(asked) == {0, 1} or set(asked) == {0, 3}, "piece 0 is held by three, the others by four"


def test_the_window_follows_the_measured_rate() -> None:
    fast, slow = (scheduler("." * 200, a="#" * 200, b="#" * 200) for _ in range(2))
    for made, step in ((fast, 0.001), (slow, 1.0)):
        now, asked = 0.0, ask(made, "a", 0.0)
        for _ in range(60):
            now += step
            answer(made, "a", asked[0], now)
            asked = asked[1:] + ask(made, "a", now)
        owed = len(asked) * PIECE
        if made is fast:
            assert (
                asked_peer.MAX_WINDOW_BYTES - asked_peer.MAX_WINDOW_BYTES // asked_peer.REFILL_SHARE
                < owed
                <= asked_peer.MAX_WINDOW_BYTES
            )
        else:
            assert owed == asked_peer.MIN_WINDOW_PIECES * PIECE


def test_a_peer_that_goes_leaves_its_pieces_to_others() -> None:
    made = scheduler("..", a="##", b="##")
    assert len(ask(made, "a", 0.0)) == 2
    assert ask(made, "b", 0.0) == []
    made.remove_peer("a")
    assert len(ask(made, "b", 0.0)) == 2


def test_the_next_pieces_of_a_peer_that_is_quick_are_left_to_it() -> None:
    made = scheduler("....", a="####", b="####")
    ask(made, "a", 0.0)
    ask(made, "b", 0.0)
    answer(made, "b", next(iter(made._peers["b"].asked)), 0.1)
    answer(made, "b", next(iter(made._peers["b"].asked)), 0.2)
    assert ask(made, "b", 0.2) == [], "a will come to them soon, as far as anybody knows"


def test_an_idle_peer_takes_over_what_another_would_take_much_longer_for() -> None:
    made = scheduler("." * 10, slow="#" * 10, fast="#" * 10)
    slow, now = ask(made, "slow", 0.0), 0.0
    answer(made, "slow", slow[0], 0.0, count=1)
    asked = ask(made, "fast", 0.0)
    while not made.picker.is_complete:  # fast takes all the rest while slow sends nothing but a sign of life
        now += 0.05
        assert now < 20
        made.timing("slow").hear(now, 1)
        if asked:
            answer(made, "fast", asked.pop(0), now)
        decision = made.next_asks("fast", now, RNG)
        made.check_invariants()
        asked += decision.asks
        assert {(entry.peer, entry.piece) for entry in decision.cancelled} <= {("slow", piece) for piece in slow}
    late = blocks(made, slow[0])[1]
    assert made.on_block("slow", late.piece, late.offset, late.length, now) == Arrival(None)


def test_who_was_stolen_from_takes_nothing_back() -> None:
    """It may still be sending that, and without a whole block from it nothing says how slow it is."""
    made = scheduler("..", slow="##", other="##")
    for piece in ask(made, "slow", 0.0):
        answer(made, "slow", piece, 0.0, count=1)
        break
    now = 0.0
    while not (taken := made.next_asks("other", now, RNG)).cancelled:
        now += 0.5
        assert now < 20
    decision = made.next_asks("slow", now + 60.0, RNG)
    assert (decision.asks, decision.cancelled) == ([], [])
    assert {entry.peer for entry in taken.cancelled} == {"slow"}
    made.check_invariants()


def test_nothing_goes_to_and_fro_between_equals() -> None:
    made, now = scheduler("." * 20, a="#" * 20, b="#" * 20), 0.0
    queues = {"a": ask(made, "a", now), "b": ask(made, "b", now)}
    while any(queues.values()):
        now += 0.05
        for peer, queue in queues.items():
            if queue:
                answer(made, peer, queue.pop(0), now)
            queue += ask(made, peer, now)
    assert made.picker.is_complete


def test_a_pinned_piece_is_neither_stolen_nor_expired() -> None:
    made = scheduler("..", a="##")
    asked = ask(made, "a", 0.0)
    answer(made, "a", asked[0], 0.0, count=1)
    made.taking_back.pin(asked[0])
    assert made.expire(100.0) == [Stall("a", 1, [Cancelled("a", asked[1], even_begun=True)])]
    made.add_peer("b", pieces("##"), 100.0)
    assert ask(made, "b", 100.0) == [asked[1]]
    made.taking_back.unpin(asked[0])
    assert made.next_asks("b", 200.0, RNG).cancelled == [Cancelled("a", asked[0], even_begun=True)]


def test_not_found_corrects_what_the_peer_is_thought_to_hold() -> None:
    made = scheduler("..", a="##")
    assert ask(made, "a", 0.0) == [0, 1]
    made.on_not_found("a", 0)
    made.check_invariants()
    assert made.picker.availability.of(PieceIndex(0)) == 0
    assert ask(made, "a", 0.0) == []
    answer(made, "a", 1, 0.0, count=1)
    made.on_not_found("a", 1)
    made.check_invariants()
    assert not made.is_useful("a"), "in the middle of a piece too"


def test_a_peer_that_sent_a_wrong_piece_is_asked_for_nothing_more_and_what_it_owes_goes_to_others() -> None:
    made = scheduler("..", a="##", b="##")
    first, second = ask(made, "a", 0.0)
    answer(made, "a", first, 0.1, count=2)
    assert made.on_rejected("a", first) == [Cancelled("a", second, even_begun=True)]
    made.check_invariants()
    assert ask(made, "a", 100.0) == []
    assert set(ask(made, "b", 0.2)) == {0, 1}


def test_what_others_have_by_now_is_taken_back_from_the_source_but_for_a_window() -> None:
    made = scheduler("." * 300, source="#" * 300)
    assert ask(made, "source", 0.0) == list(range(rs.MAX_SOLE))
    made.add_peer("late", pieces("#" * 250 + "." * 50), 0.0)
    decision = made.next_asks("source", 0.1, RNG)
    made.check_invariants()
    assert decision.asks == list(range(rs.MAX_SOLE, 300)), "what nobody else has it is asked for at once"
    assert [entry.piece for entry in decision.cancelled] == list(range(asked_peer.MIN_WINDOW_PIECES, 250))


def test_what_was_not_asked_for_or_is_not_as_it_was_asked_for_breaks_the_rules() -> None:
    made = scheduler("...", a="##.")
    ask(made, "a", 0.0)
    for piece, offset, length, match in (
        (2, 0, BLOCK_BYTES, "not asked for"),
        (3, 0, BLOCK_BYTES, "outside"),
        (0, 0, 5, "were due"),
        (0, 17, PIECE - 17, "were due"),
        (0, BLOCK_BYTES, BLOCK_BYTES, "not asked for"),
    ):
        with pytest.raises(RemoteProtocolError, match=match):
            made.on_block("a", piece, offset, length, 0.0)
    answer(made, "a", 0, 0.0, count=1)
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        made.on_block("a", 1, 0, BLOCK_BYTES, 0.0)
    with pytest.raises(RemoteProtocolError, match="out of order"):
        made.on_block("a", 0, 0, BLOCK_BYTES, 0.0)
    with pytest.raises(RemoteProtocolError, match="outside"):
        made.add_haves("a", [3])
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        made.on_not_found("a", 2)


def test_a_have_adds_to_what_is_offered() -> None:
    made = scheduler("..", a="..")
    assert ask(made, "a", 0.0) == []
    assert not made.is_useful("a")
    made.add_haves("a", [1])
    made.add_haves("a", [1])
    assert made.is_useful("a")
    assert made.picker.availability.of(PieceIndex(1)) == 1
    assert ask(made, "a", 0.0) == [1]


@pytest.mark.parametrize(
    ("asked_of_a", "is_of_use"), [(0, True), (2, False), (20, True)], ids=["nobody's", "soon", "in a long line"]
)
def test_what_a_peer_gains_is_worth_asking_for_if_nobody_is_about_to_send_it(asked_of_a: int, is_of_use: bool) -> None:
    count = max(asked_of_a, 2)
    made = scheduler("." * count, a="#" * asked_of_a + "." * (count - asked_of_a), b="." * count)
    assert len(ask(made, "a", 0.0)) == asked_of_a
    assert made.add_haves("b", [1]) is is_of_use


def test_a_peer_that_says_it_is_busy_is_not_stalled() -> None:
    made = scheduler("..", a="##")
    ask(made, "a", 0.0)
    for second in range(1, 20):
        made.timing("a").hear_busy(float(second))
        assert made.expire(second + 0.9) == []
    assert made.expire(19 + peer_timing.BUSY_SILENCE_S + peer_timing.FIRST_STALL_S)


def test_a_block_of_what_another_has_sent_meanwhile_is_not_written() -> None:
    """A trickles; b takes the piece over and it is verified; then what a had begun has come."""
    made = scheduler(".", piece_size=BLOCK_BYTES, a="#", b="#")
    (piece,) = ask(made, "a", 0.0)
    (block,) = blocks(made, piece)
    made.on_block("a", piece, 0, BLOCK_BYTES, 0.1)
    made.timing("a").hear(0.2, 1)
    assert made.next_asks("b", 10.0, RNG).asks == [piece]
    answer(made, "b", piece, 10.1)
    made.on_block_end("a", BLOCK_BYTES, 11.0)
    assert not made.begin_write("a", block.piece, 11.0)


def test_a_slow_disk_is_nobodys_stall() -> None:
    made = scheduler("..", piece_size=BLOCK_BYTES, a="##")
    first, _ = ask(made, "a", 0.0)
    made.on_block("a", first, 0, BLOCK_BYTES, 0.1)
    made.on_block_end("a", BLOCK_BYTES, 0.1)
    assert made.begin_write("a", first, 0.1)
    assert made.expire(100.0) == []
    made.on_taken("a", blocks(made, first)[0])
    made.end_write("a", first, 100.0)
    assert made.expire(100.5) == []
    assert made.expire(200.0), "now it is the peer"


def test_one_that_hangs_with_all_that_it_has_taken_back_is_dead_in_the_end() -> None:
    made, now = scheduler(".", a="#"), 0.0
    ask(made, "a", now)
    while not made.is_dead("a"):
        now += 1.0
        assert now < 120.0
        made.expire(now)
    assert now > 30.0, "not at once: it may be back"
