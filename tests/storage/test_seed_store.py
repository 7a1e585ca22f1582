"""Serving what is complete: the right bytes, bounded descriptors, and never a byte of a file that changed."""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from interfiles.errors import ContentChanged, NotPermitted, StorageFailed
from interfiles.geometry import Block, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.storage import Stopped, piece_store
from interfiles.storage.acting import Owner
from interfiles.storage.hashing import draft_manifest
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.piece_store import MAX_INLINE_FILES, PieceStore
from interfiles.storage.scan import scan
from interfiles.storage.seed_store import SeedStore
from tests.storage.contents import (
    PIECE,
    Content,
    Failing,
    a_file,
    a_tree,
    checked,
    ignore,
    make_tree,
    never,
    no_leaks,
    noise,
    open_descriptors,
    uploaded,
)


def lent(store: PieceStore, block: Block) -> bytes:
    """The bytes of a block as they are sent: by descriptor, offset and count."""
    with store.reading(block) as spans:
        return b"".join(os.pread(descriptor, count, offset) for descriptor, offset, count in spans or ())


def all_of(store: PieceStore) -> bytes:
    geometry = store.manifest.geometry
    blocks = [block for piece in geometry.pieces() for block in geometry.blocks(piece)]
    read = b"".join(store.read(block) for block in blocks)
    assert read == b"".join(lent(store, block) for block in blocks)
    return read


@pytest.mark.parametrize("make", [a_tree, a_file])
def test_every_block_is_served(tmp_path: Path, files: OpenFiles, make: Callable[[Path], Content]) -> None:
    content = make(tmp_path / "content")
    seed = content.seed(files)
    assert all_of(seed) == content.data
    assert seed.changed() is None
    seed.close()
    seed.close()


