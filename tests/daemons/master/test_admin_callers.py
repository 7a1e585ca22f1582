"""Other users of this machine, for real: the kernel says who has connected."""

import os
import socket
from pathlib import Path

import pytest
from trio.testing import MockClock

from interfiles.errors import NotPermitted
from interfiles.locations import admin_socket
from interfiles.transport.message_stream import greet
from interfiles.transport.plain import SocketTransport
from tests.daemons.master.scripted import Fleet

NOBODY = 65534

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]


def connect_as(uid: int, state: Path) -> SocketTransport:
    """Connect as another user, who has found a way past the closed directories above the state directory."""
    way, made = os.open(state, os.O_PATH), socket.socket(socket.AF_UNIX)
    os.seteuid(uid)
    try:
        made.connect(f"/proc/self/fd/{way}/master.sock")
    except OSError:
        made.close()
        raise
    finally:
        os.seteuid(0)
        os.close(way)
    made.setblocking(False)
    return SocketTransport(made, None)


async def test_the_socket_lets_no_other_user_in(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(PermissionError):
        connect_as(NOBODY, fleet.state)
    fleet.state.chmod(0o755)
    with pytest.raises(PermissionError):
        connect_as(NOBODY, fleet.state)


async def test_nor_does_the_master_if_somebody_has_opened_the_socket(fleet: Fleet, autojump_clock: MockClock) -> None:
    fleet.state.chmod(0o755)
    admin_socket(fleet.state).chmod(0o666)
    with pytest.raises(NotPermitted, match="only the master's own user and root may administer it; try sudo"):
        await greet(connect_as(NOBODY, fleet.state), "admin", "local")
    stream, welcome = await greet(connect_as(0, fleet.state), "admin", "local")
    assert welcome.role == "local"
    stream.close()
