"""Making a part and going on with one: space, structure, modes, and everything that may be in the way."""

import errno
import os
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from blake3 import blake3

from interfiles.errors import DestinationExists, InterFilesError, NoSpace, NotPermitted, PathNotFound, StorageFailed
from interfiles.geometry import MAX_PIECE_BYTES, MAX_PIECES, MIB
from interfiles.manifest import FileEntry, Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage import part_layout
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_store import PartStore, discard_part, part_path
from interfiles.storage.system import umask
from tests.storage.contents import PIECE, Content, Failing, a_file, a_tree, checked, fetch, no_leaks, tree_of, uploaded
from tests.trees import directory, single_file

IN_A_TREE = [0, 1, 2, 3, 4]
ZEROS_OF_A_TREE = [3]


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_tree(tmp_path / "source/t")


@pytest.fixture
def part(tmp_path: Path, content: Content) -> Path:
    (tmp_path / "to").mkdir()
    return part_path(tmp_path / "to", content.manifest)


def refused_to_create(part: Path, manifest: Manifest, error: type[InterFilesError]) -> str:
    """The sentence; nothing is left open."""
    with no_leaks(), pytest.raises(InterFilesError) as caught:
        PartStore.create(part, manifest, OpenFiles())
    assert type(caught.value) is error, caught.value
    return str(caught.value)


def refused_to_open(part: Path, manifest: Manifest) -> str:
    files = OpenFiles()
    with no_leaks(), pytest.raises(DestinationExists) as caught:
        PartStore.open(part, manifest, PieceSet(manifest.piece_count), files)
    assert len(files) == 0
    return str(caught.value)


def test_a_new_part_has_its_whole_structure_and_is_private(part: Path, content: Content, files: OpenFiles) -> None:
    store = PartStore.create(part, content.manifest, files)
    assert stat.S_IMODE(part.stat().st_mode) == 0o700
    sizes = {
        "a/large": 2 * PIECE + 1000,
        "a/deep/er/small": 5,
        "b.sh": 5000,
        "empty": 0,
        "zeros": 2 * PIECE,
        "日本/ü": 1000,
    }
    directories = {"a", "a/deep", "a/deep/er", "l", "l/i", "e", "e/mpty", "日本"}
    found = {str(path.relative_to(part)): path for path in part.rglob("*")}
    assert set(found) == set(sizes) | directories
    assert {path: found[path].stat().st_size for path in sizes} == sizes
    assert {stat.S_IMODE(found[path].stat().st_mode) for path in sizes} == {0o755 & ~umask(), 0o644 & ~umask()}
    assert {stat.S_IMODE(found[path].stat().st_mode) for path in directories} == {0o700}
    assert (list(store.held), list(store.doubtful)) == (ZEROS_OF_A_TREE, [])
    store.close()


def test_space_is_reserved_for_all_but_zeros(part: Path, content: Content, files: OpenFiles) -> None:
    store = PartStore.create(part, content.manifest, files)
    assert (part / "a/large").stat().st_blocks * 512 >= 2 * PIECE + 1000
    # Of its two pieces' worth of zeros, one is a piece of its own.
    assert PIECE <= (part / "zeros").stat().st_blocks * 512 < 2 * PIECE
    store.close()


