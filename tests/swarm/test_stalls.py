"""Peers that owe and are silent; and any order of events."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.geometry import Block, Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm import peer_timing
from interfiles.swarm import request_scheduler as rs
from interfiles.swarm.decisions import Cancelled, Stall
from interfiles.swarm.request_scheduler import RequestScheduler
from tests.swarm.pieces import drawn
from tests.swarm.test_request_scheduler import PIECE, answer, ask, scheduler


def test_a_stalled_peer_loses_its_pieces_and_is_asked_again_later() -> None:
    made = scheduler("..", a="##")
    assert ask(made, "a", 0.0) == [0, 1]
    assert made.expire(peer_timing.FIRST_STALL_S - 0.1) == []
    now = peer_timing.FIRST_STALL_S
    cancelled = [Cancelled("a", PieceIndex(piece), even_begun=True) for piece in (0, 1)]
    assert made.expire(now) == [Stall("a", 2, cancelled)]
    assert ask(made, "a", now) == []
    now += rs.STALL_RETRY_S
    assert ask(made, "a", now) == [], "it has not said yet that it has heard"
    made.on_dropped("a", 0)
    assert ask(made, "a", now) == [0]


def test_bytes_that_trickle_are_no_stall_but_silence_after_them_is() -> None:
    made = scheduler("..", a="##")
    ask(made, "a", 0.0)
    for second in range(1, 20):
        made.timing("a").hear(float(second), 1)
        assert made.expire(second + 0.5) == []
    assert made.expire(19 + peer_timing.FIRST_STALL_S)


def test_a_peer_that_this_host_does_not_hear_is_not_stalled_and_counts_as_slow_for_asking_alone() -> None:
    made, now = scheduler("." * 50, a="#" * 50), 0.0
    asked = ask(made, "a", now)
    for piece in asked[:20]:
        made.timing("a").pause(now)
        assert made.expire(now + 100) == []
        made.timing("a").resume(now + 100)
        now += 100.01
        answer(made, "a", piece, now)
    silence_s = peer_timing.MIN_STALL_S + rs.SOLE_SILENCE_S
    assert made.expire(now + silence_s - 0.01) == []
    assert made.expire(now + silence_s + 0.01), "it answers in 10 ms when it is heard"


def test_a_pause_is_in_the_measured_rate_and_not_in_what_the_peer_is_waited_for() -> None:
    timing = peer_timing.PeerTiming(0.0)
    timing.begin_block(0.0)
    timing.pause(0.5)
    assert timing.waited_s(10.0) == 0.5
    assert timing.deadline() == float("inf")
    timing.resume(10.5)
    timing.resume(10.5)
    assert timing.waited_s(11.0) == 1.0
    assert timing.deadline() == 10.5 + peer_timing.FIRST_STALL_S
    timing.add_block(1_000_000, 11.0)
    assert timing.rate == 1_000_000 / 11
    assert timing.deadline() == 11.0 + 3.0, "a second and four times half of it"


@pytest.mark.parametrize(
    ("other", "silence_s"),
    [("." * 50, peer_timing.MIN_STALL_S + rs.SOLE_SILENCE_S), ("#" * 50, peer_timing.MIN_STALL_S)],
)
def test_a_measured_peer_is_found_stalled_sooner_most_of_all_where_another_has_the_same(
    other: str, silence_s: float
) -> None:
    made, now = scheduler("." * 50, a="#" * 50, b="." * 50), 0.0
    asked = ask(made, "a", now)
    for piece in asked[:30]:
        now += 0.01
        answer(made, "a", piece, now)
    made.add_haves("b", [piece for piece in range(50) if other[piece] == "#"])
    assert made.expire(now + silence_s - 0.01) == []
    assert [stall.pieces for stall in made.expire(now + silence_s + 0.01)] == [20]
    assert silence_s < 1 or other[0] == ".", "less than a second on a LAN"


def test_what_a_stalled_peer_was_sending_goes_to_another_from_its_start() -> None:
    made = scheduler(".", a="#", b="#")
    ask(made, "a", 0.0)
    answer(made, "a", 0, 0.1, count=1)
    assert made.expire(30.0) == [Stall("a", 1, [Cancelled("a", PieceIndex(0), even_begun=True)])]
    assert ask(made, "b", 30.0) == [0]
    answer(made, "b", 0, 30.1)
    assert made.picker.is_complete


def test_a_peer_that_stalls_again_and_again_is_dead() -> None:
    made, now = scheduler("..", a="##"), 0.0
    for _ in range(rs.MAX_STALLS):
        assert not made.is_dead("a")
        now = made.retry_at("a")
        assert ask(made, "a", now)
        now += peer_timing.MAX_STALL_S
        for entry in made.expire(now)[0].cancelled:
            made.on_dropped("a", entry.piece)
    assert made.is_dead("a")


def test_a_peer_that_never_says_that_it_has_heard_is_asked_nothing_and_no_harm_is_done() -> None:
    made, now = scheduler("..", a="##", b=".."), 0.0
    ask(made, "a", now)
    assert made.expire(10.0)
    assert ask(made, "a", 100.0) == []
    made.add_haves("b", [0])
    assert ask(made, "b", 100.0) == [0]


class Chaos:
    """Peers that come, go, stall, refuse and answer, by chance; every answer may be late."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 0.0
        self.made = RequestScheduler(Geometry(6 * PIECE - 1000, PIECE), PieceSet(6))
        self.asked: dict[str, list[PieceIndex]] = {}  # what each peer has heard and not begun
        self.sending: dict[str, list[Block]] = {}
        self.unheard: dict[str, list[Cancelled]] = {}  # on their way
        self.arrived: dict[str, Block] = {}  # and not yet written
        self.written: dict[PieceIndex, list[int]] = {}  # offsets in the order in which they were written

    def add_peer(self, name: str, offered: PieceSet) -> None:
        self.made.add_peer(name, offered, self.now)
        self.asked[name], self.sending[name], self.unheard[name] = [], [], []

    def cancel(self, cancelled: list[Cancelled]) -> None:
        for entry in cancelled:
            self.unheard[entry.peer].append(entry)

    def misbehave(self, peer: str) -> None:
        what = self.rng.randrange(5)
        if what == 0:
            self.arrived.pop(peer, None)
            self.made.remove_peer(peer)
            del self.asked[peer], self.sending[peer], self.unheard[peer]
        elif what == 1:
            self.now += 10
            for stall in self.made.expire(self.now):
                self.cancel(stall.cancelled)
        elif what == 2:
            self.place(*(gateway for gateway in ("me", "other") if self.rng.random() < 0.5))
        elif what == 3:
            self.made.give_way(self.rng.random() < 0.5)
        elif self.asked[peer]:
            self.made.on_not_found(peer, self.asked[peer].pop())

    def place(self, *gateways: str) -> None:
        foreign = {name for name in self.asked if self.rng.random() < 0.5}
        self.made.abroad.place(near=[], foreign=foreign, gateways=gateways, me="me", now=self.now)

    def hear(self, peer: str) -> None:
        entry = self.unheard[peer][0]
        if self.sending[peer] and self.sending[peer][0].piece == entry.piece:
            if not entry.even_begun:  # when it is sent
                return
            self.sending[peer] = []
        self.unheard[peer].pop(0)
        if entry.piece in self.asked[peer]:
            self.asked[peer].remove(entry.piece)
        self.made.on_dropped(peer, entry.piece)

    def ask(self, peer: str) -> None:
        decision = self.made.next_asks(peer, self.now, self.rng)
        self.asked[peer].extend(decision.asks)
        self.cancel(decision.cancelled)

    def answer(self, peer: str) -> None:
        if not self.sending[peer]:
            piece = self.asked[peer].pop(self.rng.randrange(len(self.asked[peer])))
            self.sending[peer] = self.made.picker.geometry.blocks(piece)
        block = self.sending[peer].pop(0)
        arrival = self.made.on_block(peer, block.piece, block.offset, block.length, self.now)
        self.cancel(arrival.cancelled)
        if arrival.block is None:
            self.made.on_block_end(peer, block.length, self.now)
        else:
            self.arrived[peer] = block

    def end_block(self, peer: str) -> None:
        """What began to come is here: it must not be written over what is verified."""
        block = self.arrived.pop(peer)
        self.made.on_block_end(peer, block.length, self.now)
        if not self.made.begin_write(peer, block.piece, self.now):
            return
        assert block.piece not in self.made.picker.held
        if not block.offset:
            self.written[block.piece] = []
        self.written[block.piece].append(block.offset)
        self.made.on_taken(peer, block)
        self.made.end_write(peer, block.piece, self.now)
        if block.offset + block.length == self.made.picker.geometry.piece_length(block.piece):
            assert self.written[block.piece] == [each.offset for each in self.made.picker.geometry.blocks(block.piece)]
            self.made.on_verified(block.piece)

    def step(self, *, honest: bool) -> None:
        self.now += self.rng.random() * 0.3
        peer = self.rng.choice(list(self.asked))
        if not honest and self.rng.random() < 0.25:
            self.misbehave(peer)
        elif peer in self.arrived:
            if self.rng.random() < 0.7:
                self.end_block(peer)
        elif self.unheard[peer] and self.rng.random() < 0.4:
            self.hear(peer)
        elif (self.sending[peer] or self.asked[peer]) and self.rng.random() < 0.7:
            self.answer(peer)
        else:
            self.ask(peer)
        self.made.check_invariants()


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_any_order_of_events_keeps_the_invariants_and_ends_complete(seed: int, steps: int) -> None:
    chaos = Chaos(seed)
    for number in range(steps):
        if len(chaos.asked) < 3:
            chaos.add_peer(f"p{number}", PieceSet(6, chaos.rng.getrandbits(6)))
        chaos.step(honest=False)
    chaos.add_peer("honest", PieceSet.full(6))
    for _ in range(600):
        chaos.step(honest=True)
    assert chaos.made.picker.is_complete, drawn(chaos.made.picker.held)
