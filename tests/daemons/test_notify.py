"""Messages to systemd, received on a real socket."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from daemons.notify import Notifier
from tests.conftest import LogRecords


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        yield receiver


def received(manager: socket.socket) -> list[str]:
    messages = []
    try:
        while True:
            messages.append(manager.recv(4096).decode())
    except BlockingIOError:
        return messages


def test_readiness_status_and_the_stop_are_told(manager: socket.socket) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.getsockname()})
    notifier.ready()
    notifier.status("serving 3 files")
    notifier.stopping()
    assert received(manager) == ["READY=1", "STATUS=serving 3 files", "STOPPING=1"]


def test_a_status_cannot_smuggle_in_another_message(manager: socket.socket) -> None:
    Notifier(manager.getsockname()).status("fetching evil\nMAINPID=1")
    assert received(manager) == ["STATUS=fetching evil\\x0aMAINPID=1"]


def test_an_abstract_socket_is_reached() -> None:
    name = f"interfiles-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.bind("\0" + name)
        Notifier("@" + name).ready()
        assert received(manager) == ["READY=1"]


def test_without_a_manager_nothing_happens(log_records: LogRecords) -> None:
    Notifier.from_environment({}).ready()
    assert log_records.records == []


def test_a_manager_that_cannot_be_reached_is_logged_once(tmp_path: Path, log_records: LogRecords) -> None:
    notifier = Notifier(str(tmp_path / "gone"))
    notifier.ready()
    notifier.stopping()
    assert [(record["event"], record["state"]) for record in log_records.records] == [
        ("cannot notify systemd", "READY=1")
    ]


def test_a_manager_that_does_not_read_does_not_block(manager: socket.socket, log_records: LogRecords) -> None:
    notifier = Notifier(manager.getsockname())
    for _ in range(10_000):
        notifier.ready()
    assert [record["event"] for record in log_records.records] == ["cannot notify systemd"]


async def test_the_watchdog_is_fed_twice_as_often_as_it_asks(
    manager: socket.socket, autojump_clock: trio.testing.MockClock
) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "42"}
    notifier = Notifier.from_environment(environ, pid=42)
    with trio.move_on_after(59):
        await notifier.feed_watchdog()
    assert received(manager) == ["WATCHDOG=1"] * 4  # at 0, 15, 30 and 45 seconds


@pytest.mark.parametrize(
    "environ",
    [
        pytest.param({}, id="no watchdog"),
        pytest.param({"WATCHDOG_USEC": "0"}, id="a watchdog of no time"),
        pytest.param({"WATCHDOG_USEC": "soon"}, id="not a number"),
        pytest.param({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "41"}, id="another process's watchdog"),
    ],
)
async def test_without_a_watchdog_for_this_process_nothing_is_fed(
    environ: dict[str, str], manager: socket.socket
) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": manager.getsockname(), **environ}, pid=42)
    await notifier.feed_watchdog()
    assert received(manager) == []
