"""Hashing what is on a disk: any layout, holes, and files that change meanwhile."""

import errno
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import ContentChanged, InvalidManifest, NotPermitted, StorageFailed
from interfiles.geometry import KIB, MIB, Geometry
from interfiles.storage import Stopped
from interfiles.storage.hashing import DiskContent, draft_manifest, hash_range, slices
from interfiles.storage.scan import Scan, scan
from tests.storage.contents import PIECE, Failing, ignore, make_tree, never, no_leaks, noise

pytestmark = pytest.mark.usefixtures("files")


def hashed(scanned: Scan, *, piece_size: int = PIECE, progress: Callable[[int], None] = ignore) -> bytes:
    """All hashes, by the slices that threads take."""
    draft = draft_manifest(scanned, piece_size)
    content = DiskContent(scanned.root, draft, scanned.stamps)
    return b"".join(
        hash_range(content, first, count, progress=progress, cancelled=never) for first, count in slices(draft.geometry)
    )


def expected(data: bytes, piece_size: int = PIECE) -> bytes:
    return b"".join(blake3(data[at : at + piece_size]).digest() for at in range(0, len(data), piece_size))


def scanned_tree(root: Path, *sizes: int) -> tuple[Scan, bytes]:
    """Files of these sizes, the odd ones sparse, in subdirectories."""
    contents = [noise(size, number) if number % 2 == 0 else bytes(size) for number, size in enumerate(sizes)]
    make_tree(root, {f"d{number % 3}/{number:04}": data for number, data in enumerate(contents)})
    found = scan(root, cancelled=never)
    order = [int(entry.path[-4:]) for entry in found.entries]
    return found, b"".join(contents[number] for number in order)


def test_pieces_run_over_files_of_every_size(tmp_path: Path) -> None:
    scanned, data = scanned_tree(tmp_path / "t", 0, 10, PIECE, 3 * PIECE + 5, 1, 0, PIECE - 16, 2 * MIB + 1)
    done: list[int] = []
    assert hashed(scanned, progress=done.append) == expected(data)
    assert sum(done) == scanned.size


@settings(max_examples=30)
@given(st.lists(st.integers(0, 3 * PIECE) | st.integers(0, 3), max_size=8))
def test_any_layout_hashes_like_its_concatenation(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory, no_leaks():
        scanned, data = scanned_tree(Path(directory) / "t", *sizes)
        assert hashed(scanned) == expected(data)


def test_ranges_are_independent(tmp_path: Path) -> None:
    scanned, data = scanned_tree(tmp_path / "t", 5 * PIECE, 100, 2 * PIECE)
    content = DiskContent(scanned.root, draft_manifest(scanned, PIECE), scanned.stamps)
    ranges = [hash_range(content, first, 3, progress=ignore, cancelled=never) for first in (3, 0)]
    assert ranges[1] + ranges[0] == expected(data)[: 6 * 32]


def test_slices_cover_everything_once() -> None:
    geometry = Geometry(1000 * MIB + 1, 1 * MIB)
    covered = [piece for first, count in slices(geometry) for piece in range(first, first + count)]
    assert covered == list(range(geometry.piece_count))
    assert list(slices(Geometry(0, MIB))) == []


def test_holes_are_not_read(tmp_path: Path, failing: Failing) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    scanned = scan(path, cancelled=never)
    failing("preadv", errno.EIO)
    hashes = hashed(scanned, piece_size=16 * MIB)
    assert hashes == blake3(bytes(16 * MIB)).digest() * (1 << 16)


def test_data_between_holes_is_found(tmp_path: Path) -> None:
    path, size = tmp_path / "sparse", 20 * PIECE + 3
    islands = {0: noise(10), 3 * PIECE - 5: noise(10, 1), 7 * PIECE: noise(4 * PIECE, 2), size - 1: b"x"}
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in islands.items():
            file.seek(offset)
            file.write(data)
    assert hashed(scan(path, cancelled=never)) == expected(path.read_bytes())


def test_a_file_system_that_knows_no_holes_is_read(tmp_path: Path, failing: Failing) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2 * PIECE)
        file.write(b"x")
    failing("lseek", errno.EINVAL, when=lambda _fd, _offset, whence: whence in (os.SEEK_DATA, os.SEEK_HOLE))
    assert hashed(scan(path, cancelled=never)) == expected(path.read_bytes())


