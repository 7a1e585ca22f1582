"""Scenarios in hand-made time: two blocks a piece, pieces as strings."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import RemoteProtocolError
from interfiles.geometry import BLOCK_BYTES, Block, Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm import request_scheduler as rs
from interfiles.swarm.request_scheduler import Cancelled, RequestScheduler
from tests.swarm.pieces import drawn, geometry, pieces

PIECE = 2 * BLOCK_BYTES
RNG = random.Random(1)


def scheduler(held: str, *, piece_size: int = PIECE, **peers: str) -> RequestScheduler:
    made = RequestScheduler(geometry(len(held), piece_size=piece_size), pieces(held))
    for name, offered in peers.items():
        made.add_peer(name, pieces(offered), 0.0)
    return made


def ask(made: RequestScheduler, peer: str, now: float) -> list[Block]:
    decision = made.next_requests(peer, now, RNG)
    made.check_invariants()
    assert not decision.cancelled
    return decision.requests


def answer(made: RequestScheduler, peer: str, blocks: list[Block], now: float) -> None:
    for block in blocks:
        assert made.on_block(peer, block.piece, block.offset, block.length, now) == block
        if block.offset + block.length == PIECE:
            made.on_verified(block.piece)
    made.check_invariants()


def test_the_first_window_is_asked_at_once_a_piece_in_order() -> None:
    made = scheduler("....", a="####")
    blocks = ask(made, "a", 0.0)
    assert [block.offset for block in blocks] == [0, BLOCK_BYTES]
    assert len({block.piece for block in blocks}) == 1
    assert ask(made, "a", 0.0) == []


def test_what_comes_makes_room_for_more_until_all_is_held() -> None:
    made, now = scheduler("........", a="########"), 0.0
    blocks = ask(made, "a", now)
    while blocks:
        now += 0.01
        answer(made, "a", blocks[:1], now)
        blocks = blocks[1:] + ask(made, "a", now)
    assert made.picker.is_complete


def test_two_peers_are_never_asked_for_the_same_piece() -> None:
    made = scheduler("........", a="########", b="########")
    asked_a = {block.piece for block in ask(made, "a", 0.0)}
    asked_b = {block.piece for block in ask(made, "b", 0.0)}
    assert asked_a
    assert asked_b
    assert not asked_a & asked_b


def test_the_window_follows_the_measured_rate() -> None:
    fast, slow = scheduler("." * 200, a="#" * 200), scheduler("." * 200, a="#" * 200)
    for made, step in ((fast, 0.001), (slow, 0.5)):
        now, blocks = 0.0, ask(made, "a", 0.0)
        for _ in range(60):
            now += step
            answer(made, "a", blocks[:1], now)
            blocks = blocks[1:] + ask(made, "a", now)
        owed = sum(block.length for block in blocks)
        if made is fast:
            assert rs.MAX_WINDOW_BYTES - rs.MAX_WINDOW_BYTES // rs.REFILL_SHARE < owed <= rs.MAX_WINDOW_BYTES
        else:
            assert owed == PIECE


def test_a_window_is_filled_again_in_few_steps() -> None:
    made = scheduler("." * 400, a="#" * 400)
    now, blocks, batches = 0.0, ask(made, "a", 0.0), list[int]()
    for _ in range(200):
        now += 0.0001
        answer(made, "a", blocks[:1], now)
        more = ask(made, "a", now) if made.has_room("a", now) else []
        blocks = blocks[1:] + more
        batches += [len(more)] if more else []
    in_window = rs.MAX_WINDOW_BYTES // BLOCK_BYTES
    assert batches[-3:] == [in_window // rs.REFILL_SHARE] * 3


def test_a_peer_that_goes_leaves_its_pieces_to_others() -> None:
    made = scheduler("..", piece_size=BLOCK_BYTES, a="##", b="##")
    assert len(ask(made, "a", 0.0)) == 2
    assert ask(made, "b", 0.0) == []
    made.remove_peer("a")
    assert len(ask(made, "b", 0.0)) == 2


def test_a_stalled_peer_loses_its_pieces_and_is_asked_again_later() -> None:
    made = scheduler("..", piece_size=BLOCK_BYTES, a="##")
    blocks = ask(made, "a", 0.0)
    assert made.expire(rs.FIRST_STALL_S - 0.1) == []
    assert set(made.expire(rs.FIRST_STALL_S)) == {Cancelled("a", PieceIndex(0)), Cancelled("a", PieceIndex(1))}
    assert ask(made, "a", rs.FIRST_STALL_S) == []
    again = ask(made, "a", rs.FIRST_STALL_S + rs.STALL_RETRY_S)
    assert sorted(again, key=str) == sorted(blocks, key=str)


def test_bytes_that_trickle_are_no_stall_but_silence_after_them_is() -> None:
    made = scheduler("..", a="##")
    ask(made, "a", 0.0)
    for second in range(1, 20):
        made.on_bytes("a", float(second))
        assert made.expire(second + 0.5) == []
    assert made.expire(19 + rs.FIRST_STALL_S)


def test_a_measured_peer_is_found_stalled_sooner() -> None:
    made, now = scheduler("." * 50, a="#" * 50), 0.0
    blocks = ask(made, "a", now)
    for _ in range(30):
        now += 0.01
        answer(made, "a", blocks[:1], now)
        blocks = blocks[1:] + ask(made, "a", now)
    assert made.expire(now + rs.MIN_STALL_S - 0.01) == []
    assert made.expire(now + rs.MIN_STALL_S + 0.01)


def test_a_peer_that_stalls_again_and_again_is_dead() -> None:
    made, now = scheduler("..", a="##"), 0.0
    for _ in range(rs.MAX_STALLS):
        assert not made.is_dead("a")
        now = made.retry_at("a")
        assert ask(made, "a", now)
        now += rs.MAX_STALL_S
        assert made.expire(now)
    assert made.is_dead("a")


def test_an_idle_peer_steals_from_one_that_would_take_much_longer() -> None:
    made = scheduler("." * 40, slow="#" * 40, fast="#" * 40)
    slow = ask(made, "slow", 0.0)
    blocks, now = ask(made, "fast", 0.0), 0.0
    while blocks:  # fast takes all the rest while slow sends nothing but a sign of life
        now += 0.05
        made.on_bytes("slow", now)
        answer(made, "fast", blocks[:1], now)
        decision = made.next_requests("fast", now, RNG)
        made.check_invariants()
        blocks = blocks[1:] + decision.requests
        for entry in decision.cancelled:
            assert entry.peer == "slow"
            assert entry.piece in {block.piece for block in slow}
    assert made.picker.is_complete
    late = slow[0]
    assert made.on_block("slow", late.piece, late.offset, late.length, now) is None, "late blocks are dropped"


def test_who_was_stolen_from_takes_nothing_back() -> None:
    """It may still be sending that, and without a whole block from it nothing says how slow it is."""
    made = scheduler("..", piece_size=BLOCK_BYTES, slow="##", other="##")
    assert len(ask(made, "slow", 0.0)) == 2
    taken = made.next_requests("other", 3.0, RNG)
    assert [entry.peer for entry in taken.cancelled] == ["slow"] * len(taken.requests) != []
    decision = made.next_requests("slow", 60.0, RNG)
    assert (decision.requests, decision.cancelled) == ([], [])
    made.check_invariants()


def test_no_steal_between_equals() -> None:
    made, now = scheduler("." * 20, a="#" * 20, b="#" * 20), 0.0
    queues = {"a": ask(made, "a", now), "b": ask(made, "b", now)}
    while any(queues.values()):
        now += 0.05
        for peer in queues:
            answer(made, peer, queues[peer][:1], now)
            queues[peer] = queues[peer][1:] + ask(made, peer, now)
    assert made.picker.is_complete


def test_a_pinned_piece_is_neither_stolen_nor_expired() -> None:
    made = scheduler("..", piece_size=BLOCK_BYTES, a="##")
    first = ask(made, "a", 0.0)[0]
    made.pin(first.piece)
    assert {entry.piece for entry in made.expire(100.0)} == {1 - first.piece}
    made.add_peer("b", pieces("##"), 100.0)
    assert {b.piece for b in ask(made, "b", 100.0)} == {1 - first.piece}
    made.unpin(first.piece)
    assert made.next_requests("b", 200.0, RNG).cancelled == [Cancelled("a", first.piece)]


def test_busy_frees_the_pieces_and_waits() -> None:
    made = scheduler("..", piece_size=BLOCK_BYTES, a="##", b="##")
    blocks = ask(made, "a", 0.0)
    for block in blocks:
        made.on_busy("a", block.piece, block.offset, 0.5, 0.0)
        made.check_invariants()
    assert ask(made, "a", 0.4) == []
    assert len(ask(made, "b", 0.4)) == 2


def test_not_found_corrects_what_the_peer_is_thought_to_hold() -> None:
    made = scheduler("..", a="##")
    block = ask(made, "a", 0.0)[0]
    made.on_not_found("a", block.piece, block.offset)
    made.check_invariants()
    assert made.picker.availability.of(block.piece) == 0
    assert block.piece not in {b.piece for b in ask(made, "a", 0.0)}


def test_a_rejected_piece_is_not_asked_of_the_same_peer_again() -> None:
    made = scheduler(".", a="#", b="#")
    blocks = ask(made, "a", 0.0)
    for block in blocks:
        made.on_block("a", block.piece, block.offset, block.length, 0.1)
    made.on_rejected("a", PieceIndex(0))
    made.check_invariants()
    assert ask(made, "a", 0.2) == []
    assert len(ask(made, "b", 0.2)) == 2


def test_what_was_never_asked_for_breaks_the_rules() -> None:
    made = scheduler("..", a="##")
    blocks = ask(made, "a", 0.0)
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        made.on_block("a", 0, 17, BLOCK_BYTES, 0.0)
    with pytest.raises(RemoteProtocolError, match="were asked for"):
        made.on_block("a", blocks[0].piece, blocks[0].offset, 5, 0.0)
    with pytest.raises(RemoteProtocolError, match="outside"):
        made.add_have("a", 2)


def test_an_answer_overtaken_by_a_cancel_is_dropped_and_its_repeat_counts_once() -> None:
    made = scheduler(".", a="#")
    first = ask(made, "a", 0.0)
    made.expire(rs.FIRST_STALL_S)  # taken back, though the answers are on their way
    again = ask(made, "a", rs.FIRST_STALL_S + rs.STALL_RETRY_S)
    assert again == first
    now = 20.0
    assert made.on_block("a", 0, 0, BLOCK_BYTES, now) is not None, "the old answer serves the new request"
    assert made.on_block("a", 0, BLOCK_BYTES, BLOCK_BYTES, now) is not None
    made.on_verified(PieceIndex(0))
    assert made.on_block("a", 0, 0, BLOCK_BYTES, now) is None, "the new answer is superfluous, not a crime"
    assert made.on_block("a", 0, BLOCK_BYTES, BLOCK_BYTES, now) is None
    with pytest.raises(RemoteProtocolError):
        made.on_block("a", 0, 0, BLOCK_BYTES, now)


def test_the_rest_of_a_piece_that_was_taken_back_does_not_pass_for_its_repeat() -> None:
    made = scheduler(".", a="#")
    answer(made, "a", ask(made, "a", 0.0)[:1], 1.0)
    made.expire(10.0)
    assert [block.offset for block in ask(made, "a", 20.0)] == [0, BLOCK_BYTES], "from the start"
    assert made.on_block("a", 0, BLOCK_BYTES, BLOCK_BYTES, 21.0) is None, "the second half of the first attempt"
    assert made.on_block("a", 0, 0, BLOCK_BYTES, 22.0) is not None
    assert made.on_block("a", 0, BLOCK_BYTES, BLOCK_BYTES, 23.0) is not None
    with pytest.raises(RemoteProtocolError):
        made.on_block("a", 0, BLOCK_BYTES, BLOCK_BYTES, 24.0)


def test_a_have_adds_to_what_is_offered() -> None:
    made = scheduler("..", a="..")
    assert ask(made, "a", 0.0) == []
    assert not made.is_useful("a")
    made.add_have("a", 1)
    made.add_have("a", 1)
    assert made.is_useful("a")
    assert made.picker.availability.of(PieceIndex(1)) == 1
    assert {block.piece for block in ask(made, "a", 0.0)} == {1}


class Chaos:
    """Peers that come, go, stall, refuse and answer, by chance; every answer may be late."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.made = RequestScheduler(Geometry(6 * PIECE - 1000, PIECE), PieceSet(6))
        self.wire: dict[str, list[Block]] = {}
        self.received: dict[tuple[str, int], int] = {}

    def add_peer(self, name: str, offered: PieceSet) -> None:
        self.made.add_peer(name, offered, self.now)
        self.wire[name] = []

    def forget(self, cancelled: list[Cancelled]) -> None:
        for entry in cancelled:
            self.received.pop((entry.peer, entry.piece), None)

    def misbehave(self, peer: str) -> None:
        what = self.rng.randrange(3)
        if what == 0:
            self.made.remove_peer(peer)
            del self.wire[peer]
        elif what == 1:
            self.now += 10
            self.forget(self.made.expire(self.now))
        elif self.wire[peer]:
            block = self.wire[peer].pop(0)
            self.made.on_busy(peer, block.piece, block.offset, 0.1, self.now)
            self.received.pop((peer, block.piece), None)

    def ask(self, peer: str) -> None:
        decision = self.made.next_requests(peer, self.now, self.rng)
        self.wire[peer].extend(decision.requests)
        self.forget(decision.cancelled)

    def answer(self, peer: str) -> None:
        block = self.wire[peer].pop(0)
        if self.made.on_block(peer, block.piece, block.offset, block.length, self.now) is None:
            return
        key = (peer, block.piece)
        self.received[key] = self.received.get(key, 0) + block.length
        if self.received[key] == self.made.picker.geometry.piece_length(block.piece):
            del self.received[key]
            self.made.on_verified(block.piece)

    def step(self, *, honest: bool) -> None:
        self.now += self.rng.random() * 0.3
        peer = self.rng.choice(list(self.wire))
        if not honest and self.rng.random() < 0.25:
            self.misbehave(peer)
        elif self.wire[peer] and self.rng.random() < 0.7:
            self.answer(peer)
        else:
            self.ask(peer)
        self.made.check_invariants()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_order_of_events_keeps_the_invariants_and_ends_complete(seed: int, steps: int) -> None:
    chaos = Chaos(seed)
    for number in range(steps):
        if len(chaos.wire) < 3:
            chaos.add_peer(f"p{number}", PieceSet(6, chaos.rng.getrandbits(6)))
        chaos.step(honest=False)
    chaos.add_peer("honest", PieceSet.full(6))
    for _ in range(400):
        chaos.step(honest=True)
    assert chaos.made.picker.is_complete, drawn(chaos.made.picker.held)
