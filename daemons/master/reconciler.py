"""The reconciler: has every file on as many hosts as are wanted, comparing again and again what is and what should be.

It looks at whatever changed at once, at all that is not as wanted every few seconds, and at the whole catalogue every
minute, page by page, so that nothing depends on a change having been noticed. It never takes more than a tenth of the
master's time. `interfiles.placement` decides; here is what it is told and what is done about it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from interfiles.errors import NoSpace, StorageFailed, printable
from interfiles.placement.orders import Orders
from interfiles.placement.replicas import (
    FileView,
    HostView,
    Order,
    Policy,
    Release,
    Standing,
    explain,
    plan,
    standing,
)
from interfiles.units import format_duration
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from daemons.master.connection import Connection
    from daemons.master.events import Events
    from interfiles.placement.orders import Ended
    from interfiles.placement.registry import Registry, Room
    from interfiles.placement.replicas import Action
    from interfiles.storage.catalogue import Catalogue, Wanted
    from interfiles.wire.master_messages import Holding, HostState

ROUND_S: Final = 2.0  # between two looks at what is not as wanted
SWEEP_S: Final = 60.0  # between two looks at everything
COALESCE_S: Final = 0.1  # changes that follow one another so closely are looked at together
MAX_SHARE: Final = 0.1  # of the time, that rounds may take
PAGE_FILES: Final = 500  # looked at before others have their turn
LAST_SEEN_EVERY_S: Final = 60.0  # what the catalogue knows of when hosts were up is older by so much after a crash
TRIM_GRACES: Final = 5  # a copy that is one too many is kept for so many grace times

_SHORT_WAITS: Final = frozenset({"busy", "turn"})  # obstacles that go away by themselves

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a file stands, and why it has fewer copies than wanted, in words; empty: it has not, or more are coming."""

    standing: Standing
    why_not: str


