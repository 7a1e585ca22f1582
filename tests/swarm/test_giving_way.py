"""Little is asked while other downloads of the host are to have its line: what is asked comes at once."""

from interfiles.geometry import PieceIndex
from interfiles.swarm.decisions import Cancelled
from tests.swarm.pieces import write
from tests.swarm.test_request_scheduler import RNG, answer, ask, blocks, scheduler


def test_one_piece_is_asked_at_a_time_even_of_the_only_peer_that_has_them() -> None:
    made = scheduler("." * 40, a="#" * 40)
    made.give_way(True)
    (first,) = ask(made, "a", 0.0)
    assert ask(made, "a", 0.1) == []
    (block, _) = blocks(made, first)
    made.on_block("a", first, 0, block.length, 0.2)
    made.on_block_end("a", block.length, 0.2)
    write(made, "a", block, 0.2)
    assert made.has_room("a")
    (second,) = ask(made, "a", 0.2)
    assert second != first
    assert not made.has_room("a"), "so much may be on its way: half of one, and the next"


def test_who_comes_later_is_asked_for_one_as_well() -> None:
    made = scheduler("." * 40, a="#" * 40)
    made.give_way(True)
    made.add_peer("b", made.offers["a"], 0.0)
    assert [len(ask(made, peer, 0.0)) for peer in "ab"] == [1, 1]


def test_what_was_asked_before_is_taken_back_and_asked_again_afterwards() -> None:
    made = scheduler("." * 40, a="#" * 40)
    assert ask(made, "a", 0.0) == list(range(40))
    made.give_way(True)
    assert made.has_room("a"), "to take something back"
    decision = made.next_asks("a", 0.1, RNG)
    made.check_invariants()
    assert decision.cancelled == [Cancelled("a", PieceIndex(piece), even_begun=False) for piece in range(1, 40)]
    assert decision.asks == []
    for entry in decision.cancelled:
        made.on_dropped("a", entry.piece)
    assert ask(made, "a", 0.2) == []
    answer(made, "a", 0, 0.3)
    (second,) = ask(made, "a", 0.3)
    made.give_way(False)
    assert ask(made, "a", 0.4) == [piece for piece in range(1, 40) if piece != second]


def test_what_is_coming_is_kept_and_one_more() -> None:
    made = scheduler("." * 4, a="####")
    ask(made, "a", 0.0)
    answer(made, "a", 0, 0.1, count=1)
    made.give_way(True)
    assert [entry.piece for entry in made.next_asks("a", 0.1, RNG).cancelled] == [2, 3]
    made.check_invariants()
