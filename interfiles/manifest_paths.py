"""The rules that names, paths and symlink targets of a manifest obey.

Whoever creates a tree that passed them, below any directory of any file system, touches nothing outside that directory
and overwrites none of the tree's own entries: no path leads up or through a symlink, and no two names are one to a file
system that ignores case or Unicode form. Control characters are allowed in names; messages show them escaped.
"""

import unicodedata
from collections.abc import Iterable
from typing import Final

from interfiles.errors import InvalidManifest, printable

MAX_NAME_BYTES: Final = 255  # the longest name that Linux file systems take
MAX_PATH_BYTES: Final = 4096
MAX_TARGET_BYTES: Final = 4095  # PATH_MAX without its NUL: Linux makes no longer symlink
MAX_DEPTH: Final = 255  # levels: who walks the tree holds a descriptor a level
MAX_ENTRIES: Final = (
    1_000_000  # files, symlinks and directories, the implied ones too: each costs an inode where it lands
)

_MAX_QUOTED_CHARACTERS: Final = 200


def quoted(text: str) -> str:
    """The text as a message shows it: in quotes, escaped, cut when it is very long."""
    tail = "…" if len(text) > _MAX_QUOTED_CHARACTERS else ""
    return f"'{printable(text[:_MAX_QUOTED_CHARACTERS])}{tail}'"


def check_name(name: str) -> None:
    """Check the name of a file or directory as a whole: one component.

    Raises:
      InvalidManifest: it is not fit to be the last part of a path.
    """
    if "/" in name:
        raise InvalidManifest(f"name {quoted(name)} contains a slash")
    _check_components("name", name, [name], _utf8_length("name", name))


def check_path(path: str) -> None:
    """Check the path of an entry, relative to the root.

    Raises:
      InvalidManifest: it is absolute, leads elsewhere, or no file system could hold it.
    """
    if path.startswith("/"):
        raise InvalidManifest(f"path {quoted(path)} is absolute")
    length = _utf8_length("path", path)
    if length > MAX_PATH_BYTES:
        raise InvalidManifest(f"path {quoted(path)} has {length:,} bytes, at most {MAX_PATH_BYTES:,} are allowed")
    components = path.split("/")
    if len(components) > MAX_DEPTH:
        raise InvalidManifest(
            f"path {quoted(path)} is {len(components):,} levels deep, at most {MAX_DEPTH} are allowed"
        )
    _check_components("path", path, components, length)


def check_target(path: str, target: str) -> None:
    """Check where the symlink at `path` points to.

    Only leading `..` are allowed, and only up to the root. After a name, `..` would go up from wherever that name leads
    if it is a symlink itself; without that, following any chain of such symlinks stays below the root.

    Raises:
      InvalidManifest: it is absolute, could leave the tree, or cannot be a symlink's target.
    """
    what = f"target of symlink {quoted(path)}"
    length = _utf8_length(what, target)
    if not target:
        raise InvalidManifest(f"{what} is empty")
    if "\0" in target:
        raise InvalidManifest(f"{what} contains a NUL")
    if length > MAX_TARGET_BYTES:
        raise InvalidManifest(f"{what} has {length:,} bytes, at most {MAX_TARGET_BYTES:,} are allowed")
    if target.startswith("/"):
        raise InvalidManifest(f"symlink {quoted(path)} points to {quoted(target)}, an absolute path")
    levels_left, below_a_name = path.count("/"), False
    for component in target.split("/"):
        if component == "..":
            if below_a_name:
                raise InvalidManifest(f"symlink {quoted(path)} points to {quoted(target)}, with '..' after a name")
            levels_left -= 1
        elif component not in ("", "."):
            below_a_name = True
    if levels_left < 0:
        raise InvalidManifest(f"symlink {quoted(path)} points to {quoted(target)}, outside the tree")


def check_tree(paths: Iterable[str]) -> None:
    """Check that distinct, valid paths make one tree on every file system.

    Raises:
      InvalidManifest: two names in one directory differ only in case or Unicode form, an entry is also a directory of
        another, or there are more than `MAX_ENTRIES` files and directories.
    """
    # With the separator below every character, what shares a folded directory stands together and an entry right before
    # what lies in it, so that each fault shows between neighbours.
    folded = sorted((_fold(path).replace("/", "\0"), path) for path in paths)
    total = 0
    last: list[str] = []
    last_key: list[str] = []
    for key, path in folded:
        components, components_key = path.split("/"), key.split("\0")
        total += len(components) - _shared(last, last_key, components, components_key)
        last, last_key = components, components_key
    if total > MAX_ENTRIES:
        raise InvalidManifest(f"there are {total:,} files and directories, at most {MAX_ENTRIES:,} are allowed")


def _shared(last: list[str], last_key: list[str], components: list[str], key: list[str]) -> int:
    """How many directories a path shares with the one before."""
    for depth, (one, other) in enumerate(zip(last_key, key, strict=False)):
        if one != other:
            return depth
        if last[depth] != components[depth]:
            names = [quoted("/".join(path[: depth + 1])) for path in (last, components)]
            raise InvalidManifest(f"{names[0]} and {names[1]} differ only in case or Unicode form")
    if last:
        raise InvalidManifest(f"{quoted('/'.join(last))} is an entry, yet {quoted('/'.join(components))} lies in it")
    return 0


def _fold(path: str) -> str:
    """The path as a file system that ignores case and Unicode form sees it (Unicode's canonical caseless matching)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def _utf8_length(what: str, text: str) -> int:
    if text.isascii():
        return len(text)
    try:
        return len(text.encode())
    except UnicodeEncodeError as e:
        raise InvalidManifest(f"{what} {quoted(text)} is not valid UTF-8") from e


def _check_components(what: str, whole: str, components: list[str], length: int) -> None:
    if "\0" in whole:
        raise InvalidManifest(f"{what} {quoted(whole)} contains a NUL")
    if not whole:
        raise InvalidManifest(f"{what} is empty")
    for component in components:
        if component in ("", ".", ".."):
            fault = f"'{component}'" if component else "an empty component"
            raise InvalidManifest(f"{what} {quoted(whole)} contains {fault}")
        if length > MAX_NAME_BYTES and len(component.encode()) > MAX_NAME_BYTES:
            raise InvalidManifest(
                f"name {quoted(component)} has {len(component.encode()):,} bytes, at most {MAX_NAME_BYTES} are allowed"
            )
