"""Hashing what is on the disk, not what the system has in memory of it."""

import os
from pathlib import Path

import pytest
from blake3 import blake3

from interfiles.storage.open_files import OpenFiles
from interfiles.storage.piece_store import keyed_digest
from tests.storage.contents import PIECE, a_file, a_tree, checked, ignore, never

KEY = bytes(range(32))

Step = tuple[str | int, int, int]


def watched(monkeypatch: pytest.MonkeyPatch, *, is_wanted: bool) -> list[Step]:
    """What is read, and what the system is advised of: which, offset and length; `is_wanted`: it is in memory now."""
    steps: list[Step] = []
    preadv = os.preadv

    def read(descriptor: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        steps.append(("read", offset, len(buffers[0])))
        return preadv(descriptor, buffers, offset, flags)

    monkeypatch.setattr(os, "preadv", read)
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, length, advice: steps.append((advice, offset, length)))
    monkeypatch.setattr("interfiles.storage.hashing.is_cached", lambda *_: is_wanted)
    return steps


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_check_from_the_disk_drops_what_is_in_memory_and_leaves_there_what_was(
    tmp_path: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch, is_wanted: bool
) -> None:
    content = a_file(tmp_path / "f", size=PIECE * 2 + 10)
    seed = content.seed(files)
    steps = watched(monkeypatch, is_wanted=is_wanted)
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


@pytest.mark.parametrize("is_wanted", [True, False])
@pytest.mark.parametrize(("number", "length", "dropped"), [(1, PIECE, PIECE), (2, 10, 4096)])
def test_a_piece_that_is_to_be_shown_is_dropped_from_memory_and_read_from_the_disk(
    tmp_path: Path,
    files: OpenFiles,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    length: int,
    dropped: int,
    is_wanted: bool,
) -> None:
    content = a_file(tmp_path / "f", size=PIECE * 2 + 10)
    seed = content.seed(files)
    steps = watched(monkeypatch, is_wanted=is_wanted)
    digest = keyed_digest(seed, content.manifest.geometry.piece(number), KEY)
    assert digest == blake3(content.piece(number), key=KEY).digest()
    drop = (os.POSIX_FADV_DONTNEED, number * PIECE, dropped)
    assert steps == [drop, ("read", number * PIECE, length), *([] if is_wanted else [drop])]
    seed.close()


def test_a_piece_over_several_files_is_dropped_in_each(
    tmp_path: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    steps = watched(monkeypatch, is_wanted=True)
    digest = keyed_digest(seed, content.manifest.geometry.piece(2), KEY)
    assert digest == blake3(content.piece(2), key=KEY).digest()
    spans = [("read", offset, length) for _, offset, length in content.manifest.spans(2 * PIECE, PIECE)]
    assert len(spans) > 2
    assert steps[1::2] == spans
    for (advice, start, dropped), (_, offset, length) in zip(steps[::2], spans, strict=True):
        assert advice == os.POSIX_FADV_DONTNEED
        assert offset - 4096 < start <= offset
        assert offset + length <= start + dropped < offset + length + 4096
    seed.close()


def test_a_piece_that_is_not_on_the_disk_cannot_be_shown(tmp_path: Path, files: OpenFiles) -> None:
    content = a_file(tmp_path / "f", size=PIECE * 2 + 10)
    seed = content.seed(files)
    with content.root.open("r+b") as file:
        file.seek(PIECE + 5)
        file.write(b"!")
    assert keyed_digest(seed, content.manifest.geometry.piece(1), KEY) == b""
    assert keyed_digest(seed, content.manifest.geometry.piece(0), KEY) == blake3(content.piece(0), key=KEY).digest()
    seed.close()
