"""The master's process: its options, its two outputs, its exit codes."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemons.master.__main__ import outward_host
from interfiles.errors import NOT_PERMITTED, REFUSED, USAGE
from interfiles.identity.token import JoinToken

pytestmark = pytest.mark.e2e

MASTER = [sys.executable, "-m", "daemons.master"]


@contextmanager
def master(state: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A master's process that is ready."""
    command = [*MASTER, "--listen", "127.0.0.1:0", "--state", str(state), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def refused(*options: str) -> tuple[int, str]:
    """Exit code and complaint of a master that does not start."""
    ended = subprocess.run([*MASTER, *options], capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.returncode, ended.stderr


def test_it_prints_the_join_line_and_ready_and_stops_on_a_signal(tmp_path: Path) -> None:
    with master(tmp_path / "state") as process:
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    (line,) = [line for line in err.splitlines() if line.startswith("  interfiles client --join ")]
    host, _, port = JoinToken.decode(line.split()[-1]).masters[0].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert "Master of fleet " in err


def test_a_second_one_in_the_same_state_directory_is_refused_and_after_kill_9_it_is_free(tmp_path: Path) -> None:
    with master(tmp_path / "state") as process:
        code, complaint = refused("--listen", "127.0.0.1:0", "--state", str(tmp_path / "state"))
        assert code == REFUSED
        assert complaint == (
            f"interfiles: the state directory {tmp_path / 'state'} is in use by process {process.pid}; "
            "stop it, or choose another with --state.\n"
        )
        process.kill()
        process.wait()
        with master(tmp_path / "state"):
            pass


def test_an_address_in_use_is_refused(tmp_path: Path) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        port = squatter.getsockname()[1]
        code, complaint = refused("--listen", f"127.0.0.1:{port}", "--state", str(tmp_path / "state"))
    assert code == REFUSED
    assert complaint == (
        f"interfiles: address 127.0.0.1:{port} is in use by another program; choose another with --listen.\n"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--grace", "soon"], "'soon' is not a duration; write 10s, 2m, 1h or 30d"),
        (["--grace", "1s"], "--grace 1s is outside 3 s to 30 d"),
        (["--grace", "0s"], "'0s' is no time at all; write 10s, 2m, 1h or 30d"),
        (["--replicas", "0"], "'0' is not a number of copies for --replicas; it is 1 to 1,000"),
        (["--replicas", "３"], "'３' is not a number of copies for --replicas"),
        (["--listen", "nowhere:port"], "'nowhere:port' is not an address; write HOST:PORT, such as 10.0.0.5:4850"),
        (["--advertise", "a b"], "'a b' is not "),
        (["--color"], "no such option: --color; see `interfiles master --help`"),
        (["--replicas", "many"], "'many' is not a number of copies for --replicas"),
    ],
)
def test_bad_options_are_told_in_a_sentence(tmp_path: Path, options: list[str], complaint: str) -> None:
    code, told = refused("--state", str(tmp_path / "state"), *options)
    assert code == USAGE
    assert told.startswith(f"interfiles: {complaint}")
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "state").exists()


def test_a_directory_that_others_use_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open" / "something").touch()
    code, complaint = refused("--state", str(tmp_path / "open"))
    assert code == NOT_PERMITTED
    assert "is open to other users" in complaint


def test_a_state_directory_too_deep_for_its_socket_is_told_with_an_option_that_there_is(tmp_path: Path) -> None:
    code, complaint = refused("--listen", "127.0.0.1:0", "--state", str(tmp_path / ("d" * 120)))
    assert code == REFUSED
    assert complaint.endswith("master.sock is over 107 bytes; choose a shorter one with --state.\n")


def test_the_help_teaches_by_example() -> None:
    shown = subprocess.run([*MASTER, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    assert "Usage: interfiles master [OPTIONS]" in shown
    assert "  interfiles master --listen 10.0.0.5:4850 --state /data/master --replicas 2" in shown


def test_the_outward_address_is_one_of_this_machine() -> None:
    host = outward_host()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))


def test_without_a_way_out_the_outward_address_is_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", unreachable)
    assert outward_host() == "127.0.0.1"
