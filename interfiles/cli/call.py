"""From a command to the daemons: trio and the API are imported here, when a command has something to ask."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from interfiles.cli.phrases import short

if TYPE_CHECKING:
    from interfiles.administration import Admin
    from interfiles.control import Daemon
    from interfiles.source import Source

T = TypeVar("T")


def on_daemon(socket: str | None, operate: "Callable[[Daemon], Awaitable[T]]") -> T:
    """Run an operation against the client daemon and return its result; errors are those of `interfiles.control`."""
    import trio

    from interfiles.control import connect

    async def main() -> T:
        async with connect(socket) as daemon:
            return await operate(daemon)

    # At any other point, Ctrl-C may hit Python code that C code called and whose errors it drops: msgspec does so.
    return trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)


def on_master(state: str | None, operate: "Callable[[Admin], Awaitable[T]]") -> T:
    """Run an operation against the master whose state directory is `state`, and return its result."""
    import trio

    from interfiles.administration import Admin

    async def main() -> T:
        return await operate(Admin(state))

    return trio.run(main, restrict_keyboard_interrupt_to_checkpoints=True)


def read(given: str) -> "Source":
    """Find out which file is meant, before a daemon is asked: a bad tracker file is refused whether one runs or not."""
    from interfiles.source import read_source

    return read_source(given)


def by_id(file_id: str) -> "Source":
    """The file of the fleet with this id."""
    from interfiles.source import Source

    return Source(file_id, b"", short(file_id))
