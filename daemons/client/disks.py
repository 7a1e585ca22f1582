"""Which threads a file's disk work is done in, and with whose rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar, TypeVarTuple, Unpack

from interfiles.storage.acting import ActingExecutor

if TYPE_CHECKING:
    from collections.abc import Callable

    from interfiles.storage.acting import Owner
    from interfiles.storage.executor import Executor

T = TypeVar("T")
Args = TypeVarTuple("Args")

MEMBER_THREADS: Final = 2  # a user's own file system may never answer: then only that user's work waits


class WatchedExecutor:
    """An executor of which it can be asked how many functions it has been given that have not ended: `running`."""

    def __init__(self, executor: Executor) -> None:
        self._executor: Final = executor
        self.running = 0

    async def run(self, function: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        """As `Executor.run`."""
        self.running += 1
        try:
            return await self._executor.run(function, *args)
        finally:
            self.running -= 1


class Disks:
    """The daemon's own executor, and one for each other user that it works for."""

    def __init__(self, own: Executor, make: Callable[[], Executor]) -> None:
        self._own: Final = own
        self._make: Final = make
        self._threads: Final[dict[int, Executor]] = {}

    def of(self, owner: Owner | None) -> Executor:
        """Runs functions with the rights of `owner`, None: the daemon's own."""
        return self._own if owner is None else ActingExecutor(self.threads_of(owner), owner)

    def threads_of(self, owner: Owner | None) -> Executor:
        """The same threads, with the daemon's own rights: for what the owner has opened already."""
        if owner is None:
            return self._own
        if owner.uid not in self._threads:
            self._threads[owner.uid] = self._make()
        return self._threads[owner.uid]
