"""Strangers that break the rules: each harms only its own connection."""

import random
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import PIPE, STDOUT

import pytest

from daemons.client.peer_server import MAX_STRANGERS as CLIENT_STRANGERS
from daemons.master.hosts import MAX_STRANGERS as MASTER_STRANGERS
from interfiles.errors import UnknownFile
from interfiles.identity import authority, contexts
from interfiles.identity.authority import Authority
from interfiles.identity.subject import Subject
from interfiles.wire.framing import MAX_HEADER_BYTES, encode_frame
from interfiles.wire.handshake_messages import Hello
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, listening_port, open_fds, poll, rss

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
        return dial(listening_port(daemon), contexts.asking() if door == "tls" else None)
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(ANSWER_TIMEOUT_S)
    sock.connect(str(daemon.socket if daemon.role == "client" else daemon.state / "master.sock"))
    return sock


def dial(port: int, context: ssl.SSLContext | None) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_S)
    return context.wrap_socket(sock) if context is not None else sock


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


THOUSAND = 1000
HANDSHAKES_EACH = 4  # one in so many strangers comes as far as TLS lets who has no certificate


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for thousands of connections in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4 * THOUSAND:
        pytest.skip(f"this process may open no more than {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4 * THOUSAND), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_connections_without_a_certificate_leave_members_served(fleet: Fleet, many_files: None) -> None:
    daemons = [fleet.daemons[name] for name in ("master", "source")]
    before = {daemon.name: (open_fds(daemon), rss(daemon)) for daemon in daemons}
    tracker = fleet.daemons["source"].home / "file.tracker"
    with ExitStack() as stack:
        context = contexts.asking()
        for port in map(listening_port, daemons):
            for number in range(THOUSAND):
                stack.enter_context(dial(port, None if number % HANDSHAKES_EACH else context))
        found = fleet.cli(fleet.daemons["reader"], "stat", "-p", str(tracker), json=True).done.json
        assert found["complete_info"], "the master answers"
        fetch_again(fleet)
        for daemon, strangers in zip(daemons, (MASTER_STRANGERS, CLIENT_STRANGERS), strict=True):
            fds, memory = before[daemon.name]
            assert open_fds(daemon) <= fds + strangers + 32, f"{daemon.name} keeps too many of them"
            assert rss(daemon) < memory + 64 * MIB
    poll(lambda: all(open_fds(daemon) <= before[daemon.name][0] for daemon in daemons), "the descriptors to be closed")


CERTIFIED = "-cert leaf.pem -key key.pem"
S_CLIENT = [
    "",
    "-tls1_2",
    "-tls1_3 -ciphersuites TLS_CHACHA20_POLY1305_SHA256",
    "-groups X448 -sigalgs RSA-PSS+SHA256",
    "-servername master.example -alpn h2,http/1.1 -status -no_ticket",
    CERTIFIED,
    f"{CERTIFIED} -tls1_2 -cipher ALL:@SECLEVEL=0",
    f"{CERTIFIED} -max_send_frag 512 -split_send_frag 512",
]


def test_openssl_with_every_option_and_random_bytes_is_refused_and_logged_as_no_bug(
    fleet: Fleet, tmp_path: Path
) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    key, now = authority.new_key(), time.time()
    leaf = Authority.make("ab12", now=now).issue(
        authority.public_key_of(key), Subject("ab12", "host", "0" * 32), now=now
    )
    (tmp_path / "leaf.pem").write_text(leaf)
    (tmp_path / "key.pem").write_text(key)
    (tmp_path / "noise").write_bytes(random.Random(SEED).randbytes(256 << 10))
    daemons = [fleet.daemons[name] for name in ("master", "source")]
    before = [open_fds(daemon) for daemon in daemons]
    with ExitStack() as stack:
        running = []
        for address in [f"127.0.0.1:{listening_port(daemon)}" for daemon in daemons]:
            for options in S_CLIENT:
                command = [openssl, "s_client", "-connect", address, *options.split()]
                with open(tmp_path / "noise", "rb") as noise:
                    process = subprocess.Popen(command, stdin=noise, stdout=PIPE, stderr=STDOUT, cwd=tmp_path)
                running.append((options, stack.enter_context(process)))
        for options, process in running:
            out, _ = process.communicate(timeout=20)
            assert b"CONNECTED" in out, f"{options} is no way to start openssl: {out!r}"
            assert b"New, TLSv1.2" not in out, "there is nothing below TLS 1.3"
    poll(
        lambda: all(open_fds(daemon) <= fds for daemon, fds in zip(daemons, before, strict=True)),
        "the connections' descriptors to be closed",
    )
    fetch_again(fleet)


@pytest.mark.parametrize("name", ["master", "source"])
def test_out_of_descriptors_a_daemon_accepts_no_more_serves_whom_it_has_and_comes_back_by_itself(
    fleet: Fleet, name: str
) -> None:
    daemon, source = fleet.daemons[name], fleet.daemons["source"]
    fetch_again(fleet)
    before = open_fds(daemon)
    limits = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (before + 20, limits[1]))
        stack.callback(resource.prlimit, daemon.pid, resource.RLIMIT_NOFILE, limits)
        for _ in range(40):
            stack.enter_context(dial(listening_port(daemon), None))
        poll(lambda: open_fds(daemon) >= before + 19, "the daemon to have no descriptors left")
        poll(lambda: "accepting failed" in daemon.logged, "it to say so")
        assert daemon.logged.count("accepting failed") == 1
        fetch_again(fleet)
    poll(lambda: open_fds(daemon) <= before + 3, "the descriptors to be closed")
    fetch_again(fleet)
    assert fleet.ask(source, lambda client: client.stat("file")).local.state == "complete"
