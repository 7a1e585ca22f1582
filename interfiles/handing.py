"""What a caller opens with its own rights and hands over to a daemon that belongs to another user.

The daemon asks. It is told and given only what the caller's own request is about, whatever it asks for.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import trio

from interfiles.errors import (
    ContentChanged,
    InterFilesError,
    NotPermitted,
    PathNotFound,
    RemoteProtocolError,
    StorageFailed,
    printable,
)
from interfiles.geometry import choose_piece_size
from interfiles.storage.failures import failure, whose_rights
from interfiles.storage.hashing import draft_manifest
from interfiles.storage.scan import Scan, scan, stamp_of
from interfiles.storage.system import umask
from interfiles.storage.tree import Tree
from interfiles.transport.message_stream import MessageStream
from interfiles.transport.unix import UnixTransport
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message

T = TypeVar("T")


class HandingContent:
    """Hands over the content of a file or directory that is uploaded."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: Scan | None = None
        self._tree: Tree | None = None

    async def answer(self, stream: MessageStream[Message], question: Message) -> None:
        match question:
            case c.DescribeTree():
                description = await self._describe()
                assert self._found is not None
                await stream.send(c.TreeDescription(os.fsencode(self._found.root)), description)
            case c.HandFiles(first, count):
                descriptors = await _in_thread(lambda: self._open(first, count))
                with closing(descriptors):
                    _attach(stream, descriptors)
                    await stream.send(c.HandedFiles(first, count))
            case _:
                raise RemoteProtocolError(f"{type(question).__name__} is no question about an upload")

    def end(self) -> None:
        """Nothing is kept open."""

    async def _describe(self) -> bytes:
        is_over = False

        def describe() -> tuple[Scan, Tree, bytes]:
            found = scan(self._path, cancelled=lambda: is_over)
            draft = draft_manifest(found, choose_piece_size(found.size))
            return found, Tree(found.root, draft), draft.encode()

        try:
            self._found, self._tree, description = await _in_thread(describe, abandon_on_cancel=True)
        finally:
            is_over = True
        return description

    def _open(self, first: int, count: int) -> list[int]:
        found, tree = self._found, self._tree
        if found is None or tree is None or first + count > len(found.stamps):
            raise RemoteProtocolError(f"files {first} to {first + count - 1} are not of this upload")
        opened: list[int] = []
        try:
            for index in range(first, first + count):
                try:
                    opened.append(tree.open(index))
                except OSError as e:
                    raise failure(e, tree.path(index), "read") from e
                if stamp_of(os.fstat(opened[-1])) != found.stamps[index]:
                    raise ContentChanged(
                        f"{printable(str(tree.path(index)))} changed while it was uploaded; do it again"
                    )
        except BaseException:
            _close(opened)
            raise
        return opened


class HandingPlace:
    """Shows that this user may write into the directory that a download goes to."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._opened = ExitStack()

    async def answer(self, stream: MessageStream[Message], question: Message) -> None:
        if not isinstance(question, c.HandPlace):
            raise RemoteProtocolError(f"{type(question).__name__} is no question about a download")
        self.end()
        directory, file = await _in_thread(lambda: self._open(c.mark_name(question.mark)))
        _attach(stream, (directory, file))
        await stream.send(c.HandedPlace(umask()))

    def end(self) -> None:
        """Remove the file that showed it."""
        self._opened.close()

    def _open(self, name: str) -> tuple[int, int]:
        shown = printable(str(self._directory))
        try:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._opened.callback(os.close, directory)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.open(name, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=directory)
            self._opened.callback(os.close, file)
            self._opened.callback(_remove, name, directory)
        except FileNotFoundError as e:
            raise PathNotFound(f"there is no directory {shown}; make it first, or name another") from e
        except NotADirectoryError as e:
            raise PathNotFound(f"{shown} is not a directory; name one that is") from e
        except PermissionError as e:
            raise NotPermitted(f"you may not write to {shown}; name another directory") from e
        except OSError as e:
            told = failure(e, self._directory, "written")
            raise told if not isinstance(told, StorageFailed) else _unusable(shown, e) from e
        return directory, file


def _unusable(shown: str, error: OSError) -> InterFilesError:
    return StorageFailed(f"{shown} cannot be used: {error.strerror or error}")


def _remove(name: str, directory: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=directory)


def _attach(stream: MessageStream[Message], descriptors: tuple[int, ...] | list[int]) -> None:
    assert isinstance(stream.transport, UnixTransport), "a daemon on this host is reached by a Unix socket"
    stream.transport.attach(descriptors)


async def _in_thread(function: Callable[[], T], *, abandon_on_cancel: bool = False) -> T:
    """Do it in a thread, in which errors speak of this user's rights."""
    told = whose_rights.set(os.geteuid())
    try:
        return await trio.to_thread.run_sync(function, abandon_on_cancel=abandon_on_cancel)
    finally:
        whose_rights.reset(told)


@contextmanager
def closing(descriptors: list[int]) -> Iterator[None]:
    """Close descriptors at the end."""
    try:
        yield
    finally:
        _close(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
