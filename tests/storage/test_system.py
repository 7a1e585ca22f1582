"""The system calls made through the C library, and syncing that stands on them."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.storage.syncing import forget_cached, sync_descriptor, sync_paths
from interfiles.storage.system import fallocate, is_fuse, rename_exclusively, sync_file_system, umask
from interfiles.storage.tree import open_directory
from tests.storage.contents import Failing, no_leaks


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    with no_leaks():
        opened = open_directory(tmp_path)
        yield opened
        os.close(opened)


def test_a_reserved_range_reads_as_zeros(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w+b") as file:
        fallocate(file.fileno(), 1 << 20, 1 << 20)
        assert os.fstat(file.fileno()).st_size == 2 << 20
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
        assert file.read() == bytes(2 << 20)


def test_a_call_that_fails_tells_its_number(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with pytest.raises(OSError, match="Illegal seek"):
        fallocate(writer, 0, 10)
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_system(writer)
    assert (tmp_path).is_dir()


def test_an_exclusive_rename_replaces_nothing(tmp_path: Path, directory: int) -> None:
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        rename_exclusively(directory, b"a", b"b")
    with pytest.raises(FileNotFoundError):
        rename_exclusively(directory, b"none", b"c")
    rename_exclusively(directory, b"a", "ü".encode())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "ü"]


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_the_umask_is_told_without_changing_it(mask: int) -> None:
    before = os.umask(mask)
    try:
        assert umask() == mask
        assert umask() == mask
    finally:
        os.umask(before)


def test_a_file_system_that_syncs_no_directories_will_do(directory: int, failing: Failing) -> None:
    failing("fsync", errno.EINVAL)
    sync_descriptor(directory)
    failing("fsync", errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        sync_descriptor(directory)


def test_syncing_what_is_gone_is_no_success(directory: int) -> None:
    with pytest.raises(FileNotFoundError):
        sync_paths(directory, [b"none"])
    forget_cached(directory, [b"none", b"."])


def test_nothing_is_synced_through_a_symlink(tmp_path: Path, directory: int) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    assert stat.S_ISLNK((tmp_path / "link").lstat().st_mode)
    with pytest.raises(OSError, match="symbolic"):
        sync_paths(directory, [b"link"])


def test_a_disk_is_no_file_system_of_a_users_program(directory: int) -> None:
    assert not is_fuse(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        is_fuse(-1)
