"""Reaching files below a root: never through a symlink, never waiting for a FIFO, nothing left open."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from interfiles.storage.failures import GONE
from interfiles.storage.tree import Tree, link_target, open_directory, parent_below, remove_below
from tests.storage.contents import Content, a_file, a_tree, make_tree, no_leaks, open_descriptors, tree_of


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_tree(tmp_path / "above/t")


def opened(tree: Tree, index: int) -> bytes:
    descriptor = tree.open(index)
    try:
        return os.pread(descriptor, 1 << 20, 0)
    finally:
        os.close(descriptor)


def test_every_file_is_found_by_its_index(content: Content) -> None:
    with no_leaks():
        tree = Tree(content.root, content.manifest)
        assert b"".join(opened(tree, index) for index in range(6)) == content.data
        assert [tree.status(index).st_size for index in range(6)] == [f.entry.size for f in content.manifest.files]
        assert tree.path(0) == content.root / "a/deep/er/small"


def test_a_single_file_is_found_whatever_it_is_called(tmp_path: Path) -> None:
    content = a_file(tmp_path / "f")
    content.root.rename(tmp_path / "f.part")
    tree = Tree(tmp_path / "f.part", content.manifest)
    assert opened(tree, 0) == content.data
    assert (tree.status(0).st_size, tree.path(0)) == (content.manifest.size, tmp_path / "f.part")


def test_what_is_held_is_found_under_a_new_name(content: Content) -> None:
    anchor = open_directory(content.root)
    try:
        tree = Tree(content.root, content.manifest, anchor)
        content.root.rename(content.root.with_name("new"))
        assert b"".join(opened(tree, index) for index in range(6)) == content.data
    finally:
        os.close(anchor)


def above(root: Path) -> Path:
    return root.parent


def moved_behind_symlink(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize("place", ["a", "a/deep", "a/deep/er", "a/deep/er/small", "."])
def test_no_symlink_is_followed(content: Content, place: str) -> None:
    moved_behind_symlink(content.root / place if place != "." else content.root)
    tree = Tree(content.root, content.manifest)
    with no_leaks():
        with pytest.raises(OSError, match=r"symbolic|directory|regular") as caught:
            tree.open(0)
        assert caught.value.errno in GONE
        if place != "a/deep/er/small":
            with pytest.raises(OSError, match="directory") as caught:
                tree.status(0)
            assert caught.value.errno in GONE
    if place == "a/deep/er/small":
        assert stat.S_ISLNK(tree.status(0).st_mode)


def test_a_symlink_above_the_root_is_followed(content: Content) -> None:
    moved_behind_symlink(above(content.root))
    assert opened(Tree(content.root, content.manifest), 0) == b"small"


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/null")])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_what_is_no_file_is_not_opened(content: Content, make: Callable[[Path], None], flags: int) -> None:
    path = content.root / "a/deep/er/small"
    path.unlink()
    make(path)
    with no_leaks(), pytest.raises(OSError) as caught:  # noqa: PT011  # its number is looked at
        Tree(content.root, content.manifest).open(0, flags)
    assert caught.value.errno in GONE


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_directory_that_may_only_be_passed_through_will_do(content: Content) -> None:
    (content.root / "a").chmod(0o711)
    (content.root / "a/deep/er").chmod(0o755)
    anchor = open_directory(content.root)
    os.seteuid(65534)
    try:
        assert opened(Tree(content.root, content.manifest, anchor), 0) == b"small"
    finally:
        os.seteuid(0)
        os.close(anchor)


def test_a_deep_path_leaves_nothing_open_on_the_way(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    anchor = open_directory(tmp_path)
    before = open_descriptors()
    with parent_below(anchor, b"/".join([b"d"] * 100)) as (_, name):
        assert name == b"d"
        assert open_descriptors() == before + 1
    with pytest.raises(FileNotFoundError), parent_below(anchor, b"d/d/none/x"):
        pass
    assert open_descriptors() == before
    os.close(anchor)


def test_removing_takes_symlinks_for_what_they_are(tmp_path: Path) -> None:
    make_tree(tmp_path / "precious", {"kept": b"kept"})
    make_tree(tmp_path / "old", {"a/b": b"x"}, links={"a/out": "../../precious", "c": "/"})
    (tmp_path / "link").symlink_to("precious")
    anchor = open_directory(tmp_path)
    for name in (b"old", b"link", b"none"):
        remove_below(anchor, name)
    os.close(anchor)
    assert tree_of(tmp_path) == {"precious": None, "precious/kept": (b"kept", False)}


def test_a_links_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").touch()
    anchor = open_directory(tmp_path)
    assert (link_target(anchor, b"link"), link_target(anchor, b"file")) == (b"nowhere", None)
    with pytest.raises(FileNotFoundError) as caught:
        link_target(anchor, b"none")
    assert caught.value.errno == errno.ENOENT
    os.close(anchor)
