"""What the loop may read at once, and what a thread has to fetch from the disk."""

import os
import time
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


def forget(content: Content) -> None:
    """Have the system drop what it has of the file in memory."""
    with content.root.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if system.is_cached(file.fileno(), 0, PIECES * PIECE):
            pytest.skip("this file system is in memory")


def test_what_was_just_written_is_at_hand(content: Content, files: OpenFiles) -> None:
    seed = content.seed(files)
    assert all(is_at_hand(seed, block) for block in blocks(content))
    seed.close()


def test_what_is_on_the_disk_alone_is_not_until_it_is_read_and_then_more_is(content: Content, files: OpenFiles) -> None:
    seed = content.seed(files)
    forget(content)
    first, second, *_ = blocks(content)
    assert not is_at_hand(seed, first)
    assert not is_at_hand(seed, second)
    assert seed.read(first) == content.data[: first.length]
    assert is_at_hand(seed, first)
    deadline = time.monotonic() + 20
    while not is_at_hand(seed, second):  # it is being read ahead
        assert time.monotonic() < deadline
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
