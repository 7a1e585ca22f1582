"""What the daemon may store of its own: own copies and replicas, under its state directory, within quota and disk."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from interfiles.errors import NoSpace
from interfiles.storage.leftovers import leftovers_in, make_room
from interfiles.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons.client.library import Library
    from interfiles.storage.executor import Executor

KEPT_FREE_SHARE: Final = 0.05  # of the disk, that replicas leave to others,
MAX_KEPT_FREE_BYTES: Final = 10 << 30  # or this if that is less


class Allowance:
    """Room under the state directory, for replicas at `place`, which may be on another disk.

    `quota`: bytes for all own content; `keep_free`: bytes of the disk that replicas leave to others, None: a share of
    it. `leftovers`: the directory of what may go when room is needed.
    """

    def __init__(
        self,
        library: Library,
        disk: Executor,
        *,
        state: Path,
        place: Path,
        leftovers: Path,
        quota: int | None,
        keep_free: int | None = None,
    ) -> None:
        self._library = library
        self._disk = disk
        self._state = state
        self._place = place
        self._leftovers = leftovers
        self._quota = quota
        self._keep_free = keep_free
        self._reserved = 0  # bytes of what is being made and has no record yet

    def room(self) -> tuple[int, int]:
        """Bytes held of all files, and bytes that replicas may take; leftovers count as free."""
        used = sum(file.bytes_done for file in self._library)
        free = self._disk_room() + self._left_over() - self._reserved
        if self._quota is not None:
            free = min(free, self._quota - self.owned_bytes() - self._reserved)
        return used, max(0, free)

    def _disk_room(self) -> int:
        """Bytes of the disk that replicas may take; less than 0 where more is to be kept free than is."""
        try:
            found = os.statvfs(self._place if self._place.is_dir() else self._state)
        except OSError:  # the disk is gone: nothing can be stored
            return 0
        share = min(int(found.f_blocks * found.f_frsize * KEPT_FREE_SHARE), MAX_KEPT_FREE_BYTES)
        return found.f_bavail * found.f_frsize - (self._keep_free if self._keep_free is not None else share)

    def _left_over(self) -> int:
        return sum(leftover.size for leftover in leftovers_in(self._leftovers))

    def owned_bytes(self) -> int:
        """Bytes of own copies and replicas, those on their way included."""
        return sum(file.manifest.size for file in self._library if file.record.owned)

    @contextmanager
    def copying(self, size: int, name: str) -> Iterator[None]:
        """Reserve room within the quota for an own copy, until it has a record.

        Raises:
          NoSpace: there is none.
        """
        used = self.owned_bytes() + self._reserved
        if self._quota is not None and used + size > self._quota:
            raise NoSpace(
                f"the quota of {format_bytes(self._quota)} has {format_bytes(used)} in use, "
                f"a copy of {name} needs {format_bytes(size)}; upload it without --copy"
            )
        with self._reserving(size):
            yield

    @contextmanager
    def replicating(self, size: int) -> Iterator[None]:
        """Reserve room for a replica, until it has a record.

        Raises:
          NoSpace: the quota, or the disk without what is kept free of it, does not have it.
        """
        _, free = self.room()
        if size > free:
            limit = f", by its quota of {format_bytes(self._quota)}" if self._quota is not None else ""
            raise NoSpace(f"it has room for {format_bytes(free)} of copies{limit}, this one needs {format_bytes(size)}")
        with self._reserving(size):
            yield

    async def clear(self, size: int, *, besides: bytes) -> None:
        """Remove leftovers, the oldest first, until there is room for what is reserved and `size` more bytes.

        Those of one file, `besides`, stay.
        """
        needed = size + self._reserved - self._disk_room()
        if self._quota is not None:
            needed = max(needed, size + self._reserved + self.owned_bytes() + self._left_over() - self._quota)
        if needed > 0:
            await self._disk.run(lambda: make_room(self._leftovers, needed, besides=besides))

    async def clear_all(self, size: int) -> bool:
        """Remove leftovers, the oldest first, of `size` bytes: a person needs the room. Whether there were any."""
        return bool(await self._disk.run(lambda: make_room(self._leftovers, size)))

    @contextmanager
    def _reserving(self, size: int) -> Iterator[None]:
        self._reserved += size
        try:
            yield
        finally:
            self._reserved -= size
