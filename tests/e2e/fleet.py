"""A fleet of real daemons on loopback, for the end-to-end tests and the demo.

Every daemon has a directory of its own under the fleet's, listens on a port that nobody chose, and writes its log to a
file. All of them are ended, by their process id, when the `Fleet` is left, and by the kernel should this process die
before. Needs nothing but what the daemons need themselves.
"""

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import trio

from interfiles.administration import Admin
from interfiles.control import Daemon as Client
from interfiles.control import connect
from interfiles.identity.token import JoinToken
from tests.e2e.processes import CLI, DAEMONS, Daemon, FleetError, Ran, Role, T, dialler, free_port, launch_line, poll

ROOT: Final = Path(__file__).parents[2]
READY_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 15.0
CLI_TIMEOUT_S: Final = 90.0

_PORT_TRIES: Final = 5
_REFUSED: Final = 9
# An ERROR record with the traceback that follows it, or the traceback of an exception that nobody caught.
_ERROR: Final = re.compile(r"^(?:\S+Z (?:error|critical) .*(?:\n    .*)*|Traceback .*(?:\n.*)*)", re.MULTILINE)
_LOG_TAIL_CHARACTERS: Final = 6000


class Fleet:
    """The daemons of one fleet below `directory`, which must exist; as a context manager it ends them all.

    On leaving without an exception it also checks that every daemon ended well when it was told to, and that none
    logged an ERROR: error boundaries turn bugs into these.

    `bytecode`: where processes keep what they have compiled if they may not keep it beside the sources, for others to
    start in half the time.
    """

    def __init__(self, directory: Path, *, bytecode: Path | None = None) -> None:
        self.directory = directory
        self._bytecode = bytecode
        self.daemons: dict[str, Daemon] = {}
        self._commands: list[subprocess.Popen[str]] = []
        self._errors_seen: Counter[str] = Counter()
        self._token = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        codes = self.end()
        if error is None:
            bad = {name: code for name, code in codes.items() if code != 0}
            if bad:
                raise FleetError(f"daemons did not end with 0 after SIGTERM: {bad}")
            self.check_logs()

    # Daemons

    @property
    def master(self) -> Daemon:
        return self.daemons["master"]

    def start_master(self, *arguments: str, grace: str = "2m", constants: Mapping[str, float] | None = None) -> Daemon:
        """Start the fleet's master on a free port, and wait until it serves. `constants`: as of `Daemon`.

        It wants one copy of a file unless it is told otherwise.
        """
        daemon = self._daemon("master", "master", [])
        daemon.constants = dict(constants or {})
        for left in reversed(range(_PORT_TRIES)):
            daemon.arguments = ["--listen", f"127.0.0.1:{free_port()}", "--grace", grace, "--replicas", "1", *arguments]
            try:
                self.start(daemon)
                break
            except FleetError:
                # Somebody may have taken the port meanwhile.
                if not left or daemon.process is None or daemon.process.returncode != _REFUSED:
                    raise
        return daemon

    def start_master_in(self, namespace: str, address: str) -> Daemon:
        """Start the fleet's master at HOST:PORT in a network namespace, and wait until it serves."""
        daemon = self._daemon("master", "master", ["--listen", address, "--replicas", "1"])
        daemon.namespace = namespace
        self.start(daemon)
        return daemon

    def start_client(self, name: str, *arguments: str, uid: int | None = None) -> Daemon:
        """Start a client on a free port, as a new member of the fleet, and wait until it serves.

        `uid`: run it, and its commands, as this user.
        """
        daemon = self._launch_client(name, *arguments, uid=uid)
        self._await_ready(daemon)
        return daemon

    def start_clients(self, *names: str) -> list[Daemon]:
        """Start clients at once, as new members of the fleet, and wait until all of them serve."""
        daemons = [self.new_client(name) for name in names]
        self.start_new(*daemons)
        return daemons

    def new_client(self, name: str, *arguments: str, uid: int | None = None) -> Daemon:
        """A client that is not started yet."""
        where = [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
        daemon = self._daemon(name, "client", [*where, "--name", name, *arguments])
        if uid is not None:
            daemon.uid = uid
            os.chown(daemon.home, uid, uid)
            os.chown(daemon.state, uid, uid)
        return daemon

    def _launch_client(self, name: str, *arguments: str, uid: int | None = None) -> Daemon:
        """Start a client as a new member of the fleet."""
        daemon = self.new_client(name, *arguments, uid=uid)
        self._launch_new(daemon)
        return daemon

    def start_new(self, *daemons: Daemon) -> None:
        """Start clients of `new_client` at once, as new members of the fleet, and wait until all of them serve."""
        for daemon in daemons:
            self._launch_new(daemon)
        for daemon in daemons:
            self._await_ready(daemon)

    def _launch_new(self, daemon: Daemon) -> None:
        token = daemon.state.with_name(f"{daemon.name}.token")
        token.write_text(self.join_token.encode())
        self.launch(daemon, "--token-file", str(token))

    def start(self, daemon: Daemon, *arguments: str) -> None:
        """Start a daemon, again or for the first time, with its state and these arguments more; wait until it serves.

        Raises:
          FleetError: it ended, or did not get ready in time.
        """
        self.launch(daemon, *arguments)
        self._await_ready(daemon)

    def _await_ready(self, daemon: Daemon) -> None:
        process = daemon.process
        assert process is not None

        def is_ready() -> bool:
            if process.poll() is not None:
                raise FleetError(f"{daemon.name} ended with {process.returncode} at its start\n{self.logs(daemon)}")
            return daemon.out.read_text() == "ready\n"

        poll(is_ready, f"{daemon.name} to get ready", timeout_s=READY_TIMEOUT_S)

    def launch(self, daemon: Daemon, *arguments: str) -> None:
        """Start a daemon and do not wait."""
        assert not daemon.is_running, f"{daemon.name} runs already"
        command = [*daemon.arguments, "--state", str(daemon.state), *arguments]
        if daemon.role == "client":
            command += ["--socket", str(daemon.socket)]
        with open(daemon.log, "ab") as log, open(daemon.out, "wb") as out:
            daemon.process = subprocess.Popen(
                [*daemon.entry, *launch_line(DAEMONS[daemon.role], daemon.uid, command, groups=daemon.groups)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                cwd=daemon.home,
                env=self.environment(daemon),
                process_group=0,  # Ctrl-C in a terminal is for whoever runs the fleet
            )
        daemon.starts += 1

    def kill(self, daemon: Daemon) -> None:
        """End a daemon at once, as a power cut would (SIGKILL)."""
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait()

    def stop(self, daemon: Daemon) -> int:
        """Ask a daemon to end (SIGTERM) and return its exit code; one that does not end in time is killed.

        Raises:
          FleetError: it had to be killed.
        """
        assert daemon.process is not None
        daemon.process.terminate()
        return self._await_end(daemon)

    def _await_end(self, daemon: Daemon) -> int:
        assert daemon.process is not None
        try:
            return daemon.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired as e:
            self.kill(daemon)
            raise FleetError(f"{daemon.name} did not end within {STOP_TIMEOUT_S:.0f} s\n{self.logs(daemon)}") from e

    def end(self) -> dict[str, int]:
        """End everything that still runs, each daemon within `STOP_TIMEOUT_S`; return the daemons' exit codes."""
        for command in self._commands:
            command.kill()
            command.communicate()
        self._commands.clear()
        running = [daemon for daemon in self.daemons.values() if daemon.is_running]
        # Clients before their master, so that none logs that it is gone.
        ending = sorted(running, key=lambda daemon: daemon.role)
        for daemon in ending:
            if daemon.process is not None:
                daemon.process.terminate()
        codes: dict[str, int] = {}
        for daemon in ending:
            with suppress(FleetError):
                self._await_end(daemon)
            if daemon.process is not None:
                codes[daemon.name] = daemon.process.returncode
        return codes

    def _daemon(self, name: str, role: Role, arguments: list[str]) -> Daemon:
        home, state = self.directory / name, self.directory / "states" / name
        home.mkdir()
        state.mkdir(mode=0o700, parents=True)
        self.daemons[name] = Daemon(name, role, home, state, state / "client.sock", arguments)
        return self.daemons[name]

    # Commands

    def token(self, *arguments: str) -> str:
        """A join token for a new client."""
        return self.cli(None, "token", "--state", str(self.master.state), *arguments).done.out.strip()

    @property
    def join_token(self) -> JoinToken:
        """A token by which any number of hosts may join."""
        self._token = self._token or self.token()
        return JoinToken.decode(self._token)

    def forget_token(self) -> None:
        """Make another token for the next that joins."""
        self._token = ""

    def cli(
        self,
        daemon: Daemon | None,
        *arguments: str,
        json: bool = False,
        cwd: Path | None = None,
        uid: int | None = None,
        timeout_s: float = CLI_TIMEOUT_S,
    ) -> Ran:
        """Run `interfiles ARGUMENTS` for a client (None: for none), in its home directory or `cwd`, to its end.

        `json`: add --json. `uid`: as this user, by default that of the daemon.

        Raises:
          FleetError: it did not end in time.
        """
        process = self.begin_cli(daemon, *arguments, *(["--json"] if json else []), cwd=cwd, uid=uid)
        return self.finish_cli(process, timeout_s=timeout_s)

    def begin_cli(
        self,
        daemon: Daemon | None,
        *arguments: str,
        cwd: Path | None = None,
        uid: int | None = None,
        groups: Sequence[int] = (),
    ) -> subprocess.Popen[str]:
        """Start a command and do not wait for its end. `groups`: supplementary ones of the user `uid`."""
        if uid is None and daemon is not None:
            uid = daemon.uid
        process = subprocess.Popen(
            launch_line(CLI, uid, arguments, groups=groups),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="backslashreplace",
            cwd=cwd or (daemon.home if daemon else self.directory),
            env=self.environment(daemon),
            process_group=0,
        )
        self._commands.append(process)
        return process

    def finish_cli(self, process: subprocess.Popen[str], *, timeout_s: float = CLI_TIMEOUT_S) -> Ran:
        """Wait for the end of a command that was started."""
        assert isinstance(process.args, list)
        command = " ".join(["interfiles", *map(str, process.args[len(launch_line(CLI, None, [])) :])])
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as e:
            process.kill()
            out, err = process.communicate()
            ran = Ran(command, process.returncode, out, err)
            raise FleetError(f"after {timeout_s:.0f} s this had not ended: {ran}") from e
        finally:
            self._commands.remove(process)
        return Ran(command, process.returncode, out, err)

    def ask(self, daemon: Daemon, operate: Callable[[Client], Awaitable[T]]) -> T:
        """Ask a client by the Python API: much quicker than a command."""

        async def main() -> T:
            async with connect(daemon.socket) as client:
                return await operate(client)

        return trio.run(main)

    def administer(self, operate: Callable[[Admin], Awaitable[T]]) -> T:
        """Ask the master by the Python API, as its administrator."""
        return trio.run(operate, Admin(self.master.state))

    def dialler(self, port: int) -> str:
        """The name of the daemon that has connected to somewhere from this local port; empty if none has."""
        return dialler(port, self.daemons.values())

    def show_cli(self, daemon: Daemon, *arguments: str) -> int:
        """Run a command on this process's own terminal, and return its exit code."""
        return subprocess.call(launch_line(CLI, daemon.uid, arguments), cwd=daemon.home, env=self.environment(daemon))

    def environment(self, daemon: Daemon | None) -> dict[str, str]:
        """The environment of a daemon or its commands: nothing in it leads to daemons outside the fleet."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("INTERFILES_", "XDG_")) and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")
        }
        path = [str(ROOT), *filter(None, [kept.get("PYTHONPATH")])]
        home = daemon.home if daemon else self.directory
        made = kept | {"PYTHONPATH": os.pathsep.join(path), "HOME": str(home), "INTERFILES_DEBUG": "1"}
        if self._bytecode is not None and made.pop("PYTHONDONTWRITEBYTECODE", ""):
            made["PYTHONPYCACHEPREFIX"] = str(self._bytecode)
        if daemon is not None and daemon.constants:
            made["TEST_CONSTANTS"] = json.dumps(daemon.constants)
        if daemon is None or daemon.role == "client":
            made["INTERFILES_SOCKET"] = str(daemon.socket if daemon else self.directory / "no-daemon" / "sock")
        return made

    # Looking

    def logs(self, *daemons: Daemon) -> str:
        """The ends of the logs, of all daemons or these."""
        shown = []
        for daemon in daemons or self.daemons.values():
            text = daemon.logged
            cut = "…" if len(text) > _LOG_TAIL_CHARACTERS else ""
            shown.append(f"--- {daemon.name}, started {daemon.starts}×\n{cut}{text[-_LOG_TAIL_CHARACTERS:]}")
        return "\n".join(shown)

    def check_logs(self) -> None:
        """Check that no daemon has logged an ERROR since the last call.

        Raises:
          FleetError: one has; the message shows them.
        """
        found = [f"{daemon.name}: {text}" for daemon in self.daemons.values() for text in _ERROR.findall(daemon.logged)]
        new = list((Counter(found) - self._errors_seen).elements())
        self._errors_seen.update(new)
        if new:
            raise FleetError(f"{len(new)} errors in the daemons' logs, the first is of {new[0]}")
