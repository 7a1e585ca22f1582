"""The structure of a part: its files at their full size, space reserved, in directories that nobody else may enter."""

import errno
import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from interfiles.errors import DestinationExists, NoSpace, PathNotFound, printable
from interfiles.manifest import DirectoryEntry, FileEntry, Manifest
from interfiles.piece_set import PieceSet
from interfiles.storage.failures import GONE, failure
from interfiles.storage.places import Place, open_place
from interfiles.storage.system import fallocate
from interfiles.storage.tree import Tree, Walk, open_below, open_directory_below, parent_below, remove_below
from interfiles.units import format_bytes, format_count

_CANNOT_RESERVE: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_IN_THE_WAY: Final = GONE - {errno.ENOENT, errno.ESTALE} | {errno.EEXIST}

# What stat counts `st_blocks` in, whatever the file system's own blocks are.
STAT_BLOCK_BYTES: Final = 512

_Ranges = dict[int, list[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Layout:
    """A part in its full structure; `anchor` is its tree's, open for the taker to close.

    `blank`: pieces that lie in files just made, so they are zeros; `intact`: pieces that lie in files found whole, so
    what was recorded of them holds.
    """

    anchor: int
    blank: PieceSet
    intact: PieceSet


def lay_out(part: Path, manifest: Manifest, *, is_new: bool, place: Place | None = None) -> Layout:
    """Make a part, or what is missing of one; `PartStore.create` and `open` tell what is raised."""
    try:
        parent = open_place(part.parent, place)
    except (FileNotFoundError, NotADirectoryError) as e:
        shown = printable(str(part.parent))
        raise PathNotFound(f"{shown} is no directory; make it, or choose another place") from e
    except OSError as e:
        raise failure(e, part.parent, "written") from e
    try:
        return _lay_out(parent, Tree(part, manifest), is_new)
    except OSError as e:
        if e.errno in _IN_THE_WAY:
            raise in_the_way(part) from e
        raise failure(e, part.parent, "written") from e
    finally:
        os.close(parent)


def directories(manifest: Manifest) -> list[str]:
    """The path of every directory of a manifest, each after the one that it is in; the root is not among them."""
    found = {entry.path for entry in manifest.entries if isinstance(entry, DirectoryEntry)}
    for entry in manifest.entries:
        above = entry.path.rpartition("/")[0]
        while above and above not in found:
            found.add(above)
            above = above.rpartition("/")[0]
    return sorted(found)


def make_directories(anchor: int, manifest: Manifest) -> None:
    """Make every directory of a manifest, those that are there already excepted.

    Raises:
      OSError: one cannot be made.
    """
    for path in directories(manifest):
        with parent_below(anchor, path.encode()) as (directory, name):
            try:
                os.mkdir(name, 0o700, dir_fd=directory)
            except FileExistsError:  # if it is no directory, whatever is made in it will tell
                pass


def mode_of(entry: FileEntry) -> int:
    """The usual mode of a file, from which the owner's mask is still to be taken off."""
    return 0o755 if entry.executable else 0o644


def check_space(directory: int, path: Path, name: str, *, needed_bytes: int, needed_files: int) -> None:
    """Check that the file system of an open directory, at `path`, has room.

    Raises:
      NoSpace: it has not.
    """
    system = os.fstatvfs(directory)
    free_bytes, free_files = system.f_bavail * system.f_frsize, system.f_favail
    where, what = printable(str(path)), printable(name)
    if needed_bytes > free_bytes:
        raise NoSpace(f"{where} has {format_bytes(free_bytes)} free, {what} needs {format_bytes(needed_bytes)}")
    if system.f_files and needed_files > free_files:  # some file systems do not count files
        raise NoSpace(f"{where} has room for {format_count(free_files, 'file')}, {what} needs {needed_files:,}")


def _lay_out(parent: int, tree: Tree, is_new: bool) -> Layout:
    found = _survey(tree)
    reserved = _ranges_to_reserve(tree.manifest)
    _check_space(parent, tree, found, reserved)
    anchor = _make_root(parent, tree, is_new)
    try:
        make_directories(anchor, tree.manifest)
        _make_files(anchor, tree, reserved)
    except BaseException:
        os.close(anchor)
        if is_new:
            with suppress(OSError):
                remove_below(parent, os.fsencode(tree.root.name))
        raise
    return _layout(anchor, tree.manifest, found)


def _survey(tree: Tree) -> list[os.stat_result | None]:
    """What is at each file's path, None where nothing is."""
    found: list[os.stat_result | None] = []
    if not os.path.lexists(tree.root):
        return [None] * len(tree.manifest.files)
    with tree.walking() as walk:
        for index in range(len(tree.manifest.files)):
            try:
                found.append(walk.status(index))
            except FileNotFoundError:
                found.append(None)
    return found


def _ranges_to_reserve(manifest: Manifest) -> _Ranges:
    """Of each file, the (offset, length) in bytes that will be written: all but the pieces of zeros."""
    written = manifest.zero_pieces().complement()
    geometry, ranges = manifest.geometry, _Ranges()
    for _, run in groupby(enumerate(written), key=lambda numbered: numbered[1] - numbered[0]):
        pieces = [piece for _, piece in run]
        start = geometry.piece_offset(pieces[0])
        end = geometry.piece_offset(pieces[-1]) + geometry.piece_length(pieces[-1])
        for index, offset, length in manifest.spans(start, end - start):
            ranges.setdefault(index, []).append((offset, length))
    return ranges


def _check_space(parent: int, tree: Tree, found: list[os.stat_result | None], reserved: _Ranges) -> None:
    block = os.fstatvfs(parent).f_frsize
    needed = 0
    for index, ranges in reserved.items():
        status = found[index]
        there = status.st_blocks * STAT_BLOCK_BYTES if status is not None else 0
        needed += max(0, sum(-(-length // block) * block for _, length in ranges) - there)
    check_space(
        parent, tree.root.parent, tree.manifest.name, needed_bytes=needed, needed_files=sum(s is None for s in found)
    )


def _make_root(parent: int, tree: Tree, is_new: bool) -> int:
    """Make the directory, or the single file empty, and return the tree's anchor."""
    name = os.fsencode(tree.root.name)
    if not tree.manifest.is_directory:
        descriptor = open_below(parent, name, os.O_RDWR | os.O_CREAT | (os.O_EXCL if is_new else 0))
        try:
            if not is_new:
                _refuse_foreign(parent, descriptor, tree.root)
        finally:
            os.close(descriptor)
        return os.dup(parent)
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if is_new:
            raise
    anchor = open_directory_below(parent, name)
    try:
        if not is_new:
            _refuse_foreign(parent, anchor, tree.root)
    except BaseException:
        os.close(anchor)
        raise
    return anchor


def _refuse_foreign(parent: int, descriptor: int, path: Path) -> None:
    """Refuse a part that another user has laid out for us, in /tmp for example, to read or redirect what we write.

    Where others cannot have done that, the owner may be another because the file system says so (NFS, FAT).
    """
    is_shared = os.fstat(parent).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    if is_shared and os.fstat(descriptor).st_uid != os.geteuid():
        raise in_the_way(path)


def _make_files(anchor: int, tree: Tree, reserved: _Ranges) -> None:
    with replace(tree, held=anchor).walking() as walk:
        _make_each(tree, walk, reserved)


def _make_each(tree: Tree, walk: Walk, reserved: _Ranges) -> None:
    can_reserve = True
    for index, file in enumerate(tree.manifest.files):
        # Most files have their mode from the start: nobody else can look into a part's directory, but at a lone file.
        mode = mode_of(file.entry) if tree.manifest.is_directory else 0o600
        descriptor = walk.make(index, os.O_RDWR | os.O_CREAT, mode)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:  # a second link is somebody's own file
                raise in_the_way(tree.path(index))
            size, ranges = status.st_size, reserved.get(index, ())
            # Reserved before? Once more, and tmpfs would turn it all from a hole into zeros to be hashed.
            if status.st_blocks * STAT_BLOCK_BYTES < sum(length for _, length in ranges):
                for offset, length in ranges:
                    can_reserve = can_reserve and _reserve(descriptor, offset, length)
                    size = max(size, offset + length) if can_reserve else size
            if size != file.entry.size:
                os.ftruncate(descriptor, file.entry.size)
        finally:
            os.close(descriptor)


def _reserve(descriptor: int, offset: int, length: int) -> bool:
    try:
        fallocate(descriptor, offset, length)
    except OSError as e:
        if e.errno not in _CANNOT_RESERVE:
            raise
        return False
    return True


def _layout(anchor: int, manifest: Manifest, found: list[os.stat_result | None]) -> Layout:
    made, damaged = PieceSet(manifest.piece_count), PieceSet(manifest.piece_count)
    kept = PieceSet(manifest.piece_count)
    for file, status in zip(manifest.files, found, strict=True):
        if not file.entry.size:
            continue
        first, last = file.offset // manifest.piece_size, (file.offset + file.entry.size - 1) // manifest.piece_size
        pieces = ((1 << (last - first + 1)) - 1) << first
        if status is None:
            made.bits |= pieces
        elif status.st_size != file.entry.size:
            damaged.bits |= pieces
        else:
            kept.bits |= pieces
    blank = PieceSet(manifest.piece_count, made.bits & ~damaged.bits & ~kept.bits)
    intact = PieceSet(manifest.piece_count, kept.bits & ~damaged.bits & ~made.bits)
    return Layout(anchor, blank, intact)


def in_the_way(path: Path) -> DestinationExists:
    """The error for what is no part of ours and has a part's name."""
    return DestinationExists(f"{printable(str(path))} is in the way; remove it, or choose another place")
