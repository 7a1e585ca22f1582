"""A directory that a caller has shown to be theirs is told again, and nothing that takes its place is."""

import os
from pathlib import Path

import pytest

from interfiles.errors import NotPermitted
from interfiles.storage.places import Place, open_place
from interfiles.storage.tree import open_strictly


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = Path(os.path.realpath(tmp_path)) / "a" / "b"
    made.mkdir(parents=True)
    return made


def opened(path: Path, place: Place | None) -> None:
    os.close(open_place(path, place))


def test_the_place_is_found_again_and_without_one_symlinks_are_followed(directory: Path, tmp_path: Path) -> None:
    place = Place.of(directory.stat())
    assert Place.decode(place.encode()) == place
    assert Place.decode(Place(2**64 - 1, 2**64 - 1).encode()).inode == 2**64 - 1
    opened(directory, place)
    link = tmp_path / "link"
    link.symlink_to(directory)
    opened(link, None)
    with pytest.raises(NotPermitted, match="is not the directory any more that the download was begun in"):
        opened(link, place)


@pytest.mark.parametrize("swapped", ["removed", "another", "symlink", "symlink above", "file"])
def test_what_takes_its_place_is_refused(directory: Path, swapped: str) -> None:
    place = Place.of(directory.stat())
    aside = directory.with_name("aside")
    match swapped:
        case "removed":
            directory.rename(aside)
        case "another":
            directory.rename(aside)
            directory.mkdir()
        case "symlink":
            directory.rename(aside)
            directory.symlink_to(aside)
        case "symlink above":
            above = directory.parent
            above.rename(above.with_name("elsewhere"))
            above.symlink_to("elsewhere")
        case _:
            directory.rename(aside)
            directory.touch()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotPermitted, match="put that one back"):
        opened(directory, place)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_strict_path_has_no_symlink_anywhere(directory: Path) -> None:
    os.close(open_strictly(directory))
    directory.parent.with_name("link").symlink_to(directory.parent)
    with pytest.raises(NotADirectoryError):
        open_strictly(directory.parent.with_name("link") / "b")
