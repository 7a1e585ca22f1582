"""Members of the socket's group that hand over what they were not asked for, in a daemon that serves others too."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from interfiles.errors import (
    InterFilesError,
    InvalidManifest,
    NotPermitted,
    Refused,
    RemoteProtocolError,
)
from interfiles.storage.hashing import draft_manifest
from interfiles.storage.scan import scan
from interfiles.transport.unix import UnixTransport
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from tests.e2e.content import MIB
from tests.e2e.members import ANNA, Users, put_together, shared_daemon
from tests.e2e.raw_callers import Stream, calling, hear, leaving_nothing, run, say

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


async def upload(users: Users, stream: Stream, path: Path, *, copy: bool = False) -> c.HandFiles:
    """Go as far as to be asked for files."""
    await say(stream, c.Upload(os.fsencode(path), None, copy, None))
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
                await say(stream, c.Upload(b"/x", None, False, None))
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
        (b"", b"/srv/x", InvalidManifest),
        (b"\xc1" * 100, b"/srv/x", InvalidManifest),
        (None, b"relative", RemoteProtocolError),
        (None, b"/srv/../etc/shadow", RemoteProtocolError),
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
            await say(stream, c.Upload(b"/x", None, False, None))
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
            await say(stream, c.Upload(b"/x", None, False, None))
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
                    await say(stream, c.Upload(b"/x", None, False, None))
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
