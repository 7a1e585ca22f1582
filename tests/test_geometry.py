"""Piece and block arithmetic, every bound from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.geometry import (
    BLOCK_BYTES,
    KIB,
    MAX_CONTENT_BYTES,
    MAX_PIECE_BYTES,
    MAX_PIECES,
    MIB,
    MIN_PIECE_BYTES,
    Block,
    Geometry,
    choose_piece_size,
)

GIB = 1 << 30
PIECE_SIZES = [MIN_PIECE_BYTES << n for n in range(7)]

geometries = st.builds(
    lambda piece_size, pieces, more: Geometry(pieces * piece_size + more % piece_size, piece_size),
    st.sampled_from(PIECE_SIZES),
    st.integers(0, 40),
    st.integers(0, MAX_PIECE_BYTES),
)


@pytest.mark.parametrize("piece_size", PIECE_SIZES)
def test_every_power_of_two_from_256_kib_to_16_mib_is_a_piece_size(piece_size: int) -> None:
    assert Geometry(0, piece_size).piece_size == piece_size


@pytest.mark.parametrize("piece_size", [128 * KIB, 32 * MIB, 0, 1, -256 * KIB, 256 * KIB + 1, 384 * KIB, 2**70])
def test_no_other_number_is_a_piece_size(piece_size: int) -> None:
    with pytest.raises(ValueError, match=f"piece size {piece_size} is not a power of two from 256 KiB to 16 MiB"):
        Geometry(0, piece_size)


def test_size_bounds() -> None:
    assert Geometry(MAX_CONTENT_BYTES, MAX_PIECE_BYTES).piece_count == MAX_PIECES
    with pytest.raises(ValueError, match=f"size {MAX_CONTENT_BYTES + 1} is outside 0..{MAX_CONTENT_BYTES}"):
        Geometry(MAX_CONTENT_BYTES + 1, MAX_PIECE_BYTES)
    with pytest.raises(ValueError, match="size -1 is outside"):
        Geometry(-1, MAX_PIECE_BYTES)


def test_piece_count_bounds() -> None:
    assert Geometry(MAX_PIECES * MIN_PIECE_BYTES, MIN_PIECE_BYTES).piece_count == MAX_PIECES
    with pytest.raises(ValueError, match=f"{MAX_PIECES + 1} pieces are more than the {MAX_PIECES} allowed"):
        Geometry(MAX_PIECES * MIN_PIECE_BYTES + 1, MIN_PIECE_BYTES)


@pytest.mark.parametrize(
    ("size", "piece_count", "last_length"),
    [(1, 1, 1), (MIB - 1, 1, MIB - 1), (MIB, 1, MIB), (MIB + 1, 2, 1), (10 * MIB, 10, MIB)],
)
def test_the_last_piece_is_what_is_left(size: int, piece_count: int, last_length: int) -> None:
    geometry = Geometry(size, MIB)
    assert geometry.piece_count == piece_count
    assert geometry.piece_length(geometry.piece(piece_count - 1)) == last_length


def test_an_empty_content_has_no_pieces() -> None:
    geometry = Geometry(0, MIB)
    assert list(geometry.pieces()) == []
    with pytest.raises(ValueError, match="piece 0 is outside"):
        geometry.piece(0)


def test_ten_terabytes() -> None:
    geometry = Geometry(10**13, choose_piece_size(10**13))
    last = geometry.piece(596_046)
    assert geometry.piece_count == 596_047
    assert geometry.piece_offset(last) == 9_999_992_487_936
    assert geometry.piece_length(last) == 10**13 - 9_999_992_487_936
    assert sum(block.length for block in geometry.blocks(last)) == geometry.piece_length(last)


def test_piece_bounds() -> None:
    geometry = Geometry(10 * MIB, MIB)
    assert [geometry.piece(0), geometry.piece(9)] == [0, 9]
    assert list(geometry.pieces(7)) == [7, 8, 9]
    for outside in (-1, 10, 2**32):
        with pytest.raises(ValueError, match=rf"piece {outside} is outside 0\.\.9"):
            geometry.piece(outside)


def test_block_bounds() -> None:
    geometry = Geometry(5 * MIB + 7, 4 * MIB)
    assert geometry.block(0, 0, BLOCK_BYTES) == Block(geometry.piece(0), 0, BLOCK_BYTES)
    assert geometry.block(0, 4 * MIB - 1, 1).length == 1
    assert geometry.block(1, MIB, 7).offset == MIB
    for length in (0, -1, BLOCK_BYTES + 1):
        with pytest.raises(ValueError, match=rf"block of {length} bytes is outside 1\.\.{BLOCK_BYTES}"):
            geometry.block(0, 0, length)
    for piece, offset, length in [(0, -1, 1), (0, 4 * MIB, 1), (0, 4 * MIB - 1, 2), (1, MIB, 8), (1, 2**64, 1)]:
        with pytest.raises(ValueError, match=f"are outside piece {piece} of"):
            geometry.block(piece, offset, length)
    with pytest.raises(ValueError, match=r"piece 2 is outside 0\.\.1"):
        geometry.block(2, 0, 1)


@given(geometries)
def test_pieces_and_blocks_cover_the_content_once_and_in_order(geometry: Geometry) -> None:
    covered = 0
    for piece in geometry.pieces():
        assert geometry.piece_offset(piece) == covered
        within = 0
        for block in geometry.blocks(piece):
            assert block == geometry.block(piece, within, block.length)
            within += block.length
        assert within == geometry.piece_length(piece) > 0
        covered += within
    assert covered == geometry.size


@given(st.integers(0, MAX_CONTENT_BYTES))
def test_the_chosen_piece_size_is_always_valid(size: int) -> None:
    assert Geometry(size, choose_piece_size(size)).piece_count <= MAX_PIECES


@given(st.integers(500 * MIN_PIECE_BYTES, 4000 * MAX_PIECE_BYTES))
def test_the_chosen_piece_size_aims_at_500_to_4000_pieces(size: int) -> None:
    assert 500 <= Geometry(size, choose_piece_size(size)).piece_count <= 4000


@pytest.mark.parametrize(
    ("size", "piece_size"),
    [
        (0, 256 * KIB),
        (500 * MIB, 256 * KIB),
        (500 * MIB + 1, 512 * KIB),
        (16_000 * MIB, 8 * MIB),
        (16_000 * MIB + 1, 16 * MIB),
        (10_000 * GIB, 16 * MIB),
    ],
)
def test_where_the_chosen_piece_size_doubles(size: int, piece_size: int) -> None:
    assert choose_piece_size(size) == piece_size
