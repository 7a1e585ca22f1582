"""Scanning real trees: everything that can be uploaded, every refusal, and trees that change meanwhile."""

import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings

from interfiles.errors import (
    ContentChanged,
    InterFilesError,
    NotPermitted,
    PathNotFound,
    Refused,
    StorageFailed,
    UsageError,
)
from interfiles.manifest import DirectoryEntry, Entry, FileEntry, Manifest, SymlinkEntry
from interfiles.storage import Stopped
from interfiles.storage.scan import Scan, Stamp, scan, stamp_of
from tests.trees import lines_executed, manifests

LONG_AGO = 1_000_000_000


def never() -> bool:
    return False


def scanned(path: Path) -> Scan:
    return scan(path, cancelled=never)


def refusal(path: Path, error: type[InterFilesError], *, during: Callable[[], object] | None = None) -> str:
    """The sentence that a scan ends in; `during` runs before the first entry is looked at."""
    happened: list[bool] = []

    def cancelled() -> bool:
        if during is not None and not happened:
            happened.append(True)
            during()
        return False

    before = open_descriptors()
    with pytest.raises(InterFilesError) as caught:
        scan(path, cancelled=cancelled)
    assert type(caught.value) is error
    assert open_descriptors() == before
    return str(caught.value)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def make(root: Path, *entries: Entry) -> None:
    """Create the entries below `root`, which need not exist; files are sparse."""
    root.mkdir(exist_ok=True)
    for entry in entries:
        place = root / entry.path
        place.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case FileEntry(_, size, executable):
                place.touch()
                os.truncate(place, size)
                place.chmod(0o755 if executable else 0o644)
            case DirectoryEntry():
                place.mkdir()
            case SymlinkEntry(_, target):
                place.symlink_to(target)


