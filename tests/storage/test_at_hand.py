"""What the loop may read at once, and what a thread has to fetch from the disk."""

import os
from pathlib import Path

import pytest

from interfiles.errors import ContentChanged
from interfiles.geometry import Block
from interfiles.storage import system
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.seed_store import SeedStore
from tests.storage.contents import PIECE, Content, a_file

PIECES = 8


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "f", size=PIECES * PIECE)


def blocks(content: Content) -> list[Block]:
    geometry = content.manifest.geometry
    return [block for piece in geometry.pieces() for block in geometry.blocks(piece)]


def is_at_hand(seed: SeedStore, block: Block) -> bool:
    with seed.reading(block) as spans:
        return spans is not None


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> list[range]:
    """The ranges that the system has in memory, in its stead: the real one begins to read what it is asked about.

    What it is told will be needed is there at once.
    """
    ranges: list[range] = []
    preadv = os.preadv

    def read(descriptor: int, buffers: list[bytearray], offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT and not any(offset in some for some in ranges):
            raise BlockingIOError
        return preadv(descriptor, buffers, offset)

    def advise(_descriptor: int, offset: int, length: int, advice: int) -> None:
        if advice == os.POSIX_FADV_WILLNEED:
            ranges.append(range(offset, offset + length))

    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", advise)
    return ranges


def test_what_was_just_written_is_at_hand(content: Content, files: OpenFiles) -> None:
    seed = content.seed(files)
    assert all(is_at_hand(seed, block) for block in blocks(content))
    seed.close()


def test_what_is_on_the_disk_alone_is_not_until_it_is_read_and_then_more_is(
    content: Content, files: OpenFiles, at_hand: list[range]
) -> None:
    seed = content.seed(files)
    first, second, *_ = blocks(content)
    assert not is_at_hand(seed, first)
    assert not is_at_hand(seed, second)
    assert seed.read(first) == content.data[: first.length]
    assert is_at_hand(seed, first)
    assert is_at_hand(seed, second), "it was read ahead"
    seed.close()


@pytest.mark.parametrize("lacking", [0, PIECE // 2, PIECE - 1])
def test_a_block_is_at_hand_when_all_of_it_is(
    content: Content, files: OpenFiles, at_hand: list[range], lacking: int
) -> None:
    page = lacking - lacking % 4096
    at_hand += [range(page), range(page + 4096, PIECE)]
    seed = content.seed(files)
    assert not is_at_hand(seed, blocks(content)[0])
    at_hand.append(range(page, page + 4096))
    assert is_at_hand(seed, blocks(content)[0])
    seed.close()


def test_where_the_system_cannot_tell_only_a_file_system_in_memory_is_at_hand(
    content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> int:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "preadv", unsupported)
    for magic, expected in ((0x01021994, True), (0x858458F6, True), (0x6969, False)):  # tmpfs, ramfs, NFS
        seed = content.seed(files)
        monkeypatch.setattr(system, "_magic", lambda _descriptor, magic=magic: magic)
        assert is_at_hand(seed, blocks(content)[0]) is expected
        seed.close()


def test_a_changed_file_is_told_before_it_is_looked_at(content: Content, files: OpenFiles) -> None:
    seed: SeedStore = content.seed(files)
    os.utime(content.root, ns=(1, 1))
    with pytest.raises(ContentChanged):
        is_at_hand(seed, blocks(content)[0])
    seed.close()
