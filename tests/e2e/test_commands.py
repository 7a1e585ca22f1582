"""Commands beside the straight way: interrupted, paused, removed, verified, and on sockets that are not one's own."""

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, interrupt, listening_port, poll
from tests.e2e.proxy import PeerProxy

SIZE = 16 * MIB
INVALID, NOT_PERMITTED, INTERRUPTED = 5, 7, 130
ROOT = Path("/")  # a name typed here is no path


@pytest.fixture(scope="module")
def proxy() -> Iterator[PeerProxy]:
    with PeerProxy() as proxy:
        yield proxy


@pytest.fixture(scope="module")
def daemons(proxy: PeerProxy, module_fleet: Fleet) -> dict[str, Daemon]:
    module_fleet.start_master()
    source = module_fleet.start_client("source", "--advertise", proxy.address)
    proxy.target_port = listening_port(source)
    module_fleet.start_clients("reader", "other")
    return module_fleet.daemons


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


@pytest.fixture
def content(fleet: Fleet, request: pytest.FixtureRequest) -> Path:
    """A new file on `source`, uploaded; its name is that of the test."""
    source = fleet.daemons["source"]
    content = make_file(source.home / request.node.name.removeprefix("test_"), SIZE, seed=len(request.node.name))
    fleet.ask(source, lambda client: client.upload(content, tracker=tracker(content)))
    return content


def tracker(content: Path) -> str:
    return f"{content}.tracker"


def look(fleet: Fleet, content: Path, *, on: str = "reader") -> Any:
    return msgspec.to_builtins(fleet.ask(fleet.daemons[on], lambda client: client.stat(tracker(content))))


def fetch(fleet: Fleet, content: Path, *, on: str = "reader") -> Path:
    place = fleet.daemons[on].home
    fleet.ask(fleet.daemons[on], lambda client: client.download(tracker(content), directory=place))
    return place / content.name


