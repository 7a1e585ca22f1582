import random

import pytest

from interfiles.geometry import PieceIndex
from interfiles.swarm.piece_picker import PiecePicker
from tests.swarm.pieces import drawn, geometry, pieces


def picker(held: str, *peers: str) -> PiecePicker:
    made = PiecePicker(geometry(len(held)), pieces(held))
    for peer in peers:
        made.availability.add(pieces(peer))
    return made


def test_the_rarest_missing_piece_that_the_peer_has_is_picked() -> None:
    assert picker("#...", "####", "##.#", ".#.#").pick(pieces("####").bits, random.Random(1)) == 2


def test_nothing_is_picked_from_a_peer_with_nothing_new() -> None:
    assert picker("##..", "##..").pick(pieces("##..").bits, random.Random(1)) is None


def test_ties_are_broken_at_random_and_by_the_seed_alone() -> None:
    def picks(seed: int) -> list[int | None]:
        rng, made = random.Random(seed), picker("." * 16, "#" * 16)
        return [made.pick(pieces("#" * 16).bits, rng) for _ in range(40)]

    assert picks(1) == picks(1)
    assert len(set(picks(1))) > 8


def test_every_missing_piece_can_be_picked() -> None:
    made, rng = picker("#.#.#", "#####"), random.Random(3)
    assert {made.pick(pieces("#####").bits, rng) for _ in range(100)} == {1, 3}


def test_a_piece_goes_from_missing_to_inflight_to_held() -> None:
    made = picker("..", "##")
    piece = made.pick(pieces("#.").bits, random.Random(1))
    assert piece == 0
    made.mark_requested(piece, "a")
    made.check_invariants()
    assert made.inflight == {0: "a"}
    assert made.pick(pieces("#.").bits, random.Random(1)) is None
    made.mark_held(piece)
    made.check_invariants()
    assert (drawn(made.held), dict(made.inflight)) == ("#.", {})


def test_a_released_piece_is_missing_again() -> None:
    made = picker("..", "##")
    made.mark_requested(PieceIndex(1), "a")
    made.release(PieceIndex(1))
    made.check_invariants()
    assert made.pick(pieces(".#").bits, random.Random(1)) == 1


def test_a_piece_is_inflight_at_one_peer_only() -> None:
    made = picker("..", "##")
    made.mark_requested(PieceIndex(0), "a")
    with pytest.raises(AssertionError):
        made.mark_requested(PieceIndex(0), "b")


def test_complete_when_all_are_held() -> None:
    assert picker("##").is_complete
    assert not picker("#.").is_complete
    assert picker("").is_complete
    assert picker("#.").wants_from(pieces(".#"))
    assert not picker("#.").wants_from(pieces("#."))
