"""What goes wrong at the command line gets one sentence and its exit code, and leaves everything as it was."""

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from blake3 import blake3

from interfiles.identity.token import JoinToken
from interfiles.tracker_file import TrackerFile
from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, Ran

USAGE, UNREACHABLE, UNKNOWN, INVALID, UNAVAILABLE, NOT_PERMITTED, NO_SPACE, REFUSED = range(2, 10)
NOBODY = 65534


@pytest.fixture(scope="module")
def daemons(module_fleet: Fleet) -> dict[str, Daemon]:
    module_fleet.start_master()
    module_fleet.start_clients("source", "reader")
    home = module_fleet.daemons["source"].home
    make_file(home / "file", MIB)
    (home / "file").rename(home / "good")
    module_fleet.cli(module_fleet.daemons["source"], "upload", "-p", "good").done  # noqa: B018 - it raises
    return module_fleet.daemons


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


@pytest.fixture
def here(fleet: Fleet, tmp_path: Path) -> Path:
    """A directory in which commands are typed; the good tracker file is in it."""
    place = tmp_path / "here"
    place.mkdir()
    shutil.copy(fleet.daemons["source"].home / "good.tracker", place)
    return place


def check(ran: Ran, code: int, *words: str) -> None:
    """The command has ended with this code, and one sentence that has these words in it."""
    assert ran.code == code, ran
    assert ran.out == "", ran
    assert ran.err.startswith("interfiles: "), ran
    assert ran.err.endswith(".\n"), ran
    assert ran.err.count("\n") == 1, ran
    for word in words:
        assert word in ran.err, ran


