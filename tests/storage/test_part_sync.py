"""What of a part is durable when: syncs that fail, and syncs beside writes."""

import errno
import os
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from interfiles.errors import NoSpace, StorageFailed
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_store import PartStore, part_path
from interfiles.storage.syncing import sync_paths
from tests.storage.contents import (
    Content,
    Failing,
    a_tree,
    checked,
    fetch,
    make_tree,
    path_of,
    uploaded,
)


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_tree(tmp_path / "source/t")


def created(to: Path, content: Content, files: OpenFiles) -> PartStore:
    to.mkdir(exist_ok=True)
    return PartStore.create(part_path(to, content.manifest), content.manifest, files)


class Synced:
    """What was made durable, by path relative to a directory; `during` runs at the first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.paths: list[str] = []
        self.during: Callable[[], object] | None = None
        self._root = root
        real = os.fsync

        def fsync(descriptor: int) -> None:
            if self.during is not None:
                during, self.during = self.during, None
                during()
            real(descriptor)
            self.paths.append(os.path.relpath(path_of(descriptor), root))

        monkeypatch.setattr(os, "fsync", fsync)

    def taken(self) -> set[str]:
        taken, self.paths = set(self.paths), []
        return taken


def test_sync_makes_what_was_written_durable_and_once(
    tmp_path: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = created(tmp_path / "to", content, files)
    synced = Synced(monkeypatch, part_path(tmp_path / "to", content.manifest))
    fetch(store, content, content.pieces(1))
    store.sync()
    structure = {"..", ".", "a", "a/deep", "a/deep/er", "e", "e/mpty", "l", "l/i", "日本"}
    assert synced.taken() == structure | {"a/large"}
    store.sync()
    assert synced.taken() == set()
    fetch(store, content, content.pieces(0, 2))
    store.sync()
    assert synced.taken() == {"a/deep/er/small", "a/large", "b.sh", "zeros"}
    store.close()


@pytest.mark.parametrize("size", [0, 100, 10**7])
def test_a_file_that_somebody_cuts_short_or_stretches_is_noticed(
    tmp_path: Path, content: Content, files: OpenFiles, size: int
) -> None:
    store = created(tmp_path / "to", content, files)
    fetch(store, content, content.pieces(1))
    store.sync()
    os.truncate(part_path(tmp_path / "to", content.manifest) / "a/large", size)
    fetch(store, content, content.pieces(1))
    with pytest.raises(StorageFailed, match="a/large was cut short"):
        store.sync()
    store.close()
    again = PartStore.open(part_path(tmp_path / "to", content.manifest), content.manifest, content.pieces(1), files)
    assert 1 not in set(again.held), "what was recorded is hashed again"
    again.close()


def test_a_write_during_sync_is_left_for_the_next(
    tmp_path: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = created(tmp_path / "to", content, files)
    synced = Synced(monkeypatch, part_path(tmp_path / "to", content.manifest))
    fetch(store, content, content.pieces(1))
    store.sync()
    synced.taken()
    fetch(store, content, content.pieces(1))
    synced.during = lambda: fetch(store, content, content.pieces(1, 4))
    store.sync()
    assert synced.taken() == {"a/large"}
    store.sync()
    assert synced.taken() == {"a/large", "zeros", "日本/ü"}
    store.close()


def test_a_sync_during_a_write_does_not_count_for_it(
    tmp_path: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = created(tmp_path / "to", content, files)
    real = os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        store.sync()
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        fetch(store, content, content.pieces(1))
    synced = Synced(monkeypatch, part_path(tmp_path / "to", content.manifest))
    store.sync()
    assert synced.taken() == {"a/large"}
    store.close()


def test_thousands_of_files_are_synced_at_once(
    tmp_path: Path, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_tree(tmp_path / "t", {f"{n:03}": b"ten bytes!" for n in range(200)})
    content = uploaded(tmp_path / "t")
    store = created(tmp_path / "to", content, files)
    calls: list[str] = []
    monkeypatch.setattr("interfiles.storage.syncing.sync_file_system", lambda fd: calls.append(path_of(fd)))
    synced = Synced(monkeypatch, part_path(tmp_path / "to", content.manifest))
    fetch(store, content)
    store.sync()
    assert calls == [str(part_path(tmp_path / "to", content.manifest))]
    assert synced.taken() == set()
    store.close()


@pytest.mark.parametrize(("number", "error"), [(errno.EIO, StorageFailed), (errno.ENOSPC, NoSpace)])
def test_what_a_failed_sync_left_is_synced_by_the_next(
    tmp_path: Path, content: Content, files: OpenFiles, number: int, error: type[Exception]
) -> None:
    store = created(tmp_path / "to", content, files)
    fetch(store, content, content.pieces(1))
    dropped: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        Failing(patch)("fsync", number, when=lambda fd: path_of(fd).endswith("large"))
        patch.setattr(os, "posix_fadvise", lambda fd, _offset, _length, _advice: dropped.append(path_of(fd)))
        with pytest.raises(error, match="part cannot be written"):
            store.sync()
    # What the system shows of it from memory must not pass for what is on disk.
    assert f"{part_path(tmp_path / 'to', content.manifest)}/a/large" in dropped
    with pytest.MonkeyPatch.context() as patch:
        synced = Synced(patch, part_path(tmp_path / "to", content.manifest))
        store.sync()
    assert "a/large" in synced.taken()
    store.close()


def test_writes_and_syncs_at_the_same_time(
    tmp_path: Path, content: Content, files: OpenFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every write that has ended before a sync begins is in that sync, or in one before it."""
    store = created(tmp_path / "to", content, files)
    part = part_path(tmp_path / "to", content.manifest)
    # Of each file, the last write that the system has taken, that has ended for its caller, that is durable.
    taken: dict[str, int] = {}
    ended: dict[str, int] = {}
    durable: dict[str, int] = {}
    number, real = 0, os.pwrite

    def pwrite(descriptor: int, data: memoryview, offset: int) -> int:
        count = real(descriptor, data, offset)
        taken[os.path.relpath(path_of(descriptor), part)] = number
        return count

    def recorded(anchor: int, paths: Collection[bytes]) -> None:
        durable.update({path.decode(): taken.get(path.decode(), 0) for path in paths})
        sync_paths(anchor, paths)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr("interfiles.storage.part_store.sync_paths", recorded)
    done, behind = threading.Event(), []

    def keep_syncing() -> None:
        while not done.is_set():
            before = dict(ended)
            store.sync()
            behind.extend([path for path, last in before.items() if durable.get(path, 0) < last])

    thread = threading.Thread(target=keep_syncing)
    thread.start()
    for number in range(1, 400):
        fetch(store, content, content.pieces(number % 5))
        ended.update({path: last for path, last in taken.items() if last == number})
    done.set()
    thread.join()
    assert not behind
    assert checked(store, content.all_pieces) == content.all_pieces
    store.close()