def age(*paths: Path) -> None:
    """Date paths back, so that a change in this test is sure to show in the clock of the file system."""
    for path in paths:
        os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to fill; its path has no symlinks."""
    root = tmp_path.resolve() / "tree"
    root.mkdir()
    return root


def test_a_tree_of_everything(tree: Path) -> None:
    entries: tuple[Entry, ...] = (
        DirectoryEntry("a/empty"),
        SymlinkEntry("a/link", "../b.bin"),
        FileEntry("a/run.sh", 20, True),
        FileEntry("a-b", 0, False),
        FileEntry("b.bin", 3_000_000_000, False),
        SymlinkEntry("dangling", "no/such/file"),
        FileEntry("two\nlines", 1, False),
        FileEntry("é\x1b[2J", 1, False),
        FileEntry("文件/ملف", 2, False),
    )
    make(tree, *entries)
    found = scanned(tree)
    assert set(found.entries) == set(entries)
    assert [entry.path.encode() for entry in found.entries] == sorted(entry.path.encode() for entry in entries)
    assert (found.root, found.name, found.is_directory, found.size) == (tree, "tree", True, 3_000_000_024)
    files = [entry for entry in found.entries if isinstance(entry, FileEntry)]
    assert found.stamps == tuple(stamp_of(os.lstat(tree / file.path)) for file in files)


@settings(max_examples=50)
@given(manifests())
def test_the_entries_of_any_manifest_are_found_again(manifest: Manifest) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch).resolve() / manifest.name
        make(place if manifest.is_directory else place.parent, *manifest.entries)
        found = scanned(place)
    assert (found.name, found.is_directory, found.size) == (manifest.name, manifest.is_directory, manifest.size)
    assert found.entries == manifest.entries


def test_a_single_file(tree: Path) -> None:
    make(tree, FileEntry("weights.bin", 5, True))
    found = scanned(tree / "weights.bin")
    assert (found.root, found.name, found.is_directory, found.size) == (tree / "weights.bin", "weights.bin", False, 5)
    assert found.entries == (FileEntry("weights.bin", 5, True),)
    assert found.stamps == (stamp_of(os.stat(tree / "weights.bin")),)


def test_empty_directory(tree: Path) -> None:
    found = scanned(tree)
    assert (found.is_directory, found.entries, found.stamps, found.size) == (True, (), (), 0)


@pytest.mark.parametrize("mode", [0o644, 0o655, 0o744])
def test_executable_is_what_its_owner_may_execute(tree: Path, mode: int) -> None:
    make(tree, FileEntry("f", 0, False))
    (tree / "f").chmod(mode)
    assert scanned(tree).entries == (FileEntry("f", 0, bool(mode & stat.S_IXUSR)),)


def test_a_stamp_is_size_time_inode_and_device(tree: Path) -> None:
    make(tree, FileEntry("f", 7, False))
    age(tree / "f")
    status = os.stat(tree / "f")
    assert scanned(tree).stamps == (Stamp(7, LONG_AGO * 10**9, status.st_ino, status.st_dev),)


def test_the_name_is_the_real_one_whatever_way_the_path_goes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tree, FileEntry("sub/f", 0, False))
    monkeypatch.chdir(tree)
    for path, name in [
        (Path(), "tree"),
        (Path(f"{tree}/"), "tree"),
        (Path("sub/"), "sub"),
        (Path("sub/.."), "tree"),
        (Path(".."), tree.parent.name),
    ]:
        assert scanned(path).name == name
    assert scanned(Path("sub/f")).root == tree / "sub/f"


def test_a_symlink_that_is_named_is_followed_and_lends_its_name(tree: Path) -> None:
    make(tree, FileEntry("real/f", 3, False), SymlinkEntry("latest", "real"), SymlinkEntry("best.bin", "latest/f"))
    directory = scanned(tree / "latest")
    assert (directory.name, directory.root, directory.entries) == ("latest", tree / "real", (FileEntry("f", 3, False),))
    file = scanned(tree / "best.bin")
    assert (file.name, file.root, file.entries) == ("best.bin", tree / "real/f", (FileEntry("best.bin", 3, False),))


def test_a_path_that_is_not_there(tree: Path) -> None:
    make(tree, FileEntry("file", 0, False), SymlinkEntry("dangling", "nowhere"), SymlinkEntry("circle", "circle"))
    says = f"{tree}/nothing does not exist; name a file or directory that does"
    assert refusal(tree / "nothing", PathNotFound) == says
    assert "file/below does not exist" in refusal(tree / "file/below", PathNotFound)
    assert "dangling is a symlink to nothing" in refusal(tree / "dangling", PathNotFound)
    assert "circle is a symlink that leads in a circle" in refusal(tree / "circle", PathNotFound)
    assert "a\\x00b contains a NUL" in refusal(tree / "a\0b", PathNotFound)
    assert "does not exist" in refusal(tree / ("x" * 300), PathNotFound)
    assert "\\x1b[2J does not exist" in refusal(tree / "\x1b[2J", PathNotFound)


def test_the_whole_file_system(tree: Path) -> None:
    make(tree, SymlinkEntry("slash", "/"))
    for path in (Path("/"), Path("/."), tree / "slash"):
        assert refusal(path, UsageError) == f"{path} is the whole file system; name a directory in it"


@pytest.mark.parametrize(("kind", "shown"), [(stat.S_IFIFO, "a FIFO"), (stat.S_IFSOCK, "a socket")])
def test_what_is_neither_file_directory_nor_symlink(tree: Path, kind: int, shown: str) -> None:
    make(tree, FileEntry("a/f", 0, False))
    os.mknod(tree / "a/odd", kind | 0o644)
    says = f"{tree}/a/odd is {shown}; only files, directories and symlinks can be uploaded"
    assert refusal(tree, PathNotFound) == says
    assert refusal(tree / "a/odd", PathNotFound) == says


def test_a_device() -> None:
    assert "/dev/null is a character device; only files" in refusal(Path("/dev/null"), PathNotFound)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (SymlinkEntry("out", "/etc/passwd"), "symlink 'out' points to '/etc/passwd', an absolute path"),
        (SymlinkEntry("a/out", "../../tree/f"), "symlink 'a/out' points to '../../tree/f', outside the tree"),
        (SymlinkEntry("a/out", "b/.."), "symlink 'a/out' points to 'b/..', with '..' after a name"),
        (FileEntry("F", 0, False), "'F' and 'f' differ only in case or Unicode form"),
        (FileEntry("bad\udce9", 0, False), "path 'bad\\udce9' is not valid UTF-8"),
        (SymlinkEntry("bad", "\udce9"), "target of symlink 'bad' '\\udce9' is not valid UTF-8"),
    ],
)
def test_what_breaks_the_rules_of_a_manifest(tree: Path, entry: Entry, says: str) -> None:
    make(tree, FileEntry("f", 0, False))
    try:
        make(tree, entry)
    except OSError:
        pytest.skip("this file system cannot hold such an entry")
    assert refusal(tree, Refused).startswith(f"{tree} cannot be uploaded: {says}")


def test_more_than_a_manifest_holds(tree: Path) -> None:
    make(tree, *[FileEntry(name, 6 << 40, False) for name in "abc"])
    assert refusal(tree, Refused).startswith(
        f"{tree} cannot be uploaded: its files have 19,791,209,299,968 bytes together, at most 17,592,186,044,416 are"
    )


def test_a_file_whose_own_name_is_not_utf_8(tree: Path) -> None:
    make(tree, FileEntry("bad\udce9", 0, False))
    assert "cannot be uploaded: name 'bad\\udce9' is not valid UTF-8" in refusal(tree / "bad\udce9", Refused)


def test_the_depth_is_limited(tree: Path) -> None:
    deepest = "/".join("d" * 255)
    make(tree, DirectoryEntry(deepest))
    assert scanned(tree).entries == (DirectoryEntry(deepest),)
    make(tree, FileEntry(f"{deepest}/f", 0, False))
    assert refusal(tree, Refused).endswith("is more than 255 levels deep, too deep to upload")


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing named `secret` can be opened, even by root, whom permission bits don't hold."""
    real_open = os.open

    def guarded(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).name == "secret" and not flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", guarded)


