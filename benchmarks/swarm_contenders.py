"""Who is compared in a swarm: each spreads one file from host 0 to all others, every host in its own namespace.

A contender is a context manager that prepares what is not timed (hashing, joining, a tracker). It is used for one run.
"""

import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Final, Self

from benchmarks.namespaces import HUB_ADDRESS, Network, enter
from benchmarks.swarm_scenarios import Scenario
from interfiles.geometry import choose_piece_size
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, FleetError, Ran, poll

PORT: Final = 6881
TRACKER: Final = f"{HUB_ADDRESS}:6969"
ANNOUNCED_S: Final = 2.0  # for a source that listens to be known to the tracker
STOP_TIMEOUT_S: Final = 10.0
_LOG_TAIL_CHARACTERS: Final = 300
_FETCHED: Final = re.compile(r"complete.* fetched=(\d+)")


@dataclass(frozen=True)
class Ground:
    """Where a contender runs. `file`: what host 0 has; `scratch`: an empty directory for everything else."""

    network: Network
    scenario: Scenario
    file: Path
    scratch: Path


class FetchFailed(Exception):
    """A host gave up; in one sentence."""


class Contender(ABC):
    """One way to spread a file. `notes`: what went wrong without ending the run, in sentences."""

    name: ClassVar[str]

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        self.scratch = ground.scratch
        self.notes: list[str] = []
        self._stack = ExitStack()

    @classmethod
    def missing(cls) -> str:
        """What this machine lacks for it; empty if nothing."""
        return ""

    def __enter__(self) -> Self:
        with self._stack:
            self.prepare(self._stack)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @abstractmethod
    def prepare(self, stack: ExitStack) -> None:
        """Start what it needs, and leave its end on the stack."""

    @abstractmethod
    def begin(self) -> None:
        """Let all receivers fetch."""

    @abstractmethod
    def has_all(self, number: int) -> bool:
        """Whether a receiver has said that it has the whole file.

        Raises:
          FetchFailed: it will never have it.
        """

    @abstractmethod
    def kill_source(self) -> None:
        """End the source's process at once (SIGKILL)."""

    def directory(self, number: int) -> Path:
        """Where a receiver puts the file."""
        return self.scratch / f"got-{number}"

    def content(self, number: int) -> Path | None:
        """The file in which a receiver's pieces are now; None before there is one."""
        copy = self.directory(number) / self.ground.file.name
        if copy.exists():
            return copy
        return next(self.directory(number).glob(f"{self.ground.file.name}.*.part"), None)

    def sent_by_host(self, number: int) -> dict[int, int]:
        """Bytes of good pieces that a receiver says it got, by host; empty for who does not say."""
        return {}

    def duplicate_bytes(self, number: int) -> int | None:
        """Bytes of content that a receiver got and had already; None for who does not say."""
        return None


class InterFiles(Contender):
    """The real daemons and the real commands: encrypted, verified, durable."""

    name = "InterFiles"

    def prepare(self, stack: ExitStack) -> None:
        fleet = Fleet(self.scratch)
        stack.callback(self._end, fleet)
        network, scenario = self.ground.network, self.ground.scenario
        fleet.start_master_in(network.hub, f"{HUB_ADDRESS}:4850")
        self._daemons = []
        for number, (namespace, address) in enumerate(zip(network.hosts, network.addresses, strict=True)):
            zone = scenario.zone(number)
            arguments = ["--listen", f"{address}:4851", *(("--zone", zone) if zone else ())]
            daemon = fleet.new_client(_host_name(number), *arguments)
            daemon.namespace = namespace
            self._daemons.append(daemon)
        fleet.start_new(*self._daemons)
        command = ["upload", "-p", str(self.ground.file), "-o", str(self.scratch)]
        self._tracker = fleet.cli(self._source, *command, json=True).done.json["tracker"]
        for number in scenario.receivers:
            self.directory(number).mkdir()
        self._fleet = fleet
        self._commands: dict[int, subprocess.Popen[str]] = {}
        self._reports: dict[int, dict[str, int]] = {}

    @property
    def _source(self) -> Daemon:
        return self._daemons[0]

    def begin(self) -> None:
        for number in self.ground.scenario.receivers:
            where = ["-p", self._tracker, "-o", str(self.directory(number))]
            self._commands[number] = self._fleet.begin_cli(self._daemons[number], "download", *where, "--json")

    def has_all(self, number: int) -> bool:
        command = self._commands[number]
        if command.poll() is None:
            return False
        if number not in self._reports:
            ran: Ran = self._fleet.finish_cli(command)
            if ran.code:
                raise FetchFailed(f"`interfiles download` ended with {ran.code}: {ran.err.strip()}")
            self._reports[number] = ran.json["bytes_from_peers"]
        return True

    def kill_source(self) -> None:
        self._fleet.kill(self._source)

    def sent_by_host(self, number: int) -> dict[int, int]:
        by_name = {_host_name(other): other for other in range(len(self._daemons))}
        reported = self._reports.get(number, {}).items()
        return {by_name[name]: sent for name, sent in reported if name in by_name}

    def duplicate_bytes(self, number: int) -> int | None:
        found = _FETCHED.findall(self._daemons[number].logged)
        return int(found[-1]) - self.ground.file.stat().st_size if found else None

    def _end(self, fleet: Fleet) -> None:
        """End all, and note what the daemons complain of: the run counts all the same."""
        try:
            bad = {name: code for name, code in fleet.end().items() if code}
            if bad:
                self.notes.append(f"daemons did not end with 0 after SIGTERM: {bad}")
            fleet.check_logs()
        except FleetError as e:
            self.notes.append(str(e))


