"""How many bytes replicas may take of a disk, which belongs to others too."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemons.client.allowance import Allowance
from daemons.client.library import Library
from interfiles.errors import NoSpace
from interfiles.storage.executor import InlineExecutor
from interfiles.storage.jobs import JobStore
from interfiles.storage.open_files import OpenFiles

GIB = 1 << 30
TIB = 1 << 40
FRAGMENT = 4096


def a_disk(size: int, free: int) -> os.statvfs_result:
    """One of `size` bytes, of which root may take a GiB more than the `free` of everybody."""
    fragments, available = size // FRAGMENT, free // FRAGMENT
    counted_in = (8 * FRAGMENT, FRAGMENT)  # the second is what counts
    return os.statvfs_result((*counted_in, fragments, available + GIB // FRAGMENT, available, 0, 0, 0, 0, 255))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """One without files."""
    jobs = JobStore(tmp_path / "client.db")
    yield Library(jobs, InlineExecutor(), InlineExecutor(), OpenFiles())
    jobs.close()


def an_allowance(library: Library, state: Path, *, keep_free: int | None = None, quota: int | None = None) -> Allowance:
    return Allowance(
        *(library, InlineExecutor()),
        state=state,
        place=state / "replicas",
        leftovers=state / "leftovers",
        quota=quota,
        keep_free=keep_free,
    )


def leave_over(state: Path, size: int) -> None:
    (state / "leftovers" / f"{bytes(32).hex()}-{size}").mkdir(parents=True)


@pytest.mark.parametrize(
    ("size", "free", "keep_free", "room"),
    [
        pytest.param(100 * GIB, 100 * GIB, None, 95 * GIB, id="a twentieth"),
        pytest.param(100 * GIB, 20 * GIB, None, 15 * GIB, id="of the disk, not of what is free"),
        pytest.param(200 * GIB, 100 * GIB, None, 90 * GIB, id="as much as the most"),
        pytest.param(4 * TIB, TIB, None, TIB - 10 * GIB, id="at most 10 GiB"),
        pytest.param(4 * TIB, TIB, 50 * GIB, TIB - 50 * GIB, id="more than that, where it is said"),
        pytest.param(100 * GIB, 20 * GIB, GIB, 19 * GIB, id="less than a twentieth, where it is said"),
        pytest.param(100 * GIB, 20 * GIB, 0, 20 * GIB, id="nothing"),
        pytest.param(100 * GIB, 5 * GIB, None, 0, id="as much as is kept free"),
        pytest.param(100 * GIB, 4 * GIB, None, 0, id="less than is kept free"),
        pytest.param(100 * GIB, 20 * GIB, 30 * GIB, 0, id="less than is said to be kept free"),
        pytest.param(100 * GIB, 0, 0, 0, id="full"),
    ],
)
def test_what_is_kept_free_is_no_room_for_replicas(
    library: Library,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    free: int,
    keep_free: int | None,
    room: int,
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(size, free))
    assert an_allowance(library, tmp_path, keep_free=keep_free).room() == (0, room)


@pytest.mark.parametrize(("quota", "room"), [(10 * GIB, 10 * GIB), (90 * GIB, 15 * GIB), (0, 0)])
def test_a_quota_gives_no_room_that_the_disk_does_not(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: int, room: int
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(100 * GIB, 20 * GIB))
    assert an_allowance(library, tmp_path, quota=quota).room() == (0, room)


def test_what_is_left_over_gives_room_beyond_what_is_kept_free(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_over(tmp_path, 3 * GIB)
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(100 * GIB, 4 * GIB))
    assert an_allowance(library, tmp_path).room() == (0, 2 * GIB)


def test_what_is_reserved_is_room_for_nobody_else(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(100 * GIB, 20 * GIB))
    allowance = an_allowance(library, tmp_path)
    with allowance.replicating(10 * GIB):
        assert allowance.room() == (0, 5 * GIB)
        with (
            pytest.raises(NoSpace, match=r"^it has room for 5\.4 GB of copies, this one needs 5\.4 GB$"),
            allowance.replicating(5 * GIB + 1),
        ):
            pass
        with allowance.replicating(5 * GIB):
            assert allowance.room() == (0, 0)
    assert allowance.room() == (0, 15 * GIB)


def test_the_disk_that_counts_is_that_of_the_replicas(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disks = {tmp_path: a_disk(100 * GIB, 20 * GIB), tmp_path / "replicas": a_disk(100 * GIB, 50 * GIB)}
    monkeypatch.setattr(os, "statvfs", lambda path: disks[path])
    allowance = an_allowance(library, tmp_path)
    assert allowance.room() == (0, 15 * GIB), "there is no place for them yet, and it will be made there"
    (tmp_path / "replicas").mkdir()
    assert allowance.room() == (0, 45 * GIB)


def test_a_disk_that_is_gone_has_no_room(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(path: Path) -> os.statvfs_result:
        raise OSError(5, "Input/output error", path)

    monkeypatch.setattr(os, "statvfs", gone)
    assert an_allowance(library, tmp_path, keep_free=0).room() == (0, 0)
