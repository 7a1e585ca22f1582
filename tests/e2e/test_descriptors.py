"""Members of the socket's group that hand over what they were not asked for, in a daemon that goes on serving others.

The test itself speaks the protocol, on a socket that it has connected with the member's rights.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from interfiles.errors import (
    InterFilesError,
    InvalidManifest,
    NotPermitted,
    Refused,
    RemoteProtocolError,
    from_wire,
)
from interfiles.storage.acting import Owner, acting_as
from interfiles.storage.hashing import draft_manifest
from interfiles.storage.scan import scan
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.unix import UnixTransport
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.session import Identity
from tests.e2e.content import MIB
from tests.e2e.members import ANNA, BERT, GROUP, Users, put_together, shared_daemon
from tests.e2e.processes import open_fds, poll, rss

pytestmark = pytest.mark.root

MEMBER, OTHER = Owner(ANNA, ANNA, (GROUP,)), Owner(BERT, BERT, (GROUP,))
Stream = MessageStream[Message]


@pytest.fixture(scope="module")
def users() -> Iterator[Users]:
    with shared_daemon() as made:
        put_together(made.homes[ANNA] / "file", ANNA)
        made.content = made.publish("wanted", MIB)
        yield made


@pytest.fixture(autouse=True)
def leaves_nothing(users: Users) -> Iterator[None]:
    """After each test: no more descriptors, little more memory, nothing new that is served, and others are answered."""
    before = open_fds(users.shared), rss(users.shared)
    files = users.fleet.ask(users.shared, lambda client: client.status()).files
    yield
    poll(lambda: open_fds(users.shared) <= before[0], f"no more than {before[0]} descriptors", timeout_s=10)
    assert rss(users.shared) - before[1] < 64 * MIB
    users.fleet.check_logs()
    assert users.fleet.ask(users.shared, lambda client: client.status()).files == files
    run(lambda: answers(users, OTHER))


async def answers(users: Users, member: Owner) -> None:
    async with calling(users, member) as stream:
        await say(stream, c.Status())
        await hear(stream, c.Result)


@asynccontextmanager
async def calling(users: Users, member: Owner | None = None) -> AsyncIterator[Stream]:
    """A conversation as a member, Anna unless another one is named."""
    sock = socket.socket(socket.AF_UNIX)
    with acting_as(member or MEMBER):
        sock.connect(str(users.shared.socket))
    sock.setblocking(False)
    transport = UnixTransport(sock)
    stream, _ = await greet(transport, "control", Identity())
    try:
        yield stream
    finally:
        stream.close()


async def say(stream: Stream, message: Message, descriptors: Sequence[int] = (), payload: bytes = b"") -> None:
    assert isinstance(stream.transport, UnixTransport)
    stream.transport.attach(descriptors)
    await stream.send(message, payload)


async def hear(stream: Stream, kind: type[Message]) -> Any:
    """The next message but progress; a failure is raised."""
    while True:
        message = await stream.receive()
        if isinstance(message, Failure):
            raise from_wire(message.code, message.text)
        if not isinstance(message, c.Progress) or kind is c.Progress:
            assert isinstance(message, kind)
            return message


async def upload(users: Users, stream: Stream, path: Path, *, copy: bool = False) -> c.HandFiles:
    """Go as far as to be asked for files."""
    await say(stream, c.Upload(os.fsencode(path), None, copy))
    await hear(stream, c.DescribeTree)
    found = scan(path, cancelled=lambda: False)
    await say(stream, c.TreeDescription(os.fsencode(path)), payload=draft_manifest(found, 256 << 10).encode())
    asked = await hear(stream, c.HandFiles)
    assert isinstance(asked, c.HandFiles)
    return asked


class Opened:
    """Descriptors of one kind, opened by root or whoever; closed at the end."""

    def __init__(self, home: Path, kind: str) -> None:
        file = home / "file"
        self.all: list[int] = []
        if kind.isdecimal():
            self.all = [os.open(file, os.O_RDONLY) for _ in range(int(kind))]
            return
        match kind:
            case "a directory":
                self.all = [os.open(home, os.O_RDONLY)]
            case "a FIFO":
                if not (home / "fifo").exists():
                    os.mkfifo(home / "fifo")
                self.all = [os.open(home / "fifo", os.O_RDONLY | os.O_NONBLOCK)]
            case "a device":
                self.all = [os.open("/dev/zero", os.O_RDONLY)]
            case "a socket":
                a, b = socket.socketpair()
                self.all = [a.detach()]
                b.close()
            case "for writing":
                self.all = [os.open(file, os.O_WRONLY)]
            case "for a path":
                self.all = [os.open(file, os.O_PATH)]
            case "another file":
                self.all = [os.open("/etc/passwd", os.O_RDONLY)]
            case "a pipe's end":
                a_end, b_end = os.pipe()
                os.close(b_end)
                self.all = [a_end]
            case _:
                raise AssertionError(kind)

    def __enter__(self) -> list[int]:
        return self.all

    def __exit__(self, *_: object) -> None:
        for descriptor in self.all:
            os.close(descriptor)


def run(main: Callable[[], Any]) -> None:
    async def bounded() -> None:
        with trio.fail_after(20):
            await main()

    trio.run(bounded)


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("0", "0 descriptors came where 1 were asked for"),
        ("2", "2 descriptors came where 1 were asked for"),
        ("5", "5 descriptors came where 1 were asked for"),
        ("250", "more than 64 descriptors came at once"),
        ("a directory", "is of no regular file"),
        ("a FIFO", "is of no regular file"),
        ("a device", "is of no regular file"),
        ("a socket", "is of no regular file"),
        ("a pipe's end", "is of no regular file"),
        ("for writing", "cannot be read from"),
        ("for a path", "cannot be read from"),
        ("another file", "changed while it was read"),
    ],
)
def test_what_is_not_the_file_that_was_asked_for_ends_the_upload(
    users: Users, kind: str, says: str, copy: bool
) -> None:
    home = users.homes[ANNA]

    async def main() -> None:
        async with calling(users) as stream:
            asked = await upload(users, stream, home / "file", copy=copy)
            with Opened(home, kind) as descriptors:
                await say(stream, c.HandedFiles(asked.first, asked.count), descriptors)
                with pytest.raises(InterFilesError, match=says) as caught:
                    await hear(stream, c.Result)
            assert caught.value.code in ("remote-protocol", "content-changed")

    run(main)
    assert not list((users.shared.state / "copies").glob("*/*"))


@pytest.mark.parametrize("count", ["1", "5", "64", "250"])
@pytest.mark.parametrize("moment", ["greeted", "describing", "handing over"])
def test_descriptors_that_nobody_asked_for_end_the_conversation(users: Users, count: str, moment: str) -> None:
    home = users.homes[ANNA]

    async def main() -> None:
        async with calling(users) as stream:
            said: Message = c.Status()
            if moment == "describing":
                await say(stream, c.Upload(b"/x", None, False))
                await hear(stream, c.DescribeTree)
                said = c.TreeDescription(b"/x")
            elif moment == "handing over":
                await upload(users, stream, home / "file")
            with Opened(home, count) as descriptors:
                await say(stream, said, descriptors)
                with pytest.raises(RemoteProtocolError):
                    await hear(stream, c.Result)

    run(main)


@pytest.mark.parametrize(
    ("payload", "root", "error"),
    [
        (b"", b"/home/x", InvalidManifest),
        (b"\xc1" * 100, b"/home/x", InvalidManifest),
        (None, b"relative", RemoteProtocolError),
        (None, b"/home/../etc/shadow", RemoteProtocolError),
        (None, b"/a\0b", RemoteProtocolError),
        (None, b"/", RemoteProtocolError),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    users: Users, payload: bytes | None, root: bytes, error: type[InterFilesError]
) -> None:
    made = draft_manifest(scan(users.homes[ANNA] / "file", cancelled=lambda: False), 256 << 10).encode()

    async def main() -> None:
        async with calling(users) as stream:
            await say(stream, c.Upload(b"/x", None, False))
            await hear(stream, c.DescribeTree)
            await say(stream, c.TreeDescription(root), payload=made if payload is None else payload)
            with pytest.raises(error):
                await hear(stream, c.Result)

    run(main)


def test_a_file_that_the_path_does_not_lead_to_is_not_taken(users: Users) -> None:
    """The member hands over its own file, and says that it lies where a file of root's does."""
    closed = users.fleet.directory / "closed"
    closed.mkdir(mode=0o700)
    secret = put_together(closed / "file", 0)
    own = users.homes[ANNA] / "file"
    os.utime(own, ns=(secret.stat().st_atime_ns, secret.stat().st_mtime_ns))

    async def main() -> None:
        async with calling(users) as stream:
            await say(stream, c.Upload(b"/x", None, False))
            await hear(stream, c.DescribeTree)
            draft = draft_manifest(scan(own, cancelled=lambda: False), 256 << 10).encode()
            await say(stream, c.TreeDescription(os.fsencode(secret)), payload=draft)
            await hear(stream, c.HandFiles)
            with Opened(users.homes[ANNA], "1") as descriptors:
                await say(stream, c.HandedFiles(0, 1), descriptors)
                with pytest.raises(NotPermitted, match="does not find file of"):
                    await hear(stream, c.Result)

    run(main)


