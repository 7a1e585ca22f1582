from hypothesis import given
from hypothesis import strategies as st

from interfiles.geometry import PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.swarm.availability import Availability
from tests.swarm.pieces import drawn, pieces


def counts(availability: Availability) -> list[int]:
    return [availability.of(PieceIndex(i)) for i in range(availability.count)]


def test_counts_follow_peers_that_come_and_go() -> None:
    availability = Availability(4)
    availability.add(pieces("##.#"))
    availability.add(pieces("#..#"))
    assert counts(availability) == [2, 1, 0, 2]
    assert drawn(availability.missing) == "..#."
    availability.remove(pieces("##.#"))
    assert counts(availability) == [1, 0, 0, 1]


def test_one_piece_more_and_less() -> None:
    availability = Availability(3)
    availability.add_one(PieceIndex(1))
    availability.add_one(PieceIndex(1))
    availability.remove_one(PieceIndex(1))
    assert counts(availability) == [0, 1, 0]


def test_rarest_is_among_the_candidates_only() -> None:
    availability = Availability(4)
    availability.add(pieces("####"))
    availability.add(pieces("##.."))
    assert drawn(PieceSet(4, availability.rarest(pieces("###.").bits))) == "..#."
    assert drawn(PieceSet(4, availability.rarest(pieces("##..").bits))) == "##.."
    assert availability.rarest(0) == 0


sets = st.integers(0, 2**12 - 1).map(lambda bits: PieceSet(12, bits))


@given(st.lists(sets, max_size=12), st.data())
def test_levels_agree_with_plain_counting(held: list[PieceSet], data: st.DataObject) -> None:
    availability = Availability(12)
    present: list[PieceSet] = []
    for pieces_held in held:
        availability.add(pieces_held)
        present.append(pieces_held)
        if data.draw(st.booleans()):
            availability.remove(present.pop(data.draw(st.integers(0, len(present) - 1))))
        availability.check_invariants()
    plain = [sum(i in p for p in present) for i in range(12)]
    assert counts(availability) == plain
    candidates = data.draw(sets)
    rarest = PieceSet(12, availability.rarest(candidates.bits))
    if candidates:
        least = min(plain[i] for i in candidates)
        assert set(rarest) == {i for i in candidates if plain[i] == least}
