"""Who is compared: each sends one file from one process to another on loopback.

A contender is a context manager that prepares what is not timed (hashing, servers), and fetches the file once a call.
"""

import json
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from benchmarks import processes
from tests.e2e.fleet import Fleet
from tests.e2e.processes import free_port, poll


@dataclass(frozen=True)
class Sample:
    """One fetch: wall seconds, CPU seconds of sender and receiver, and the larger of their peaks of memory in bytes."""

    seconds: float
    cpu_s: float
    peak_rss: int


class Contender(ABC):
    """One way to send a file. `file`: what is sent; `scratch`: for what it needs beside that."""

    name: ClassVar[str]

    def __init__(self, file: Path, scratch: Path) -> None:
        self.file = file
        self.scratch = scratch / type(self).__name__
        self.scratch.mkdir()
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

    def prepare(self, stack: ExitStack) -> None:  # noqa: B027 - some need nothing
        """Start what it needs, and leave its end on the stack."""

    @abstractmethod
    def fetch(self, directory: Path) -> Sample:
        """Fetch the file into an empty directory."""

    def clear(self, directory: Path) -> None:
        """Forget what was fetched."""
        with suppress(FileNotFoundError):
            shutil.rmtree(directory)


class InterFiles(Contender):
    """The real daemons and the real command: encrypted, verified, durable."""

    name = "InterFiles"

    def prepare(self, stack: ExitStack) -> None:
        fleet = stack.enter_context(Fleet(self.scratch))
        fleet.start_master()
        self._fleet = fleet
        self._seed, self._client = fleet.start_clients("seed", "client")
        began = processes.cpu_s(self._seed.pid)
        report = fleet.cli(self._seed, "upload", "-p", str(self.file), "-o", str(self.scratch), json=True).done.json
        self._tracker = report["tracker"]
        self.upload_cpu_s = processes.cpu_s(self._seed.pid) - began

    @property
    def daemons(self) -> list[int]:
        """The process ids of sender and receiver."""
        return [self._seed.pid, self._client.pid]

    def fetch(self, directory: Path) -> Sample:
        pids = self.daemons
        for pid in pids:
            processes.forget_peak(pid)
        before = sum(map(processes.cpu_s, pids))
        command = [Path(sys.executable).with_name("interfiles"), "download", "-p", self._tracker, "-o", directory]
        used = processes.run(list(map(str, command)), env=self._fleet.environment(self._client))
        cpu_s = sum(map(processes.cpu_s, pids)) - before
        return Sample(used.seconds, cpu_s, max(map(processes.peak_rss, pids)))

    def clear(self, directory: Path) -> None:
        self._fleet.cli(self._client, "rm", "-p", self._tracker, "--local", "--delete", "--yes").done  # noqa: B018
        super().clear(directory)


class BareTls(Contender):
    """The yardstick: encrypted, hashed, written, with no daemon around it; nothing is durable or compared."""

    name = "bare loop, TLS"
    arguments: ClassVar[list[str]] = []

    def fetch(self, directory: Path) -> Sample:
        out = directory / self.file.name
        command = [sys.executable, "-m", "benchmarks.bare_loop", str(self.file), str(out), *self.arguments]
        used = processes.run(command)
        found = json.loads(used.out)
        return Sample(found["seconds"], found["sender_cpu_s"] + found["receiver_cpu_s"], used.peak_rss)


class BareReserved(BareTls):
    """The yardstick with the copy's space reserved first, as InterFiles does it."""

    name = "bare loop, reserved"
    arguments: ClassVar[list[str]] = ["--reserve"]


class BarePlain(BareTls):
    """The yardstick in plaintext."""

    name = "bare loop, plain"
    arguments: ClassVar[list[str]] = ["--plain"]