def snapshot(directory: Path) -> dict[str, Any]:
    """Everything below a directory: each path with its kind and content."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() and not path.is_fifo() else path.is_dir()
        for path in sorted(directory.rglob("*"))
    }


# Uploads


def directory_with_two_spellings(at: Path) -> None:
    (at / "bad").mkdir()
    for name in ("Readme", "README"):
        (at / "bad" / name).write_text(name)


def directory_with_an_escaping_link(at: Path) -> None:
    (at / "bad").mkdir()
    (at / "bad" / "link").symlink_to("../../etc")


def directory_with_a_fifo(at: Path) -> None:
    (at / "bad").mkdir()
    os.mkfifo(at / "bad" / "pipe")


def something_else_where_the_tracker_file_goes(at: Path) -> None:
    (at / "bad").write_text("fine")
    (at / "bad.tracker").write_text("a diary")


def nothing(at: Path) -> None:
    pass


BAD_UPLOADS: dict[str, tuple[Callable[[Path], None], int, str]] = {
    "not there": (nothing, USAGE, "bad"),
    "a FIFO": (lambda at: os.mkfifo(at / "bad"), USAGE, "FIFO"),
    "a FIFO in it": (directory_with_a_fifo, USAGE, "FIFO"),
    "a symlink that escapes": (directory_with_an_escaping_link, REFUSED, "link"),
    "names that differ in case": (directory_with_two_spellings, REFUSED, "README"),
    "no place for the tracker file": (something_else_where_the_tracker_file_goes, REFUSED, "bad.tracker"),
}


def test_uploads_of_what_cannot_be_sent(fleet: Fleet, here: Path) -> None:
    running = []
    for case, (make, code, word) in BAD_UPLOADS.items():
        place = here / case
        place.mkdir()
        make(place)
        before = snapshot(place)
        command = fleet.begin_cli(fleet.daemons["source"], "upload", "-p", "bad", cwd=place)
        running.append((command, place, before, code, word))
    for command, place, before, code, word in running:
        check(fleet.finish_cli(command), code, word)
        assert snapshot(place) == before


# Tracker files


def sealed(manifest: bytes, *, version: int = 1) -> bytes:
    """A tracker file with a right checksum around any manifest."""
    body = bytes(msgpack.packb([manifest, ["127.0.0.1:1"], "render-01", 1_795_000_000, "7f3a"]))
    content = b"\x89IFILE\r\n" + struct.pack(">HI", version, len(body)) + body
    return content + blake3(content).digest()


def with_entries(*entries: list[Any], name: str = "evil", pieces: int = 0) -> Callable[[bytes], bytes]:
    """A tracker file of a directory with these entries, whatever they are."""
    return lambda _: sealed(bytes(msgpack.packb([1, name, True, 256 << 10, list(entries), bytes(32 * pieces)])))


BAD_TRACKERS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda good: good[:-1],
    "cut to a third": lambda good: good[: len(good) // 3],
    "too long": lambda good: good + b"\0",
    "one byte edited": lambda good: good[:100] + bytes([good[100] ^ 1]) + good[101:],
    "not a tracker file": lambda _: b"#!/bin/sh\necho hello\n",
    "of another version": lambda good: sealed(TrackerFile.decode(good).manifest.encode(), version=2),
    "up and out": with_entries(["../evil", 0, False]),
    "absolute": with_entries(["/etc/evil", 0, False]),
    "NUL": with_entries(["evil\0", 0, False]),
    "name with a slash": with_entries(["a", 0, False], name="../evil"),
    "symlink that escapes": with_entries(["a", "../../etc"]),
    "symlink to an absolute path": with_entries(["a", "/etc/passwd"]),
    "file under a symlink": with_entries(["a", "b"], ["a/c", 0, False]),
    "case collision": with_entries(["A", 0, False], ["a", 0, False]),
    "absurd size": with_entries(["a", 2**63, False]),
    "absurd count": lambda _: sealed(b"\x96\x01\xa4evil\xc3\xce\x00\x04\x00\x00\xdd\xff\xff\xff\xff\xc4\x00"),
    "hashes that are too many": with_entries(["a", 1, False], pieces=4_388),
    "no manifest": lambda _: sealed(b"\xc1"),
}


def test_bad_tracker_files(fleet: Fleet, here: Path) -> None:
    good = (here / "good.tracker").read_bytes()
    for case, make in BAD_TRACKERS.items():
        (here / f"{case}.tracker").write_bytes(make(good))
    before = snapshot(here)
    commands = {
        case: fleet.begin_cli(fleet.daemons["reader"], "download", "-p", f"{case}.tracker", cwd=here)
        for case in BAD_TRACKERS
    }
    for case, command in commands.items():
        check(fleet.finish_cli(command), INVALID, f"{case}.tracker")
    assert snapshot(here) == before
    assert not (here.parent / "evil").exists()


# Downloads


UNKNOWN_FILES = {
    "download -p nobody-knows-this": (UNKNOWN, "nobody-knows-this"),
    "download -p missing.tracker": (USAGE, "missing.tracker"),
    "stat -p 0123456789ab": (UNKNOWN, "0123456789ab"),
    "rm -p nobody-knows-this --yes": (UNKNOWN, "nobody-knows-this"),
    "wait -p good.tracker": (UNKNOWN, "good"),
}


def test_files_that_nobody_knows(fleet: Fleet, here: Path) -> None:
    reader = fleet.daemons["reader"]
    commands = [fleet.begin_cli(reader, *typed.split(), cwd=here) for typed in UNKNOWN_FILES]
    for command, (code, word) in zip(commands, UNKNOWN_FILES.values(), strict=True):
        check(fleet.finish_cli(command), code, word)


def test_download_to_where_other_content_is(fleet: Fleet, here: Path) -> None:
    (here / "good").write_text("mine")
    before = snapshot(here)
    check(
        fleet.cli(fleet.daemons["reader"], "download", "-p", "good.tracker", cwd=here),
        REFUSED,
        "exists and differs",
        "--overwrite",
    )
    assert snapshot(here) == before
    fleet.cli(fleet.daemons["reader"], "download", "-p", "good.tracker", "--overwrite", cwd=here).done  # noqa: B018
    assert (here / "good").read_bytes() == (fleet.daemons["source"].home / "good").read_bytes()


def test_download_to_no_directory(fleet: Fleet, here: Path) -> None:
    (here / "file").write_text("")
    before = snapshot(here)
    for place in ("nowhere", "file"):
        ran = fleet.cli(fleet.daemons["reader"], "download", "-p", "good.tracker", "-o", place, cwd=here)
        check(ran, USAGE, place)
    assert snapshot(here) == before


@pytest.mark.root
def test_download_to_a_disk_that_is_too_small(fleet: Fleet, here: Path, other_uid: int) -> None:
    disk = here / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this machine does not let root mount a tmpfs")
    try:
        ran = fleet.cli(fleet.daemons["reader"], "download", "-p", "good.tracker", "-o", "disk", cwd=here)
        check(ran, NO_SPACE, "good", "free", "1.0 MB")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_download_while_no_source_is_up_ends_at_its_timeout_and_stays_queued(fleet: Fleet, here: Path) -> None:
    source, reader = fleet.daemons["source"], fleet.daemons["reader"]
    make_file(source.home / "lonely", MIB, seed=2)
    tracker = fleet.cli(source, "upload", "-p", "lonely", json=True).done.json["tracker"]
    fleet.stop(source)
    try:
        ran = fleet.cli(reader, "download", "-p", tracker, "--timeout", "3s", cwd=here)
        assert ran.code == UNAVAILABLE, ran
        *waiting, last = ran.err.splitlines()
        assert "source has it, last seen" in last, "it says who has it"
        assert "stays queued" in last
        assert all("Waiting; Ctrl-C leaves it queued." in line for line in waiting)
        assert ran.out == ""
        assert not (here / "lonely").exists()
        check(fleet.cli(reader, "wait", "-p", tracker, "--timeout", "100ms", cwd=here), USAGE, "duration")
        fleet.cli(reader, "rm", "-p", tracker, "--local", "--yes", cwd=here).done  # noqa: B018 - it raises
        assert sorted(snapshot(here)) == ["good.tracker"], "the part is gone"
    finally:
        fleet.start(source)


# Another user's rights


@pytest.fixture
def plain_client(fleet: Fleet, open_directory: Path) -> Iterator[Daemon]:
    """A client that is not root."""
    plain = Fleet(open_directory)
    plain.daemons["master"] = fleet.master
    try:
        yield plain.start_client("plain", uid=NOBODY if os.geteuid() == 0 else None)
    finally:
        del plain.daemons["master"]
        plain.end()


def test_what_the_daemon_may_not_read_or_write(fleet: Fleet, plain_client: Daemon) -> None:
    home = plain_client.home
    (home / "secret").write_text("")
    (home / "secret").chmod(0)
    (home / "tree" / "locked").mkdir(parents=True)
    (home / "tree" / "locked").chmod(0)
    (home / "read-only").mkdir(mode=0o555)
    shutil.copy(fleet.daemons["source"].home / "good.tracker", home)
    if os.geteuid() == 0:
        for path in home.iterdir():
            os.chown(path, NOBODY, NOBODY)
        (home / "tree" / "locked").chmod(0o700)
    before = set(home.rglob("*"))
    try:
        check(fleet.cli(plain_client, "upload", "-p", "secret"), NOT_PERMITTED, "secret")
        check(fleet.cli(plain_client, "upload", "-p", "tree"), NOT_PERMITTED, "locked")
        ran = fleet.cli(plain_client, "download", "-p", "good.tracker", "-o", "read-only")
        check(ran, NOT_PERMITTED, "may not write", "read-only")
        assert set(home.rglob("*")) == before
    finally:
        (home / "tree" / "locked").chmod(0o700)  # so that it can be removed


# Daemons


def test_commands_without_a_daemon(fleet: Fleet, here: Path) -> None:
    check(fleet.cli(None, "status", cwd=here), UNREACHABLE, "no socket", "interfiles client", "name the socket")
    check(fleet.cli(None, "download", "-p", "good.tracker", cwd=here), UNREACHABLE)
    check(fleet.cli(None, "token", "--state", str(here), cwd=here), UNREACHABLE, "interfiles master")
    (here / "good").write_text("mine")
    check(fleet.cli(None, "upload", "-p", "good", cwd=here), UNREACHABLE)
    assert sorted(snapshot(here)) == ["good", "good.tracker"]


def begin(fleet: Fleet, here: Path, *arguments: str) -> subprocess.Popen[str]:
    """Type `interfiles client` or `master`."""
    state = here / f"{arguments[0]}-state"
    defaults = ["--state", str(state)] if "--state" not in arguments else []
    if arguments[0] == "client" and "--socket" not in arguments:
        defaults += ["--socket", str(state / "sock")]
    if "--listen" not in arguments:
        defaults += ["--listen", "127.0.0.1:0"]
    return fleet.begin_cli(None, *arguments, *defaults, cwd=here)


def start(fleet: Fleet, here: Path, *arguments: str) -> Ran:
    """Type `interfiles client` or `master`, which is expected to end at once."""
    return fleet.finish_cli(begin(fleet, here, *arguments), timeout_s=20)


def test_a_client_that_has_not_joined(fleet: Fleet, here: Path) -> None:
    check(start(fleet, here, "client"), REFUSED, "--join TOKEN")


def test_a_second_join(fleet: Fleet, here: Path) -> None:
    reader = fleet.daemons["reader"]
    (here / "token").write_text(fleet.token())
    fleet.stop(reader)
    try:
        arguments = ("--token-file", "token", "--state", str(reader.state), "--socket", str(reader.socket))
        check(start(fleet, here, "client", *arguments), REFUSED, "has joined fleet", "reader")
    finally:
        fleet.start(reader)


def test_a_state_directory_or_socket_that_another_daemon_uses(fleet: Fleet, here: Path) -> None:
    reader, master = fleet.daemons["reader"], fleet.master
    check(start(fleet, here, "client", "--state", str(reader.state)), REFUSED, f"in use by process {reader.pid}")
    check(start(fleet, here, "client", "--socket", str(reader.socket)), REFUSED, "a daemon answers on socket")
    check(start(fleet, here, "master", "--state", str(master.state)), REFUSED, f"in use by process {master.pid}")


def test_a_port_that_is_taken(fleet: Fleet, here: Path) -> None:
    address = JoinToken.decode(fleet.token()).masters[0]
    check(start(fleet, here, "client", "--listen", address), REFUSED, address, "--listen")
    check(start(fleet, here, "master", "--listen", address), REFUSED, address, "--listen")


NONSENSE = (
    "client --listen no:port",
    "client --quota much",
    "client --name a/b",
    "client --no-such-option",
    "master --grace soon",
    "master --replicas 0",
    "download",
    "download -p a b",
    "download -p good.tracker --timeout soon",
    "upload -p good.tracker --replicas 0",
    "rm -p good.tracker",
    "token --ttl never",
    "fetch",
)


def test_what_makes_no_sense_as_it_is_typed(fleet: Fleet, here: Path) -> None:
    for command in [fleet.begin_cli(None, *typed.split(), cwd=here) for typed in NONSENSE]:
        check(fleet.finish_cli(command), USAGE)
    assert sorted(snapshot(here)) == ["good.tracker"]


def test_removing_a_host_that_is_not_there(fleet: Fleet) -> None:
    check(fleet.cli(None, "hosts", "remove", "nobody", "--state", str(fleet.master.state)), UNKNOWN, "nobody")