class Rival(Contender):
    """A BitTorrent peer a host, whose processes stay until the end; a marker beside its directory says that it is done.

    They find one another by the tracker on the bridge, or are told if there is none. Plaintext.
    """

    def prepare(self, stack: ExitStack) -> None:
        file, network = self.ground.file, self.ground.network
        self._torrent = self.scratch / "torrent"
        piece = str(choose_piece_size(file.stat().st_size))
        command = [sys.executable, "-m", "benchmarks.libtorrent_peer", "make", str(file), str(self._torrent), piece]
        info_hash = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        if has_tracker():
            self._start_tracker(stack, info_hash)
        self._stack_of_fetches = stack.enter_context(ExitStack())
        self._processes = {0: self._start(stack, 0, self.command(0))}
        poll(lambda: network.is_open(0, PORT), f"{self.name} to listen")
        for number in self.ground.scenario.receivers:
            self.directory(number).mkdir()
        time.sleep(ANNOUNCED_S)

    @abstractmethod
    def command(self, number: int) -> list[str]:
        """The command line of a host's peer; that of host 0 has the file."""

    @cached_property
    def torrent(self) -> str:
        """The torrent's path."""
        return str(self._torrent)

    def marker(self, number: int) -> Path:
        """What exists as soon as a host has the file."""
        return self.scratch / f"got-{number}.done"

    def begin(self) -> None:
        for number in self.ground.scenario.receivers:
            self._processes[number] = self._start(self._stack_of_fetches, number, self.command(number))

    def has_all(self, number: int) -> bool:
        if self.marker(number).exists():
            return True
        process = self._processes[number]
        if process.poll() is not None:
            said = self._log(number).read_text(errors="replace").strip()[-_LOG_TAIL_CHARACTERS:]
            raise FetchFailed(f"{self.name} ended with {process.returncode}: {said}")
        return False

    def kill_source(self) -> None:
        self._processes[0].kill()

    def _log(self, number: int) -> Path:
        return self.scratch / f"log-{number}"

    def _start(self, stack: ExitStack, number: int, command: list[str]) -> subprocess.Popen[bytes]:
        return self._run(stack, self._log(number), [*enter(self.ground.network.hosts[number]), *command])

    def _start_tracker(self, stack: ExitStack, info_hash: str) -> None:
        # It gives up root, and then must still read what it may serve.
        whitelist, settings = self.scratch / "whitelist", self.scratch / "opentracker.conf"
        whitelist.write_text(f"{info_hash}\n")
        settings.write_text(f"listen.tcp_udp {TRACKER}\naccess.whitelist {whitelist}\n")
        self._run(
            stack, self.scratch / "log-tracker", [*enter(self.ground.network.hub), "opentracker", "-f", str(settings)]
        )

    def _run(self, stack: ExitStack, log: Path, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a process; it is ended with the contender."""
        with open(log, "wb") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0)

        def end() -> None:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        stack.callback(end)
        return process


class Libtorrent(Rival):
    """libtorrent, tuned for a fast network."""

    name = "libtorrent"

    @classmethod
    def missing(cls) -> str:
        return _lacks_libtorrent()

    def command(self, number: int) -> list[str]:
        addresses = self.ground.network.addresses
        command = [sys.executable, "-m", "benchmarks.libtorrent_peer", "member", "fetch" if number else "seed"]
        place = self.directory(number) if number else self.ground.file.parent
        told = [f"http://{TRACKER}/announce"] if has_tracker() else [f"{other}:{PORT}" for other in addresses[:number]]
        return [*command, str(place), self.torrent, f"{addresses[number]}:{PORT}", str(self.marker(number)), *told]


class Aria2(Rival):
    """aria2, which needs a tracker."""

    name = "aria2"

    @classmethod
    def missing(cls) -> str:
        lacking = [name for name, command in (("aria2", "aria2c"), ("opentracker", "opentracker")) if not _has(command)]
        return " and ".join([*lacking, *filter(None, [_lacks_libtorrent()])])  # that makes the torrent

    def command(self, number: int) -> list[str]:
        place = self.directory(number) if number else self.ground.file.parent
        options = {
            "dir": place,
            "listen-port": PORT,
            "bt-tracker": f"http://{TRACKER}/announce",
            "bt-tracker-interval": 2,
            "bt-max-peers": 0,
            "bt-request-peer-speed-limit": "1000M",
            "seed-ratio": 0,
            "file-allocation": "none",
            "enable-dht": "false",
            "disable-ipv6": "true",
            "no-conf": "true",
        }
        if number:
            options["on-bt-download-complete"] = self._hook
        else:
            options["bt-seed-unverified"] = "true"
        return ["aria2c", "-q", *(f"--{name}={value}" for name, value in options.items()), self.torrent]

    @cached_property
    def _hook(self) -> Path:
        """What aria2 runs with the path of the file when it has it."""
        hook = self.scratch / "done.sh"
        hook.write_text('#!/bin/sh\n: >"$(dirname "$3").done"\n')
        hook.chmod(0o755)
        return hook


ALL: Final[list[type[Contender]]] = [InterFiles, Libtorrent, Aria2]


def has_tracker() -> bool:
    """Whether there is a BitTorrent tracker on this machine."""
    return _has("opentracker")


def _has(command: str) -> bool:
    return shutil.which(command) is not None


def _lacks_libtorrent() -> str:
    try:
        import libtorrent  # noqa: F401
    except ImportError:
        return "libtorrent (pip install libtorrent)"
    return ""


def _host_name(number: int) -> str:
    return f"host-{number}" if number else "source"
