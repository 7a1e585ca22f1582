"""From part to destination: modes, symlinks, names, nothing overwritten unasked, and a crash at every step."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from interfiles.errors import DestinationExists, InterFilesError, NotPermitted, StorageFailed
from interfiles.storage import finishing
from interfiles.storage.finishing import finish
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_store import PartStore, part_path
from interfiles.storage.scan import stamp_of
from interfiles.storage.system import rename_exclusively
from tests.conftest import LogRecords
from tests.storage.contents import Content, Failing, a_file, a_tree, fetch, make_tree, no_leaks, path_of, tree_of

OTHERS = {"": (b"somebody's own", False)}


@pytest.fixture(params=["tree", "file"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Content:
    return a_tree(tmp_path / "source/c") if request.param == "tree" else a_file(tmp_path / "source/c")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


def complete_part(to: Path, content: Content) -> Path:
    """A part with every piece, closed."""
    files, part = OpenFiles(), part_path(to, content.manifest)
    store = PartStore.create(part, content.manifest, files)
    fetch(store, content)
    store.close()
    return part


def refusal(part: Path, destination: Path, content: Content, error: type[InterFilesError], *, overwrite: bool) -> str:
    with no_leaks(), pytest.raises(InterFilesError) as caught:
        finish(part, destination, content.manifest, overwrite=overwrite)
    assert type(caught.value) is error, caught.value
    return str(caught.value)


# What may be at a destination, by how it is made.


def nothing(_path: Path) -> None:
    pass


def a_small_file(path: Path) -> None:
    path.write_bytes(b"somebody's own")


def a_directory(path: Path) -> None:
    make_tree(path, {"old/file": b"old", "a/large": b"old"}, links={"out": "/etc"}, empty=("none",))


def an_empty_directory(path: Path) -> None:
    path.mkdir()


def a_symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def a_dangling_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


ANYTHING = [a_small_file, a_directory, an_empty_directory, a_symlink, a_dangling_symlink]


def test_a_part_becomes_what_was_uploaded(to: Path, content: Content) -> None:
    with no_leaks():
        part = complete_part(to, content)
        stamps = finish(part, to / "c", content.manifest, overwrite=False)
    assert tree_of(to / "c") == tree_of(content.root)
    assert os.listdir(to) == ["c"]
    found = [(to / "c" / f.entry.path if content.manifest.is_directory else to / "c") for f in content.manifest.files]
    assert stamps == tuple(stamp_of(path.stat()) for path in found)


@pytest.mark.parametrize(("mask", "file", "program"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0, 0o644, 0o755)])
def test_modes_obey_the_umask(tmp_path: Path, to: Path, mask: int, file: int, program: int) -> None:
    content = a_tree(tmp_path / "source/c")
    before = os.umask(mask)
    try:
        finish(complete_part(to, content), to / "c", content.manifest, overwrite=False)
    finally:
        os.umask(before)
    modes = {str(path.relative_to(to)): stat.S_IMODE(path.lstat().st_mode) for path in to.rglob("*")}
    assert (modes["c"], modes["c/a/deep"], modes["c/e/mpty"]) == (program, program, program)
    assert (modes["c/b.sh"], modes["c/a/large"], modes["c/empty"]) == (program, file, file)


def test_a_file_system_without_modes_will_do(to: Path, content: Content, failing: Failing) -> None:
    failing("fchmod", errno.EPERM)
    finish(complete_part(to, content), to / "c", content.manifest, overwrite=False)
    assert os.listdir(to) == ["c"]


@pytest.mark.parametrize("make", ANYTHING)
def test_nothing_is_overwritten_unasked(to: Path, content: Content, make: Callable[[Path], None]) -> None:
    part = complete_part(to, content)
    make(to / "c")
    before = tree_of(to / "c")
    told = refusal(part, to / "c", content, DestinationExists, overwrite=False)
    assert told == f"{to}/c exists; move it away, or let the download overwrite it"
    assert tree_of(to / "c") == before
    finish(part, to / "d", content.manifest, overwrite=False)
    assert tree_of(to / "d") == tree_of(content.root)


@pytest.mark.parametrize("make", [nothing, *ANYTHING])
def test_anything_is_overwritten_when_asked(to: Path, content: Content, make: Callable[[Path], None]) -> None:
    part = complete_part(to, content)
    make(to / "c")
    with no_leaks():
        finish(part, to / "c", content.manifest, overwrite=True)
    assert tree_of(to / "c") == tree_of(content.root)
    assert os.listdir(to) == ["c"]
    assert Path("/etc").is_dir()


def test_a_fifo_is_not_overwritten(to: Path, content: Content) -> None:
    part = complete_part(to, content)
    os.mkfifo(to / "c")
    told = refusal(part, to / "c", content, DestinationExists, overwrite=True)
    assert told == f"{to}/c is no file or directory; remove it"
    assert stat.S_ISFIFO((to / "c").stat().st_mode)


def test_it_stays_in_its_directory(to: Path, content: Content) -> None:
    part = complete_part(to, content)
    with pytest.raises(ValueError, match="in the directory"):
        finish(part, to.parent / "c", content.manifest, overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("unsupported", [(), ("rename",), ("rename", "link")])
def test_what_appears_in_the_last_moment_stays(
    to: Path, content: Content, monkeypatch: pytest.MonkeyPatch, overwrite: bool, unsupported: tuple[str, ...]
) -> None:
    """On file systems with less to offer, too."""
    part = complete_part(to, content)
    last_step = "interfiles.storage.finishing.rename_exclusively"

    def late(directory: int, source: bytes, target: bytes) -> None:
        if not (to / "c").exists():
            a_small_file(to / "c")
        without_rename(directory, source, target)

    without_rename = unsupporting(unsupported, monkeypatch)
    monkeypatch.setattr(last_step, late)
    told = refusal(part, to / "c", content, DestinationExists, overwrite=overwrite)
    assert told == f"{to}/c has just been made by someone else; move it away"
    assert tree_of(to / "c") == OTHERS
    monkeypatch.setattr(last_step, without_rename)
    finish(part, to / "c", content.manifest, overwrite=True)
    assert tree_of(to / "c") == tree_of(content.root)


def unsupporting(unsupported: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Callable[[int, bytes, bytes], None]:
    """What a file system without these makes of an exclusive rename."""

    def rename(directory: int, source: bytes, target: bytes) -> None:
        if "rename" in unsupported:
            raise OSError(errno.EINVAL, "Invalid argument")
        rename_exclusively(directory, source, target)

    if "link" in unsupported:
        Failing(monkeypatch)("link", errno.EPERM)
    return rename


@pytest.mark.parametrize("unsupported", [("rename",), ("rename", "link")])
@pytest.mark.parametrize("make", [nothing, *ANYTHING])
def test_on_file_systems_without_exclusive_renames(
    to: Path,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], None],
    unsupported: tuple[str, ...],
) -> None:
    monkeypatch.setattr(finishing, "rename_exclusively", unsupporting(unsupported, monkeypatch))
    part = complete_part(to, content)
    make(to / "c")
    if make is not nothing:
        before = tree_of(to / "c")
        refusal(part, to / "c", content, DestinationExists, overwrite=False)
        assert tree_of(to / "c") == before
    finish(part, to / "c", content.manifest, overwrite=True)
    assert tree_of(to / "c") == tree_of(content.root)
    assert os.listdir(to) == ["c"]


def test_a_part_that_is_not_complete_is_not_finished(tmp_path: Path, to: Path) -> None:
    content = a_tree(tmp_path / "source/c")
    part = complete_part(to, content)
    os.truncate(part / "a/large", 10)
    told = refusal(part, to / "c", content, StorageFailed, overwrite=False)
    assert told == f"{part}/a/large has 10 bytes, not 525,288; pause and resume the download"
    assert os.listdir(to) == [part.name]


def test_something_in_a_symlinks_place_is_told(tmp_path: Path, to: Path) -> None:
    content = a_tree(tmp_path / "source/c")
    part = complete_part(to, content)
    (part / "a/link").symlink_to("elsewhere")
    assert "File exists" in refusal(part, to / "c", content, StorageFailed, overwrite=False)


def test_a_part_that_is_gone_is_told(to: Path, content: Content) -> None:
    part = part_path(to, content.manifest)
    told = refusal(part, to / "c", content, StorageFailed, overwrite=True)
    assert told == f"{part} is gone before it was finished; download it again"
    a_directory(to / "c")
    before = tree_of(to / "c")
    refusal(part, to / "c", content, StorageFailed, overwrite=True)
    assert tree_of(to / "c") == before


@pytest.mark.parametrize("call", ["rename", "fsync", "fchmod", "open"])
def test_a_disk_that_fails_is_told(to: Path, content: Content, call: str) -> None:
    part = complete_part(to, content)
    with pytest.MonkeyPatch.context() as patch:
        failing = Failing(patch)
        if call == "rename":
            failing("rename_exclusively", errno.EACCES, module=finishing)
        else:
            failing(call, errno.EACCES, when=lambda path, *_a, **_k: not str(path).startswith("/proc"))
        told = refusal(part, to / "c", content, NotPermitted, overwrite=False)
    assert told == f"{to}/c cannot be written: Permission denied; let the client daemon's user write there"
    finish(part, to / "c", content.manifest, overwrite=False)
    assert tree_of(to / "c") == tree_of(content.root)


def test_replaced_content_that_cannot_be_removed_is_no_failure(
    tmp_path: Path, to: Path, log_records: LogRecords
) -> None:
    content = a_tree(tmp_path / "source/c")
    part = complete_part(to, content)
    a_directory(to / "c")
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch)("unlink", errno.EACCES, when=lambda name, **_k: name == "file")
        finish(part, to / "c", content.manifest, overwrite=True)
    assert tree_of(to / "c") == tree_of(content.root)
    (record,) = log_records.records
    assert (record["event"], record["name"]) == ("replaced content remains", part.with_suffix(".old").name)
    finish(part, to / "c", content.manifest, overwrite=True)
    assert os.listdir(to) == ["c"]


class Crash(BaseException):
    """The process ends here: nothing of ours catches it."""


STEPS = ["fchmod", "symlink", "fsync", "rename", "link", "unlink", "rmdir", "mkdir"]


class Crashing:
    """Ends the process at the n-th change to the file system, before or after it is made."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, after: bool) -> None:
        self.steps = 0
        for name in STEPS:
            patch.setattr(os, name, self._wrapped(getattr(os, name), at, after))
        rename = vars(finishing)["rename_exclusively"]
        patch.setattr(finishing, "rename_exclusively", self._wrapped(rename, at, after))

    def _wrapped(self, real: Callable[..., object], at: int, after: bool) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.steps += 1
            if self.steps == at and not after:
                raise Crash
            result = real(*args, **kwargs)
            if self.steps == at:
                raise Crash
            return result

        return call


