"""Running a person's command when a download is complete: a few at once, the rest in line.

What is told about a file is other members' to choose, so it goes to the command in environment variables alone: never
on its command line, where a name could pass for an option, and through no shell. A hook is run at most once for a
completion; those still in line when the daemon stops are not run, and the log says so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, Protocol

import structlog
import trio

from daemons.client.notice import Notice
from daemons.supervision import contain
from interfiles.errors import InterFilesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from daemons.client.local_file import LocalFile
    from interfiles.storage.records import Identity

MAX_HOOKS: Final = 2  # at once: a command may well take a whole disk or processor
MAX_WAITING_HOOKS: Final = 1_000

HookKind = Literal["download", "replica"]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class HookEnd:
    """How a hook ended. `code`: its exit code, less than 0: the signal that ended it, None: it was ended by us.

    `last_lines`: of what it wrote.
    """

    code: int | None
    last_lines: tuple[str, ...] = ()


class Runner(Protocol):
    """Runs the hook's command."""

    async def run(self, facts: Mapping[str, bytes]) -> HookEnd:
        """Run it with these environment variables beside the daemon's own, to its end or that of its time.

        Raises:
          StorageFailed: it cannot be started.

        Cancellation:
          Ends the command, within bounds.
        """


class Hooks:
    """The hooks to run, in the order of the completions. `runner` None: there is no command, and nothing is done."""

    def __init__(self, runner: Runner | None, identity: Identity) -> None:
        self._runner = runner
        self._identity = identity
        self._waiting: deque[tuple[str, dict[str, bytes]]] = deque()
        self._arrived = Notice()

    def completed(self, file: LocalFile) -> None:
        """A file has been fetched whole just now: run the command for it soon.

        One for which there is no room in line is not run: those who were promised a turn keep it.
        """
        if self._runner is None:
            return
        if len(self._waiting) >= MAX_WAITING_HOOKS:
            log.warning("hook not run", file=file.label, reason=f"{MAX_WAITING_HOOKS} others wait already")
            return
        kind: HookKind = "replica" if file.record.ordered else "download"
        self._waiting.append((file.label, facts_of(file, self._identity, kind)))
        self._arrived.tell()

    async def run(self) -> None:
        """Run the commands until cancelled.

        Cancellation:
          Ends those that run, within bounds; those in line are dropped.
        """
        if self._runner is None:
            return
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(MAX_HOOKS):
                    nursery.start_soon(self._take_turns, self._runner)
        finally:
            if self._waiting:
                log.warning("hooks not run", count=len(self._waiting), reason="the daemon stops")

    async def _take_turns(self, runner: Runner) -> None:
        while True:
            seen = self._arrived.count
            if not self._waiting:
                await self._arrived.later_than(seen)
                continue
            label, facts = self._waiting.popleft()
            await contain(
                f"the hook for {label}", partial(_run_one, runner, label, facts), expected=(InterFilesError,), log=log
            )


async def _run_one(runner: Runner, label: str, facts: Mapping[str, bytes]) -> None:
    began = trio.current_time()
    try:
        end = await runner.run(facts)
    except InterFilesError as e:
        log.warning("hook failed", file=label, reason=str(e))
        return
    seconds = round(trio.current_time() - began, 3)
    for line in end.last_lines:
        log.info("hook says", file=label, line=line)
    if end.code == 0:
        log.info("hook done", file=label, seconds=seconds)
    else:
        log.warning("hook failed", file=label, seconds=seconds, reason=_reason(end))


def _reason(end: HookEnd) -> str:
    if end.code is None:
        return "it took too long and was ended"
    return f"exit code {end.code}" if end.code > 0 else f"ended by signal {-end.code}"


def facts_of(file: LocalFile, identity: Identity, kind: HookKind) -> dict[str, bytes]:
    """What the command is told, by environment variable. A path is the bytes that it is; no value holds a zero byte."""
    record = file.record
    return {
        "INTERFILES_EVENT": b"complete",
        "INTERFILES_KIND": kind.encode(),
        "INTERFILES_ID": file.file_id.hex().encode(),
        "INTERFILES_NAME": file.manifest.name.encode(),
        "INTERFILES_PATH": record.path,
        "INTERFILES_SIZE": str(file.manifest.size).encode(),
        "INTERFILES_SECONDS": f"{record.seconds:.3f}".encode(),
        "INTERFILES_HOST": identity.name.encode(),
        "INTERFILES_FLEET": identity.fleet.encode(),
    }
