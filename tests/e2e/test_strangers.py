"""Strangers that break the rules: each harms only its own connection."""

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from interfiles.errors import UnknownFile
from interfiles.identity import contexts
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import Hello
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, listening_port, open_fds, poll

SEED = 20_260_722
ANSWER_TIMEOUT_S = 5.0
HELLO = Hello("control", 1, 1, [])

GARBAGE = {
    "nothing": b"",
    "noise": random.Random(SEED).randbytes(64 << 10),
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + random.Random(SEED).randbytes(500),
    "no header": struct.pack(">II", 0, 0),
    "a header that is too long": struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
    "a payload that is too long": struct.pack(">II", 10, 0xFFFF_FFFF),
    "a header that is no message": struct.pack(">II", 3, 0) + b"\x93\x01\x02",
    "nested arrays": struct.pack(">II", 4096, 0) + b"\xdc\xff\xff" * 1365 + b"\x00",
    "another conversation": encode_frame(HELLO),
    "no common version": encode_frame(Hello("swarm", 900, 901, [])),
    "a greeting twice": encode_frame(Hello("swarm", 1, 1, [])) * 2,
}
# These end before they are complete, so whoever gets them has nothing to refuse yet.
HALVES = [b"\0", encode_frame(HELLO)[:7], encode_frame(HELLO)[:-1], struct.pack(">II", MAX_HEADER_BYTES, 0) + b"\x90"]


@pytest.fixture(scope="module")
def daemons(module_fleet: Fleet) -> dict[str, Daemon]:
    module_fleet.start_master()
    module_fleet.start_clients("source", "reader")
    make_file(module_fleet.daemons["source"].home / "file", 8 * MIB)
    module_fleet.cli(module_fleet.daemons["source"], "upload", "-p", "file").done  # noqa: B018 - it raises
    return module_fleet.daemons


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


def connect(daemon: Daemon, door: str) -> socket.socket:
    """Connect to a daemon's TCP port ("tcp"; "tls": as one who shows no certificate), or to its Unix socket."""
    if door != "unix":
        sock = socket.create_connection(("127.0.0.1", listening_port(daemon)), timeout=ANSWER_TIMEOUT_S)
        return contexts.asking().wrap_socket(sock, suppress_ragged_eofs=True) if door == "tls" else sock
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_TIMEOUT_S)
    sock.connect(str(daemon.socket if daemon.role == "client" else daemon.state / "master.sock"))
    return sock


def fetch_again(fleet: Fleet) -> None:
    """Download the file anew: everybody still does what they should."""
    reader = fleet.daemons["reader"]
    with suppress(UnknownFile):  # the first time
        fleet.ask(reader, lambda client: client.remove("file", local=True, delete=True))
    fleet.ask(reader, lambda client: client.download("file", directory=reader.home))
    assert differences(fleet.daemons["source"].home / "file", reader.home / "file") == []


@pytest.mark.parametrize(
    ("name", "door"), [("master", "tcp"), ("master", "tls"), ("master", "unix"), ("source", "tcp"), ("source", "unix")]
)
def test_garbage_ends_its_connection_and_nothing_else(fleet: Fleet, name: str, door: str) -> None:
    daemon = fleet.daemons[name]
    before = open_fds(daemon)
    for what, data in GARBAGE.items():
        with connect(daemon, door) as sock:
            with suppress(OSError):  # refused already
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            try:
                while sock.recv(4096):
                    pass
            except TimeoutError:
                pytest.fail(f"{what}: the connection is still open after {ANSWER_TIMEOUT_S:.0f} s")
            except OSError:
                pass
    poll(lambda: open_fds(daemon) <= before, "the connections' descriptors to be closed")
    fetch_again(fleet)


def test_strangers_that_begin_and_never_end_keep_nobody_else_out(fleet: Fleet) -> None:
    strangers = []
    try:
        for number in range(60):
            for name, door in (("master", "tls"), ("source", "tcp"), ("reader", "unix")):
                sock = connect(fleet.daemons[name], door)
                strangers.append(sock)
                sock.sendall(HALVES[number % len(HALVES)])
        report = fleet.cli(fleet.daemons["source"], "hosts", json=True).done.json
        assert {host["state"] for host in report} == {"live"}
        fetch_again(fleet)
    finally:
        for sock in strangers:
            sock.close()