class Reconciler:
    """Owner of what is ordered. `stored` runs a method of the catalogue where blocking is allowed."""

    def __init__(
        self,
        catalogue: Catalogue,
        stored: Callable[..., Awaitable[list[Wanted]]],
        registry: Registry,
        connections: Mapping[str, Connection],
        events: Events,
        policy: Policy | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._stored = stored
        self._registry = registry
        self._connections = connections
        self._events = events
        self._policy: Final = policy or Policy(trim_after_s=TRIM_GRACES * registry.grace_s)
        self._orders = Orders()
        self._unsettled: dict[bytes, Wanted] = {}
        self._touched: set[bytes] = set()
        self._wake = trio.Event()
        self._states: dict[str, HostState] = {}
        self._is_new = True
        self._unknown_since: dict[str, float] = {}
        self._to_move: dict[str, int] = {}
        self._why_stays: dict[str, str] = {}

    # What others tell

    def touch(self, file_ids: Iterable[bytes]) -> None:
        """Copies of these files have changed, or how many are wanted, or may have."""
        self._touched.update(file_ids)
        if self._touched:
            self._wake.set()

    def declined(self, host_id: str, answer: m.Declined) -> None:
        """A host does not hold what it was ordered to."""
        self._orders.declined(
            answer.file_id, host_id, rest_s=answer.rest_s, whole_host=answer.whole_host, now=trio.current_time()
        )
        self._events.add("failed", host=host_id, file=answer.file_id, reason=printable(answer.text))
        self.touch([answer.file_id])

    def doubt(self, host_id: str, file_id: bytes, reason: str) -> None:
        """A host could not show what it claims to hold: its copy does not count for now."""
        self._events.add("corrupt", host=host_id, file=file_id, reason=reason)
        self._orders.doubt(file_id, host_id, trio.current_time())
        self.touch([file_id])

    def announced(self, host_id: str, holdings: Iterable[Holding]) -> None:
        """A host tells what has changed in its holdings."""
        self._orders.trust(host_id, (holding.file_id for holding in holdings if holding.state != "complete"))

    def lost(self, host_id: str) -> None:
        """A host's connection is gone."""
        self._orders.lost(host_id)

    def forget_host(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self._orders.forget_host(host_id)
        self._states.pop(host_id, None)
        self._unknown_since.pop(host_id, None)
        self._to_move.pop(host_id, None)
        self._why_stays.pop(host_id, None)

    def set_draining(self, host_id: str, draining: bool) -> None:
        """A host is to be given no copies, and those that it has are to be on others."""
        self._registry.set_draining(host_id, draining)
        self._to_move.pop(host_id, None)
        self._why_stays.pop(host_id, None)
        self.touch(self._registry.files_of(host_id))
        self._wake.set()

    # What others ask

    def outlook(self, file_id: bytes, size: int, wanted: int) -> Outlook:
        """How a file stands now."""
        now = trio.current_time()
        return self.outlooks([(file_id, size, wanted)], now)[0]

    def outlooks(self, files: Iterable[tuple[bytes, int, int]], now: float) -> list[Outlook]:
        """How files stand now; of each its id, size and wanted copies."""
        hosts = self._hosts(now)
        found = []
        for file_id, size, wanted in files:
            view = self._view(file_id, size, wanted, now, None)
            why = explain(view, hosts, self._policy, now)
            found.append(Outlook(standing(view, hosts), why.text if why is not None else ""))
        return found

    def arriving(self, host_id: str) -> int:
        """Ordered copies that a host fetches or is asked to."""
        return self._orders.arriving(host_id)

    def why_no_orders(self, host_id: str) -> str:
        """Why a host is given no orders, in words; empty: there is no such reason."""
        left = self._orders.rests_until(host_id) - trio.current_time()
        if left <= 0:
            return ""
        times = self._orders.failures_in_a_row(host_id)
        failed = "failed" if times == 1 else f"failed {times:,} times"
        return f"it {failed} and is given no copies for {format_duration(left)}"

    def to_move(self, host_id: str) -> int | None:
        """How many files should get another copy before a draining host goes; None: it is not known yet."""
        return self._to_move.get(host_id)

    def why_stays(self, host_id: str) -> str:
        """Why a file on a draining host gets no other copy now, in words; empty: there is no such reason."""
        return self._why_stays.get(host_id, "")

    # The rounds

    async def run(self) -> None:
        """Reconcile until cancelled."""
        swept_at = float("-inf")
        while True:
            began = trio.current_time()
            if not self._is_blind(began):
                is_due = began - swept_at >= SWEEP_S
                try:
                    await self._round(sweep=is_due)
                    swept_at = began if is_due else swept_at
                except (NoSpace, StorageFailed) as e:
                    log.warning("cannot look what is wanted", reason=str(e))
            now = trio.current_time()
            with trio.move_on_at(now + ROUND_S):
                await self._wake.wait()
            await trio.sleep_until(now + max(COALESCE_S, (now - began) * (1 / MAX_SHARE - 1)))

    def _is_blind(self, now: float) -> bool:
        """Whether some host has not said yet what it holds: after a restart of the master all files seem to be lost.

        That goes for hosts that are up, and after a start for all that were up, as far as is known, when the master was
        last; none is waited for longer than the grace time, after which its copies would not count anyway.
        """
        unknown = {room.host_id: room for room in self._registry.rooms(now) if not room.is_known}
        if self._is_new:
            newest = max((room.heard_at for room in unknown.values()), default=now)
            since = newest - self._registry.grace_s - LAST_SEEN_EVERY_S
            self._unknown_since = {host: now for host, room in unknown.items() if room.heard_at >= since}
            self._is_new = False
        for host, room in unknown.items():
            if room.state in ("live", "draining"):
                self._unknown_since.setdefault(host, now)
        self._unknown_since = {host: at for host, at in self._unknown_since.items() if host in unknown}
        return any(now - at < self._registry.grace_s for at in self._unknown_since.values())

    async def _round(self, *, sweep: bool) -> None:
        now = trio.current_time()
        self._wake = trio.Event()
        self._touch_changed_hosts(now)
        touched, self._touched = self._touched, set()
        draining = {room.host_id for room in self._registry.rooms(now) if room.state == "draining"}
        if sweep:
            await self._sweep()
        await self._look_up(touched)
        await self._reconcile(draining)

    def _touch_changed_hosts(self, now: float) -> None:
        states = {room.host_id: room.state for room in self._registry.rooms(now)}
        for host_id, state in states.items():
            if self._states.get(host_id) != state:
                self._touched.update(self._registry.files_of(host_id))
        self._states = states

    async def _sweep(self) -> None:
        """Look at the whole catalogue."""
        after = b""
        while page := await self._stored(self._catalogue.wanted_after, after, PAGE_FILES):
            self._sort_out(page)
            after = page[-1].file_id

    async def _look_up(self, file_ids: set[bytes]) -> None:
        asked = list(file_ids)
        for start in range(0, len(asked), PAGE_FILES):
            page = asked[start : start + PAGE_FILES]
            found = await self._stored(self._catalogue.wanted, page)
            for file_id in set(page) - {wanted.file_id for wanted in found}:
                self._settle(file_id)
            self._sort_out(found)

    def _sort_out(self, page: Iterable[Wanted]) -> None:
        """Keep what is not as wanted for the rest of the round, and those to come."""
        now = trio.current_time()
        hosts = self._hosts(now)
        for wanted in page:
            if not self._registry.held(wanted.file_id) and wanted.file_id not in self._unsettled:
                continue  # nobody has anything of it: nothing can be done before somebody announces some
            view = self._view(wanted.file_id, wanted.size, wanted.replicas, now, None)
            if standing(view, hosts).is_settled and wanted.file_id not in self._unsettled:
                continue
            self._unsettled[wanted.file_id] = wanted

    async def _reconcile(self, draining: set[str]) -> None:
        views, to_move, stuck = list[FileView](), Counter[str](), dict[str, str]()
        lacking: dict[bytes, tuple[Standing, list[str]]] = {}
        hosts = self._hosts(trio.current_time())
        up = {host_id for host_id in self._connections if host_id in hosts}
        for count, wanted in enumerate(list(self._unsettled.values())):
            if count % PAGE_FILES == PAGE_FILES - 1:
                await trio.lowlevel.checkpoint()
            view, stand = self._consider(wanted, hosts, up)
            if stand.is_settled or not view.copies:
                self._settle(wanted.file_id)
                continue
            views.append(view)
            if draining and stand.complete < stand.wanted:
                there = [host for host in draining & view.copies.keys() if view.copies[host] in ("own", "ordered")]
                lacking[view.file_id] = (stand, there)
        hosts = self._hosts(now := trio.current_time())
        made = plan(views, hosts, self._policy, now)
        for action in made.actions:
            self._perform(action)
        for file_id, (stand, there) in lacking.items():
            why = made.why_not.get(file_id)
            if not stand.complete or why is None or why.obstacle != "no-host":  # else nobody is left who could take it
                to_move.update(there)
                if why is not None and why.obstacle not in _SHORT_WAITS:
                    stuck.update(dict.fromkeys(there, f"{printable(self._unsettled[file_id].name)}: {why.text}"))
        for host_id in draining:
            self._why_stays[host_id] = stuck.get(host_id, "")
            if not to_move[host_id] and self._to_move.get(host_id) != 0:
                self._events.add("drained", host=host_id, reason="it can be switched off")
            self._to_move[host_id] = to_move[host_id]

    def _consider(self, wanted: Wanted, hosts: Mapping[str, HostView], up: set[str]) -> tuple[FileView, Standing]:
        """Take in what has become of a file, and see how it stands."""
        now = trio.current_time()
        for ended in self._orders.notice(wanted.file_id, self._registry.held(wanted.file_id), up, now):
            self._end(wanted, ended, now)
        copies = self._orders.copies(wanted.file_id, self._registry.held(wanted.file_id), now)
        view = FileView(wanted.file_id, wanted.size, wanted.replicas, copies)
        stand = standing(view, hosts)
        since = self._orders.surplus_since(wanted.file_id, now, has_surplus=stand.has_surplus)
        refused = self._orders.refused_by(wanted.file_id, now)
        return FileView(wanted.file_id, wanted.size, wanted.replicas, copies, since, refused), stand

    def _settle(self, file_id: bytes) -> None:
        self._unsettled.pop(file_id, None)
        self._orders.forget_file(file_id)

    # What is done

    def _perform(self, action: Action) -> None:
        connection, now = self._connections.get(action.host_id), trio.current_time()
        wanted = self._unsettled.get(action.file_id)
        if connection is None or connection.is_busy or wanted is None:
            return  # the next round sees
        match action:
            case Order():
                self._orders.ordered(action.file_id, action.host_id, wanted.size, now)
                connection.push(m.Order(action.file_id, wanted.size))
                self._events.add("ordered", host=action.host_id, file=action.file_id, reason=_counted(wanted))
            case Release():
                self._release(action.file_id, action.host_id, connection, now)

    def _release(self, file_id: bytes, host_id: str, connection: Connection, now: float) -> None:
        self._orders.released(file_id, host_id, now)
        connection.push(m.Release(file_id))

    def _end(self, wanted: Wanted, ended: Ended, now: float) -> None:
        self._events.add(ended.outcome, host=ended.host_id, file=wanted.file_id, reason=ended.reason)
        if ended.stalled and (connection := self._connections.get(ended.host_id)) is not None:
            self._release(wanted.file_id, ended.host_id, connection, now)

    # What the decisions are made from

    def _hosts(self, now: float) -> dict[str, HostView]:
        orders = self._orders
        return {
            room.host_id: HostView(
                room.name,
                room.zone,
                self._state(room),
                room.free - orders.asked_bytes(room.host_id),
                orders.arriving(room.host_id),
                orders.rests_until(room.host_id),
            )
            for room in self._registry.rooms(now)
        }

    def _state(self, room: Room) -> HostState:
        """A host's state as copies count: one that drains and is not up is as good as gone."""
        if room.draining and room.state != "draining":
            return "gone"
        return room.state if room.host_id in self._connections or room.state != "live" else "suspect"

    def _view(self, file_id: bytes, size: int, wanted: int, now: float, since: float | None) -> FileView:
        copies = self._orders.copies(file_id, self._registry.held(file_id), now)
        return FileView(file_id, size, wanted, copies, since, self._orders.refused_by(file_id, now))


def _counted(wanted: Wanted) -> str:
    return f"{wanted.replicas:,} copies are wanted" if wanted.replicas != 1 else "a copy is wanted"