def crashes(finish_once: Callable[[], object], prepare: Callable[[], None]) -> Iterator[str]:
    """Crash at every step in turn, each time after `prepare`; yields after each crash."""
    for after in (False, True):
        at = 1
        while True:
            prepare()
            with pytest.MonkeyPatch.context() as patch:
                crashing = Crashing(patch, at, after=after)
                try:
                    finish_once()
                except Crash:
                    pass
            if crashing.steps < at:
                assert at > 5
                break
            yield f"{'after' if after else 'before'} step {at}"
            at += 1


@pytest.mark.parametrize("make", [nothing, a_small_file, a_directory, a_symlink])
@pytest.mark.parametrize("unsupported", [(), ("rename",)])
def test_a_crash_at_any_step_loses_nothing(
    to: Path, content: Content, make: Callable[[Path], None], unsupported: tuple[str, ...]
) -> None:
    destination, part = to / "c", part_path(to, content.manifest)
    aside, wanted = part.with_suffix(".old"), tree_of(content.root)
    old: dict[str, object] = {}

    def prepare() -> None:
        nonlocal old
        for path in to.iterdir():
            path.rename(to.parent / f"was-{len(list(to.parent.iterdir()))}")
        complete_part(to, content)
        make(destination)
        old = tree_of(destination) if make is not nothing else {}

    def finish_once() -> None:
        finish(part, destination, content.manifest, overwrite=make is not nothing)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _fd: None)  # a step like any other, and the slowest by far
        if unsupported:
            patch.setattr(finishing, "rename_exclusively", unsupporting(unsupported, patch))
        for where in crashes(finish_once, prepare):
            there = [tree_of(path) for path in (destination, aside) if os.path.lexists(path)]
            is_complete = wanted in there or (part.exists() and _data(part) == _data(content.root))
            assert is_complete, where
            assert make is nothing or wanted in there or old in there, where
            if content.manifest.is_directory is False and make in (a_small_file, a_symlink):
                assert tree_of(destination) in (old, wanted), where
            finish_once()
            assert tree_of(destination) == wanted, where
            assert os.listdir(to) == ["c"], where