class Server(Contender):
    """A rival with a server process that stays."""

    def serve(self, stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
        """Start it; it is ended with the contender."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._server = process

        def end() -> None:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()

        stack.callback(end)
        return process

    @cached_property
    def port(self) -> int:
        """Where it listens."""
        return free_port()

    def timed(self, command: list[str], *, own_seconds: bool = False) -> Sample:
        """Run a client. `own_seconds`: it says itself how long it took."""
        processes.forget_peak(self._server.pid)
        before = processes.cpu_s(self._server.pid)
        used = processes.run(command)
        cpu_s = used.cpu_s + processes.cpu_s(self._server.pid) - before
        seconds = float(used.out) if own_seconds else used.seconds
        return Sample(seconds, cpu_s, max(used.peak_rss, processes.peak_rss(self._server.pid)))


class Libtorrent(Server):
    """libtorrent, tuned, in plaintext; timed by itself from the first dial on, so its start is not counted."""

    name = "libtorrent"

    @classmethod
    def missing(cls) -> str:
        try:
            import libtorrent  # noqa: F401
        except ImportError:
            return "libtorrent (pip install libtorrent)"
        return ""

    def prepare(self, stack: ExitStack) -> None:
        self._torrent = str(self.scratch / "torrent")
        self._run = [sys.executable, "-m", "benchmarks.libtorrent_peer"]
        processes.run([*self._run, "make", str(self.file), self._torrent])
        process = self.serve(stack, [*self._run, "seed", str(self.file.parent), self._torrent])
        assert process.stdout is not None
        self._seed_port = process.stdout.readline().strip()

    def fetch(self, directory: Path) -> Sample:
        return self.timed([*self._run, "fetch", str(directory), self._torrent, self._seed_port], own_seconds=True)


class Rsync(Server):
    """An rsync daemon, whole files, in plaintext; nothing is verified."""

    name = "rsync daemon"

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("rsync") else "rsync"

    def prepare(self, stack: ExitStack) -> None:
        settings = self.scratch / "rsyncd.conf"
        root = "uid=root\ngid=root\n" if self.file.stat().st_uid == 0 else ""
        settings.write_text(f"[d]\npath={self.file.parent}\nuse chroot=no\nread only=yes\n{root}")
        command = ["rsync", "--daemon", f"--config={settings}", f"--port={self.port}", "--address=127.0.0.1"]
        self.serve(stack, [*command, "--no-detach"])
        _await_port(self.port)

    def fetch(self, directory: Path) -> Sample:
        source = f"rsync://127.0.0.1:{self.port}/d/{self.file.name}"
        return self.timed(["rsync", "-W", "--inplace", source, str(directory / self.file.name)])


class Nginx(Server):
    """nginx with sendfile, and curl, in plaintext; nothing is verified."""

    name = "nginx and curl"

    @classmethod
    def missing(cls) -> str:
        return " and ".join(name for name in ("nginx", "curl") if shutil.which(name) is None)

    def prepare(self, stack: ExitStack) -> None:
        settings = self.scratch / "nginx.conf"
        settings.write_text(
            f"worker_processes 1; daemon off; master_process off; pid {self.scratch}/pid;"
            f"error_log {self.scratch}/errors; events {{ worker_connections 64; }}\n"
            f"http {{ access_log off; sendfile on; sendfile_max_chunk 0;"
            f" server {{ listen 127.0.0.1:{self.port}; root {self.file.parent}; }} }}\n"
        )
        self.serve(stack, ["nginx", "-c", str(settings)])
        _await_port(self.port)

    def fetch(self, directory: Path) -> Sample:
        url = f"http://127.0.0.1:{self.port}/{self.file.name}"
        return self.timed(["curl", "--silent", "--fail", "--output", str(directory / self.file.name), url])


ALL: list[type[Contender]] = [InterFiles, BareTls, BareReserved, BarePlain, Libtorrent, Rsync, Nginx]


def _await_port(port: int) -> None:
    def is_open() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    poll(is_open, f"port {port} to open")
