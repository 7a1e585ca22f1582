"""The hook's command as a process: what it is given, how long it may take, and how it is ended."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio

from daemons.client.hooks import HookEnd
from interfiles.errors import StorageFailed, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HOOK_TIMEOUT_S: Final = 600.0
HOOK_STOP_S: Final = 3.0  # between asking and killing: the daemon's own time to stop is longer
HOOK_OUTPUT_S: Final = 1.0  # for what is left in the pipe, which a process in the background may keep open for ever
MAX_HOOK_LINES: Final = 5  # of its output that are logged
MAX_HOOK_LINE_BYTES: Final = 400

# Not the hook's: join tokens, by whatever way they came, and what systemd gave this process alone.
_WITHHELD: Final = frozenset(
    {b"CREDENTIALS_DIRECTORY", b"NOTIFY_SOCKET", b"WATCHDOG_USEC", b"WATCHDOG_PID"}
    | {b"LISTEN_FDS", b"LISTEN_PID", b"LISTEN_FDNAMES"}
)
_OUR_PREFIX: Final = b"INTERFILES_"


def parse_hook(text: str) -> tuple[str, ...]:
    """Split a command as a shell would, and find its program; return it by its full path, with its arguments.

    Raises:
      UsageError: there is no such program, or it may not be run.
    """
    shown = printable(text)
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UsageError(f"--on-complete '{shown}' is no command: {str(e).lower()}") from e
    if not words or not words[0]:
        raise UsageError("--on-complete needs a command, such as --on-complete /usr/local/bin/announce")
    found = None if "\0" in text else shutil.which(words[0])
    if found is None:
        raise UsageError(
            f"--on-complete names {printable(words[0])}, which is no program that can be run; give the path of one, "
            "and make it executable"
        )
    return (str(Path(found).absolute()), *words[1:])


def hook_environment(inherited: Mapping[bytes, bytes], facts: Mapping[str, bytes], socket: Path) -> dict[bytes, bytes]:
    """The daemon's environment without its secrets and settings, with the facts and the daemon's own socket."""
    kept = {
        name: value for name, value in inherited.items() if name not in _WITHHELD and not name.startswith(_OUR_PREFIX)
    }
    told = {name.encode(): value for name, value in facts.items()}
    return kept | told | {b"INTERFILES_SOCKET": os.fsencode(socket)}


class ProcessRunner:
    """Runs `command` in a process group of its own, without a shell, input or descriptors. Implements `Runner`.

    What a hook leaves in the background when it ends by itself goes on; one that is ended takes its group with it.
    """

    def __init__(self, command: Sequence[str], *, socket: Path) -> None:
        self._command = tuple(command)
        self._socket = socket

    async def run(self, facts: Mapping[str, bytes]) -> HookEnd:
        """Run the command, for `HOOK_TIMEOUT_S` at most.

        Raises:
          StorageFailed: it cannot be started.

        Cancellation:
          As the end of its time: the group is told to end (SIGTERM), and after `HOOK_STOP_S` killed.
        """
        environment = hook_environment(os.environb, facts, self._socket)
        try:
            process = await trio.lowlevel.open_process(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,  # type: ignore[arg-type]  # bytes are as good as text
                process_group=0,
            )
        except OSError as e:
            raise StorageFailed(f"{printable(self._command[0])} cannot be started: {e.strerror or e}") from e
        assert process.stdout is not None
        tail = _Tail()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tail.fill, process.stdout)
                with trio.move_on_after(HOOK_TIMEOUT_S) as scope:
                    await process.wait()
                if scope.cancelled_caught:
                    await _end(process)
                nursery.cancel_scope.deadline = trio.current_time() + HOOK_OUTPUT_S
        finally:
            await _end(process)
        return HookEnd(None if scope.cancelled_caught else process.returncode, tail.lines())


async def _end(process: trio.Process) -> None:
    """End the process and its group, if it has not ended; within `HOOK_STOP_S`."""
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            _signal_group(process, signal.SIGTERM)
            with trio.move_on_after(HOOK_STOP_S):
                await process.wait()
            _signal_group(process, signal.SIGKILL)  # those in the group that did not heed it
            with trio.move_on_after(HOOK_STOP_S):  # one in the kernel's hands cannot even be killed
                await process.wait()


def _signal_group(process: trio.Process, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


class _Tail:
    """The last lines of an output, whatever its length; a line that is too long is cut."""

    def __init__(self) -> None:
        self._ended: deque[bytes | bytearray] = deque(maxlen=MAX_HOOK_LINES)
        self._line: bytes | bytearray = b""

    async def fill(self, stream: trio.abc.ReceiveStream) -> None:
        """Take all that comes until the other end closes."""
        async with stream:
            async for data in stream:
                first, *others = data.split(b"\n")
                self._line = (self._line + first)[:MAX_HOOK_LINE_BYTES]
                for line in others:
                    self._ended.append(self._line)
                    self._line = line[:MAX_HOOK_LINE_BYTES]

    def lines(self) -> tuple[str, ...]:
        """The last lines that are not empty."""
        found = [line for line in (*self._ended, self._line) if line.strip()]
        return tuple(line.decode(errors="replace") for line in found[-MAX_HOOK_LINES:])