def test_nothing_has_its_name_before_it_is_durable(tmp_path: Path, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = a_tree(tmp_path / "source/c")
    part = complete_part(to, content)
    a_directory(to / "c")
    steps: list[str] = []
    real_sync, real_rename, real_rmdir = os.fsync, rename_exclusively, os.rmdir

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        steps.append(f"sync {os.path.relpath(path_of(descriptor), to)}")

    def rename(directory: int, source: bytes, target: bytes) -> None:
        steps.append(f"rename {source.decode()} {target.decode()}")
        real_rename(directory, source, target)

    def rmdir(name: str, *, dir_fd: int) -> None:
        steps.append(f"rmdir {name}")
        real_rmdir(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(finishing, "rename_exclusively", rename)
    monkeypatch.setattr(os, "rmdir", rmdir)
    finish(part, to / "c", content.manifest, overwrite=True)
    aside = part.with_suffix(".old").name
    moved = steps.index(f"rename c {aside}")
    everything = {f"sync {part.name}/{path}" for path, found in tree_of(to / "c").items() if not isinstance(found, str)}
    assert set(steps[:moved]) == everything | {f"sync {part.name}"}
    assert steps[moved + 1 : moved + 3] == [f"rename {part.name} c", "sync ."]
    assert steps[-1] == f"rmdir {aside}"


def _data(root: Path) -> dict[str, object]:
    """The files, whatever their modes."""
    return {path: found[0] for path, found in tree_of(root).items() if isinstance(found, tuple)}
