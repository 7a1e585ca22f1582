"""Which files are not as wanted: found by looking at the catalogue, at all of it once a minute, and kept meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from interfiles.placement.standing import standing
from interfiles.placement.sweep import Sweep
from interfiles.placement.urgent import Urgent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from interfiles.placement.doubts import Doubts
    from interfiles.placement.fleet_view import FleetView
    from interfiles.placement.orders import Orders
    from interfiles.placement.registry import Registry
    from interfiles.storage.catalogue import Catalogue, Wanted

SWEEP_S: Final = 60.0  # in which everything is looked at
PAGE_FILES: Final = 1000  # of the catalogue, one after another, that are asked for at once: 2 ms
LOOK_UP_FILES: Final = 250  # of it, that lie anywhere: as long, for which others wait who ask it
SLICE_FILES: Final = 25  # that are looked at before others have their turn: an answer to a host takes several turns
SLICE_HOSTS: Final = 50  # that are looked at before they have it


class Unsettled:
    """`stored` runs a method of the catalogue where blocking is allowed.

    `urgent`: those that lack copies; `untrimmable`: those that had too many for long, and could give up none when they
    were looked at last, emptied with every sweep. Every method that looks into the catalogue raises `NoSpace` or
    `StorageFailed` where that cannot be read.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        stored: Callable[..., Awaitable[list[Wanted]]],
        registry: Registry,
        view: FleetView,
        orders: Orders,
        doubts: Doubts,
    ) -> None:
        self.urgent: Final = Urgent()
        self.untrimmable: Final[set[bytes]] = set()
        self._catalogue = catalogue
        self._stored = stored
        self._registry = registry
        self._view = view
        self._orders = orders
        self._doubts = doubts
        self._files: dict[bytes, Wanted] = {}
        self._sweep = Sweep(SWEEP_S)
        self._astray: set[bytes] = set()  # files that the sweep has not met yet

    def __contains__(self, file_id: bytes) -> bool:
        return file_id in self._files

    def get(self, file_id: bytes) -> Wanted | None:
        """What is wanted of a file; None: it is as wanted."""
        return self._files.get(file_id)

    def settle(self, file_id: bytes) -> None:
        """A file is as wanted, or is not in the catalogue any more."""
        self._files.pop(file_id, None)
        self.urgent.drop(file_id)
        self._orders.settle(file_id)

    def sweep_anew(self) -> None:
        """Look at everything at once the next time."""
        self._sweep = Sweep(SWEEP_S)

    async def look_up(self, file_ids: Iterable[bytes]) -> None:
        """Look at these files."""
        asked = list(file_ids)
        for start in range(0, len(asked), LOOK_UP_FILES):
            page = asked[start : start + LOOK_UP_FILES]
            found = await self._stored(self._catalogue.wanted, page)
            for file_id in set(page) - {wanted.file_id for wanted in found}:
                self.settle(file_id)
            await self._sort_out(found)

    def is_behind(self, now: float) -> bool:
        """Whether more of the catalogue should have been looked at by now."""
        return self._sweep.is_behind(now)

    async def go_on_sweeping(self, most: int | None) -> list[bytes]:
        """Look at as much of the catalogue, and of the hosts, as is due; return what of it is not as wanted.

        `most`: pages, None: all.
        """
        found: list[bytes] = []
        pages = 0
        while (most is None or pages < most) and self.is_behind(trio.current_time()):
            pages += 1
            if not self._sweep.is_under_way:
                await self._begin_sweep()
            page = await self._stored(self._catalogue.wanted_after, self._sweep.after, PAGE_FILES)
            if not page:
                self._sweep.end()
                await self.look_up(self._astray & self._files.keys())
                break
            await self._sort_out(page)
            self._sweep.saw(len(page), page[-1].file_id)
            ids = [wanted.file_id for wanted in page]
            self._astray.difference_update(ids)
            found += [file_id for file_id in ids if file_id in self._files]
        return found

    async def _begin_sweep(self) -> None:
        self._sweep.begin(trio.current_time())
        self._astray = set(self._files)
        self.untrimmable.clear()
        for count, host_id in enumerate(list(self._registry.heard_at()), start=1):
            self._view.look_at(host_id, trio.current_time())
            if count % SLICE_HOSTS == 0:
                await trio.lowlevel.checkpoint()

    async def _sort_out(self, page: Sequence[Wanted]) -> None:
        """Keep what is not as wanted."""
        for start in range(0, len(page), SLICE_FILES):
            for wanted in self._not_plainly_settled(page[start : start + SLICE_FILES]):
                is_held = bool(self._registry.held(wanted.file_id))  # else nothing can be done before it is announced
                if wanted.file_id in self._files or (is_held and not self._is_settled(wanted)):
                    self._files[wanted.file_id] = wanted
            await trio.lowlevel.checkpoint()

    def _not_plainly_settled(self, files: Sequence[Wanted]) -> list[Wanted]:
        """Those of which more must be known than that all their copies are whole and count, and are as many as wanted.

        Mostly these are few, and to look at one as plans do takes several times as long.
        """
        held, not_whole, doubted, known = self._registry.held, self._registry.not_whole, self._doubts.files, self._files
        not_counting = self._view.places.not_counting
        return [
            wanted
            for wanted in files
            if len(holders := held(wanted.file_id)) != wanted.replicas
            or wanted.file_id in not_whole
            or not not_counting.isdisjoint(holders)
            or wanted.file_id in doubted
            or wanted.file_id in known
        ]

    def _is_settled(self, wanted: Wanted) -> bool:
        file = self._view.file(wanted.file_id, wanted.size, wanted.replicas, trio.current_time())
        return standing(file, self._view.places.hosts).is_settled
