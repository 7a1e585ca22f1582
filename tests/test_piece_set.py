"""A piece set behaves as a set of integers does, and its bitfield is exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.geometry import Geometry, PieceIndex
from interfiles.piece_set import PieceSet


@st.composite
def pieces_of_a_count(draw: st.DrawFn) -> tuple[int, set[int]]:
    count = draw(st.integers(0, 70))
    return count, draw(st.sets(st.integers(0, count - 1))) if count else set()


@given(pieces_of_a_count())
def test_it_is_the_set_it_was_made_of(drawn: tuple[int, set[int]]) -> None:
    count, pieces = drawn
    made = PieceSet.of(count, pieces)
    assert list(made) == sorted(pieces)
    assert len(made) == len(pieces)
    assert bool(made) == bool(pieces)
    assert made.is_full == (len(pieces) == count)
    assert [piece in made for piece in range(count + 2)] == [piece in pieces for piece in range(count + 2)]
    assert set(made.complement()) == set(range(count)) - pieces
    assert made.complement().complement() == made


@given(pieces_of_a_count())
def test_the_bitfield_round_trips_and_is_that_of_bep_3(drawn: tuple[int, set[int]]) -> None:
    count, pieces = drawn
    made = PieceSet.of(count, pieces)
    bitfield = made.to_bytes()
    assert PieceSet.from_bytes(count, bitfield) == made
    spelled = "".join("1" if piece in pieces else "0" for piece in range(count))
    spelled += "0" * (-count % 8)
    assert bitfield == bytes(int(spelled[at : at + 8], 2) for at in range(0, len(spelled), 8))


@given(pieces_of_a_count(), st.data())
def test_add_and_discard(drawn: tuple[int, set[int]], data: st.DataObject) -> None:
    count, pieces = drawn
    made = PieceSet.of(count, pieces)
    for _ in range(5 if count else 0):
        piece = PieceIndex(data.draw(st.integers(0, count - 1)))
        if data.draw(st.booleans()):
            made.add(piece)
            pieces.add(piece)
        else:
            made.discard(piece)
            pieces.discard(piece)
    assert set(made) == pieces


@pytest.mark.parametrize(("count", "length"), [(0, 0), (1, 1), (8, 1), (9, 2), (596_047, 74_506)])
def test_a_bitfield_has_exactly_the_bytes_of_its_pieces(count: int, length: int) -> None:
    assert len(PieceSet.full(count).to_bytes()) == length
    assert PieceSet.from_bytes(count, bytes(length)) == PieceSet(count)
    for wrong in {length - 1, length + 1} - {-1}:
        with pytest.raises(ValueError, match=f"bitfield of {wrong} bytes, {count} pieces take {length}"):
            PieceSet.from_bytes(count, bytes(wrong))


def test_the_last_piece_is_allowed_and_a_spare_bit_is_not() -> None:
    assert list(PieceSet.from_bytes(9, b"\x00\x80")) == [8]
    with pytest.raises(ValueError, match="a bit above piece 8 is set"):
        PieceSet.from_bytes(9, b"\x00\x40")
    with pytest.raises(ValueError, match="a bit above piece 8 is set"):
        PieceSet(9, 1 << 9)
    with pytest.raises(ValueError, match="a bit above piece 8 is set"):
        PieceSet(9, -1)


@pytest.mark.parametrize("piece", [-1, 9])
def test_of_refuses_pieces_outside(piece: int) -> None:
    with pytest.raises(ValueError, match=rf"piece {piece} is outside 0\.\.8"):
        PieceSet.of(9, [0, 8, piece])


def test_full() -> None:
    full = PieceSet.full(596_047)
    assert full.is_full
    assert len(full) == 596_047
    assert not full.complement()
    full.discard(Geometry(10**13, 16 << 20).piece(300_000))
    assert not full.is_full
    assert list(full.complement()) == [300_000]


def test_a_copy_is_independent() -> None:
    original = PieceSet.of(9, [1])
    copy = original.copy()
    copy.add(PieceIndex(2))
    assert list(original) == [1]
    assert list(copy) == [1, 2]


def test_sets_of_different_counts_differ() -> None:
    assert PieceSet(8, 1) != PieceSet(9, 1)
    assert PieceSet(8, 1) != 1


def test_it_cannot_be_hashed_because_it_changes() -> None:
    with pytest.raises(TypeError):
        hash(PieceSet(8))


def test_repr_tells_how_many() -> None:
    assert repr(PieceSet.of(9, [1, 2])) == "PieceSet(2 of 9)"