def test_the_system_is_asked_about_holes_once_a_stretch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(noise(40 * PIECE))
    asked: list[int] = []
    real = os.lseek

    def lseek(descriptor: int, offset: int, whence: int) -> int:
        asked.append(offset)
        return real(descriptor, offset, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    assert hashed(scan(path, cancelled=never)) == expected(path.read_bytes())
    assert len(asked) == 2


def test_large_pieces_and_a_short_tail(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(noise(5 * MIB + 7))
    assert hashed(scan(path, cancelled=never), piece_size=4 * MIB) == expected(path.read_bytes(), 4 * MIB)


def swapped(path: Path) -> None:
    """The parent directory becomes a symlink to an equal one elsewhere."""
    elsewhere = path.parent.rename(path.parent.with_name("elsewhere"))
    path.parent.symlink_to(elsewhere)


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced(path: Path) -> None:
    """Another file with the same bytes and times."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.rename(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def edited(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"edited")
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


CHANGES = [
    lambda path: path.unlink(),
    lambda path: os.truncate(path, 10),
    lambda path: os.truncate(path, path.stat().st_size + 1),
    edited,
    replaced,
    directory,
    fifo,
    swapped,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("while_open", [False, True])
def test_a_file_that_changes_while_it_is_hashed_is_named(
    tmp_path: Path, change: Callable[[Path], None], while_open: bool
) -> None:
    root = tmp_path / "t"
    make_tree(root, {"a": noise(10 * PIECE), "d/victim": noise(10 * PIECE, 1)})
    scanned = scan(root, cancelled=never)
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        if done == (15 if while_open else 2) * PIECE:
            change(root / "d/victim")

    if while_open and change in (CHANGES[0], replaced, directory, fifo, swapped):
        # What is hashed is the open file, which is unharmed: the next use by its path tells.
        hashed(scanned, progress=progress)
        progress = ignore  # type: ignore[assignment]
    with pytest.raises(ContentChanged, match=r"t/d/victim (is gone|has changed since it was hashed); put"):
        hashed(scanned, progress=progress)


def test_a_file_that_is_changed_before_the_range_ends_is_caught_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(noise(PIECE))
    scanned = scan(path, cancelled=never)
    with pytest.raises(ContentChanged):
        hashed(scanned, progress=lambda _: edited(path))


def test_a_name_from_elsewhere_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "evil\x1b[2J"
    path.write_bytes(b"x")
    scanned = scan(path, cancelled=never)
    path.unlink()
    with pytest.raises(ContentChanged) as caught:
        hashed(scanned)
    assert "evil\\x1b[2J" in str(caught.value)


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.EIO, StorageFailed, "cannot be read: Input/output error"),
        (errno.EACCES, NotPermitted, "cannot be read: Permission denied; let the client daemon's user read it"),
    ],
)
def test_a_disk_that_fails_is_a_sentence(
    tmp_path: Path, failing: Failing, number: int, error: type[Exception], words: str
) -> None:
    scanned, _ = scanned_tree(tmp_path / "t", 100)
    failing("preadv", number)
    with pytest.raises(error, match=f"t/d0/0000 {words}"):
        hashed(scanned)


def test_it_stops_when_nobody_wants_it(tmp_path: Path) -> None:
    scanned, _ = scanned_tree(tmp_path / "t", 10 * PIECE)
    done: list[int] = []
    content = DiskContent(scanned.root, draft_manifest(scanned, PIECE), scanned.stamps)
    with pytest.raises(Stopped):
        hash_range(content, 0, 10, progress=done.append, cancelled=lambda: len(done) == 3)
    assert len(done) == 3


def test_what_no_manifest_could_hold_is_refused_before_hashing(tmp_path: Path) -> None:
    scanned, _ = scanned_tree(tmp_path / "t", 10)
    with pytest.raises(InvalidManifest):
        draft_manifest(replace(scanned, name="a/b"), 256 * KIB)
