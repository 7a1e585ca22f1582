"""The rules of names, paths, symlinks and trees: what a hostile manifest cannot say, and what an honest one can."""

import errno
import itertools
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from interfiles.errors import InvalidManifest
from interfiles.geometry import MIB
from interfiles.manifest import DirectoryEntry, FileEntry, Manifest, SymlinkEntry
from interfiles.manifest_paths import MAX_ENTRIES, check_name, check_path, check_target, check_tree, quoted
from tests.trees import directory, lines_executed

BOTH = "differ only in case or Unicode form"
COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a/b/c",
        "...",
        "..a/b..",
        ".hidden",
        "back\\slash",
        "C:",
        " ",
        "-rf",
        "two\nlines",
        "evil\x1b[2J",
        "文件/ملف/שם/🗂",
        DECOMPOSED,
        "x" * 255,
        "é" * 127,
        "/".join(["x" * 255] * 16),
        "/".join(["x" * 255] * 15 + ["x" * 127, "y" * 128]),
        "/".join("d" * 255),
    ],
)
def test_paths_that_are_fine(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "path is empty"),
        ("/", "path '/' is absolute"),
        ("/etc/passwd", "path '/etc/passwd' is absolute"),
        ("..", "path '..' contains '..'"),
        ("../x", "path '../x' contains '..'"),
        ("a/../../x", "path 'a/../../x' contains '..'"),
        ("a/..", "path 'a/..' contains '..'"),
        (".", "path '.' contains '.'"),
        ("a/./b", "path 'a/./b' contains '.'"),
        ("a//b", "path 'a//b' contains an empty component"),
        ("a/", "path 'a/' contains an empty component"),
        ("a\0b", "path 'a\\x00b' contains a NUL"),
        ("\0", "path '\\x00' contains a NUL"),
        ("a\ud800", "path 'a\\ud800' is not valid UTF-8"),
        ("x" * 256, f"name '{'x' * 200}…' has 256 bytes, at most 255 are allowed"),
        ("a/" + "é" * 128, f"name '{'é' * 128}' has 256 bytes, at most 255 are allowed"),
        ("/".join(["x" * 255] * 16) + "/y", f"path '{'x' * 200}…' has 4,097 bytes, at most 4,096 are allowed"),
        ("/".join("d" * 256), f"path '{'d/' * 100}…' is 256 levels deep, at most 255 are allowed"),
        ("evil\x1b[2J/..", "path 'evil\\x1b[2J/..' contains '..'"),
    ],
)
def test_paths_that_are_refused(path: str, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        check_path(path)
    assert str(caught.value) == reason


def test_the_longest_path_has_4096_bytes() -> None:
    longest = "/".join(["x" * 255] * 15 + ["y" * 127, "z" * 128])
    assert len(longest) == 4096
    check_path(longest)
    with pytest.raises(InvalidManifest, match="has 4,097 bytes"):
        check_path(longest + "z")


@pytest.mark.parametrize("name", ["weights", "back\\slash", "...", "x" * 255, "模型", "a\x1bb"])
def test_names_that_are_fine(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "name is empty"),
        (".", "name '.' contains '.'"),
        ("..", "name '..' contains '..'"),
        ("a/b", "name 'a/b' contains a slash"),
        ("/", "name '/' contains a slash"),
        ("a\0", "name 'a\\x00' contains a NUL"),
        ("\udc80", "name '\\udc80' is not valid UTF-8"),
        ("x" * 256, f"name '{'x' * 200}…' has 256 bytes, at most 255 are allowed"),
        ("é" * 128, f"name '{'é' * 128}' has 256 bytes, at most 255 are allowed"),
    ],
)
def test_names_that_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        check_name(name)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("link", "file"),
        ("link", "."),
        ("link", "./a//b/"),
        ("a/link", ".."),
        ("a/link", "../b"),
        ("a/b/link", "../../c"),
        ("a/b/link", "./../c/d"),
        ("link", "..."),
        ("link", "back\\slash/文件"),
        ("link", "t" * 4095),
    ],
)
def test_symlinks_that_stay_inside(path: str, target: str) -> None:
    check_target(path, target)