@contextmanager
def half_way(fleet: Fleet, proxy: PeerProxy, content: Path) -> Iterator[Any]:
    """A command that downloads to `reader`, held when half of the content has come; goes on afterwards."""
    before = proxy.passed.total()
    proxy.allow(before + SIZE // 2)
    command = fleet.begin_cli(fleet.daemons["reader"], "download", "-p", tracker(content))
    try:
        poll(lambda: proxy.passed.total() - before > SIZE // 2 - MIB, "half of the file to pass")
        yield command
    finally:
        proxy.allow(None)


# Downloads that somebody interferes with


def test_ctrl_c_leaves_the_download_to_the_daemon(fleet: Fleet, proxy: PeerProxy, content: Path) -> None:
    reader = fleet.daemons["reader"]
    with half_way(fleet, proxy, content) as command:
        interrupt(command)
        ran = fleet.finish_cli(command)
    assert ran.code == INTERRUPTED
    assert ran.err.startswith("Detached: the download goes on. Watch it with interfiles wait ")
    assert ran.err.count("\n") == 1
    assert ran.out == ""
    report = fleet.cli(reader, "wait", "-p", tracker(content), json=True).done.json
    assert report["state"] == "complete"
    assert differences(content, reader.home / content.name) == []


def test_detach_returns_at_once_and_wait_waits(fleet: Fleet, content: Path) -> None:
    reader = fleet.daemons["reader"]
    started = fleet.cli(reader, "download", "-p", tracker(content), "--detach", json=True).done.json
    assert started["state"] in ("detached", "complete")
    fleet.cli(reader, "wait", "-p", tracker(content)).done  # noqa: B018 - it raises
    assert differences(content, reader.home / content.name) == []


def test_pause_stops_the_download_and_resume_goes_on(fleet: Fleet, proxy: PeerProxy, content: Path) -> None:
    reader = fleet.daemons["reader"]
    with half_way(fleet, proxy, content) as command:
        assert fleet.cli(reader, "pause", "-p", tracker(content), json=True).done.json["state"] == "paused"
        assert fleet.finish_cli(command).err.endswith("was stopped: the file is paused on this host.\n")
        came = proxy.passed.total()
    local = look(fleet, content)["local"]
    assert (local["state"], local["doing"]) == ("partial", "paused")
    assert proxy.passed.total() == came
    fleet.cli(reader, "resume", "-p", tracker(content)).done  # noqa: B018 - it raises
    fleet.ask(reader, lambda client: client.wait(tracker(content)))
    assert differences(content, reader.home / content.name) == []
    assert proxy.passed.total() - came <= SIZE // 2 + MIB, "what was there is not fetched again"


def test_rm_local_of_a_running_download_removes_its_part(fleet: Fleet, proxy: PeerProxy, content: Path) -> None:
    reader = fleet.daemons["reader"]
    with half_way(fleet, proxy, content) as command:
        assert list(reader.home.glob(f"{content.name}*")) != []
        fleet.cli(reader, "rm", "-p", tracker(content), "--local", "--yes").done  # noqa: B018 - it raises
        assert fleet.finish_cli(command).code == 9
        assert list(reader.home.glob(f"*{content.name}*")) == []
    assert look(fleet, content)["local"]["state"] == "none"


# Removing


def test_rm_local_forgets_here_and_rm_everywhere_and_both_leave_the_copies(fleet: Fleet, content: Path) -> None:
    copies = [fetch(fleet, content, on=name) for name in ("reader", "other")]
    removed = fleet.cli(fleet.daemons["reader"], "rm", "-p", tracker(content), "--local", "--yes", json=True).done.json
    assert removed["path"] == str(copies[0])
    poll(lambda: look(fleet, content)["replicas"]["complete"] == 2, "the master to know")
    assert {host["name"] for host in look(fleet, content)["hosts"]} == {"source", "other"}

    removed = fleet.cli(fleet.daemons["reader"], "rm", "-p", content.name, "--yes", json=True, cwd=ROOT).done.json
    assert (removed["hosts"], removed["deleted"]) == (2, False)
    assert fleet.cli(fleet.daemons["reader"], "stat", "-p", content.name, cwd=ROOT).code == 4
    poll(lambda: fleet.cli(fleet.daemons["other"], "stat", "-p", content.name, cwd=ROOT).code == 4, "others to forget")
    for copy in copies:
        assert differences(content, copy) == []


def test_rm_delete_takes_the_copies_of_downloads_too(fleet: Fleet, content: Path) -> None:
    copy = fetch(fleet, content)
    fleet.cli(fleet.daemons["reader"], "rm", "-p", tracker(content), "--local", "--delete", "--yes").done  # noqa: B018
    assert not copy.exists()
    assert content.exists()


# Content that changes on the disk


def spoil(path: Path, offset: int, *, openly: bool) -> None:
    """Flip a bit on the disk; not `openly`: as a bad disk would, with no trace in the file's times."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    if not openly:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_verify_finds_a_bad_piece_withdraws_it_and_says_so(fleet: Fleet, content: Path) -> None:
    reader, copy = fleet.daemons["reader"], fetch(fleet, content)
    assert fleet.cli(reader, "verify", "-p", tracker(content), json=True).done.json["bad_pieces"] == []
    found = look(fleet, content)
    spoil(copy, 3 * found["piece_size"] + 5, openly=False)
    ran = fleet.cli(reader, "verify", "-p", tracker(content), json=True)
    assert ran.code == INVALID
    assert ran.json["bad_pieces"] == [3]
    assert ran.err.startswith("interfiles: ")
    assert ran.err.count("\n") == 1
    local = look(fleet, content)["local"]
    assert (local["state"], local["pieces"]) == ("partial", found["pieces"] - 1)
    poll(lambda: look(fleet, content)["replicas"]["complete"] == 1, "the master to count it no more")


def test_a_changed_file_is_withdrawn_and_reported(fleet: Fleet, content: Path) -> None:
    spoil(content, 1, openly=True)
    reader = fleet.daemons["reader"]
    ran = fleet.cli(reader, "download", "-p", tracker(content), "--timeout", "3s")
    assert ran.code == 6, ran
    found = look(fleet, content, on="source")
    assert found["replicas"]["complete"] == 0
    assert found["local"]["doing"] == "withdrawn"
    assert "changed" in found["local"]["note"]
    assert content.name in found["local"]["note"]
    assert list(reader.home.glob(content.name)) == []
    fleet.cli(reader, "rm", "-p", tracker(content), "--local", "--yes").done  # noqa: B018 - it raises


def test_an_uploaded_copy_outlives_changes_of_the_original(fleet: Fleet) -> None:
    source = fleet.daemons["source"]
    content = make_file(source.home / "draft", MIB)
    fleet.cli(source, "upload", "-p", content.name, "--copy").done  # noqa: B018 - it raises
    kept = content.read_bytes()
    content.write_bytes(b"another draft")
    assert fetch(fleet, content).read_bytes() == kept


# Who may do what


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_state_and_sockets_are_for_their_owner_alone(fleet: Fleet) -> None:
    for daemon in fleet.daemons.values():
        assert mode(daemon.state) == 0o700
        for path in daemon.state.iterdir():
            assert mode(path) & 0o077 == 0 or path.is_dir(), f"{path} is open to other users"
    assert mode(fleet.daemons["reader"].socket) == 0o600
    assert mode(fleet.master.state / "master.sock") == 0o600


@pytest.mark.root
def test_another_user_cannot_command_the_daemon(fleet: Fleet, open_directory: Path, other_uid: int) -> None:
    open_fleet = Fleet(open_directory)
    open_fleet.daemons["master"] = fleet.master
    daemon = open_fleet.start_client("guarded")
    try:
        ran = open_fleet.cli(daemon, "status", uid=other_uid, cwd=ROOT)
        assert ran.code == NOT_PERMITTED, ran
        assert "belongs to another user" in ran.err or "belongs to user root" in ran.err

        daemon.state.chmod(0o755)  # an administrator's mistake: now only the daemon itself is in the way
        daemon.socket.chmod(0o666)
        ran = open_fleet.cli(daemon, "status", uid=other_uid, cwd=ROOT)
        assert ran.code == NOT_PERMITTED, ran
        assert "this daemon belongs to another user" in ran.err
        assert open_fleet.cli(daemon, "status").code == 0
    finally:
        del open_fleet.daemons["master"]
        open_fleet.end()


# Daemons as a person starts them


def test_interfiles_client_becomes_the_daemon_and_ends_well_when_told(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(fleet.token())
    command = fleet.begin_cli(
        None, "client", "--token-file", "token", "--state", "state", "--socket", "state/sock",
        "--listen", "127.0.0.1:0", "--name", "typed", cwd=tmp_path
    )  # fmt: skip
    assert command.stdout is not None
    assert command.stdout.readline() == "ready\n"
    assert "typed" in {host["name"] for host in fleet.cli(fleet.daemons["reader"], "hosts", json=True).done.json}
    command.send_signal(signal.SIGTERM)
    ran = fleet.finish_cli(command)
    assert ran.code == 0, ran
    assert "Joined fleet" in ran.err
    assert not (tmp_path / "state" / "sock").exists()
