"""The reconciler: has every file on as many hosts as are wanted, comparing again and again what is and what should be.

It looks at whatever changed at once, at copies that are on their way too, and at the whole catalogue once a minute, a
part of it in each round, so that nothing depends on a change having been noticed. Files that lack copies wait in the
order of their urgency, so a round takes no longer when there are many. It never takes more than a tenth of the master's
time. `interfiles.placement` decides; here is what it is told and what is done about it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from daemons.master.unsettled import SLICE_FILES, Unsettled
from interfiles.errors import NoSpace, StorageFailed, printable
from interfiles.geometry import choose_piece_size
from interfiles.placement.doubts import Doubts
from interfiles.placement.drains import Drains, Left
from interfiles.placement.fleet_view import FleetView
from interfiles.placement.orders import Orders
from interfiles.placement.replicas import MAX_LOOKED_AFTER, plan, releases
from interfiles.placement.standing import (
    COMPLETE,
    FileView,
    Order,
    Policy,
    Release,
    Standing,
    cause,
    standing,
    urgency,
)
from interfiles.units import format_count
from interfiles.wire import master_messages as m

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from daemons.master.connection import Connection
    from daemons.master.events import Events
    from interfiles.placement.doubts import Doubt
    from interfiles.placement.fleet_view import Outlook
    from interfiles.placement.orders import Ended
    from interfiles.placement.registry import Registry
    from interfiles.placement.standing import Action
    from interfiles.storage.catalogue import Catalogue, Wanted
    from interfiles.wire.master_messages import Holding

ROUND_S: Final = 2.0  # between two looks at hosts that drain, and at what could not be placed
COALESCE_S: Final = 0.1  # changes that follow one another so closely are looked at together
MAX_SHARE: Final = 0.1  # of the time, that rounds may take
PLAN_FILES: Final = 2  # that are placed before others have their turn
MAX_PAGES: Final = 10  # of the catalogue, that are looked at in one round
MAX_RETRIED: Final = 2000  # files that could not be placed, and are looked at again in one round
MAX_TRIMS: Final = 1024  # files with copies too many that are looked at in one round
MAX_LEFT_OVER: Final = 10_000  # files of which it is known who has given them up
TRIM_GRACES: Final = 5  # a copy that is one too many is kept for so many grace times

_COMING: Final = frozenset({"arriving", "coming"})
_SHORT_WAITS: Final = frozenset({"busy", "turn"})  # obstacles that go away by themselves

log = structlog.get_logger()


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
        self._registry = registry
        self._connections = connections
        self._events = events
        self.drains: Final = Drains()
        self._policy: Final = policy or Policy(trim_after_s=TRIM_GRACES * registry.grace_s)
        self._orders = Orders()
        self._doubts = Doubts()
        self._view = FleetView(registry, self._orders, self._doubts, self._policy)
        self._unsettled = Unsettled(catalogue, stored, registry, self._view, self._orders, self._doubts)
        self._urgent: Final = self._unsettled.urgent
        self._touched: set[bytes] = set()
        self._wake = trio.Event()
        self._looked_at = float("-inf")  # when hosts that drain were looked at, and what could not be placed
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
            if answer.rest_s and host_id in self._registry.held(answer.file_id):  # a person removes what it has
                self._orders.declined(answer.file_id, host_id, rest_s=answer.rest_s, whole_host=False, now=now)
            return
        self._orders.declined(answer.file_id, host_id, rest_s=answer.rest_s, whole_host=answer.whole_host, now=now)
        self._events.add("failed", host=host_id, file=answer.file_id, reason=printable(answer.text))
        self.touch([answer.file_id])

    def doubt(self, doubt: Doubt, reason: str) -> None:
        """A host could not show what it claims to hold: its copy does not count for now."""
        if self._doubts.note(doubt, trio.current_time()):
            self._events.add("corrupt", host=doubt.host_id, file=doubt.file_id, reason=reason)
        self.touch([doubt.file_id])

    def shown(self, piece: Doubt) -> None:
        """A host has shown a piece that it holds: if it could not before, its copy counts again."""
        if self._doubts.end(piece):
            self.touch([piece.file_id])

    def announced(self, host_id: str, holdings: Iterable[Holding], lost: Iterable[bytes]) -> None:
        """A host tells what has changed in its holdings; `lost`: files that it does not name any more, and had."""
        self._doubts.trust(host_id, [holding.file_id for holding in holdings if holding.state != "complete"])
        self._doubts.trust(host_id, lost)

    def lost(self, host_id: str) -> None:
        """A host's connection is gone."""
        files = self._orders.lost(host_id, trio.current_time())
        for file_id in files:
            self._events.add("failed", host=host_id, file=file_id, reason="its connection ended before it answered")
        self.touch(files)

    def forget_host(self, host_id: str) -> None:
        """A host is not of the fleet any more."""
        self.touch(self._orders.forget_host(host_id))
        self._doubts.forget_host(host_id)
        self.drains.forget(host_id)

    def set_draining(self, host_id: str, draining: bool) -> None:
        """A host is to be given no copies, and those that it has are to be on others."""
        self._registry.set_draining(host_id, draining)
        self.drains.forget(host_id)
        self.touch(self._registry.files_of(host_id))
        self._wake.set()

    # What others ask

    def outlook(self, file_id: bytes, size: int, wanted: int, *, quickly: bool = False) -> Outlook:
        """How a file of `size` bytes stands now; `quickly`: without a look at which hosts are busy with others."""
        return self.view().outlook(file_id, size, wanted, trio.current_time(), quickly=quickly)

    def view(self) -> FleetView:
        """The fleet as it is now."""
        self._view.refresh(trio.current_time())
        if self._view.moved:
            self._wake.set()
        return self._view

    def arriving(self, host_id: str) -> int:
        """Ordered copies that a host fetches or is asked to."""
        return self._orders.arriving(host_id)

    def to_challenge(self) -> Doubt | None:
        """What a host could not show, and is to be asked for again now."""
        now = trio.current_time()
        self.touch(self._doubts.expire(now) | self._doubts.age(now))
        return self._doubts.to_ask(now)

    def why_no_orders(self, host_id: str) -> str:
        """Why a host is given no orders, in words; empty: there is no such reason."""
        return self._orders.why_rests(host_id, trio.current_time())

    def is_releasing(self, file_id: bytes, host_id: str) -> bool:
        """Whether a host was told to give its copy up."""
        return self._orders.is_releasing(file_id, host_id)

    def forget_file(self, file_id: bytes) -> set[str]:
        """A file is out of the catalogue; return the hosts that have given a copy of it up, as far as is known."""
        self._orders.forget_file(file_id)
        self._doubts.forget_file(file_id)
        self.touch([file_id])
        return self._left_over.pop(file_id, set())

    # The rounds

    async def run(self) -> None:
        """Reconcile until cancelled."""
        self._unsettled.sweep_anew()  # after a failure, too
        while True:
            began = trio.current_time()
            if not self.view().is_awaiting(began):
                try:
                    await self.reconcile(sweep=False)
                except (NoSpace, StorageFailed) as e:
                    log.warning("cannot look what is wanted", reason=str(e))
            now = trio.current_time()
            with trio.move_on_at(now + ROUND_S):
                await self._wake.wait()
            await trio.sleep_until(now + max(COALESCE_S, (now - began) * (1 / MAX_SHARE - 1)))

    async def reconcile(self, *, sweep: bool) -> None:
        """One round: look at what has changed and may have, or at everything; do what can be done.

        Raises:
          NoSpace, StorageFailed: the catalogue cannot be read; the next round looks at what this one did not.
        """
        self._wake = trio.Event()
        if sweep:
            self._unsettled.sweep_anew()
        now = trio.current_time()
        draining = self.view().draining(now)
        await self._touch_moved()
        touched, self._touched = self._touched, set()
        try:
            await self._unsettled.look_up(touched)
            swept = await self._unsettled.go_on_sweeping(None if sweep else MAX_PAGES)
        except (NoSpace, StorageFailed):
            self._touched |= touched
            raise
        for file_id in touched:
            self._urgent.retry_this(file_id)
        is_due = sweep or now - self._looked_at >= ROUND_S
        retried = self._urgent.retry(MAX_RETRIED) if is_due else []
        in_vain = await self._look_again(touched.union(self._orders.watched(), retried, swept))
        if is_due:
            self._looked_at = now
            await self._look_at_drains(draining)
        await self._do(in_vain + await self._to_trim())
        await self._do(await self._to_place())
        if self._unsettled.is_behind(trio.current_time()):
            self._wake.set()

    async def _touch_moved(self) -> None:
        """Look at the files of hosts that are in another state."""
        while self._view.moved:
            self._touched.update(self._files_of(self._view.moved.pop()))
            await trio.lowlevel.checkpoint()

    async def _look_again(self, file_ids: Iterable[bytes]) -> list[Wanted]:
        """Take in what has become of these files; return those of which something is on its way in vain."""
        in_vain = []
        for count, file_id in enumerate(file_ids, start=1):
            if count % SLICE_FILES == 0:
                await trio.lowlevel.checkpoint()
            if (wanted := self._unsettled.get(file_id)) is not None and self._consider(wanted)[1].in_vain:
                in_vain.append(wanted)
        return in_vain

    async def _look_at_drains(self, draining: set[str]) -> None:
        """See how far these hosts are, which drained when the round began.

        Where something of theirs has not been looked at since it changed, what was known of them stays.
        """
        placing = self.view().placing(trio.current_time())
        found, unclear = {host_id: Left() for host_id in draining}, set[str]()
        away = {host_id for host_id, host in self._view.places.hosts.items() if host.state == "suspect"}
        for host_id in draining:
            for count, file_id in enumerate(self._files_of(host_id), start=1):
                if count % SLICE_FILES == 0:
                    await trio.lowlevel.checkpoint()
                if file_id in self._touched or not self._view.moved.isdisjoint(self._registry.held(file_id)):
                    unclear.add(host_id)
                elif (wanted := self._unsettled.get(file_id)) is not None:
                    file, stand = self._consider(wanted)
                    if file.copies.get(host_id) not in COMPLETE or stand.complete >= stand.wanted:
                        continue
                    why = placing.hint(file) if stand.missing else None
                    is_on_all = why is not None and why.obstacle == "no-host" and away <= file.copies.keys()
                    left = found[host_id]
                    if is_on_all and stand.complete:
                        left.short += 1
                        continue
                    left.files += 1
                    left.bytes += self._left_bytes(wanted, file)
                    if why is not None and why.obstacle not in _SHORT_WAITS:
                        left.why_stays = f"{printable(wanted.name)}: {why.text}"
        known = draining & self.view().draining(trio.current_time()) - unclear
        for host_id in self.drains.look(known, found):
            short = found[host_id].short
            few = f"; {format_count(short, 'file')} with fewer copies than wanted" if short else ""
            self._events.add("drained", host=host_id, reason=f"it can be switched off{few}")

    def _left_bytes(self, wanted: Wanted, file: FileView) -> int:
        """How much of a file has not come anywhere yet: of the copy on its way that has come furthest."""
        held, count = self._registry.held(file.file_id), -(-wanted.size // choose_piece_size(wanted.size))
        most = max(
            (held[host_id].pieces for host_id, copy in file.copies.items() if copy in _COMING and host_id in held),
            default=0,
        )
        return wanted.size * max(count - most, 0) // count if count else 0

    def _files_of(self, host_id: str) -> list[bytes]:
        return self._registry.files_of(host_id) if self._registry.is_known(host_id) else []

    async def _to_trim(self) -> list[Wanted]:
        """Files of which copies can be given up, not all at once."""
        now = trio.current_time()
        found: list[Wanted] = []
        due = self._orders.surplus_due(now - self._policy.trim_after_s, MAX_TRIMS, self._unsettled.untrimmable)
        for count, file_id in enumerate(due, start=1):
            if count % SLICE_FILES == 0:
                await trio.lowlevel.checkpoint()
            if (wanted := self._unsettled.get(file_id)) is None or len(found) == MAX_LOOKED_AFTER:
                continue
            file, stand = self._consider(wanted)
            if releases(file, stand, self._view.places.hosts, self._policy, now):
                found.append(wanted)
            else:
                self._unsettled.untrimmable.add(file_id)
        return found

    async def _to_place(self) -> list[Wanted]:
        """The most urgent files of those that lack copies and that some host could hold."""
        placing = self.view().placing(trio.current_time())
        found: list[Wanted] = []
        count = 0
        while not placing.is_full and len(found) < MAX_LOOKED_AFTER and (file_id := self._urgent.pop()) is not None:
            if (wanted := self._unsettled.get(file_id)) is None:
                continue
            if placing.obstacle(self._view.file(file_id, wanted.size, wanted.replicas, trio.current_time())) is None:
                found.append(wanted)
            else:
                self._urgent.put_off(file_id)
            if (count := count + 1) % SLICE_FILES == 0:
                await trio.lowlevel.checkpoint()
        return found

    async def _do(self, work: list[Wanted]) -> None:
        """Plan and carry out, a few files at a time: each as things are in that moment."""
        work = list({wanted.file_id: wanted for wanted in work}.values())
        for start in range(0, len(work), PLAN_FILES):
            now, places = trio.current_time(), self.view().places
            some = [wanted for wanted in work[start : start + PLAN_FILES] if wanted.file_id in self._unsettled]
            seen = {wanted.file_id: self._consider(wanted) for wanted in some}
            for action in plan([file for file, _ in seen.values()], places, self._policy, now):
                self._perform(action, *seen[action.file_id])
            for wanted in some:
                self._consider(wanted)
            await trio.lowlevel.checkpoint()

    def _consider(self, wanted: Wanted) -> tuple[FileView, Standing]:
        """Take in what has become of a file, and see how it stands."""
        file_id, now = wanted.file_id, trio.current_time()
        for ended in self._orders.notice(file_id, self._registry.held(file_id), self._connections, now):
            self._end(wanted, ended, now)
        file = self._view.file(file_id, wanted.size, wanted.replicas, now)
        stand = standing(file, self._view.places.hosts)
        since = self._orders.surplus_since(file_id, now, has_surplus=stand.has_surplus)
        if (stand.is_settled or not file.copies) and not self._orders.is_going(file_id):
            self._unsettled.settle(file_id)
        elif stand.missing:
            self._urgent.put(urgency(file, stand))
        else:
            self._urgent.drop(file_id)
        return (replace(file, surplus_since=since) if since is not None else file), stand

    # What is done

    def _perform(self, action: Action, file: FileView, stand: Standing) -> None:
        """Do it; `file` and `stand`: how its file was when that was decided."""
        connection, now = self._connections.get(action.host_id), trio.current_time()
        wanted = self._unsettled.get(action.file_id)
        if connection is None or connection.is_busy or wanted is None:
            return  # the next round sees
        match action:
            case Order():
                self._orders.ordered(action.file_id, action.host_id, wanted.size, now)
                connection.push(m.Order(action.file_id, wanted.size))
                reason = cause(file, stand, self._view.places.hosts)
                self._events.add("ordered", host=action.host_id, file=action.file_id, reason=reason)
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