def test_a_block_inside_a_piece(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    block = content.manifest.geometry.block(2, 100, 5000)
    assert lent(seed, block) == seed.read(block) == content.piece(2)[100:5100]
    seed.close()


def test_nothing_stays_open_but_the_files_used_last(tmp_path: Path) -> None:
    make_tree(tmp_path / "t", {f"d{n % 50}/{n:05}": n.to_bytes(4, "big") * 20 for n in range(2_000)})
    content = uploaded(tmp_path / "t")
    files = OpenFiles(16)
    before = open_descriptors()
    seed = content.seed(files)
    geometry = content.manifest.geometry
    for piece in geometry.pieces():
        for offset in range(0, geometry.piece_length(piece) - 400, 4000):
            block = geometry.block(piece, offset, 400)
            assert lent(seed, block) == content.piece(piece)[offset : offset + 400]
    assert open_descriptors() == before + 16
    assert b"".join(seed.read(block) for p in geometry.pieces() for block in geometry.blocks(p)) == content.data
    assert open_descriptors() == before + 16
    seed.close()
    assert open_descriptors() == before


def test_a_scattered_block_is_not_for_the_loop(tmp_path: Path, files: OpenFiles) -> None:
    make_tree(tmp_path / "t", {f"{n:03}": b"ten bytes!" for n in range(200)})
    content = uploaded(tmp_path / "t")
    seed = content.seed(files)
    assert not seed.is_scattered(5, 10 * MAX_INLINE_FILES - 10)
    assert seed.is_scattered(5, 10 * MAX_INLINE_FILES)
    block = content.manifest.geometry.blocks(PieceIndex(0))[0]
    with seed.reading(block) as spans:
        assert spans is None
    assert seed.read(block) == content.data
    seed.close()


def test_lent_descriptors_outlive_eviction_closing_and_removal(tmp_path: Path) -> None:
    content = a_tree(tmp_path / "t")
    small = OpenFiles(1)
    with no_leaks():
        seed, geometry = content.seed(small), content.manifest.geometry
        with ExitStack() as stack:
            held = [stack.enter_context(seed.reading(geometry.blocks(piece)[0])) for piece in geometry.pieces()]
            seed.close()
            (tmp_path / "t/b.sh").unlink()
            spans = [span for block in held for span in block or ()]
            assert b"".join(os.pread(fd, count, offset) for fd, offset, count in spans or ()) == content.data
    with pytest.raises(ValueError, match="closed"), seed.reading(geometry.blocks(PieceIndex(0))[0]):
        pass


def edited(root: Path) -> None:
    (root / "a/large").write_bytes(noise(PIECE * 2 + 1000, 99))
    os.utime(root / "a/large", ns=(1, 1))


def touched(root: Path) -> None:
    os.utime(root / "a/large", ns=(1, 1))


def truncated(root: Path) -> None:
    os.truncate(root / "a/large", 5)


def removed(root: Path) -> None:
    (root / "a/large").unlink()


def replaced_with_its_time_restored(root: Path) -> None:
    path = root / "a/large"
    status = path.stat()
    path.rename(root / "was")
    path.write_bytes(noise(status.st_size, 98))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def file_for_symlink(root: Path) -> None:
    (root / "a/large").rename(root / "was")
    (root / "a/large").symlink_to("../was")


def parent_for_symlink(root: Path) -> None:
    (root / "a").rename(root / "was")
    (root / "a").symlink_to("was")


def root_for_symlink(root: Path) -> None:
    root.rename(root.with_name("was"))
    root.symlink_to("was")


def file_for_fifo(root: Path) -> None:
    (root / "a/large").unlink()
    os.mkfifo(root / "a/large")


def file_for_directory(root: Path) -> None:
    (root / "a/large").unlink()
    (root / "a/large").mkdir()


def root_removed(root: Path) -> None:
    root.rename(root.with_name("unmounted"))


CHANGES = [
    edited,
    touched,
    truncated,
    removed,
    replaced_with_its_time_restored,
    file_for_symlink,
    parent_for_symlink,
    root_for_symlink,
    file_for_fifo,
    file_for_directory,
    root_removed,
]
IN_PLACE = [edited, touched, truncated, replaced_with_its_time_restored]


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_not_served(tmp_path: Path, files: OpenFiles, change: Callable[[Path], None]) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    change(content.root)
    block = content.manifest.geometry.block(1, 0, 100)
    what = "has changed since" if change in IN_PLACE else "is gone"
    with pytest.raises(ContentChanged, match=f"t/a/large {what}"), seed.reading(block):
        pass
    with pytest.raises(ContentChanged, match=f"t/a/large {what}"):
        seed.read(block)
    assert seed.changed() == (
        ("a/deep/er/small", "is gone")
        if change in (parent_for_symlink, root_for_symlink, root_removed)
        else ("a/large", "is gone" if change is removed else "has changed on disk")
    )
    seed.close()


@pytest.mark.parametrize("change", [edited, touched, truncated])
def test_a_file_that_changes_while_it_is_open_is_not_served(
    tmp_path: Path, files: OpenFiles, change: Callable[[Path], None]
) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    block = content.manifest.geometry.block(1, 0, 100)
    assert lent(seed, block) == content.piece(1)[:100]
    change(content.root)
    with pytest.raises(ContentChanged), seed.reading(block):
        pass
    other = content.manifest.geometry.block(3, 0, 100)
    assert lent(seed, other) == content.piece(3)[:100]
    seed.close()


def test_a_single_file_in_place_of_which_is_something_else(tmp_path: Path, files: OpenFiles) -> None:
    content = a_file(tmp_path / "f")
    seed = content.seed(files)
    (tmp_path / "f").rename(tmp_path / "was")
    (tmp_path / "f").symlink_to("was")
    with pytest.raises(ContentChanged):
        seed.read(content.manifest.geometry.block(0, 0, 10))
    assert seed.changed() == ("f", "has changed on disk")
    seed.close()


def test_a_symlink_above_the_root_is_the_persons_own(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "data/t")
    (tmp_path / "link").symlink_to("data")
    seed = SeedStore(tmp_path / "link/t", content.manifest, content.stamps, files)
    assert all_of(seed) == content.data
    seed.close()


def test_stamps_must_be_those_of_the_files(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "t")
    with pytest.raises(ValueError, match="1 stamps for 6 files"):
        SeedStore(content.root, content.manifest, content.stamps[:1], files)


def test_check_finds_the_pieces_that_do_not_match(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    done: list[int] = []
    matching = seed.check(content.all_pieces, progress=done.append, cancelled=never)
    assert matching == content.all_pieces
    assert sum(done) == content.manifest.size
    with (content.root / "a/large").open("r+b") as file:
        file.seek(PIECE + 5)
        file.write(b"!")
    assert list(content.all_pieces) == [0, 1, 2, 3, 4]
    assert list(checked(seed, content.all_pieces)) == [0, 2, 3, 4]
    assert list(checked(seed, content.pieces(1, 4))) == [4]
    assert not checked(seed, content.pieces())
    seed.close()


@pytest.mark.parametrize("change", [truncated, removed, file_for_symlink, file_for_directory, file_for_fifo])
def test_check_takes_what_is_not_there_for_not_matching(
    tmp_path: Path, files: OpenFiles, change: Callable[[Path], None]
) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    change(content.root)
    assert list(checked(seed, content.all_pieces)) == [3, 4]
    seed.close()


def test_check_goes_on_beyond_a_bad_sector(tmp_path: Path, files: OpenFiles, failing: Failing) -> None:
    content = a_file(tmp_path / "f")
    seed = content.seed(files)
    failing("preadv", errno.EIO, when=lambda _fd, _buffers, offset: PIECE <= offset < 2 * PIECE)
    assert list(checked(seed, content.all_pieces)) == [0, 2, 3]
    with pytest.raises(StorageFailed, match=r"/f cannot be read: Input/output error"):
        seed.read(content.manifest.geometry.block(1, 0, 10))
    seed.close()


def test_check_says_so_when_it_may_not_read(tmp_path: Path, files: OpenFiles, failing: Failing) -> None:
    content = a_file(tmp_path / "f")
    seed = content.seed(files)
    failing("open", errno.EACCES, when=lambda path, *_a, **_k: path == b"f")
    with pytest.raises(NotPermitted, match=r"/f cannot be read: Permission denied"):
        checked(seed, content.all_pieces)
    with pytest.raises(NotPermitted), seed.reading(content.manifest.geometry.block(1, 0, 10)):
        pass
    seed.close()


def test_check_stops_when_nobody_wants_it(tmp_path: Path, files: OpenFiles) -> None:
    content = a_tree(tmp_path / "t")
    seed = content.seed(files)
    with pytest.raises(Stopped):
        seed.check(content.all_pieces, progress=ignore, cancelled=lambda: True)
    assert seed.check(PieceSet(5), progress=ignore, cancelled=lambda: True) == PieceSet(5)
    seed.close()


# Held for another user


class TestOwner:
    owner = Owner(os.geteuid(), os.getegid())

    def test_the_device_counts_for_what_is_held_for_another_user(self, tmp_path: Path) -> None:
        """They could choose all the rest of a stamp, on a file system of their own."""
        path = Path(os.path.realpath(tmp_path)) / "file"
        path.write_bytes(b"12345")
        found = scan(path, cancelled=lambda: False)
        manifest = draft_manifest(found, PIECE)
        (stamp,) = found.stamps
        elsewhere = [replace(stamp, device=stamp.device + 1)]
        for owner, stamps, is_served in (
            (None, elsewhere, True),
            (self.owner, [stamp], True),
            (self.owner, elsewhere, False),
        ):
            store = SeedStore(path, manifest, stamps, OpenFiles(), owner)
            assert (store.changed() is None) is is_served
            block = manifest.geometry.block(0, 0, 5)
            if is_served:
                assert store.read(block) == b"12345"
            else:
                with pytest.raises(ContentChanged):
                    store.read(block)
            store.close()

    def test_no_symlink_on_the_way_is_followed(self, tmp_path: Path) -> None:
        real = Path(os.path.realpath(tmp_path)) / "real"
        real.mkdir()
        (real / "file").write_bytes(b"12345")
        (real / "tree").mkdir()
        (real / "tree" / "file").write_bytes(b"12345")
        link = real.with_name("link")
        link.symlink_to(real)
        for name in ("file", "tree"):
            found = scan(real / name, cancelled=lambda: False)
            manifest = draft_manifest(found, PIECE)
            for owner, is_served in ((None, True), (self.owner, False)):
                store = SeedStore(link / name, manifest, found.stamps, OpenFiles(), owner)
                assert (store.changed() is None) is is_served
                store.close()

    def test_the_loop_never_opens_their_files(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        found = scan(path, cancelled=lambda: False)
        store = SeedStore(path, draft_manifest(found, PIECE), found.stamps, OpenFiles(), self.owner)
        assert store.is_scattered(0, 5)
        store.close()

    def test_a_file_system_of_a_users_own_program_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = Path(os.path.realpath(tmp_path)) / "file"
        path.write_bytes(b"12345")
        found = scan(path, cancelled=lambda: False)
        manifest = draft_manifest(found, PIECE)
        monkeypatch.setattr(piece_store, "is_fuse", lambda _: True)
        block = manifest.geometry.block(0, 0, 5)
        before = len(os.listdir("/proc/self/fd"))
        store = SeedStore(path, manifest, found.stamps, OpenFiles(), self.owner)
        with pytest.raises(NotPermitted, match="that a program of a user's answers for"):
            store.read(block)
        store.close()
        assert len(os.listdir("/proc/self/fd")) == before
        store = SeedStore(path, manifest, found.stamps, OpenFiles())
        assert store.read(block) == b"12345"
        store.close()
