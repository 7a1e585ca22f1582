"""Real contents on a real disk for the tests of the store."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from interfiles.geometry import MIN_PIECE_BYTES, Geometry
from interfiles.manifest import Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage.hashing import DiskContent, draft_manifest, hash_range
from interfiles.storage.open_files import OpenFiles
from interfiles.storage.part_store import PartStore
from interfiles.storage.scan import Scan, Stamp, scan
from interfiles.storage.seed_store import SeedStore

PIECE = MIN_PIECE_BYTES


def never() -> bool:
    return False


def ignore(_bytes_done: int) -> None:
    pass


def noise(length: int, seed: int = 0) -> bytes:
    """Bytes that do not repeat."""
    return random.Random(seed).randbytes(length)


@dataclass(frozen=True)
class Content:
    """A content that was uploaded. `data`: all its bytes."""

    root: Path
    manifest: Manifest
    scanned: Scan
    data: bytes

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        return self.scanned.stamps

    def seed(self, files: OpenFiles) -> SeedStore:
        return SeedStore(self.root, self.manifest, self.stamps, files)

    def piece(self, piece: int) -> bytes:
        size = self.manifest.piece_size
        return self.data[piece * size : (piece + 1) * size]

    @property
    def all_pieces(self) -> PieceSet:
        return PieceSet.full(self.manifest.piece_count)

    def pieces(self, *pieces: int) -> PieceSet:
        return PieceSet.of(self.manifest.piece_count, pieces)


def make_tree(
    root: Path,
    files: Mapping[str, bytes],
    *,
    executable: tuple[str, ...] = (),
    links: Mapping[str, str] | None = None,
    empty: tuple[str, ...] = (),
) -> None:
    """Create a directory with these files, symlinks (path: target) and empty directories."""
    root.mkdir(parents=True)
    for path, data in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        target.chmod(0o755 if path in executable else 0o644)
    for path in empty:
        (root / path).mkdir(parents=True)
    for path, link_target in (links or {}).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).symlink_to(link_target)


def uploaded(root: Path, *, piece_size: int = PIECE) -> Content:
    """Hash what is at `root`."""
    scanned = scan(root, cancelled=never)
    draft = draft_manifest(scanned, piece_size)
    count = Geometry(scanned.size, piece_size).piece_count
    content = DiskContent(scanned.root, draft, scanned.stamps)
    hashes = hash_range(content, 0, count, progress=ignore, cancelled=never)
    manifest = Manifest(scanned.name, scanned.is_directory, scanned.entries, piece_size, hashes)
    paths = [root / file.entry.path if scanned.is_directory else root for file in manifest.files]
    return Content(root, manifest, scanned, b"".join(path.read_bytes() for path in paths))


def a_tree(root: Path) -> Content:
    """A directory with a bit of everything, in five pieces."""
    files = {
        "a/large": noise(PIECE * 2 + 1000, 1),
        "a/deep/er/small": b"small",
        "b.sh": noise(5000, 2),
        "empty": b"",
        "zeros": bytes(PIECE * 2),
        "日本/ü": noise(1000, 3),
    }
    make_tree(root, files, executable=("b.sh",), links={"a/link": "../b.sh", "l/i/nk": "x"}, empty=("e/mpty",))
    return uploaded(root)


def a_file(path: Path, *, size: int = PIECE * 3 + 10, seed: int = 7) -> Content:
    """A single file in four pieces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(noise(size, seed))
    return uploaded(path)


def fetch(store: PartStore, content: Content, pieces: PieceSet | None = None) -> None:
    """Write pieces, by default all that the part does not hold yet."""
    for piece in store.held.complement() if pieces is None else pieces:
        store.write(piece * content.manifest.piece_size, memoryview(content.piece(piece)))


def checked(store: PartStore | SeedStore, pieces: PieceSet) -> PieceSet:
    return store.check(pieces, progress=ignore, cancelled=never)


def tree_of(root: Path) -> dict[str, object]:
    """All that is at `root`, by path: a file's bytes and executable bit, a symlink's target, None for a directory."""
    if root.is_symlink() or not root.is_dir():
        return {"": _what(root)}
    return {str(path.relative_to(root)): _what(path) for path in sorted(root.rglob("*"))}


def _what(path: Path) -> object:
    if path.is_symlink():
        return os.readlink(path)
    return None if path.is_dir() else (path.read_bytes(), bool(path.stat().st_mode & 0o100))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@contextmanager
def no_leaks() -> Iterator[None]:
    """Fail if a descriptor more is open in the end; what tests before this one left to the collector may close."""
    before = _opened()
    yield
    assert _opened() - before == set()


def _opened() -> set[tuple[str, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


class Failing:
    """Makes calls of the operating system fail, those that `when` picks by their arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(
        self, name: str, number: int, *, when: Callable[..., bool] = lambda *_a, **_k: True, module: object = os
    ) -> None:
        """`os.<name>` raises OSError with `number` from now on."""
        real = getattr(module, name)

        def failing(*args: object, **kwargs: object) -> object:
            if when(*args, **kwargs):
                raise OSError(number, os.strerror(number))
            return real(*args, **kwargs)

        self._monkeypatch.setattr(module, name, failing)


def path_of(descriptor: object) -> str:
    """What an open descriptor is called now."""
    return os.readlink(f"/proc/self/fd/{descriptor}")
