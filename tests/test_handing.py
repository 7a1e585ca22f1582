"""What a daemon of another user asks for: it is given what the request is about, and nothing else whatever it asks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from interfiles import control_socket
from interfiles.control import Daemon
from interfiles.errors import InterFilesError, NotPermitted, PathNotFound, RemoteProtocolError
from interfiles.manifest import Manifest
from interfiles.transport.message_stream import welcome
from interfiles.transport.unix import UnixTransport, listen_unix
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.reports import encode_report
from tests.fake_daemon import FakeDaemon
from tests.samples import DOWNLOAD, ID, UPLOAD

MARK = "0123456789abcdef" * 2


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = Path(os.path.realpath(tmp_path)) / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "run" / "client.sock").running() as running:
        yield running


def upload(fake: FakeDaemon, path: Path) -> None:
    trio.run(lambda: Daemon(fake.socket).upload(path))


def download(fake: FakeDaemon, directory: Path) -> None:
    trio.run(lambda: Daemon(fake.socket).download(ID, directory=directory))


@pytest.mark.parametrize(
    "question", [c.HandFiles(0, 1), c.HandPlace(MARK)], ids=["files before they are described", "place"]
)
def test_an_upload_gives_nothing_that_it_is_not_about(here: Path, fake: FakeDaemon, question: Message) -> None:
    (here / "file").write_bytes(b"12345")
    fake.will(question, UPLOAD)
    with pytest.raises(RemoteProtocolError, match=r"of this upload|no question about an upload"):
        upload(fake, here / "file")
    assert os.listdir(here) == ["file"]


@pytest.mark.parametrize(("first", "count"), [(1, 1), (0, 2), (2**53, 64)])
def test_no_file_but_those_of_the_upload_is_opened(here: Path, fake: FakeDaemon, first: int, count: int) -> None:
    (here / "file").write_bytes(b"12345")
    fake.will(c.DescribeTree(), c.HandFiles(first, count), UPLOAD)
    with pytest.raises(RemoteProtocolError, match="are not of this upload"):
        upload(fake, here / "file")


@pytest.mark.parametrize("question", [c.DescribeTree(), c.HandFiles(0, 1)])
def test_a_download_gives_nothing_but_its_directory(here: Path, fake: FakeDaemon, question: Message) -> None:
    fake.will(question, DOWNLOAD)
    with pytest.raises(RemoteProtocolError, match="is no question about a download"):
        download(fake, here)


def test_other_requests_give_nothing(here: Path, fake: FakeDaemon) -> None:
    for question in (c.DescribeTree(), c.HandFiles(0, 1), c.HandPlace(MARK)):
        fake.will(question)
        with pytest.raises(RemoteProtocolError, match="came in place of a result"):
            trio.run(Daemon(fake.socket).status)
    assert os.listdir(here) == []


def test_the_file_that_shows_the_right_is_removed_however_it_ends(here: Path, fake: FakeDaemon) -> None:
    before = len(os.listdir("/proc/self/fd"))
    fake.will(c.HandPlace(MARK), c.HandPlace(MARK), DOWNLOAD)
    download(fake, here)
    for end in (NotPermitted("no"), c.TrackerContent()):
        fake.will(c.HandPlace(MARK), end)
        with pytest.raises(InterFilesError):
            download(fake, here)
    fake.will(c.HandPlace(MARK))  # and the daemon goes away
    with pytest.raises(InterFilesError):
        download(fake, here)
    assert os.listdir(here) == []
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_file_that_is_there_is_not_touched(here: Path, fake: FakeDaemon) -> None:
    """A daemon could choose a name that is taken; only one that is free will do."""
    (here / c.mark_name(MARK)).write_text("precious")
    fake.will(c.HandPlace(MARK), DOWNLOAD)
    with pytest.raises(InterFilesError, match="cannot be used: File exists"):
        download(fake, here)
    assert (here / c.mark_name(MARK)).read_text() == "precious"


@pytest.mark.parametrize(("place", "says"), [("nowhere", "there is no directory"), ("file", "is not a directory")])
def test_a_place_that_is_none_is_told(here: Path, fake: FakeDaemon, place: str, says: str) -> None:
    (here / "file").touch()
    fake.will(c.HandPlace(MARK), DOWNLOAD)
    with pytest.raises(PathNotFound, match=says):
        download(fake, here / place)


async def test_what_is_asked_for_comes_in_its_order_and_is_open_for_reading(here: Path, tmp_path: Path) -> None:
    (here / "tree").mkdir()
    for name in ("b", "a", "c"):
        (here / "tree" / name).write_text(name)
    listener = listen_unix(tmp_path / "run" / "sock")
    daemon = Daemon(tmp_path / "run" / "sock")
    described: list[Manifest] = []
    read: list[bytes] = []

    async def serve() -> None:
        stream, _ = await welcome(await listener.accept(), "control", lambda: "local")
        assert isinstance(stream.transport, UnixTransport)
        asked = await stream.receive()
        assert isinstance(asked, c.Upload)
        await stream.send(c.DescribeTree())
        answer = await stream.receive()
        assert answer == c.TreeDescription(os.fsencode(here / "tree"))
        described.append(Manifest.decode(await stream.receive_payload()))
        for first, count in ((0, 2), (2, 1)):
            stream.transport.expect(count)
            await stream.send(c.HandFiles(first, count))
            assert await stream.receive() == c.HandedFiles(first, count)
            for descriptor in stream.transport.take():
                read.append(os.pread(descriptor, 100, 0))
                os.close(descriptor)
        await stream.send(c.Result(), encode_report(UPLOAD))
        await stream.send(c.TrackerContent(), b"IFTRACK1")
        stream.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await daemon.upload(here / "tree")
    listener.close()
    assert [entry.path for entry in described[0].entries] == ["a", "b", "c"]
    assert read == [b"a", b"b", b"c"]


@pytest.mark.parametrize(
    ("mode", "is_kept"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_a_socket_is_kept_by_a_user_where_nobody_else_could_have_put_it(
    tmp_path: Path, mode: int, is_kept: bool
) -> None:
    path = Path(os.path.realpath(tmp_path)) / "run" / "sock"
    path.parent.mkdir()
    path.touch()
    path.parent.chmod(mode)
    owner = os.geteuid()
    assert control_socket._is_kept_by(path, owner) is is_kept
    assert not control_socket._is_kept_by(path, owner + 1), "another user's"
    assert not control_socket._is_kept_by(path.with_name("gone"), owner)
