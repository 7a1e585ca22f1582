"""The reconciler: has every file on as many hosts as are wanted, comparing again and again what is and what should be.

It looks at whatever changed at once, at all that is not as wanted every few seconds, and at the whole catalogue every
minute, page by page, so that nothing depends on a change having been noticed. It never takes more than a tenth of the
master's time. `interfiles.placement` decides; here is what it is told and what is done about it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from heapq import nsmallest
from typing import TYPE_CHECKING, Final

import structlog
import trio

from interfiles.errors import NoSpace, StorageFailed, printable
from interfiles.placement.awaited import Awaited
from interfiles.placement.drains import Drains
from interfiles.placement.orders import Orders
from interfiles.placement.replicas import MAX_LOOKED_AFTER, Placing, plan, releases
from interfiles.placement.standing import (
    COMPLETE,
    FileView,
    HostView,
    Order,
    Policy,
    Release,
    Standing,
    standing,
    urgency,
)
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from daemons.master.connection import Connection
    from daemons.master.events import Events
    from interfiles.placement.host_facts import Room
    from interfiles.placement.orders import Ended
    from interfiles.placement.registry import Registry
    from interfiles.placement.standing import Action
    from interfiles.storage.catalogue import Catalogue, Wanted
    from interfiles.wire.master_messages import Holding, HostState

ROUND_S: Final = 2.0  # between two looks at what is not as wanted
SWEEP_S: Final = 60.0  # between two looks at everything
COALESCE_S: Final = 0.1  # changes that follow one another so closely are looked at together
MAX_SHARE: Final = 0.1  # of the time, that rounds may take
PAGE_FILES: Final = 500  # of the catalogue, that are asked for at once
SLICE_FILES: Final = 25  # that are looked at before others have their turn: an answer to a host takes several turns
MAX_LEFT_OVER: Final = 10_000  # files of which it is known who has given them up
OUTLOOK_S: Final = 1.0  # that the reasons which people are told may be old
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
        self.drains: Final = Drains()
        self._policy: Final = policy or Policy(trim_after_s=TRIM_GRACES * registry.grace_s)
        self._orders = Orders()
        self._unsettled: dict[bytes, Wanted] = {}
        self._touched: set[bytes] = set()
        self._wake = trio.Event()
        self._states: dict[str, HostState] = {}
        self._awaited = Awaited(registry.grace_s)
        self._placing: tuple[float, Placing] | None = None  # for outlooks, and when it was made
        self._left_over: dict[bytes, set[str]] = {}  # hosts that have given a file up, and may have it lying about

    # What others tell

    def touch(self, file_ids: Iterable[bytes]) -> None:
        """Copies of these files have changed, or how many are wanted, or may have."""
        self._touched.update(file_ids)
        if self._touched:
            self._wake.set()

    def declined(self, host_id: str, answer: m.Declined) -> None:
        """A host does not hold what it was ordered to; what it was not ordered to it need not decline."""
        now = trio.current_time()
        if not self._orders.may_decline(answer.file_id, host_id, now):
            return
        self._orders.declined(answer.file_id, host_id, rest_s=answer.rest_s, whole_host=answer.whole_host, now=now)
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
        for file_id in self._orders.lost(host_id, trio.current_time()):
            self._events.add("failed", host=host_id, file=file_id, reason="its connection ended before it answered")

    def forget_host(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self._orders.forget_host(host_id)
        self._states.pop(host_id, None)
        self.drains.forget(host_id)

    def set_draining(self, host_id: str, draining: bool) -> None:
        """A host is to be given no copies, and those that it has are to be on others."""
        self._registry.set_draining(host_id, draining)
        self.drains.forget(host_id)
        self.touch(self._registry.files_of(host_id))
        self._wake.set()

    # What others ask

    def outlook(self, file_id: bytes, size: int, wanted: int, *, quickly: bool = False) -> Outlook:
        """How a file of `size` bytes stands now; why it lacks copies may be as it was a second ago.

        `quickly`: without a look at which hosts are busy with other copies.
        """
        now = trio.current_time()
        view = self._view(file_id, size, wanted, now)
        stand = standing(view, {host_id: self._host(self._registry.room(host_id, now)) for host_id in view.copies})
        if not stand.missing:
            return Outlook(stand, "")
        if self._placing is None or now - self._placing[0] >= OUTLOOK_S:
            self._placing = (now, Placing(self._hosts(now), self._policy, now))
        placing = self._placing[1]
        why = placing.hint(view) if quickly else placing.why_not(view)
        return Outlook(stand, why.text if why is not None else "")

    def arriving(self, host_id: str) -> int:
        """Ordered copies that a host fetches or is asked to."""
        return self._orders.arriving(host_id)

    def why_no_orders(self, host_id: str) -> str:
        """Why a host is given no orders, in words; empty: there is no such reason."""
        return self._orders.why_rests(host_id, trio.current_time())

    def is_releasing(self, file_id: bytes, host_id: str) -> bool:
        """Whether a host was told to give its copy up."""
        return self._orders.is_releasing(file_id, host_id)

    def forget_file(self, file_id: bytes) -> set[str]:
        """A file is out of the catalogue; return the hosts that have given a copy of it up, as far as is known."""
        self._orders.forget_file(file_id)
        self.touch([file_id])
        return self._left_over.pop(file_id, set())

    # The rounds

    async def run(self) -> None:
        """Reconcile until cancelled."""
        swept_at = float("-inf")
        while True:
            began = trio.current_time()
            if not self._awaited.look(self._registry.rooms(began), began):
                is_due = began - swept_at >= SWEEP_S
                try:
                    await self.reconcile(sweep=is_due)
                    swept_at = began if is_due else swept_at
                except (NoSpace, StorageFailed) as e:
                    log.warning("cannot look what is wanted", reason=str(e))
            now = trio.current_time()
            with trio.move_on_at(now + ROUND_S):
                await self._wake.wait()
            await trio.sleep_until(now + max(COALESCE_S, (now - began) * (1 / MAX_SHARE - 1)))

    async def reconcile(self, *, sweep: bool) -> None:
        """One round: look at what has changed and at what is not as wanted, or at everything; do what can be done.

        Raises:
          NoSpace, StorageFailed: the catalogue cannot be read; the next round looks at what this one did not.
        """
        self._wake = trio.Event()
        rooms = list(self._registry.rooms(trio.current_time()))
        self._touch_changed_hosts(rooms, all_seen=sweep)
        touched, self._touched = self._touched, set()
        await trio.lowlevel.checkpoint()  # each of these takes some ms in a large fleet
        hosts = {room.host_id: self._host(room) for room in rooms}
        counting = {host_id for host_id, host in hosts.items() if host.state in ("live", "suspect")}
        try:
            await self._look_up(await self._sweep(hosts, counting) if sweep else touched, hosts, counting)
        except (NoSpace, StorageFailed):
            self._touched |= touched
            raise
        if sweep:  # it took a while
            hosts = self._hosts(trio.current_time())
        draining = {room.host_id for room in rooms if room.draining}
        if (self._unsettled or draining) and (work := await self._find_work(hosts, draining)):
            self._act(work)

    def _touch_changed_hosts(self, rooms: Iterable[Room], *, all_seen: bool) -> None:
        states = {room.host_id: room.state for room in rooms}
        for host_id, state in states.items():
            if not all_seen and self._states.get(host_id) != state:
                self._touched.update(self._registry.files_of(host_id))
        self._states = states

    async def _sweep(self, hosts: Mapping[str, HostView], counting: set[str]) -> set[bytes]:
        """Look at the whole catalogue; return what is looked after and not in it."""
        after, astray = b"", set(self._unsettled)
        while page := await self._stored(self._catalogue.wanted_after, after, PAGE_FILES):
            await self._sort_out(page, hosts, counting)
            astray.difference_update([wanted.file_id for wanted in page])
            after = page[-1].file_id
        return astray

    async def _look_up(self, file_ids: set[bytes], hosts: Mapping[str, HostView], counting: set[str]) -> None:
        asked = list(file_ids)
        for start in range(0, len(asked), PAGE_FILES):
            page = asked[start : start + PAGE_FILES]
            found = await self._stored(self._catalogue.wanted, page)
            for file_id in set(page) - {wanted.file_id for wanted in found}:
                self._settle(file_id)
            await self._sort_out(found, hosts, counting)

    async def _sort_out(self, page: Iterable[Wanted], hosts: Mapping[str, HostView], counting: set[str]) -> None:
        """Keep what is not as wanted for the rest of the round, and those to come.

        `counting`: the hosts whose copies count. One that has changed meanwhile is noticed in the next round.
        """
        now = trio.current_time()
        for count, wanted in enumerate(page, start=1):
            if count % SLICE_FILES == 0:
                await trio.lowlevel.checkpoint()
            is_held = bool(self._registry.held(wanted.file_id))  # else nothing can be done before it is announced
            if wanted.file_id in self._unsettled or (is_held and not self._is_settled(wanted, hosts, counting, now)):
                self._unsettled[wanted.file_id] = wanted

    def _is_settled(self, wanted: Wanted, hosts: Mapping[str, HostView], counting: set[str], now: float) -> bool:
        held = self._registry.held(wanted.file_id)
        seems = len(held) == wanted.replicas and held.keys() <= counting  # nearly always, and sooner seen than counted
        if seems and not self._orders.doubts(wanted.file_id, held, now):
            for holding in held.values():
                if holding.state != "complete":
                    break
            else:
                return True
        return standing(self._view(wanted.file_id, wanted.size, wanted.replicas, now), hosts).is_settled

    async def _find_work(self, hosts: Mapping[str, HostView], draining: set[str]) -> list[Wanted]:
        """Take in what has become of all that is not as wanted; return what something can be done about.

        Of files that lack copies it returns only the most urgent, and of those that have too many not all at once.
        """
        up = hosts.keys() & self._connections.keys()
        await trio.lowlevel.checkpoint()
        placing = Placing(hosts, self._policy, trio.current_time())
        await trio.lowlevel.checkpoint()
        lacking: list[tuple[tuple[int, int, bytes], Wanted]] = []
        crowded: list[Wanted] = []
        to_move, stuck = Counter[str](), dict[str, str]()
        for count, wanted in enumerate(list(self._unsettled.values()), start=1):
            if count % SLICE_FILES == 0:
                lacking = nsmallest(MAX_LOOKED_AFTER, lacking)
                await trio.lowlevel.checkpoint()
            view, stand = self._consider(wanted, hosts, up)
            is_over = stand.is_settled or not view.copies
            if is_over and not self._orders.is_releasing(wanted.file_id):
                self._settle(wanted.file_id)
                continue
            why = placing.obstacle(view) if stand.missing else None
            if len(crowded) < MAX_LOOKED_AFTER and releases(view, stand, hosts, self._policy, trio.current_time()):
                crowded.append(wanted)
            elif stand.missing and why is None:
                lacking.append((urgency(view, stand), wanted))
            nobody_else = why is not None and why.obstacle == "no-host" and stand.complete > 0
            if draining and stand.complete < stand.wanted and not nobody_else:
                there = [host for host in draining & view.copies.keys() if view.copies[host] in COMPLETE]
                to_move.update(there)
                if why is not None and why.obstacle not in _SHORT_WAITS:
                    stuck.update(dict.fromkeys(there, f"{printable(wanted.name)}: {why.text}"))
        for host_id in self.drains.look(draining, to_move, stuck):
            self._events.add("drained", host=host_id, reason="it can be switched off")
        return [wanted for _, wanted in nsmallest(MAX_LOOKED_AFTER, lacking)] + crowded

    def _act(self, work: Iterable[Wanted]) -> None:
        """Plan and carry out, without a pause: as things are in this moment."""
        hosts = self._hosts(trio.current_time())
        up = hosts.keys() & self._connections.keys()
        views = [self._consider(wanted, hosts, up)[0] for wanted in work]
        for action in plan(views, hosts, self._policy, trio.current_time()).actions:
            self._perform(action)

    def _consider(self, wanted: Wanted, hosts: Mapping[str, HostView], up: set[str]) -> tuple[FileView, Standing]:
        """Take in what has become of a file, and see how it stands."""
        file_id, now = wanted.file_id, trio.current_time()
        for ended in self._orders.notice(file_id, self._registry.held(file_id), up, now):
            self._end(wanted, ended, now)
        view = self._view(file_id, wanted.size, wanted.replicas, now)
        stand = standing(view, hosts)
        since = self._orders.surplus_since(file_id, now, has_surplus=stand.has_surplus)
        return (replace(view, surplus_since=since) if since is not None else view), stand

    def _settle(self, file_id: bytes) -> None:
        self._unsettled.pop(file_id, None)
        self._orders.settle(file_id)

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
        if ended.outcome == "released":
            if len(self._left_over) >= MAX_LEFT_OVER:
                del self._left_over[next(iter(self._left_over))]
            self._left_over.setdefault(wanted.file_id, set()).add(ended.host_id)
        self._events.add(ended.outcome, host=ended.host_id, file=wanted.file_id, reason=ended.reason)
        if ended.stalled and (connection := self._connections.get(ended.host_id)) is not None:
            self._release(wanted.file_id, ended.host_id, connection, now)

    # What the decisions are made from

    def _hosts(self, now: float) -> dict[str, HostView]:
        return {room.host_id: self._host(room) for room in self._registry.rooms(now)}

    def _host(self, room: Room) -> HostView:
        orders = self._orders
        return HostView(
            room.name,
            room.zone,
            self._state(room),
            room.free - orders.asked_bytes(room.host_id),
            orders.arriving(room.host_id),
            orders.rests_until(room.host_id),
        )

    def _state(self, room: Room) -> HostState:
        """A host's state as copies count: one that drains and is not up is as good as gone."""
        if room.draining and room.state != "draining":
            return "gone"
        return room.state if room.host_id in self._connections or room.state != "live" else "suspect"

    def _view(self, file_id: bytes, size: int, wanted: int, now: float) -> FileView:
        copies = self._orders.copies(file_id, self._registry.held(file_id), now)
        return FileView(file_id, size, wanted, copies, None, self._orders.refused_by(file_id, now))


def _counted(wanted: Wanted) -> str:
    return f"{wanted.replicas:,} copies are wanted" if wanted.replicas != 1 else "a copy is wanted"