@pytest.mark.parametrize(
    ("path", "target", "reason"),
    [
        ("link", "", "target of symlink 'link' is empty"),
        ("link", "/etc/passwd", "symlink 'link' points to '/etc/passwd', an absolute path"),
        ("link", "..", "symlink 'link' points to '..', outside the tree"),
        ("link", "../tree/a", "symlink 'link' points to '../tree/a', outside the tree"),
        ("a/link", "../../x", "symlink 'a/link' points to '../../x', outside the tree"),
        ("a/link", ".././../x", "symlink 'a/link' points to '.././../x', outside the tree"),
        ("a/link", "b/..", "symlink 'a/link' points to 'b/..', with '..' after a name"),
        ("a/b/link", "../c/../d", "symlink 'a/b/link' points to '../c/../d', with '..' after a name"),
        ("link", "a\0b", "target of symlink 'link' contains a NUL"),
        ("link", "a\udc80", "target of symlink 'link' 'a\\udc80' is not valid UTF-8"),
        ("link", "t" * 4096, "target of symlink 'link' has 4,096 bytes, at most 4,095 are allowed"),
        ("e\x1b", "/\x1b", "symlink 'e\\x1b' points to '/\\x1b', an absolute path"),
    ],
)
def test_symlinks_that_are_refused(path: str, target: str, reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        check_target(path, target)
    assert str(caught.value) == reason


COMPONENTS = st.sampled_from(["a", "b", "A", "..", ".", ""])
SHORT_PATHS = st.lists(st.sampled_from("abA"), min_size=1, max_size=4).map("/".join)


def valid_part(links: dict[str, str]) -> dict[str, str]:
    """As many of the symlinks as a manifest takes together."""
    kept: dict[str, str] = {}
    for path, target in links.items():
        try:
            directory(*[SymlinkEntry(*link) for link in [*kept.items(), (path, target)]])
        except InvalidManifest:
            continue
        kept[path] = target
    return kept


@settings(max_examples=200)
@example({"a/a": "..", "a/b": "a/.."})
@given(st.dictionaries(SHORT_PATHS, st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join), max_size=8))
def test_on_a_real_file_system_no_symlink_of_a_valid_tree_leads_outside(links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch).resolve() / "tree"
        places = {root / path: target for path, target in valid_part(links).items()}
        for place, target in places.items():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(target, place)
        for place in places:
            if not leads_in_a_circle(place):
                assert Path(os.path.realpath(place)).is_relative_to(root)


def leads_in_a_circle(place: Path) -> bool:
    """Whether the system gives up on a symlink; `realpath` of such a one can be anything."""
    try:
        place.stat()
    except OSError as e:
        return e.errno == errno.ELOOP
    return False


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        (["A", "a"], f"'A' and 'a' {BOTH}"),
        (["a/B", "a/b"], f"'a/B' and 'a/b' {BOTH}"),
        (["A/x", "a/y"], f"'A' and 'a' {BOTH}"),
        (["A", "a/y"], f"'A' and 'a' {BOTH}"),
        (["d/E/x/1", "d/e/y/2"], f"'d/E' and 'd/e' {BOTH}"),
        ([COMPOSED, DECOMPOSED], f"'{DECOMPOSED}' and '{COMPOSED}' {BOTH}"),
        ([f"{COMPOSED}/1", f"{DECOMPOSED}/2"], f"'{COMPOSED}' and '{DECOMPOSED}' {BOTH}"),
        (["CAF\u00c9", DECOMPOSED], f"'CAF\u00c9' and '{DECOMPOSED}' {BOTH}"),
        (["STRASSE", "straße"], f"'STRASSE' and 'straße' {BOTH}"),
        (["Σ", "ς"], f"'Σ' and 'ς' {BOTH}"),
        (["\u212a", "k"], f"'k' and '\u212a' {BOTH}"),
        (["\u01f0", "J\u030c"], f"'J\u030c' and '\u01f0' {BOTH}"),
        (["a", "a/b"], "'a' is an entry, yet 'a/b' lies in it"),
        (["a", "a-b", "a.b", "a/b"], "'a' is an entry, yet 'a/b' lies in it"),
        (["a/b", "a/b/c/d"], "'a/b' is an entry, yet 'a/b/c/d' lies in it"),
        (["\x1b", "\x1b/b"], "'\\x1b' is an entry, yet '\\x1b/b' lies in it"),
    ],
)
def test_trees_that_are_refused(paths: list[str], reason: str) -> None:
    for order in itertools.permutations(paths):
        with pytest.raises(InvalidManifest) as caught:
            check_tree(order)
        assert str(caught.value) == reason


