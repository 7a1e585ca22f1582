"""The Python API against a daemon that plays a script, at a real Unix socket."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
import trio

import interfiles
from interfiles import control_socket
from interfiles.control import Daemon, connect
from interfiles.errors import (
    DaemonUnreachable,
    DestinationExists,
    InvalidTrackerFile,
    NoSpace,
    NotPermitted,
    PathNotFound,
    RemoteProtocolError,
    TimedOut,
    UnknownFile,
    UsageError,
)
from interfiles.transport.plain import SocketTransport
from interfiles.wire import control_messages as messages
from interfiles.wire.control_messages import Progress
from interfiles.wire.reports import FileListReport, HostListReport, TransferStateReport
from tests.fake_daemon import NEVER, FakeDaemon
from tests.samples import (
    DOWNLOAD,
    HOSTS,
    ID,
    REMOVED,
    STAT,
    TRACKER,
    UPLOAD,
    VERIFIED,
    file_report,
    progress,
    replicas_report,
    status,
)

pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = (tmp_path / "here").resolve()
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeDaemon]:
    with FakeDaemon(tmp_path / "run" / "client.sock").running() as daemon:
        yield daemon


# Connecting


async def test_connect_finds_the_daemon_by_the_environment(fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERFILES_SOCKET", str(fake.socket))
    fake.will(status())
    async with interfiles.connect() as daemon:
        assert isinstance(daemon, interfiles.Daemon)
        assert await daemon.status() == status()


def test_the_package_offers_the_api_and_nothing_else_by_accident() -> None:
    assert interfiles.connect is connect
    assert interfiles.Daemon is Daemon
    assert get_type_hints(connect)
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = interfiles.conect  # type: ignore[attr-defined]


async def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable) as caught:
        async with connect(tmp_path / "none.sock"):
            pass
    assert str(caught.value).startswith(
        f"the client daemon is not running (no socket at {tmp_path}/none.sock); start it with `interfiles client`, "
        "or name the socket of another"
    )


async def test_a_socket_that_a_dead_daemon_left(fake: FakeDaemon, tmp_path: Path) -> None:
    stale = tmp_path / "stale.sock"
    with FakeDaemon(stale).running():
        pass
    with pytest.raises(DaemonUnreachable, match=r"is not running \(nothing answers on socket .*stale.sock\)"):
        async with connect(stale):
            pass


@pytest.mark.parametrize("what", ["file", "directory"])
async def test_a_socket_that_is_none(what: str, tmp_path: Path) -> None:
    place = tmp_path / "thing"
    place.mkdir() if what == "directory" else place.touch()
    with pytest.raises(DaemonUnreachable, match="is not running"):
        async with connect(place):
            pass


async def test_a_socket_path_too_long() -> None:
    with pytest.raises(DaemonUnreachable, match="cannot be used: AF_UNIX path too long"):
        async with connect("/" + "x" * 200):
            pass


async def test_a_system_daemon_is_hinted_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_socket, "SYSTEM_SOCKET", tmp_path / "client.sock")
    with pytest.raises(DaemonUnreachable, match=r"the system's own daemon answers to root \(use sudo\)$"):
        async with connect(tmp_path / "none.sock"):
            pass


async def test_a_socket_that_another_user_owns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def forbidden(path: Path) -> SocketTransport:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(control_socket, "dial_unix", forbidden)
    with pytest.raises(NotPermitted, match=r"none\.sock belongs to another user; run the command as that user"):
        async with connect(tmp_path / "none.sock"):
            pass


async def test_a_daemon_of_another_user_never_hears_the_request(
    fake: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_001)
    monkeypatch.setattr(control_socket, "caller_uid", lambda _: 4_000_002)
    with pytest.raises(NotPermitted, match="belongs to user 4000002"):
        await Daemon(fake.socket).status()
    assert fake.requests == []


async def test_a_daemon_that_does_not_greet(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    deaf = trio.socket.socket(trio.socket.AF_UNIX)
    await deaf.bind(str(tmp_path / "deaf.sock"))
    deaf.listen()
    with pytest.raises(DaemonUnreachable, match=r"the client daemon does not answer on .*deaf.sock; see its log"):
        async with connect(tmp_path / "deaf.sock"):
            pass
    deaf.close()


# Upload


async def test_upload_writes_the_tracker_file_into_the_current_directory(fake: FakeDaemon, here: Path) -> None:
    (here / "weights").mkdir()
    fake.will(progress("hashing"), UPLOAD, TRACKER)
    seen: list[Progress] = []
    report = await Daemon(fake.socket).upload("weights/", replicas=5, copy=True, on_progress=seen.append)
    assert fake.request == messages.Upload(os.fsencode(here / "weights"), 5, True, None)
    assert report.tracker == str(here / "weights.tracker")
    assert (here / "weights.tracker").read_bytes() == TRACKER
    assert seen == [progress("hashing")]


async def test_upload_into_another_directory(fake: FakeDaemon, here: Path) -> None:
    (here / "trackers").mkdir()
    fake.will(UPLOAD, TRACKER)
    report = await Daemon(fake.socket).upload("weights", tracker=Path("trackers"))
    assert report.tracker == str(here / "trackers/weights.tracker")


async def test_upload_refuses_a_place_in_use_before_the_daemon_hashes(fake: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_text("my notes")
    with pytest.raises(DestinationExists):
        await Daemon(fake.socket).upload("weights")
    assert fake.requests == []
    assert (here / "weights.tracker").read_text() == "my notes"


async def test_upload_of_what_expires(fake: FakeDaemon, here: Path) -> None:
    fake.will(UPLOAD, TRACKER)
    await Daemon(fake.socket).upload("weights", expire_in_s=60)
    assert fake.request == messages.Upload(os.fsencode(here / "weights"), None, False, 60)
    with pytest.raises(UsageError, match="a file expires in 1 min at the earliest; 10 s is too soon"):
        await Daemon(fake.socket).upload("weights", expire_in_s=10)


async def test_upload_that_the_daemon_refuses_writes_nothing(fake: FakeDaemon, here: Path) -> None:
    fake.will(progress("hashing"), PathNotFound("there is no weights"))
    with pytest.raises(PathNotFound, match="there is no weights"):
        await Daemon(fake.socket).upload("weights")
    assert list(here.iterdir()) == []


async def test_upload_whose_tracker_file_cannot_be_written_tells_the_id(
    fake: FakeDaemon, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: object, content: bytes) -> None:
        raise NoSpace("the tracker file cannot be written: No space left on device")

    monkeypatch.setattr("interfiles.tracker_place.TrackerPlace.write", full)
    fake.will(UPLOAD, TRACKER)
    with pytest.raises(NoSpace, match=r"No space left on device \(the upload itself is done: .* 9c41e07b2d55\)"):
        await Daemon(fake.socket).upload("weights")


async def test_an_upload_that_is_cancelled_hangs_up_and_writes_nothing(fake: FakeDaemon, here: Path) -> None:
    fake.will(progress("hashing"), NEVER)
    with trio.CancelScope() as scope:
        await Daemon(fake.socket).upload("weights", on_progress=lambda _: scope.cancel())
    assert scope.cancelled_caught
    assert await trio.to_thread.run_sync(fake.left.wait, 60)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("replies", [[progress("hashing")], [progress("hashing"), UPLOAD]])
async def test_a_daemon_that_dies_during_an_upload(fake: FakeDaemon, here: Path, replies: list[object]) -> None:
    fake.will(*replies)  # type: ignore[arg-type]
    with pytest.raises(
        DaemonUnreachable, match="the client daemon went away before the upload was done; start it again"
    ):
        await Daemon(fake.socket).upload("weights")
    assert list(here.iterdir()) == []


# Download and wait


async def test_download_by_a_tracker_file(fake: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER)
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    fake.will(progress(), progress(done=18_400_000_000), DOWNLOAD)
    seen: list[Progress] = []
    report = await Daemon(fake.socket).download(
        "weights.tracker", directory="link", overwrite=True, timeout_s=2.5, on_progress=seen.append
    )
    assert report == DOWNLOAD
    assert seen == [progress(), progress(done=18_400_000_000)]
    assert fake.requests == [(messages.Download("", os.fsencode(here / "real"), True, False, 2.5, None), TRACKER)]


async def test_download_by_a_query(fake: FakeDaemon, here: Path) -> None:
    fake.will(DOWNLOAD)
    await Daemon(fake.socket).download("9c41e0", detach=True)
    assert fake.requests == [(messages.Download("9c41e0", os.fsencode(here), False, True, None, None), b"")]


async def test_a_bad_tracker_file_is_refused_without_the_daemon(tmp_path: Path) -> None:
    Path("weights.tracker").write_bytes(TRACKER[:-1])
    with pytest.raises(InvalidTrackerFile, match=r"weights\.tracker is truncated"):
        await Daemon(tmp_path / "none.sock").download("weights.tracker")


async def test_a_download_that_is_cancelled_hangs_up(fake: FakeDaemon) -> None:
    fake.will(progress(), NEVER)
    with trio.CancelScope() as scope:
        await Daemon(fake.socket).download("weights", on_progress=lambda _: scope.cancel())
    assert await trio.to_thread.run_sync(fake.left.wait, 60)


@pytest.mark.parametrize("operation", ["download", "wait"])
async def test_a_daemon_that_dies_during_a_download(operation: str, fake: FakeDaemon) -> None:
    fake.will(progress())
    with pytest.raises(DaemonUnreachable) as caught:
        await getattr(Daemon(fake.socket), operation)("weights")
    assert str(caught.value) == (
        "the client daemon went away before the download was done; start it again, and the download goes on by itself"
    )


async def test_wait(fake: FakeDaemon) -> None:
    fake.will(DOWNLOAD)
    assert await Daemon(fake.socket).wait("weights", timeout_s=3) == DOWNLOAD
    assert fake.request == messages.Wait("weights", 3)


# The others


async def test_files_come_page_by_page(fake: FakeDaemon) -> None:
    first, second, third = (file_report(name) for name in "abc")
    fake.will(FileListReport(files=[first, second], next_start=2))
    fake.will(FileListReport(files=[third], next_start=None))
    assert [file async for file in Daemon(fake.socket).files()] == [first, second, third]
    assert [request for request, _ in fake.requests] == [messages.ListFiles(0), messages.ListFiles(2)]


async def test_pages_that_do_not_go_on_end(fake: FakeDaemon) -> None:
    fake.will(FileListReport(files=[], next_start=0))
    with pytest.raises(RemoteProtocolError, match="the page of files after 0 begins at 0"):
        [file async for file in Daemon(fake.socket).files()]


async def test_every_other_request(fake: FakeDaemon) -> None:
    paused = TransferStateReport(id=ID, name="weights", state="paused")
    for reply in (STAT, HostListReport(hosts=HOSTS), REMOVED, VERIFIED, paused, paused):
        fake.will(reply)
    daemon = Daemon(fake.socket)
    assert await daemon.stat("weights") == STAT
    assert await daemon.hosts() == HOSTS
    assert await daemon.remove("weights", local=True, delete=True) == REMOVED
    assert await daemon.verify("weights") == VERIFIED
    assert await daemon.pause("weights") == paused
    assert await daemon.resume("weights") == paused
    assert [request for request, _ in fake.requests] == [
        messages.Stat("weights"),
        messages.ListHosts(),
        messages.Remove("weights", True, True),
        messages.Verify("weights"),
        messages.Pause("weights"),
        messages.Resume("weights"),
    ]


async def test_errors_come_typed_and_printable(fake: FakeDaemon) -> None:
    fake.will(UnknownFile("no file is called evil\x1b[2J"))
    with pytest.raises(UnknownFile) as caught:
        await Daemon(fake.socket).stat("weights")
    assert str(caught.value) == "no file is called evil\\x1b[2J"


async def test_a_daemon_that_goes_away_before_it_answers(fake: FakeDaemon) -> None:
    fake.will()
    with pytest.raises(DaemonUnreachable, match="went away before it answered; start it again and repeat the command"):
        await Daemon(fake.socket).status()


async def test_an_answer_to_another_question_is_refused(fake: FakeDaemon) -> None:
    fake.will(DOWNLOAD)
    with pytest.raises(RemoteProtocolError, match="the daemon's answer is not a StatusReport"):
        await Daemon(fake.socket).status()
    fake.will(TRACKER)
    with pytest.raises(RemoteProtocolError, match="TrackerContent came in place of a result"):
        await Daemon(fake.socket).status()
    fake.will(UPLOAD, UPLOAD)
    with pytest.raises(RemoteProtocolError, match="Result came in place of the tracker file"):
        await Daemon(fake.socket).upload("weights")


async def test_what_the_protocol_cannot_say_is_the_callers_fault(fake: FakeDaemon) -> None:
    with pytest.raises(UsageError, match=r"the request cannot be sent: .*Expected `int` >= 1"):
        await Daemon(fake.socket).upload("weights", replicas=0)


async def test_many_operations_at_once(fake: FakeDaemon) -> None:
    answers = []

    async def ask(daemon: Daemon) -> None:
        answers.append(await daemon.status())

    for _ in range(20):
        fake.will(status())
    async with connect(fake.socket) as daemon, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask, daemon)
    assert answers == [status()] * 20


# Copies in the fleet


async def test_other_numbers_of_copies_are_set_and_waited_for(fake: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER)
    counted, seen = progress("replicating", done=2, total=3, peers=1), list[Progress]()
    fake.will(replicas_report(wanted=5))
    fake.will(counted, replicas_report())
    fake.will(TimedOut("weights has 2 of 3 copies after 5 s"))
    daemon = Daemon(fake.socket)
    assert await daemon.set_replicas("weights.tracker", 5) == replicas_report(wanted=5)
    assert await daemon.wait_for_replicas("weights", on_progress=seen.append) == replicas_report()
    assert seen == [counted]
    with pytest.raises(TimedOut, match="2 of 3 copies"):
        await daemon.wait_for_replicas("weights", 3, timeout_s=5)
    assert fake.requests == [
        (messages.SetReplicas("", 5), TRACKER),
        (messages.WaitReplicas("weights", None, None), b""),
        (messages.WaitReplicas("weights", 3, 5), b""),
    ]
