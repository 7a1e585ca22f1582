"""Content to send, and the comparison of what arrived: byte by byte, with everything that a manifest keeps."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20


def make_file(path: Path, size: int, *, seed: int = 1) -> Path:
    """Write `size` bytes that no two MiB share, quickly: the same for the same seed."""
    block = bytearray(random.Random(seed).randbytes(MIB))
    with open(path, "wb", buffering=0) as file:
        for number in range(-(-size // MIB)):
            block[:8] = number.to_bytes(8, "big")
            file.write(memoryview(block)[: min(MIB, size - number * MIB)])
    return path


def differences(original: Path, copy: Path) -> list[str]:
    """How the copy differs from the original, in words; empty where it does not.

    Compared are names, kinds, bytes, executable bits, symlinks' targets and empty directories.
    """
    if not original.is_dir():
        return [*_difference(original, copy, original.name)]
    left, right = _tree(original), _tree(copy)
    found = [f"{name} is missing" for name in sorted(left - right)]
    found += [f"{name} is too many" for name in sorted(right - left)]
    for name in sorted(left & right):
        found += _difference(original / name, copy / name, name)
    return found


def allocated_bytes(path: Path) -> int:
    """How much of the disk a file takes."""
    return path.stat().st_blocks * 512


def _tree(root: Path) -> set[str]:
    """The relative paths of all that is below a directory."""
    found: set[str] = set()
    for directory, directories, files in os.walk(root):
        at = Path(directory).relative_to(root)
        found.update(str(at / name) for name in directories + files)
    return found


def _difference(original: Path, copy: Path, name: str) -> Iterator[str]:
    try:
        left, right = original.lstat(), copy.lstat()
    except FileNotFoundError:
        yield f"{name} is missing"
        return
    if stat.S_IFMT(left.st_mode) != stat.S_IFMT(right.st_mode):
        yield f"{name} is of another kind"
    elif stat.S_ISLNK(left.st_mode):
        if os.readlink(original) != os.readlink(copy):
            yield f"{name} points to {os.readlink(copy)}, not to {os.readlink(original)}"
    elif stat.S_ISREG(left.st_mode):
        if bool(left.st_mode & 0o100) != bool(right.st_mode & 0o100):
            yield f"{name} has another executable bit"
        if left.st_size != right.st_size:
            yield f"{name} has {right.st_size:,} bytes, not {left.st_size:,}"
        elif not _same_bytes(original, copy):
            yield f"{name} has other bytes"


def _same_bytes(original: Path, copy: Path) -> bool:
    with open(original, "rb") as left, open(copy, "rb") as right:
        while block := left.read(MIB):
            if right.read(len(block)) != block:
                return False
        return not right.read(1)
