"""Members of the socket's group that say they may write where they may not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.errors import (
    InterFilesError,
    NotPermitted,
    RemoteProtocolError,
)
from interfiles.wire import control_messages as c
from tests.e2e.content import MIB
from tests.e2e.members import ANNA, BERT, Users, put_together, shared_daemon
from tests.e2e.raw_callers import calling, hear, leaving_nothing, run, say

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with shared_daemon() as made:
        put_together(made.homes[ANNA] / "file", ANNA)
        made.content = made.publish("wanted", MIB)
        yield made


@pytest.fixture(autouse=True)
def leaves_nothing(users: Users) -> Iterator[None]:
    with leaving_nothing(users):
        yield


class Places:
    """What a member may say that it has opened and made; each kind of nonsense is a method's name."""

    def __init__(self, users: Users) -> None:
        self.home = users.homes[ANNA]
        self.roots = users.fleet.directory / "roots"
        self.roots.mkdir(exist_ok=True)
        self.before = set(os.listdir(self.home))
        self.name = ""

    def path_of(self, kind: str) -> Path:
        """The directory that is asked for."""
        if kind == "through_a_symlink":
            (self.home / "link").symlink_to(".")
            return self.home / "link"
        return self.roots if kind in ("file_elsewhere", "another_path") else self.home

    def clean(self) -> None:
        for name in set(os.listdir(self.home)) - self.before:
            (self.home / name).unlink()

    def directory(self, flags: int = os.O_RDONLY) -> int:
        return os.open(self.home, flags | os.O_DIRECTORY)

    def made(self, flags: int = os.O_WRONLY, *, name: str = "", uid: int = ANNA) -> int:
        path = self.home / (name or self.name)
        descriptor = os.open(path, flags | os.O_CREAT, 0o600)
        os.chown(path, uid, uid)
        return descriptor

    def nothing(self) -> list[int]:
        return []

    def no_file(self) -> list[int]:
        return [self.directory()]

    def three(self) -> list[int]:
        return [self.directory(), self.made(), os.open(self.home / "file", os.O_RDONLY)]

    def file_for_directory(self) -> list[int]:
        return [os.open(self.home / "file", os.O_RDONLY), self.made()]

    def directory_for_file(self) -> list[int]:
        return [self.directory(), self.directory()]

    def directory_for_a_path(self) -> list[int]:
        return [self.directory(os.O_PATH), self.made()]

    def file_for_reading(self) -> list[int]:
        os.close(self.made())
        return [self.directory(), os.open(self.home / self.name, os.O_RDONLY)]

    def fifo(self) -> list[int]:
        os.mkfifo(self.home / self.name)
        return [self.directory(), os.open(self.home / self.name, os.O_RDWR)]

    def file_of_another_name(self) -> list[int]:
        return [self.directory(), self.made(name="other")]

    def file_elsewhere(self) -> list[int]:
        return [os.open(self.roots, os.O_RDONLY), self.made()]

    def second_link(self) -> list[int]:
        made = self.made()
        os.link(self.home / self.name, self.home / "second")
        return [self.directory(), made]

    def file_of_another_user(self) -> list[int]:
        return [self.directory(), self.made(uid=BERT)]

    def another_path(self) -> list[int]:
        return [self.directory(), self.made()]

    def through_a_symlink(self) -> list[int]:
        return [self.directory(), self.made()]


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        ("nothing", RemoteProtocolError, "0 descriptors came where 2 were asked for"),
        ("no_file", RemoteProtocolError, "1 descriptors came where 2 were asked for"),
        ("three", RemoteProtocolError, "3 descriptors came where 2 were asked for"),
        ("file_for_directory", RemoteProtocolError, "is of no directory"),
        ("directory_for_file", RemoteProtocolError, "cannot be written to"),
        ("directory_for_a_path", RemoteProtocolError, "cannot be read from"),
        ("file_for_reading", RemoteProtocolError, "cannot be written to"),
        ("fifo", RemoteProtocolError, "is of no regular file"),
        ("file_of_another_name", NotPermitted, "it was not shown that you may write to"),
        ("file_elsewhere", NotPermitted, "it was not shown that you may write to"),
        ("second_link", NotPermitted, "it was not shown that you may write to"),
        ("file_of_another_user", NotPermitted, "it was not shown that you may write to"),
        ("another_path", NotPermitted, "the daemon finds another directory"),
        ("through_a_symlink", NotPermitted, "the daemon finds another directory"),
    ],
)
def test_a_right_to_write_that_was_not_shown_is_none(
    users: Users, kind: str, error: type[InterFilesError], says: str
) -> None:
    places = Places(users)

    async def main() -> None:
        async with calling(users) as stream:
            request = c.Download("", os.fsencode(places.path_of(kind)), False, False, None, None)
            await say(stream, request, payload=Path(users.tracker(users.content)).read_bytes())
            places.name = c.mark_name((await hear(stream, c.HandPlace)).mark)
            descriptors: list[int] = getattr(places, kind)()
            try:
                await say(stream, c.HandedPlace(0o022), descriptors)
                with pytest.raises(error, match=says):
                    await hear(stream, c.Result)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    try:
        run(main)
    finally:
        places.clean()
    assert os.listdir(places.roots) == []
