"""Writing a part, and serving it meanwhile."""

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import NoSpace, NotPermitted, StorageFailed
from interfiles.geometry import BLOCK_BYTES, KIB, MIB, PieceIndex
from interfiles.manifest import FileEntry, Manifest
from interfiles.storage import Stopped
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_store import PartStore, discard_part, part_path
from interfiles.storage.seed_store import SeedStore
from tests.storage.contents import (
    PIECE,
    Content,
    Failing,
    a_file,
    a_tree,
    checked,
    fetch,
    ignore,
    make_tree,
    never,
    no_leaks,
    noise,
    tree_of,
    uploaded,
)
from tests.trees import directory, single_file


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_tree(tmp_path / "source/t")


def created(to: Path, content: Content, files: OpenFiles) -> PartStore:
    to.mkdir(exist_ok=True)
    return PartStore.create(part_path(to, content.manifest), content.manifest, files)


def test_a_new_lone_file_is_private(tmp_path: Path, files: OpenFiles) -> None:
    content = a_file(tmp_path / "source/f")
    part = part_path(tmp_path, content.manifest)
    PartStore.create(part, content.manifest, files).close()
    assert (part.stat().st_size, stat.S_IMODE(part.stat().st_mode)) == (content.manifest.size, 0o600)


def test_the_part_is_named_for_the_content_and_its_id() -> None:
    manifest = single_file("weights.bin", 10)
    assert part_path(Path("/data"), manifest) == Path(f"/data/weights.bin.{manifest.file_id.hex()[:12]}.part")


@pytest.mark.parametrize("name", ["x" * 255, "ü" * 127, "日" * 85, "a" + "日" * 84, "🐍" * 63])
def test_a_long_name_is_cut_between_characters(tmp_path: Path, name: str) -> None:
    manifest = single_file(name, 10)
    part = part_path(tmp_path, manifest)
    assert 250 < len(os.fsencode(part.name)) <= 255
    assert name.startswith(part.name.removesuffix(f".{manifest.file_id.hex()[:12]}.part"))
    part.touch()


def test_what_was_written_is_served(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    store = created(tmp_path / "to", content, files)
    fetch(store, content, content.pieces(1))
    block = content.manifest.geometry.block(1, 1000, 2000)
    assert store.read(block) == content.piece(1)[1000:3000]
    with store.reading(block) as spans:
        assert b"".join(os.pread(fd, count, offset) for fd, offset, count in spans or ()) == content.piece(1)[1000:3000]
    assert list(checked(store, content.all_pieces)) == [1, 3]
    store.close()
    store.close()


def test_an_unfetched_part_is_checked_without_reading(
    tmp_path: Path, content: Content, files: OpenFiles, failing: Failing
) -> None:
    store = created(tmp_path / "to", content, files)
    failing("preadv", errno.EIO)
    assert list(checked(store, content.all_pieces)) == [3]
    store.close()


@settings(max_examples=25)
@given(st.data())
def test_any_writes_over_any_layout_read_back(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 2 * PIECE) | st.integers(0, 50), min_size=1, max_size=40))
    entries = [FileEntry(f"d{number % 4}/{number:03}", size, False) for number, size in enumerate(sizes)]
    manifest = directory(*entries, piece_size=PIECE)
    expected, files = bytearray(manifest.size), OpenFiles(3)
    with tempfile.TemporaryDirectory() as place, no_leaks():
        store = PartStore.create(Path(place) / "t.part", manifest, files)
        for number in range(data.draw(st.integers(0, 10))):
            start = data.draw(st.integers(0, manifest.size))
            count = data.draw(st.integers(0, min(BLOCK_BYTES, manifest.size - start)))
            expected[start : start + count] = written = noise(count, number)
            store.write(start, memoryview(written))
        blocks = [block for piece in manifest.geometry.pieces() for block in manifest.geometry.blocks(piece)]
        assert b"".join(store.read(block) for block in blocks) == bytes(expected)
        store.close()
        on_disk = b"".join((Path(place) / "t.part" / file.entry.path).read_bytes() for file in manifest.files)
        assert on_disk == bytes(expected)


