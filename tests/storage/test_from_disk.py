"""Hashing what is on the disk, not what the system has in memory of it."""

import os
from pathlib import Path

import pytest

from interfiles.storage.open_files import OpenFiles
from tests.storage.contents import PIECE, a_file, a_tree, checked, ignore, never


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_check_from_the_disk_drops_what_is_in_memory_and_leaves_there_what_was(
    tmp_path: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch, is_wanted: bool
) -> None:
    content = a_file(tmp_path / "f", size=PIECE * 2 + 10)
    seed = content.seed(files)
    steps: list[tuple[str, int, int]] = []
    preadv = os.preadv

    def read(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        steps.append(("read", offset, len(buffers[0])))
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: steps.append((advice, offset, length)))
    monkeypatch.setattr("interfiles.storage.hashing.is_cached", lambda *_: is_wanted)
    matching = seed.check(content.pieces(1, 2), progress=ignore, cancelled=never, from_disk=True)
    assert list(matching) == [1, 2]
    dropped = [(os.POSIX_FADV_DONTNEED, PIECE, PIECE), (os.POSIX_FADV_DONTNEED, 2 * PIECE, 4096)]
    kept = [] if is_wanted else [1]
    assert steps == [
        step
        for drop, offset, length in zip(dropped, (PIECE, 2 * PIECE), (PIECE, 10), strict=True)
        for step in (drop, ("read", offset, length), *[drop for _ in kept])
    ]
    steps.clear()
    assert list(checked(seed, content.pieces(1))) == [1]
    assert [step[0] for step in steps] == ["read"]
    seed.close()


def test_a_check_from_the_disk_finds_the_same(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    with (content.root / "a/large").open("r+b") as file:
        file.seek(PIECE + 5)
        file.write(b"!")
    found = seed.check(content.all_pieces, progress=ignore, cancelled=never, from_disk=True)
    assert list(found) == [0, 2, 3, 4]
    seed.close()
