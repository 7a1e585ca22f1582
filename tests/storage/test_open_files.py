"""Descriptors: bounded in number, shared, and never closed under whoever uses one."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from interfiles.storage.open_files import OpenFiles
from tests.storage.contents import no_leaks, open_descriptors


@pytest.fixture
def opener(tmp_path: Path) -> Callable[[int], Callable[[], int]]:
    """Opens the file that holds a number as text."""

    def of(number: int) -> Callable[[], int]:
        path = tmp_path / str(number)
        path.write_text(str(number))
        return lambda: os.open(path, os.O_RDONLY)

    return of


def read(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode()


def not_needed() -> int:
    raise AssertionError("opened again")


@contextmanager
def lent(files: OpenFiles, owner: str, index: int, open_file: Callable[[], int]) -> Iterator[int]:
    file = files.borrow(owner, index, lambda _index: open_file())
    try:
        yield file.descriptor
    finally:
        files.give_back(file)


def test_a_file_is_opened_once(opener: Callable[[int], Callable[[], int]]) -> None:
    files = OpenFiles(2)
    with no_leaks():
        with lent(files, "a", 0, opener(0)) as first:
            with lent(files, "a", 0, not_needed) as second:
                assert first == second
        with lent(files, "a", 0, not_needed) as later:
            assert read(later) == "0"
        files.forget("a")


def test_only_so_many_stay_open(opener: Callable[[int], Callable[[], int]]) -> None:
    files = OpenFiles(3)
    before = open_descriptors()
    for number in range(10):
        with lent(files, "a", number, opener(number)):
            pass
    assert len(files) == 3
    assert open_descriptors() == before + 3
    with lent(files, "a", 7, not_needed):  # the last three: 7, 8, 9
        pass
    with lent(files, "a", 10, opener(10)):  # so 8 was used the longest time ago
        pass
    with lent(files, "a", 7, not_needed), lent(files, "a", 9, not_needed):
        pass
    files.forget("a")
    assert open_descriptors() == before


def test_a_lent_file_outlives_its_eviction(opener: Callable[[int], Callable[[], int]]) -> None:
    files = OpenFiles(1)
    with no_leaks():
        with ExitStack() as stack:
            descriptors = [stack.enter_context(lent(files, "a", number, opener(number))) for number in range(5)]
            assert [read(descriptor) for descriptor in descriptors] == ["0", "1", "2", "3", "4"]
        assert len(files) == 1
        files.forget("a")


def test_a_lent_file_outlives_its_owner(opener: Callable[[int], Callable[[], int]]) -> None:
    files = OpenFiles(4)
    with no_leaks():
        with lent(files, "a", 0, opener(0)) as descriptor, lent(files, "b", 0, opener(1)) as other:
            files.forget("a")
            assert read(descriptor) == "0"
            with lent(files, "a", 0, opener(2)) as again:
                assert (read(descriptor), read(again), read(other)) == ("0", "2", "1")
        with lent(files, "b", 0, not_needed):
            pass
        files.forget("a")
        files.forget("b")


def test_when_two_open_the_same_file_one_descriptor_stays(opener: Callable[[int], Callable[[], int]]) -> None:
    files = OpenFiles(4)
    faster = ExitStack()

    def slow() -> int:
        faster.enter_context(lent(files, "a", 0, opener(0)))
        return opener(0)()

    with no_leaks():
        with lent(files, "a", 0, slow) as descriptor:
            faster.close()
            assert read(descriptor) == "0"
        files.forget("a")


def test_a_file_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    files = OpenFiles(4)
    with pytest.raises(FileNotFoundError):
        with lent(files, "a", 0, lambda: os.open(tmp_path / "none", os.O_RDONLY)):
            pass
    assert len(files) == 0


def test_threads_share_it(opener: Callable[[int], Callable[[], int]]) -> None:
    files, wrong = OpenFiles(3), []
    openers = [opener(number) for number in range(8)]

    def work(start: int) -> None:
        for turn in range(300):
            number = (start + turn * 5) % 8
            with lent(files, "a", number, openers[number]) as descriptor:
                if read(descriptor) != str(number):
                    wrong.append(number)
            if turn % 50 == 0:
                files.forget("a")

    with no_leaks():
        threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong
        files.forget("a")
