"""Manifests for tests: from a few words, or drawn by hypothesis; and how much work a call is."""

import gc
import sys
import tracemalloc
from collections.abc import Callable
from types import FrameType
from typing import Any

from blake3 import blake3
from hypothesis import strategies as st

from interfiles.errors import InvalidManifest
from interfiles.geometry import MIN_PIECE_BYTES, Geometry, choose_piece_size
from interfiles.manifest import DirectoryEntry, Entry, FileEntry, Manifest, SymlinkEntry
from interfiles.manifest_paths import check_path, check_tree


def some_hashes(count: int) -> bytes:
    """A piece table of `count` hashes that all differ."""
    return b"".join(blake3(piece.to_bytes(4, "big")).digest() for piece in range(count))


def directory(*entries: Entry, name: str = "tree", piece_size: int | None = None) -> Manifest:
    """A directory of these entries, in any order."""
    size = sum(entry.size for entry in entries if isinstance(entry, FileEntry))
    piece_size = piece_size or choose_piece_size(size)
    hashes = some_hashes(Geometry(size, piece_size).piece_count)
    return Manifest.build(name, True, sorted(entries, key=lambda entry: entry.path), piece_size, hashes)


def single_file(name: str, size: int) -> Manifest:
    geometry = Geometry(size, choose_piece_size(size))
    entries = [FileEntry(name, size, False)]
    return Manifest.build(name, False, entries, geometry.piece_size, some_hashes(geometry.piece_count))


def many_files(count: int) -> Manifest:
    return directory(*[FileEntry(f"part-{n % 97}/sub{n % 7}/file_{n}.py", 1000 + n, False) for n in range(count)])


_LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/\0")
names = st.text(_LETTERS, min_size=1, max_size=20).filter(lambda name: name not in (".", ".."))


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any valid manifest of a few entries, with names in any script."""
    name = draw(names)
    size_of_file = st.integers(0, 3 * MIN_PIECE_BYTES)
    if draw(st.booleans()):
        return single_file(name, draw(size_of_file))
    paths: list[str] = []
    for path in draw(st.lists(st.lists(names, min_size=1, max_size=4).map("/".join), max_size=8)):
        if _is_tree([*paths, path]):
            paths.append(path)
    entries: list[Entry] = []
    for path in paths:
        kind = draw(st.sampled_from("fds"))
        if kind == "f":
            entries.append(FileEntry(path, draw(size_of_file), draw(st.booleans())))
        elif kind == "d":
            entries.append(DirectoryEntry(path))
        else:
            up = "../" * draw(st.integers(0, path.count("/")))
            entries.append(SymlinkEntry(path, up + draw(names)))
    return directory(*entries, name=name)


def _is_tree(paths: list[str]) -> bool:
    try:
        for path in paths:
            check_path(path)
        check_tree(paths)
    except InvalidManifest:
        return False
    return len(set(paths)) == len(paths)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most memory that Python and msgpack held at once during a call, in bytes."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def lines_executed(call: Callable[[], object]) -> int:
    """How many lines of Python a call runs: its work, whatever the machine does beside.

    The garbage collector waits meanwhile: it calls others back in Python, as a library of tests has it do.
    """
    lines = 0

    def trace(_frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before, collects = sys.gettrace(), gc.isenabled()
    gc.disable()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
        if collects:
            gc.enable()
    return lines