def test_a_write_must_lie_inside(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    store = created(tmp_path / "to", content, files)
    with pytest.raises(ValueError, match="outside a content"):
        store.write(content.manifest.size - 1, memoryview(b"xx"))
    store.close()


def test_short_writes_go_on(tmp_path: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    content = a_file(tmp_path / "f")
    store = created(tmp_path / "to", content, files)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[: 64 * KIB], offset))
    fetch(store, content)
    assert checked(store, content.all_pieces) == content.all_pieces
    store.close()


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, NoSpace, "No space left on device; make room on that disk"),
        (errno.EDQUOT, NoSpace, "Disk quota exceeded; make room on that disk"),
        (errno.EIO, StorageFailed, "Input/output error"),
        (errno.EROFS, NotPermitted, "Read-only file system; let the client daemon's user write there"),
    ],
)
def test_a_write_that_fails_names_the_file(
    tmp_path: Path,
    content: Content,
    files: OpenFiles,
    failing: Failing,
    number: int,
    error: type[Exception],
    words: str,
) -> None:
    store = created(tmp_path / "to", content, files)
    failing("pwrite", number)
    with pytest.raises(error, match=f"part/a/large cannot be written: {words}"):
        fetch(store, content, content.pieces(1))
    store.close()


def test_ten_thousand_small_files(tmp_path: Path) -> None:
    make_tree(tmp_path / "t", {f"d{n % 50}/{n:05}": n.to_bytes(4, "big") * 20 for n in range(10_000)})
    content, files = uploaded(tmp_path / "t"), OpenFiles(16)
    with no_leaks():
        store = created(tmp_path / "to", content, files)
        assert store.is_scattered(0, PIECE)
        fetch(store, content)
        assert len(files) <= 1, "many drive no others out"
        store.sync()
        assert checked(store, content.all_pieces) == content.all_pieces
        stamps = store.finish(tmp_path / "to/t", overwrite=False)
        store.close()
        seed = SeedStore(tmp_path / "to/t", content.manifest, stamps, files)
        assert seed.changed() is None
        seed.close()
    assert tree_of(tmp_path / "to/t") == tree_of(content.root)


def test_a_directory_swapped_for_a_symlink_meanwhile_is_not_written_through(tmp_path: Path, content: Content) -> None:
    elsewhere = tmp_path / "elsewhere"
    make_tree(elsewhere, {"large": b"precious", "small": b"precious"})
    files = OpenFiles(1)
    store = created(tmp_path / "to", content, files)
    part = part_path(tmp_path / "to", content.manifest)
    (part / "a").rename(part / "was")
    (part / "a").symlink_to(elsewhere)
    told = r"part/a/large is gone; pause and resume the download to make it again"
    with pytest.raises(StorageFailed, match=told):
        fetch(store, content, content.pieces(1))
    with pytest.raises(StorageFailed, match=told):
        store.read(content.manifest.geometry.block(1, 0, 10))
    assert set(tree_of(elsewhere).values()) == {(b"precious", False)}
    store.discard()
    assert set(tree_of(elsewhere).values()) == {(b"precious", False)}
    assert os.listdir(tmp_path / "to") == []


@pytest.mark.parametrize("make", [a_tree, a_file])
def test_it_serves_on_while_it_is_finished(tmp_path: Path, make: Callable[[Path], Content]) -> None:
    content, files = make(tmp_path / "source/c"), OpenFiles(2)
    with no_leaks():
        store = created(tmp_path / "to", content, files)
        fetch(store, content)
        store.sync()
        first = content.manifest.geometry.block(0, 0, 1000)
        with store.reading(first) as spans:
            stamps = store.finish(tmp_path / "to/c", overwrite=False)
            assert b"".join(os.pread(fd, count, offset) for fd, offset, count in spans or ()) == content.piece(0)[:1000]
            for piece in content.manifest.geometry.pieces():
                block = content.manifest.geometry.blocks(piece)[0]
                assert store.read(block) == content.piece(piece)[: block.length]
            store.close()
            assert b"".join(os.pread(fd, count, offset) for fd, offset, count in spans or ()) == content.piece(0)[:1000]
        seed = SeedStore(tmp_path / "to/c", content.manifest, stamps, files)
        assert seed.changed() is None
        assert checked(seed, content.all_pieces) == content.all_pieces
        seed.close()


