"""The command as a process of its own: signals, pipes, terminals, and what it imports."""

import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from fcntl import ioctl
from pathlib import Path

import pytest

from interfiles.wire.admin_reports import HostDrainReport
from tests.fake_daemon import NEVER, FakeDaemon
from tests.samples import DOWNLOAD, TRACKER, UPLOAD, progress, status, transfer

# A shell that starts pytest in the background has it, and so the command, ignore Ctrl-C.
MAIN = "import signal; signal.signal(2, signal.default_int_handler); from interfiles.cli.__main__ import main; main()"
GOES_ON = "Watch it with interfiles wait 9c41e0, stop it with interfiles rm --local 9c41e0."
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.e2e


def start(
    daemon: FakeDaemon,
    *arguments: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    colour: bool = True,
) -> "subprocess.Popen[str]":
    environ = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    environ |= {"INTERFILES_SOCKET": str(daemon.socket), "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    environ |= {} if colour else {"NO_COLOR": "1"}
    here = daemon.socket.parent.parent / "here"
    here.mkdir(exist_ok=True)
    command = [sys.executable, "-c", MAIN, *arguments]
    return subprocess.Popen(command, cwd=here, env=environ, text=True, stdin=stdin, stdout=stdout, stderr=stderr)


def interrupt(daemon: FakeDaemon, *arguments: str, after: str = "") -> tuple[int, str, str]:
    """Start a command, and press Ctrl-C when the daemon has played its script and `after` has been said on stderr."""
    with start(daemon, *arguments) as process:
        assert daemon.told.wait(60)
        assert process.stderr is not None
        assert not after or process.stderr.readline() == after
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert daemon.left.wait(60)
    return process.returncode, out, err


@pytest.mark.parametrize("command", ["download", "wait"])
def test_ctrl_c_leaves_a_download_to_the_daemon_and_says_so(command: str, daemon: FakeDaemon) -> None:
    daemon.will(progress("waiting", text="no host has it"), NEVER)
    waiting = "interfiles: no host has it. Waiting; Ctrl-C leaves it queued.\n"
    assert interrupt(daemon, command, "-p", "9c41e0", after=waiting) == (
        130,
        "",
        f"Detached: the download goes on. {GOES_ON}\n",
    )


def test_ctrl_c_before_the_daemon_has_taken_the_download_on_promises_nothing(daemon: FakeDaemon) -> None:
    daemon.will(NEVER)
    code, _, err = interrupt(daemon, "download", "-p", "9c41e0")
    assert (code, err) == (130, "Interrupted before the daemon answered.\n")


def test_ctrl_c_abandons_an_upload(daemon: FakeDaemon) -> None:
    daemon.will(progress("hashing"), NEVER)
    code, out, err = interrupt(daemon, "upload", "-p", "weights")
    assert (code, out) == (130, "")
    assert err == "Interrupted: the upload is abandoned, no tracker file was written.\n"
    assert list((daemon.socket.parent.parent / "here").iterdir()) == []


def test_head_takes_what_it_wants(daemon: FakeDaemon) -> None:
    daemon.will(status(*[transfer()] * 1000))
    reader, writer = os.pipe()
    os.close(reader)
    process = start(daemon, "status", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


def test_a_full_disk_takes_no_output(daemon: FakeDaemon) -> None:
    daemon.will(status())
    with open("/dev/full", "w") as full:
        process = start(daemon, "status", "--json", stdout=full.fileno())
        _, err = process.communicate(timeout=60)
    assert process.returncode == 9
    assert err == "interfiles: the output cannot be written: No space left on device.\n"


def test_on_a_terminal_a_bar_is_drawn_and_the_result_stays(daemon: FakeDaemon) -> None:
    daemon.will(progress(), DOWNLOAD)
    code, shown = on_terminal(daemon, 80, "download", "-p", "weights")
    assert code == 0
    assert "weights  " in shown
    assert " 51 %  9.4 of 18.4 GB  1.1 GB/s  9 s left  from 6 hosts" in shown
    assert "\x1b[36m" in shown
    assert shown.endswith("Done: /data/weights (18.4 GB in 17 s, 1.1 GB/s, every piece verified).\r\n")


def test_without_colour_the_bar_has_none(daemon: FakeDaemon) -> None:
    daemon.will(progress("hashing"), UPLOAD, TRACKER)
    code, shown = on_terminal(daemon, 50, "upload", "-p", "weights", colour=False)
    assert code == 0
    assert "Hashing weights" in shown
    assert "\x1b[36m" not in shown
    assert "\x1b[32m" not in shown


def on_terminal(daemon: FakeDaemon, width: int, *arguments: str, colour: bool = True) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and all bytes that it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = start(daemon, *arguments, stdin=theirs, stdout=theirs, stderr=theirs, colour=colour)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 65536)
        except OSError:  # the terminal is gone with the process
            break
    os.close(ours)
    return process.wait(timeout=60), written.decode()


def imported(*arguments: str) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    code = (
        "import sys; from interfiles.cli.app import run; run(sys.argv[1:]); "
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    environ = os.environ | {"INTERFILES_SOCKET": "/nowhere/client.sock", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("arguments", "without"),
    [
        (["--help"], {"trio", "rich", "blake3"}),
        (["download", "-p", "missing.tracker"], {"trio", "rich"}),
        (["status"], {"rich"}),
    ],
)
def test_a_command_imports_what_it_needs(arguments: Sequence[str], without: set[str]) -> None:
    assert imported(*arguments) & without == set()


def test_ctrl_c_ends_a_wait_for_copies_and_not_the_copying(daemon: FakeDaemon) -> None:
    daemon.will(progress("replicating", done=1, total=3), NEVER)
    code, out, err = interrupt(daemon, "wait", "--replicas", "-p", "weights")
    assert (code, out, err) == (130, "", "Interrupted: copies are made all the same.\n")


def test_ctrl_c_leaves_a_host_draining_and_says_so(tmp_path: Path) -> None:
    moving = HostDrainReport(host="ab" * 16, name="render-07", state="draining", draining=True, to_move=12)
    with FakeDaemon(tmp_path / "master" / "master.sock", "admin").running() as master:
        master.will(moving)
        master.will(NEVER)
        arguments = ["hosts", "drain", "render-07", "--json", "--state", str(master.socket.parent)]
        assert interrupt(master, *arguments) == (
            130,
            "",
            (
                "Interrupted: render-07 goes on draining. Watch it with interfiles hosts drain render-07, end it with "
                "interfiles hosts undrain render-07.\n"
            ),
        )


def test_ctrl_c_ends_following_the_events(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "master" / "master.sock", "admin").running() as master:
        master.will(NEVER)
        assert interrupt(master, "events", "--follow", "--state", str(master.socket.parent)) == (130, "", "")
