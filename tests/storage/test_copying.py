"""The daemon's own copy: the same tree, by whatever the file system offers, and nothing left of one that failed."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from interfiles.errors import ContentChanged, DestinationExists, InterFilesError, NoSpace, NotPermitted, StorageFailed
from interfiles.geometry import MIB
from interfiles.storage import Stopped
from interfiles.storage.copying import copy_tree
from interfiles.storage.scan import Scan, scan
from tests.storage.contents import Content, Failing, a_file, a_tree, ignore, never, no_leaks, noise, tree_of

pytestmark = pytest.mark.usefixtures("files")


@pytest.fixture(params=["tree", "file"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Content:
    return a_tree(tmp_path / "source/c") if request.param == "tree" else a_file(tmp_path / "source/c")


def copied(scanned: Scan, destination: Path) -> Scan:
    with no_leaks():
        return copy_tree(scanned, destination, progress=ignore, cancelled=never)


def refusal(scanned: Scan, destination: Path, error: type[InterFilesError]) -> str:
    """The sentence; nothing is left of the copy."""
    with no_leaks(), pytest.raises(InterFilesError) as caught:
        copy_tree(scanned, destination, progress=ignore, cancelled=never)
    assert type(caught.value) is error, caught.value
    assert not os.path.lexists(destination)
    return str(caught.value)


def test_a_copy_is_the_same_and_private(tmp_path: Path, content: Content) -> None:
    done: list[int] = []
    made = copy_tree(content.scanned, tmp_path / "copy", progress=done.append, cancelled=never)
    assert tree_of(tmp_path / "copy") == tree_of(content.root)
    assert sum(done) == content.manifest.size
    assert made.entries == content.scanned.entries
    assert (made.root, made.name) == (tmp_path / "copy", "c")
    assert made.stamps == scan(tmp_path / "copy", cancelled=never).stamps
    found = [path for path in (tmp_path / "copy", *(tmp_path / "copy").rglob("*")) if not path.is_symlink()]
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in found} == {0}


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EOPNOTSUPP])
def test_without_the_kernels_copy(tmp_path: Path, content: Content, failing: Failing, number: int) -> None:
    failing("copy_file_range", number)
    copied(content.scanned, tmp_path / "copy")
    assert tree_of(tmp_path / "copy") == tree_of(content.root)


def test_where_blocks_can_be_shared_nothing_is_copied(
    tmp_path: Path, content: Content, failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clone(target: int, request: int, source: int) -> None:
        assert request == 0x40049409
        os.pwrite(target, os.pread(source, 100 * MIB, 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    monkeypatch.setattr(os, "fstatvfs", None)  # no room is needed
    failing("copy_file_range", errno.EIO)
    done: list[int] = []
    copy_tree(content.scanned, tmp_path / "copy", progress=done.append, cancelled=never)
    assert tree_of(tmp_path / "copy") == tree_of(content.root)
    assert sum(done) == content.manifest.size


def test_holes_stay_holes(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(noise(MIB))
    done: list[int] = []
    copy_tree(scan(path, cancelled=never), tmp_path / "copy", progress=done.append, cancelled=never)
    status = (tmp_path / "copy").stat()
    assert status.st_size == sum(done) == 1 << 40
    assert status.st_blocks * 512 < 2 * MIB
    with (tmp_path / "copy").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(MIB) == noise(MIB)


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc")])
def test_what_is_there_stays(tmp_path: Path, content: Content, make: Callable[[Path], None]) -> None:
    make(tmp_path / "copy")
    before = (tmp_path / "copy").lstat()
    with no_leaks(), pytest.raises(DestinationExists, match="copy exists already"):
        copy_tree(content.scanned, tmp_path / "copy", progress=ignore, cancelled=never)
    assert (tmp_path / "copy").lstat() == before


def test_too_little_space_is_told_in_figures(tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimpleNamespace(f_bavail=1, f_frsize=1000, f_favail=10, f_files=10)
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: found)
    assert refusal(content.scanned, tmp_path / "copy", NoSpace).startswith(f"{tmp_path} has 1.0 kB free, c needs ")


def truncated(path: Path) -> None:
    os.truncate(path, 1)


def linked(path: Path) -> None:
    path.rename(path.with_name("was"))
    path.symlink_to("was")


@pytest.mark.parametrize("change", [truncated, linked, Path.unlink, os.utime])
def test_a_file_that_is_not_what_was_scanned(tmp_path: Path, content: Content, change: Callable[[Path], None]) -> None:
    victim = content.root / "b.sh" if content.manifest.is_directory else content.root
    change(victim)
    what = "is gone; put it back" if change in (linked, Path.unlink) else "has changed since it was hashed; put it back"
    assert refusal(content.scanned, tmp_path / "copy", ContentChanged).startswith(f"{victim} {what}")


def test_a_file_that_changes_while_it_is_copied(tmp_path: Path, content: Content) -> None:
    victim = content.root / "a/large" if content.manifest.is_directory else content.root
    with pytest.raises(ContentChanged, match=str(victim)):
        copy_tree(content.scanned, tmp_path / "copy", progress=lambda _: os.utime(victim), cancelled=never)
    assert not (tmp_path / "copy").exists()


def test_a_file_that_ends_while_it_is_copied(tmp_path: Path, content: Content, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    assert "has changed" in refusal(content.scanned, tmp_path / "copy", ContentChanged)


@pytest.mark.parametrize(
    ("call", "number", "error", "words"),
    [
        ("copy_file_range", errno.ENOSPC, NoSpace, "copy cannot be written: No space left on device"),
        ("copy_file_range", errno.EIO, StorageFailed, "copy cannot be written: Input/output error"),
        ("fsync", errno.EIO, StorageFailed, "copy cannot be written: Input/output error"),
    ],
)
def test_a_disk_that_fails(
    tmp_path: Path, content: Content, failing: Failing, call: str, number: int, error: type[InterFilesError], words: str
) -> None:
    failing(call, number)
    assert words in refusal(content.scanned, tmp_path / "copy", error)


def test_a_source_that_may_not_be_read(tmp_path: Path, content: Content, failing: Failing) -> None:
    failing(
        "open",
        errno.EACCES,
        when=lambda path, flags, *_a, **_k: (
            path in (b"b.sh", b"c") and flags & os.O_NONBLOCK and not flags & os.O_CREAT
        ),
    )
    assert f"{content.root}" in refusal(content.scanned, tmp_path / "copy", NotPermitted)


@pytest.mark.parametrize("steps", [0, 1])
def test_it_stops_when_nobody_wants_it(tmp_path: Path, content: Content, steps: int) -> None:
    asked: list[bool] = []

    def cancelled() -> bool:
        asked.append(True)
        return len(asked) > steps

    with no_leaks(), pytest.raises(Stopped):
        copy_tree(content.scanned, tmp_path / "copy", progress=ignore, cancelled=cancelled)
    assert not (tmp_path / "copy").exists()