@pytest.mark.usefixtures("unreadable")
@pytest.mark.parametrize("secret", [FileEntry("a/secret", 1, False), DirectoryEntry("a/secret")])
def test_what_may_not_be_read_is_named(tree: Path, secret: Entry) -> None:
    make(tree, FileEntry("a/f", 0, False), secret)
    says = f"{tree}/a/secret cannot be read: Permission denied; let the client daemon's user read it"
    assert refusal(tree, NotPermitted) == says
    assert refusal(tree / "a/secret", NotPermitted) == says


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600])
def test_permission_bits_are_honoured(tree: Path, mode: int) -> None:
    make(tree, FileEntry("a/f", 0, False))
    (tree / "a").chmod(mode)
    try:
        assert str(tree / "a") in refusal(tree, NotPermitted)
    finally:
        (tree / "a").chmod(0o755)


def test_a_failing_disk_is_told(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tree, SymlinkEntry("link", "f"))

    def fail(*_args: object, **_kwargs: object) -> str:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "readlink", fail)
    with pytest.raises(StorageFailed, match="tree/link cannot be read: Input/output error"):
        scanned(tree)


def replace_by(place: Path, entry: Callable[[Path], object]) -> None:
    place.rename(place.with_name("moved away"))
    entry(place)


@pytest.mark.parametrize(
    "change",
    [
        lambda place: place.unlink(),
        lambda place: replace_by(place, os.mkfifo),
        lambda place: replace_by(place, Path.mkdir),
        lambda place: replace_by(place, lambda it: it.symlink_to("moved away")),
        lambda place: replace_by(place, lambda it: os.mknod(it, stat.S_IFSOCK | 0o644)),
        lambda place: place.rename(place.with_name("renamed")),
    ],
    ids=["gone", "FIFO", "directory", "symlink", "socket", "renamed"],
)
def test_a_file_that_changes_its_kind_meanwhile(tree: Path, change: Callable[[Path], object]) -> None:
    make(tree, FileEntry("f", 0, False))
    says = f"{tree}/f changed while it was read; upload it again when nothing writes to it"
    assert refusal(tree, ContentChanged, during=lambda: change(tree / "f")) == says


def test_a_directory_swapped_for_a_symlink_meanwhile_is_not_followed(tree: Path) -> None:
    make(tree, FileEntry("d/f", 0, False))
    assert f"{tree}/d changed" in refusal(
        tree, ContentChanged, during=lambda: replace_by(tree / "d", lambda it: it.symlink_to("/etc"))
    )


def test_a_symlink_that_becomes_a_file_meanwhile(tree: Path) -> None:
    make(tree, SymlinkEntry("link", "f"))
    assert f"{tree}/link changed" in refusal(tree, ContentChanged, during=lambda: replace_by(tree / "link", Path.touch))


def test_a_directory_that_gets_another_entry_meanwhile(tree: Path) -> None:
    make(tree, FileEntry("f", 0, False))
    age(tree)
    says = f"{tree} changed while it was read; upload it again when nothing writes to it"
    assert refusal(tree, ContentChanged, during=(tree / "late").touch) == says


def test_the_path_itself_swapped_before_it_is_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tree, FileEntry("d/f", 0, False))
    real_open = os.open

    def late_open(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        monkeypatch.setattr(os, "open", real_open)
        (tree / "d").rename(tree / "moved")
        (tree / "d").mkdir()
        return real_open(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", late_open)
    with pytest.raises(ContentChanged, match="tree/d changed while it was read"):
        scanned(tree / "d")


def test_a_scan_ends_soon_after_it_is_cancelled(tree: Path) -> None:
    make(tree, *[FileEntry(f"d{n % 3}/{n}", 0, False) for n in range(30)])
    answers = iter([False] * 10 + [True])
    before = open_descriptors()
    with pytest.raises(Stopped):
        scan(tree, cancelled=lambda: next(answers))
    assert open_descriptors() == before


def test_ten_times_the_files_are_ten_times_the_work(tmp_path: Path) -> None:
    work = []
    for count in (200, 2_000):
        make(tmp_path / str(count), *[FileEntry(f"d{n % 7}/{n}", 1, False) for n in range(count)])
        work.append(lines_executed(lambda root=tmp_path / str(count): scanned(root)))  # type: ignore[misc]
    assert work[1] < 11 * work[0]
