"""Contents that come as descriptors: hashed and copied as by their path, and nothing is believed of what came."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from interfiles.errors import ContentChanged, InterFilesError, RemoteProtocolError
from interfiles.geometry import MIB
from interfiles.storage import Stopped, handed
from interfiles.storage.copying import TreeCopy
from interfiles.storage.handed import HandedContent, stamp_of_file, status_of
from interfiles.storage.hashing import DiskContent, draft_manifest, hash_range
from interfiles.storage.scan import Scan, scan

KIB = 1 << 10


def never() -> bool:
    return False


def scanned(path: Path) -> Scan:
    return scan(path, cancelled=never)


@contextmanager
def opened(found: Scan, first: int, count: int) -> Iterator[list[int]]:
    files = draft_manifest(found, 256 * KIB).files[first : first + count]
    paths = [found.root / file.entry.path if found.is_directory else found.root for file in files]
    descriptors = [os.open(path, os.O_RDONLY) for path in paths]
    try:
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def work(content: HandedContent, found: Scan, *, batch: int = 3) -> int:
    """Hand everything over; return how many bytes were told of."""
    told: list[int] = []
    while content.files_left:
        with opened(found, len(content.stamps), batch) as descriptors:
            content.take(descriptors)
            while not content.advance(progress=told.append, cancelled=never):
                pass
    content.finish()
    return sum(told)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files that end within, at and beyond pieces, empty ones, and a hole."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    for number, size in enumerate([0, 1, 256 * KIB, 256 * KIB - 1, 700 * KIB, 0, 3 * MIB + 5]):
        (root / f"f{number}").write_bytes(os.urandom(size))
    with open(root / "sub" / "holes", "wb") as file:
        file.truncate(2 * MIB)
        file.seek(MIB)
        file.write(b"island")
    return root


def of_path(found: Scan, piece_size: int = 256 * KIB) -> bytes:
    draft = draft_manifest(found, piece_size)
    content = DiskContent(found.root, draft, found.stamps)
    return hash_range(content, 0, draft.piece_count, progress=lambda _: None, cancelled=never)


@pytest.mark.parametrize("turn", [1, 100 * KIB, 256 * MIB])
def test_hashes_and_stamps_are_those_of_the_path(tree: Path, monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    monkeypatch.setattr(handed, "_TURN_BYTES", turn if turn > 1 else 64 * KIB)
    for path in (tree, tree / "f6", tree / "f0", tree / "sub" / "holes"):
        found = scanned(path)
        content = HandedContent(found.root, draft_manifest(found, 256 * KIB))
        assert work(content, found, batch=1 if turn == 1 else 3) == found.size
        assert bytes(content.hashes) == of_path(found)
        assert tuple(content.stamps) == found.stamps


def test_a_copy_is_that_of_the_path(tree: Path, tmp_path: Path) -> None:
    for path in (tree, tree / "f6"):
        found = scanned(path)
        bare = replace(found, stamps=())
        (tmp_path / "copies" / path.name).mkdir(parents=True)
        copy = TreeCopy(bare, tmp_path / "copies" / path.name / path.name)
        content = HandedContent(found.root, draft_manifest(found, 256 * KIB), copy)
        assert work(content, found) == found.size
        assert tuple(content.stamps) == found.stamps
        made = copy.end()
        assert of_path(made) == of_path(found)
        assert scanned(made.root).stamps == made.stamps


def test_a_copy_that_is_abandoned_leaves_nothing(tree: Path, tmp_path: Path) -> None:
    found = scanned(tree)
    copy = TreeCopy(replace(found, stamps=()), tmp_path / "copy")
    with opened(found, 0, 1) as (descriptor,):
        copy.add(descriptor, found.stamps[0], progress=lambda _: None, cancelled=never)
    copy.abandon()
    copy.abandon()
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("directory", RemoteProtocolError, "is of no regular file"),
        ("fifo", RemoteProtocolError, "is of no regular file"),
        ("device", RemoteProtocolError, "is of no regular file"),
        ("socket", RemoteProtocolError, "is of no regular file"),
        ("for writing", RemoteProtocolError, "cannot be read from"),
        ("path only", RemoteProtocolError, "cannot be read from"),
        ("other size", ContentChanged, "changed while it was read"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, kind: str, error: type[InterFilesError], says: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    found = scanned(path)
    other = tmp_path / "other"
    match kind:
        case "directory":
            descriptor = os.open(tmp_path, os.O_RDONLY)
        case "fifo":
            os.mkfifo(other)
            descriptor = os.open(other, os.O_RDONLY | os.O_NONBLOCK)
        case "device":
            descriptor = os.open("/dev/zero", os.O_RDONLY)
        case "socket":
            a, b = socket.socketpair()
            descriptor = a.detach()
            b.close()
        case "for writing":
            descriptor = os.open(path, os.O_WRONLY)
        case "path only":
            descriptor = os.open(path, os.O_PATH)
        case _:
            other.write_bytes(b"123456")
            descriptor = os.open(other, os.O_RDONLY)
    try:
        content = HandedContent(found.root, draft_manifest(found, 256 * KIB))
        content.take([descriptor])
        with pytest.raises(error, match=says):
            content.advance(progress=lambda _: None, cancelled=never)
        assert not content.hashes
    finally:
        os.close(descriptor)


def test_a_file_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(os.urandom(3 * MIB)))
    found = scanned(path)
    for change in ("write", "truncate"):
        content = HandedContent(found.root, draft_manifest(found, 256 * KIB))
        changed = False

        def alter(_: int, change: str = change) -> None:
            nonlocal changed
            if not changed:
                changed = True
                with open(path, "r+b") as file:
                    file.truncate(MIB + 1) if change == "truncate" else file.write(b"x")

        with opened(found, 0, 1) as descriptors:
            content.take(descriptors)
            with pytest.raises(ContentChanged, match="changed while it was read"):
                content.advance(progress=alter, cancelled=never)


def test_a_lender_that_moves_the_offset_or_sets_flags_changes_nothing(tree: Path) -> None:
    found = scanned(tree / "f6")
    content = HandedContent(found.root, draft_manifest(found, 256 * KIB))
    with opened(found, 0, 1) as descriptors:
        os.lseek(descriptors[0], 12345, os.SEEK_SET)
        content.take(descriptors)
        content.advance(progress=lambda _: os.lseek(descriptors[0], 0, os.SEEK_END), cancelled=never)  # type: ignore[arg-type]
    content.finish()
    assert bytes(content.hashes) == of_path(found)


def test_it_stops_when_nobody_wants_it_any_more(tree: Path) -> None:
    found = scanned(tree)
    content = HandedContent(found.root, draft_manifest(found, 256 * KIB))
    with opened(found, 0, 7) as descriptors:
        content.take(descriptors)
        with pytest.raises(Stopped):
            content.advance(progress=lambda _: None, cancelled=lambda: True)


def test_the_stamp_is_that_of_the_open_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with opened(scanned(path), 0, 1) as (descriptor,):
        assert stamp_of_file(descriptor, 5, path) == scanned(path).stamps[0]
        path.unlink()
        with suppress(FileNotFoundError):
            path.lstat()
        assert stamp_of_file(descriptor, 5, path).size == 5


class TestStatusOf:
    @pytest.mark.parametrize(
        ("flags", "writable", "is_fit"),
        [
            (os.O_RDONLY, False, True),
            (os.O_RDWR, False, True),
            (os.O_WRONLY, False, False),
            (os.O_PATH, False, False),
            (os.O_RDONLY, True, False),
            (os.O_RDWR, True, True),
            (os.O_WRONLY, True, True),
            (os.O_PATH, True, False),
        ],
    )
    def test_a_descriptor_must_be_open_the_right_way(
        self, tmp_path: Path, flags: int, writable: bool, is_fit: bool
    ) -> None:
        (tmp_path / "file").write_bytes(b"123")
        descriptor = os.open(tmp_path / "file", flags)
        try:
            if is_fit:
                assert status_of(descriptor, writable=writable).st_size == 3
            else:
                with pytest.raises(RemoteProtocolError, match="cannot be"):
                    status_of(descriptor, writable=writable)
        finally:
            os.close(descriptor)
