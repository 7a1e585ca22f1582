"""Processes of a fleet: how they are started, what is known of one, and what can be measured of it from outside.

Needs nothing but what the daemons need themselves.
"""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

from interfiles.identity.token import JoinToken

POLL_S: Final = 0.02
_LISTENING: Final = "0A"  # a state of the kernel's table of sockets

Role = Literal["master", "client"]
T = TypeVar("T")

# Runs `module:function` with the arguments that follow. The child dies with its parent (PR_SET_PDEATHSIG). To become
# another user it first rehearses, so that all modules are loaded: that user cannot read an interpreter in root's home.
# Constants of modules may be set to other values, so that no test has to wait for what usually takes a minute.
_LAUNCHER: Final = """
import contextlib, ctypes, importlib, json, os, sys
target, uid, groups, rehearsal = sys.argv[1:5]
arguments = sys.argv[5:]
for name, value in json.loads(os.environ.pop("TEST_CONSTANTS", "{}")).items():
    module, constant = name.split(":")
    assert hasattr(importlib.import_module(module), constant), name
    setattr(importlib.import_module(module), constant, value)
module, function = target.split(":")
main = getattr(importlib.import_module(module), function)
if uid:
    import _strptime, concurrent.futures.thread, encodings.idna, interfiles.control
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere), contextlib.suppress(SystemExit):
        sys.argv = ["interfiles", *rehearsal.split()]
        main()
    os.setgroups([int(group) for group in groups.split()])
    os.setgid(int(uid))
    os.setuid(int(uid))
ctypes.CDLL(None).prctl(1, 9)
sys.argv = ["interfiles", *arguments]
main()
"""
_REHEARSALS: Final = {"interfiles": "status --socket /nowhere", "daemons": "--listen no:port"}

CLI: Final = "interfiles.cli.__main__:main"
DAEMONS: Final[dict[Role, str]] = {"master": "daemons.master.__main__:main", "client": "daemons.client.__main__:main"}


class FleetError(Exception):
    """A daemon or command did not do what the harness needs; in one sentence."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    command: str
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        try:
            return json.loads(self.out)
        except json.JSONDecodeError as e:
            raise FleetError(f"{self} did not print one JSON value: {e}") from e

    @property
    def done(self) -> Self:
        """The same, if it ended with 0.

        Raises:
          FleetError: it did not.
        """
        if self.code:
            raise FleetError(f"{self} failed")
        return self

    def __str__(self) -> str:
        return f"`{self.command}` (exit code {self.code})\n  stdout: {self.out!r}\n  stderr: {self.err!r}\n"


@dataclass
class Daemon:
    """One daemon and what it needs to start again: `home` is where its commands are typed, and its downloads go.

    `constants`: values of module constants that are others than usual, by `module:NAME`. `namespace`: the network
    namespace that it runs in (ip-netns(8); to enter one takes root), empty for this process's own.
    """

    name: str
    role: Role
    home: Path
    state: Path
    socket: Path
    arguments: list[str]
    uid: int | None = None
    constants: dict[str, float] = field(default_factory=dict)
    groups: tuple[int, ...] = ()
    namespace: str = ""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    log: Path = field(init=False)
    out: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.home.with_name(f"{self.name}.log")
        self.out = self.home.with_name(f"{self.name}.out")

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def entry(self) -> list[str]:
        """What stands before its command line, so that it runs in its namespace, under the same process id."""
        return ["ip", "netns", "exec", self.namespace] if self.namespace else []

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def logged(self) -> str:
        """All of its log, of every start."""
        return self.log.read_text(errors="backslashreplace") if self.log.exists() else ""


def poll(condition: Callable[[], T], what: str, *, timeout_s: float = 30.0) -> T:
    """Call `condition` until it returns something true, and return that.

    Raises:
      FleetError: it did not within `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise FleetError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(POLL_S)


def free_port() -> int:
    """A port that is free now and that the system gives to nobody by itself, so that a restart finds it free."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(min(10_000, first_ephemeral - 1), first_ephemeral)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def master_address(token: str) -> str:
    """HOST:PORT of the master that a token leads to."""
    return JoinToken.decode(token).masters[0]


def rss(daemon: Daemon) -> int:
    """Resident memory, in bytes."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None, f"{daemon.name} has no memory"
    return int(found[1]) * 1024


def open_fds(daemon: Daemon) -> int:
    """How many descriptors it has open."""
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def listening_port(daemon: Daemon) -> int:
    """The TCP port of 127.0.0.1 that it listens on, as the kernel knows it."""
    sockets = _sockets(daemon)
    for port, state, inode in _tcp_table():
        if state == _LISTENING and inode in sockets:
            return port
    raise FleetError(f"{daemon.name} listens on no port")


def dialler(port: int, daemons: Iterable[Daemon]) -> str:
    """The name of the daemon that has connected to somewhere from this local port; empty if none of these has."""
    inodes = {inode for local, _, inode in _tcp_table() if local == port}
    return next((daemon.name for daemon in daemons if daemon.is_running and inodes & _sockets(daemon)), "")


def _sockets(daemon: Daemon) -> set[str]:
    """The inodes of its sockets."""
    inodes = set()
    with suppress(OSError), os.scandir(f"/proc/{daemon.pid}/fd") as entries:  # it may end meanwhile
        for entry in entries:
            with suppress(OSError):
                inodes.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    return inodes


def _tcp_table() -> Iterator[tuple[int, str, str]]:
    """Local port, state and inode of every IPv4 socket."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        yield int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C."""
    process.send_signal(signal.SIGINT)


def launch_line(target: str, uid: int | None, arguments: Sequence[str], *, groups: Sequence[int] = ()) -> list[str]:
    """The command line that runs `module:function`, as this user or as another one, with these supplementary groups."""
    rehearsal = _REHEARSALS[target.partition(".")[0]]
    who = ["" if uid is None else str(uid), " ".join(map(str, groups))]
    return [sys.executable, "-P", "-c", _LAUNCHER, target, *who, rehearsal, *arguments]
