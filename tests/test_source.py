"""Which file a text or path means: a tracker file, checked before any daemon is asked, or a query for the fleet."""

import os
from pathlib import Path

import pytest

from interfiles.errors import InvalidTrackerFile, NotPermitted, PathNotFound, StorageFailed, UsageError
from interfiles.source import Source, read_source
from interfiles.tracker_file import MAX_TRACKER_BYTES
from tests.samples import TRACKER, TRACKER_ID


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("given", ["weights.tracker", "./weights.tracker", Path("weights.tracker")])
def test_a_tracker_file_is_read(given: str | Path) -> None:
    Path("weights.tracker").write_bytes(TRACKER)
    assert read_source(given) == Source("", TRACKER, TRACKER_ID)


def test_a_regular_file_by_any_name_is_a_tracker_file(here: Path) -> None:
    (here / "renamed").write_bytes(TRACKER)
    assert read_source("renamed").content == TRACKER


@pytest.mark.parametrize("query", ["9c41e0", "weights", "größe", "no.such.file"])
def test_what_is_no_path_is_a_query(query: str) -> None:
    assert read_source(query) == Source(query, b"", query)


def test_a_directory_called_like_a_file_of_the_fleet_is_no_tracker_file(here: Path) -> None:
    (here / "weights").mkdir()
    assert read_source("weights").query == "weights"
    with pytest.raises(PathNotFound, match="weights/ is a directory"):
        read_source("weights/")


@pytest.mark.parametrize("given", ["missing.tracker", "./missing", "missing/x.tracker", Path("missing")])
def test_a_path_where_nothing_is_is_named(given: str | Path) -> None:
    with pytest.raises(PathNotFound, match=f"there is no tracker file {given}"):
        read_source(given)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "weights.tracker is empty"),
        (b"hello", "weights.tracker is not a tracker file"),
        (TRACKER[:-1], "weights.tracker is truncated"),
        (TRACKER[:40] + bytes([TRACKER[40] ^ 1]) + TRACKER[41:], "weights.tracker is damaged"),
    ],
)
def test_a_bad_tracker_file_is_refused(content: bytes, reason: str) -> None:
    Path("weights.tracker").write_bytes(content)
    with pytest.raises(InvalidTrackerFile, match=reason):
        read_source("weights.tracker")


def test_a_huge_file_is_not_read_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("huge.tracker", "wb") as file:
        file.write(TRACKER[:8])
        file.truncate(1 << 40)
    with pytest.raises(InvalidTrackerFile, match=f"at most {MAX_TRACKER_BYTES:,} bytes"):
        read_source("huge.tracker")


def test_a_fifo_is_refused_at_once(here: Path) -> None:
    os.mkfifo("pipe.tracker")
    with pytest.raises(PathNotFound, match=r"pipe\.tracker is not a regular file"):
        read_source("pipe.tracker")


@pytest.mark.parametrize(
    ("error", "expected"),
    [(PermissionError(13, "Permission denied"), NotPermitted), (OSError(5, "Input/output error"), StorageFailed)],
)
def test_what_cannot_be_read_is_said(
    error: OSError, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise error

    monkeypatch.setattr("interfiles.source._open_at_once", refuse)
    with pytest.raises(expected, match=f"weights.tracker cannot be read: {error.strerror}"):
        read_source("weights.tracker")


@pytest.mark.parametrize("given", ["", "a\0b", "x" * 256, os.fsdecode(b"\xff")])
def test_what_neither_a_path_nor_a_query_can_be_is_refused(given: str) -> None:
    with pytest.raises(UsageError):
        read_source(given)


def test_names_are_shown_escaped() -> None:
    with pytest.raises(PathNotFound, match=r"there is no tracker file evil\\x1b\[2J.tracker;"):
        read_source("evil\x1b[2J.tracker")