def test_what_is_reserved_is_not_reserved_again(
    part: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    PartStore.create(part, content.manifest, files).close()
    monkeypatch.setattr(part_layout, "fallocate", lambda *_: pytest.fail("it was"))
    PartStore.open(part, content.manifest, PieceSet(content.manifest.piece_count), files).close()


def test_a_single_file(tmp_path: Path, files: OpenFiles) -> None:
    content = a_file(tmp_path / "source/f")
    part = part_path(tmp_path, content.manifest)
    store = PartStore.create(part, content.manifest, files)
    assert stat.S_IMODE(part.stat().st_mode) == 0o600
    assert part.stat().st_size == content.manifest.size
    assert not store.held
    assert not store.doubtful
    store.close()


def test_where_space_cannot_be_reserved_the_part_is_sparse(
    part: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def unsupported(descriptor: int, _offset: int, _length: int) -> None:
        asked.append(descriptor)
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(part_layout, "fallocate", unsupported)
    store = PartStore.create(part, content.manifest, files)
    assert len(asked) == 1
    assert (part / "a/large").stat().st_size == 2 * PIECE + 1000
    assert (part / "a/large").stat().st_blocks == 0
    fetch(store, content)
    assert checked(store, content.all_pieces) == content.all_pieces
    store.close()


def filesystem(monkeypatch: pytest.MonkeyPatch, *, free: int, files: int = 1000, counts_files: bool = True) -> None:
    """The file system has `free` bytes, and room for `files`."""
    found = SimpleNamespace(f_bavail=free // 1000, f_frsize=1000, f_favail=files, f_files=10_000 if counts_files else 0)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: found)


def test_too_little_space_is_told_in_figures(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem(monkeypatch, free=12_100_000_000)
    told = refused_to_create(part, single_file("weights", 18_400_000_000), NoSpace)
    assert told == f"{part.parent} has 12.1 GB free, weights needs 18.4 GB"
    assert not part.exists()


def test_each_small_file_takes_a_block(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem(monkeypatch, free=9_000)
    manifest = directory(*[FileEntry(f"{number}", 1, False) for number in range(10)])
    assert refused_to_create(part, manifest, NoSpace) == f"{part.parent} has 9.0 kB free, tree needs 10.0 kB"


def test_too_little_room_for_files_is_told(part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = directory(*[FileEntry(f"{number}", 0, False) for number in range(11)])
    filesystem(monkeypatch, free=10**12, files=1)
    assert refused_to_create(part, manifest, NoSpace) == f"{part.parent} has room for 1 file, tree needs 11"
    filesystem(monkeypatch, free=10**12, files=1, counts_files=False)
    store = PartStore.create(part, manifest, OpenFiles())
    store.discard()


def test_absurd_sizes_are_refused_before_anything_is_made(part: Path) -> None:
    entry = FileEntry("f", MAX_PIECES * MAX_PIECE_BYTES, False)
    manifest = Manifest("f", False, (entry,), MAX_PIECE_BYTES, b"\x01" * 32 * MAX_PIECES)
    assert refused_to_create(part, manifest, NoSpace).endswith("free, f needs 17.6 TB")
    assert not part.exists()


def test_a_sparse_terabyte_needs_no_space(tmp_path: Path, files: OpenFiles) -> None:
    entry = FileEntry("f", 1 << 40, False)
    manifest = Manifest("f", False, (entry,), 16 * MIB, blake3(bytes(16 * MIB)).digest() * (1 << 16))
    store = PartStore.create(tmp_path / "f.part", manifest, files)
    assert store.held.is_full
    assert (tmp_path / "f.part").stat().st_blocks == 0
    store.discard()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    part: Path, content: Content, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(part_layout, "fallocate", full)
    assert "make room on that disk" in refused_to_create(part, content.manifest, NoSpace)
    assert os.listdir(part.parent) == []


@pytest.mark.parametrize("call", ["mkdir", "open", "ftruncate"])
@pytest.mark.parametrize(("number", "error"), [(errno.EROFS, NotPermitted), (errno.EIO, StorageFailed)])
def test_a_place_that_cannot_be_written_to(
    part: Path, content: Content, call: str, number: int, error: type[InterFilesError]
) -> None:
    (content.root / "z").write_bytes(bytes(PIECE * 2))  # no space is reserved for zeros: only truncate makes it
    content = uploaded(content.root)
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch)(call, number)
        with pytest.raises(error) as caught:
            PartStore.create(part, content.manifest, OpenFiles())
    assert str(caught.value).startswith(f"{part.parent} cannot be written")
    assert os.listdir(part.parent) == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_of_another_user_is_refused(content: Content) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        os.seteuid(65534)
        try:
            told = refused_to_create(part_path(Path(directory), content.manifest), content.manifest, NotPermitted)
        finally:
            os.seteuid(0)
    assert told == f"{directory} cannot be written: Permission denied; let the client daemon's user write there"


@pytest.mark.parametrize("make", [lambda _path: None, lambda path: path.write_bytes(b"")])
def test_a_directory_that_is_none(tmp_path: Path, content: Content, make: Callable[[Path], None]) -> None:
    make(tmp_path / "none")
    told = refused_to_create(part_path(tmp_path / "none", content.manifest), content.manifest, PathNotFound)
    assert told == f"{tmp_path}/none is no directory; make it, or choose another place"


@pytest.mark.parametrize(
    "make",
    [Path.mkdir, Path.touch, os.mkfifo, lambda path: path.symlink_to("/etc"), lambda path: path.symlink_to("none")],
)
@pytest.mark.parametrize("is_directory", [True, False])
def test_what_is_in_the_way_of_a_new_part_stays(
    tmp_path: Path, make: Callable[[Path], None], is_directory: bool
) -> None:
    content = a_tree(tmp_path / "source/c") if is_directory else a_file(tmp_path / "source/c")
    part = part_path(tmp_path, content.manifest)
    make(part)
    before = part.lstat()
    told = refused_to_create(part, content.manifest, DestinationExists)
    assert told == f"{part} is in the way; remove it, or choose another place"
    assert part.lstat() == before


@pytest.mark.parametrize("is_directory", [True, False])
@pytest.mark.parametrize("kind", ["other kind", "fifo", "symlink"])
def test_going_on_refuses_what_is_no_part(tmp_path: Path, kind: str, is_directory: bool) -> None:
    content = a_tree(tmp_path / "source/c") if is_directory else a_file(tmp_path / "source/c")
    part, precious = part_path(tmp_path, content.manifest), tmp_path / "precious"
    precious.mkdir()
    (precious / "kept").write_bytes(b"kept")
    match kind:
        case "fifo":
            os.mkfifo(part)
        case "symlink":
            part.symlink_to("precious" if is_directory else "precious/kept")
        case _ if is_directory:
            part.touch()
        case _:
            part.mkdir()
    assert refused_to_open(part, content.manifest).startswith(f"{part} is in the way")
    assert tree_of(precious) == {"kept": (b"kept", False)}


@pytest.mark.parametrize("place", ["a", "a/deep", "a/large", "zeros"])
def test_going_on_refuses_a_symlink_inside(
    tmp_path: Path, part: Path, content: Content, files: OpenFiles, place: str
) -> None:
    PartStore.create(part, content.manifest, files).close()
    (part / place).rename(tmp_path / "moved")
    before = tree_of(tmp_path / "moved")
    (part / place).symlink_to(tmp_path / "moved")
    assert "is in the way" in refused_to_open(part, content.manifest)
    assert tree_of(tmp_path / "moved") == before


def test_going_on_refuses_a_file_that_has_another_name_too(
    tmp_path: Path, part: Path, content: Content, files: OpenFiles
) -> None:
    PartStore.create(part, content.manifest, files).close()
    (tmp_path / "precious").write_bytes(b"kept")
    (part / "b.sh").unlink()
    (part / "b.sh").hardlink_to(tmp_path / "precious")
    assert refused_to_open(part, content.manifest).startswith(f"{part}/b.sh is in the way")
    assert (tmp_path / "precious").read_bytes() == b"kept"


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
@pytest.mark.parametrize("is_directory", [True, False])
def test_going_on_refuses_a_part_that_another_user_laid_out(tmp_path: Path, is_directory: bool) -> None:
    content = a_tree(tmp_path / "source/c") if is_directory else a_file(tmp_path / "source/c")
    shared = tmp_path / "shared"
    shared.mkdir()
    part, files = part_path(shared, content.manifest), OpenFiles()
    PartStore.create(part, content.manifest, files).close()
    os.chown(part, 65534, 65534)
    PartStore.open(part, content.manifest, PieceSet(content.manifest.piece_count), files).close()
    shared.chmod(0o1777)
    assert refused_to_open(part, content.manifest).startswith(f"{part} is in the way")


def reopened(
    part: Path, content: Content, durable: list[int], files: OpenFiles
) -> tuple[list[int], list[int], list[int]]:
    """What a restarted client knows: pieces held, doubtful, and of those the ones that are there."""
    store = PartStore.open(part, content.manifest, content.pieces(*durable), files)
    matching = checked(store, store.doubtful)
    store.close()
    return list(store.held), list(store.doubtful), list(matching)


@pytest.fixture
def fetched(part: Path, content: Content, files: OpenFiles) -> Content:
    """The part holds pieces 0, 1, 2 and, of zeros, 3; piece 4 is missing."""
    store = PartStore.create(part, content.manifest, files)
    fetch(store, content, content.pieces(0, 1, 2))
    store.close()
    return content


def test_going_on_trusts_what_was_recorded_and_checks_the_rest(part: Path, fetched: Content, files: OpenFiles) -> None:
    assert reopened(part, fetched, [0, 1], files) == ([0, 1], [2, 3, 4], [2, 3])
    assert reopened(part, fetched, [], files) == ([], IN_A_TREE, [0, 1, 2, 3])
    assert reopened(part, fetched, [0, 1, 2, 3], files) == ([0, 1, 2, 3], [4], [])


@pytest.mark.parametrize("size", [0, 100, 2 * PIECE + 999, 3 * PIECE])
def test_a_file_of_another_size_is_not_trusted(part: Path, fetched: Content, files: OpenFiles, size: int) -> None:
    os.truncate(part / "a/large", size)
    held, doubtful, matching = reopened(part, fetched, [0, 1, 2, 3], files)
    assert (held, doubtful) == ([3], [0, 1, 2, 4])
    assert set(matching) == {piece for piece in (0, 1, 2) if size >= min((piece + 1) * PIECE - 5, 2 * PIECE + 1000)}
    assert (part / "a/large").stat().st_size == 2 * PIECE + 1000


def test_missing_files_and_directories_are_made_again(part: Path, fetched: Content, files: OpenFiles) -> None:
    (part / "a/large").unlink()
    (part / "a/deep/er/small").unlink()
    (part / "a/deep/er").rmdir()
    (part / "日本/ü").unlink()
    # Piece 0 lies in the missing ones alone, so there is nothing to check; 3 and 4 lie in others too.
    assert reopened(part, fetched, [0, 1, 2, 3], files) == ([3], [2, 4], [])
    assert sorted(tree_of(part)) == sorted({*tree_of(fetched.root)} - {"a/link", "l/i/nk"})


def test_a_part_that_is_gone_is_made_again(part: Path, fetched: Content, files: OpenFiles) -> None:
    discard_part(part)
    assert reopened(part, fetched, [0, 1, 2, 3], files) == (ZEROS_OF_A_TREE, [], [])


def test_going_on_needs_space_only_for_what_is_missing(
    part: Path, fetched: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    filesystem(monkeypatch, free=0)
    PartStore.open(part, fetched.manifest, fetched.pieces(), files).close()
    (part / "b.sh").unlink()
    with pytest.raises(NoSpace, match=r"has 0 B free, t needs 5.0 kB"):
        PartStore.open(part, fetched.manifest, fetched.pieces(), files)
    assert (part / "a/large").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_on_a_disk_that_is_full_for_others_a_part_keeps_its_room(
    tmp_path: Path, small_disk: Path, files: OpenFiles
) -> None:
    content = a_file(tmp_path / "source/f", size=3 * MIB)
    store = PartStore.create(part_path(small_disk, content.manifest), content.manifest, files)
    with pytest.raises(OSError, match="No space left"):
        (small_disk / "other").write_bytes(bytes(4 * MIB))
    fetch(store, content)
    store.sync()
    second = a_file(tmp_path / "source/g", size=3 * MIB)
    with pytest.raises(NoSpace, match=f"{small_disk} has .* free, g needs 3.1 MB"):
        PartStore.create(part_path(small_disk, second.manifest), second.manifest, files)
    store.finish(small_disk / "f", overwrite=False)
    store.close()
    assert (small_disk / "f").read_bytes() == content.data


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_write_to_a_full_disk_is_told(
    tmp_path: Path, small_disk: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(part_layout, "fallocate", unsupported)
    content = a_file(tmp_path / "source/f", size=3 * MIB)
    store = PartStore.create(part_path(small_disk, content.manifest), content.manifest, files)
    (small_disk / "other").write_bytes(bytes(3 * MIB))
    with pytest.raises(NoSpace, match=r"part cannot be written: No space left on device; make room on that disk"):
        fetch(store, content)
    (small_disk / "other").unlink()
    fetch(store, content)
    assert checked(store, content.all_pieces) == content.all_pieces
    store.close()
