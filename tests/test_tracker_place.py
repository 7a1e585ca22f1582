"""Where the tracker file goes: checked before the work begins, there whole or not at all, and nothing else is lost."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from interfiles.errors import (
    DestinationExists,
    InterFilesError,
    NoSpace,
    NotPermitted,
    PathNotFound,
    StorageFailed,
    UsageError,
)
from interfiles.tracker_place import TrackerPlace, absolute, real
from tests.samples import TRACKER

CONTENT = Path("/data/weights")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = (tmp_path / "here").resolve()
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("data/weights", "data/weights"),
        ("data/weights/", "data/weights"),
        ("./data/../data/./weights", "data/weights"),
        (".", ""),
        ("data/..", ""),
        ("link/weights", "data/weights"),
        ("link", "link"),
        ("link/.", "data"),
    ],
)
def test_absolute_follows_all_but_the_last_name(given: str, expected: str, here: Path) -> None:
    (here / "data").mkdir()
    (here / "link").symlink_to("data")
    assert absolute(given) == here / expected


def test_real_follows_every_link(here: Path) -> None:
    (here / "data").mkdir()
    (here / "link").symlink_to("data")
    assert real("link") == here / "data"


@pytest.mark.parametrize("function", [absolute, real])
def test_a_current_directory_that_is_gone(function: Callable[[str], Path], here: Path) -> None:
    here.rmdir()
    with pytest.raises(PathNotFound, match="the current directory no longer exists"):
        function(".")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, "weights.tracker"),
        ("sub", "sub/weights.tracker"),
        ("sub/", "sub/weights.tracker"),
        ("sub/w.t", "sub/w.t"),
        ("other", "other"),
    ],
)
def test_the_place_is_a_path_or_a_name_in_a_directory(given: str | None, expected: str, here: Path) -> None:
    (here / "sub").mkdir()
    assert TrackerPlace.choose(CONTENT, given).path == here / expected
    assert names(here) == ["sub"]


def test_what_is_written_is_there_whole_and_readable_as_the_umask_says(here: Path) -> None:
    place = TrackerPlace.choose(CONTENT, None)
    before = os.umask(0o027)
    try:
        place.write(TRACKER)
    finally:
        os.umask(before)
    assert place.path.read_bytes() == TRACKER
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o640
    assert names(here) == ["weights.tracker"]


def test_a_tracker_file_is_replaced_even_a_damaged_one(here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER[:20])
    TrackerPlace.choose(CONTENT, None).write(TRACKER)
    assert (here / "weights.tracker").read_bytes() == TRACKER


@pytest.mark.parametrize("kind", ["text", "empty", "directory", "symlink", "dangling symlink", "fifo"])
def test_anything_else_stays_and_is_named(kind: str, here: Path) -> None:
    place = here / "weights.tracker"
    match kind:
        case "text":
            place.write_text("my notes")
        case "empty":
            place.touch()
        case "directory":
            (place / "weights.tracker").mkdir(parents=True)
            place /= "weights.tracker"
        case "symlink":
            (here / "elsewhere").write_bytes(TRACKER)
            place.symlink_to("elsewhere")
        case "dangling symlink":
            place.symlink_to("nowhere")
        case "fifo":
            os.mkfifo(place)
    before = identity(place)
    with pytest.raises(DestinationExists, match=r"weights\.tracker exists and is no tracker file; it stays as it is"):
        TrackerPlace.choose(CONTENT, here / "weights.tracker")
    assert identity(place) == before


def test_what_appears_while_the_content_is_hashed_stays_too(here: Path) -> None:
    place = TrackerPlace.choose(CONTENT, None)
    place.path.write_text("my notes")
    with pytest.raises(DestinationExists):
        place.write(TRACKER)
    assert names(here) == ["weights.tracker"]
    assert place.path.read_text() == "my notes"


@pytest.mark.parametrize("given", ["missing/", "missing/w.tracker"])
def test_a_directory_that_is_missing_is_named(given: str) -> None:
    with pytest.raises(PathNotFound, match=r"there is no directory .*missing for the tracker file"):
        TrackerPlace.choose(CONTENT, given)


@pytest.mark.parametrize("given", [None, "w.tracker", "sub/w.tracker"])
def test_a_tracker_file_within_its_content_would_change_it(given: str | None, here: Path) -> None:
    (here / "sub").mkdir()
    with pytest.raises(UsageError, match="would change the content that it stands for; choose another place for it"):
        TrackerPlace.choose(here, given)


def test_the_root_has_no_name() -> None:
    with pytest.raises(UsageError, match="the root directory has no name"):
        TrackerPlace.choose(Path("/"), None)


def test_a_name_too_long_with_its_suffix_is_refused_before_the_work() -> None:
    with pytest.raises(StorageFailed, match="File name too long; choose another place for it"):
        TrackerPlace.choose(Path("/data") / ("x" * 250), None)


def test_a_name_of_any_length_that_fits_can_be_written(here: Path) -> None:
    name = "x" * 247
    TrackerPlace.choose(Path("/data") / name, None).write(TRACKER)
    assert names(here) == [f"{name}.tracker"]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EACCES, NotPermitted),
        (errno.EROFS, NotPermitted),
        (errno.EIO, StorageFailed),
    ],
)
@pytest.mark.parametrize("step", ["open", "fsync", "rename"])
def test_a_write_that_fails_leaves_what_was_there(
    step: str, number: int, expected: type[InterFilesError], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = TRACKER + b"old"
    (here / "weights.tracker").write_bytes(old)
    place = TrackerPlace.choose(CONTENT, None)

    def fail(*_: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(expected, match=f"weights.tracker cannot be written: {os.strerror(number)}"):
        place.write(TRACKER)
    monkeypatch.undo()
    assert names(here) == ["weights.tracker"]
    assert (here / "weights.tracker").read_bytes() == old