def test_a_closed_store_is_not_used(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    store = created(tmp_path / "to", content, files)
    store.close()
    with pytest.raises(ValueError, match="closed"):
        store.write(0, memoryview(b"x"))


def test_discarding_follows_no_symlink(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    make_tree(tmp_path / "precious", {"kept": b"kept"})
    store = created(tmp_path / "to", content, files)
    part = part_path(tmp_path / "to", content.manifest)
    (part / "out").symlink_to(tmp_path / "precious")
    (part / "a/unknown").write_bytes(b"x")
    store.discard()
    assert os.listdir(tmp_path / "to") == []
    discard_part(part)
    part.symlink_to(tmp_path / "precious")
    discard_part(part)
    assert os.listdir(tmp_path / "to") == []
    assert tree_of(tmp_path / "precious") == {"kept": (b"kept", False)}
    discard_part(tmp_path / "nowhere/x.part")


def test_what_cannot_be_discarded_is_told(tmp_path: Path, content: Content, files: OpenFiles, failing: Failing) -> None:
    store = created(tmp_path / "to", content, files)
    failing("unlink", errno.EACCES, when=lambda name, **_k: name == "small")
    with pytest.raises(NotPermitted, match="part cannot be removed: Permission denied"):
        store.discard()


def test_pieces_of_an_older_version_are_reused(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    older = tmp_path / "older"
    make_tree(
        older,
        {
            "a/large": content.data[5 : 5 + PIECE * 2 + 900] + b"?" * 500,  # 1000 bytes more, but others
            "a/deep/er/small": b"small",
            "b.sh": noise(5000, 2),
            "zeros": bytes(PIECE),
            "日本/ü": noise(1000, 3),
        },
    )
    store = created(tmp_path / "to", content, files)
    done: list[int] = []
    wanted = store.held.complement()
    reused = store.reuse(older, wanted, progress=done.append, cancelled=never)
    assert list(reused) == [0, 1]
    assert sum(done) == sum(content.manifest.geometry.piece_length(piece) for piece in wanted)
    assert list(checked(store, content.all_pieces)) == [0, 1, 3]
    store.sync()
    store.close()


@pytest.mark.parametrize(
    "make", [lambda _path: None, Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/")]
)
def test_what_is_no_older_version_has_nothing_to_reuse(
    tmp_path: Path, files: OpenFiles, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "older")
    for content in (a_tree(tmp_path / "source/t"), a_file(tmp_path / "source/f")):
        store = created(tmp_path / "to", content, files)
        assert not store.reuse(tmp_path / "older", content.all_pieces, progress=ignore, cancelled=never)
        store.close()


def test_reusing_stops_when_nobody_wants_it(tmp_path: Path, content: Content, files: OpenFiles) -> None:
    store = created(tmp_path / "to", content, files)
    with pytest.raises(Stopped):
        store.reuse(content.root, content.all_pieces, progress=ignore, cancelled=lambda: True)
    store.close()


def test_a_file_over_four_gigabytes(tmp_path: Path, files: OpenFiles) -> None:
    size = (5 << 30) + 3
    count = -(-size // (16 * MIB))
    entry = FileEntry("f", size, False)
    draft = Manifest("f", False, (entry,), 16 * MIB, bytes(32 * count))
    zeros, tail = blake3(bytes(16 * MIB)).digest(), noise(draft.geometry.piece_length(PieceIndex(count - 1)))
    manifest = Manifest("f", False, (entry,), 16 * MIB, zeros * (count - 1) + blake3(tail).digest())
    store = PartStore.create(tmp_path / "f.part", manifest, files)
    assert len(store.held) == count - 1
    store.write((count - 1) * 16 * MIB, memoryview(tail))
    assert checked(store, store.held.full(count)).is_full
    assert store.read(manifest.geometry.block(count - 1, 0, len(tail))) == tail
    store.discard()