def test_a_caller_that_leaves_in_the_middle_leaves_nothing_open(users: Users) -> None:
    home = users.homes[ANNA]

    async def main() -> None:
        for left in range(4):
            async with calling(users) as stream:
                if left == 0:
                    await say(stream, c.Upload(b"/x", None, False))
                    await hear(stream, c.DescribeTree)
                    continue
                asked = await upload(users, stream, home / "file", copy=left == 3)
                with Opened(home, "1") as descriptors:
                    if left == 1:  # half of an answer, its descriptors with it
                        assert isinstance(stream.transport, UnixTransport)
                        stream.transport.attach(descriptors)
                        await stream.transport.send_all(b"\0\0")
                    elif left == 3:
                        await say(stream, c.HandedFiles(asked.first, asked.count), descriptors)

    run(main)
    users.fleet.cli(users.shared, "rm", "-p", "file", "--local", "--yes", cwd=Path("/"))


# Places


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
            request = c.Download("", os.fsencode(places.path_of(kind)), False, False, None)
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


def test_large_requests_of_one_member_are_counted(users: Users) -> None:
    begun = encode_frame(c.Stat(""), 5 * MIB) + b"x"

    async def main() -> None:
        async with calling(users) as one, calling(users) as two, calling(users) as three:
            for stream in (one, two):
                await stream.transport.send_all(begun)
            while True:  # until the daemon has read both
                async with calling(users) as other:
                    await other.transport.send_all(begun)
                    with trio.move_on_after(0.2):
                        with pytest.raises(Refused, match="2 requests of yours with very many files are under way"):
                            await hear(other, c.Result)
                        break
            await say(three, c.Status())  # small ones are answered
            await hear(three, c.Result)

    run(main)