@pytest.mark.parametrize(
    "paths",
    [
        [],
        ["a", "b"],
        ["a/x", "b/X"],
        ["a/b", "a-b", "a.b", "ab"],
        ["x/a", "x/b/c", "x/b/d", "y"],
        ["e", "é", "ê"],
        ["i", "ı"],
        ["1", "１"],
    ],
)
def test_trees_that_are_fine(paths: list[str]) -> None:
    check_tree(paths)


ALIKE = {"a": 0, "A": 0, COMPOSED: 1, DECOMPOSED: 1, "-": 2, "é": 3}


@settings(max_examples=500)
@given(st.sets(st.lists(st.sampled_from(list(ALIKE)), min_size=1, max_size=3).map("/".join), max_size=5))
def test_a_tree_is_refused_exactly_when_two_of_its_paths_clash(paths: set[str]) -> None:
    def clash(one: str, other: str) -> bool:
        pairs = list(zip(one.split("/"), other.split("/"), strict=False))
        for a, b in pairs:
            if a != b:
                return ALIKE[a] == ALIKE[b]
        return True  # one lies in the other

    if any(clash(one, other) for one, other in itertools.combinations(paths, 2)):
        with pytest.raises(InvalidManifest):
            check_tree(paths)
    else:
        check_tree(paths)


def test_implied_directories_count_towards_the_limit() -> None:
    levels = 250
    paths = ["/".join([f"{n}"] + ["d"] * (levels - 1)) for n in range(MAX_ENTRIES // levels)]
    check_tree(paths)
    with pytest.raises(InvalidManifest, match="there are 1,000,001 files and directories, at most 1,000,000 are allow"):
        check_tree([*paths, "one more"])


def test_ten_times_the_paths_are_ten_times_the_work() -> None:
    few, many = (
        lines_executed(lambda paths=[f"d{n % 31}/e/{n}" for n in range(count)]: check_tree(paths))  # type: ignore[misc]
        for count in (1_000, 10_000)
    )
    assert many < 11 * few
    assert many < 50 * 10_000


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([FileEntry("../x", 0, False)], "path '../x' contains '..'"),
        ([DirectoryEntry("/x")], "path '/x' is absolute"),
        ([SymlinkEntry("a/link", "../../x")], "symlink 'a/link' points to '../../x', outside the tree"),
        ([SymlinkEntry("a", "b"), FileEntry("a/x", 0, False)], "'a' is an entry, yet 'a/x' lies in it"),
        ([FileEntry("a", 0, False), FileEntry("a/x", 0, False)], "'a' is an entry, yet 'a/x' lies in it"),
        ([DirectoryEntry("a"), FileEntry("a/x", 0, False)], "'a' is an entry, yet 'a/x' lies in it"),
        ([FileEntry("A", 0, False), SymlinkEntry("a", "b")], f"'A' and 'a' {BOTH}"),
    ],
)
def test_a_manifest_keeps_the_rules(entries: list[FileEntry], reason: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        Manifest.build("tree", True, entries, MIB, b"")
    assert str(caught.value) == reason


def test_messages_quote_no_more_than_a_line() -> None:
    assert quoted("a\x1b") == "'a\\x1b'"
    assert quoted("x" * 200) == f"'{'x' * 200}'"
    assert quoted("x" * 201) == f"'{'x' * 200}…'"
