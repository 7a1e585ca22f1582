"""Open descriptors, shared by every store of a daemon: a bounded number, yet never closed under whoever uses one."""

import errno
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Final

from interfiles.storage.system import is_cached, is_in_memory

OPEN_FILES: Final = 256  # of the 1,024 that a process usually may have; connections need the rest

_Key = tuple[Hashable, int]


class OpenFile:
    """A descriptor that is `lent` so many times now; closed once it is not, and not kept for the next user either."""

    __slots__ = ("_is_in_memory", "descriptor", "is_kept", "lent")

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor
        self.lent = 0
        self.is_kept = True
        self._is_in_memory: bool | None = None

    def is_cached(self, offset: int, length: int) -> bool:
        """Whether a range (bytes) can be read without waiting for a disk; an error counts as yes, reading will tell."""
        if self._is_in_memory is None:
            try:
                return is_cached(self.descriptor, offset, length)
            except OSError as e:
                if e.errno != errno.EOPNOTSUPP:
                    return True
                self._is_in_memory = is_in_memory(self.descriptor)  # asked once: the system cannot tell by ranges
        return self._is_in_memory

    def close_if_unused(self) -> None:
        if not self.lent and not self.is_kept:
            os.close(self.descriptor)


class OpenFiles:
    """Keeps the files used last open: at most `limit`, and beyond that only those that are lent at this moment.

    A descriptor that was borrowed stays valid until it is given back, though its file be evicted or its owner gone by
    then. Callable from the loop and from threads alike; nothing here waits but the opening itself.
    """

    def __init__(self, limit: int = OPEN_FILES) -> None:
        self._limit: Final = limit
        self._lock: Final = threading.Lock()
        self._files: Final[OrderedDict[_Key, OpenFile]] = OrderedDict()

    def borrow(self, owner: Hashable, index: int, open_file: Callable[[int], int]) -> OpenFile:
        """Return an owner's file, opened by `open_file(index)` if it is not open; every one must be given back once.

        Raises: whatever `open_file` does.
        """
        key = (owner, index)
        with self._lock:
            if (file := self._files.get(key)) is not None:
                self._files.move_to_end(key)
                file.lent += 1
                return file
        opened = OpenFile(open_file(index))  # not under the lock: a slow disk must not hold up who needs another file
        with self._lock:
            file = self._files.setdefault(key, opened)
            if file is not opened:  # another thread was faster
                os.close(opened.descriptor)
            self._files.move_to_end(key)
            file.lent += 1
            self._evict()
        return file

    def give_back(self, file: OpenFile) -> None:
        """End one borrowing."""
        with self._lock:
            file.lent -= 1
            file.close_if_unused()
            self._evict()

    def forget(self, owner: Hashable) -> None:
        """Close the owner's files, each that is lent as soon as it is given back."""
        with self._lock:
            for key in [key for key in self._files if key[0] is owner]:
                self._drop(key)

    def __len__(self) -> int:
        """Files kept open now."""
        return len(self._files)

    def _evict(self) -> None:
        excess = len(self._files) - self._limit
        if excess > 0:
            unused = (key for key, file in self._files.items() if not file.lent)
            for key in list(islice(unused, excess)):
                self._drop(key)

    def _drop(self, key: _Key) -> None:
        file = self._files.pop(key)
        file.is_kept = False
        file.close_if_unused()
