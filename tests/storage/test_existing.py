"""Comparing what is at a destination with a manifest: one difference of each kind."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from interfiles.errors import NotPermitted
from interfiles.storage import Stopped
from interfiles.storage.existing import Existing, matches_existing, same_structure
from tests.storage.contents import PIECE, Content, Failing, a_file, a_tree, ignore, make_tree, never, uploaded

pytestmark = pytest.mark.usefixtures("files")


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_tree(tmp_path / "t")


def compared(content: Content) -> Existing:
    return matches_existing(content.root, content.manifest, progress=ignore, cancelled=never)


@pytest.mark.parametrize("make", [a_tree, a_file])
def test_the_same(tmp_path: Path, make: Callable[[Path], Content]) -> None:
    content = make(tmp_path / "c")
    done: list[int] = []
    found = matches_existing(content.root, content.manifest, progress=done.append, cancelled=never)
    assert found.is_identical
    assert found.stamps == content.stamps == same_structure(content.root, content.manifest)
    assert found.pieces.is_full
    assert sum(done) == content.manifest.size


def test_an_empty_directory_is_the_same(tmp_path: Path) -> None:
    make_tree(tmp_path / "t", {})
    content = uploaded(tmp_path / "t")
    assert compared(content).is_identical
    (tmp_path / "t/more").touch()
    assert not compared(content).is_identical


@pytest.mark.parametrize("piece_changed", [0, 2])
def test_other_bytes_are_told_by_piece(content: Content, piece_changed: int) -> None:
    with (content.root / "a/large").open("r+b") as file:
        file.seek(piece_changed * PIECE + 100)
        file.write(b"other")
    found = compared(content)
    assert set(range(5)) - set(found.pieces) == {piece_changed}
    assert not found.is_identical
    assert same_structure(content.root, content.manifest) is not None


def in_its_place(path: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Replace what is at a path below the root."""

    def change(root: Path) -> None:
        found = root / path
        if found.is_dir():
            found.rmdir()
        else:
            found.unlink()
        make(found)

    return change


def directory_for_symlink(root: Path) -> None:
    (root / "l").rename(root.with_name("moved"))
    (root / "l").symlink_to("../moved")


STRUCTURE: list[Callable[[Path], object]] = [
    lambda root: (root / "more").touch(),
    lambda root: (root / "a/deep/more").mkdir(),
    lambda root: (root / "e/mpty/more").symlink_to("x"),
    lambda root: (root / "empty").unlink(),
    lambda root: (root / "a/link").unlink(),
    lambda root: (root / "e/mpty").rmdir(),
    lambda root: (root / "b.sh").chmod(0o644),
    lambda root: (root / "empty").chmod(0o755),
    in_its_place("a/link", lambda path: path.symlink_to("../b.shh")),
    in_its_place("a/link", lambda path: path.write_bytes(b"../b.sh")),
    in_its_place("e/mpty", Path.touch),
    in_its_place("empty", Path.mkdir),
    in_its_place("empty", os.mkfifo),
    in_its_place("empty", lambda path: path.symlink_to("/dev/null")),
    directory_for_symlink,
]


@pytest.mark.parametrize("change", STRUCTURE)
def test_another_structure_is_not_identical_though_every_byte_is(
    content: Content, change: Callable[[Path], object]
) -> None:
    change(content.root)
    assert same_structure(content.root, content.manifest) is None
    found = compared(content)
    assert not found.is_identical
    assert found.pieces.is_full


def test_a_version_that_was_appended_to_shares_pieces(tmp_path: Path) -> None:
    content = a_file(tmp_path / "f")
    with content.root.open("ab") as file:
        file.write(b"more")
    found = compared(content)
    assert found.pieces.is_full
    assert not found.is_identical
    os.truncate(content.root, 2 * PIECE + 5)
    assert list(compared(content).pieces) == [0, 1]


@pytest.mark.parametrize(
    "make", [lambda _path: None, Path.touch, Path.mkdir, os.mkfifo, lambda path: path.symlink_to("was")]
)
@pytest.mark.parametrize("kind", [a_tree, a_file])
def test_something_else_has_nothing(
    tmp_path: Path, kind: Callable[[Path], Content], make: Callable[[Path], None]
) -> None:
    content = kind(tmp_path / "c")
    content.root.rename(tmp_path / "was")
    make(content.root)
    found = compared(content)
    assert not found.pieces
    assert not found.is_identical


def test_what_changes_while_it_is_compared_is_not_identical(content: Content) -> None:
    def change(_done: int) -> None:
        os.utime(content.root / "empty", ns=(1, 1))

    found = matches_existing(content.root, content.manifest, progress=change, cancelled=never)
    assert found.pieces.is_full
    assert not found.is_identical


def test_what_may_not_be_read_is_told(content: Content, failing: Failing) -> None:
    failing("open", errno.EACCES, when=lambda path, *_a, **_k: path == b"large")
    with pytest.raises(NotPermitted, match="t/a/large cannot be read"):
        compared(content)


def test_what_may_not_be_listed_is_told(content: Content, failing: Failing) -> None:
    failing("listdir", errno.EACCES)
    with pytest.raises(NotPermitted, match="t cannot be read: Permission denied"):
        same_structure(content.root, content.manifest)


def test_it_stops_when_nobody_wants_it(content: Content) -> None:
    with pytest.raises(Stopped):
        matches_existing(content.root, content.manifest, progress=ignore, cancelled=lambda: True)
