"""The hosts of the fleet and what each holds: soft state, which hosts announce anew after every restart.

A host is *up* from its registration until its connection is lost or it is silent for too long. A host that is not up is
*suspect*, and *gone* once it has not been heard from for the grace time. What it held stays known, so that a person can
be told who has a file that nobody serves now.

Methods that change who can be dialled for a file return the ids of these files: their handouts are to be made anew.
Times are seconds on one clock, given as `now`. A method that takes a host's id raises `UnknownHost` when there is none.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from interfiles.errors import RemoteProtocolError, UnknownHost
from interfiles.placement.host_facts import Copies, RegisteredHost, Room, StateChange, holds_some, is_not_whole, role
from interfiles.wire.master_messages import (
    MAX_HEARTBEAT_HOLDINGS,
    PAGE_ROWS,
    AbsentHolder,
    Holder,
    Holding,
    HostRow,
    HostState,
    PeerAddress,
)

MAX_HOLDINGS: Final = 65_536  # files of one host: its share of the master's memory ends at about 30 MiB
MAX_ABSENT: Final = 4
SUSPECT_HEARTBEATS: Final = 2.2  # two missed, and a little for one that is late
NOTABLE: Final = 64  # a host's room has changed once it has by one part of so many: disks change all the time
_LONGEST_S: Final = 1e9  # the bound of `Seconds` on the wire


class Registry:
    """`heartbeat_s`: the interval in which hosts report; `grace_s`: how long a silent one is only suspect."""

    def __init__(self, *, heartbeat_s: float, grace_s: float) -> None:
        self.heartbeat_s: Final = heartbeat_s
        self.grace_s: Final = grace_s
        self._hosts: dict[str, RegisteredHost] = {}
        self._holders: dict[bytes, dict[str, Holding]] = {}  # the same holdings by file; only `_set` writes either
        self._not_whole: Counter[bytes] = Counter()  # how many of a file's holdings are not whole
        self._changed: set[str] = set()  # hosts that are not as they were when `changed` was asked last
        self._silent: set[str] = set()  # hosts that are not up, and were not gone then
        self._next_gone = _LONGEST_S  # when one of these may be gone, at the earliest

    # Hosts

    def admit(
        self, host_id: str, name: str, zone: str, address: str, *, heard_at: float, draining: bool = False
    ) -> None:
        """A host belongs to the fleet; it is not up until it registers."""
        self._hosts[host_id] = RegisteredHost(host_id, name, zone, address, heard_at, up=False, draining=draining)
        self._note(host_id, is_silent=True)

    def register(self, host_id: str, name: str, zone: str, address: str, now: float) -> set[bytes]:
        """A host is up, as from now under this name, zone and address. What it held is kept until it announces anew."""
        host = self._host(host_id)
        host.name, host.zone, host.address, host.up, host.heard_at = name, zone, address, True, now
        self._note(host_id, is_silent=False)
        return set(host.holdings)

    def hear(self, host_id: str, now: float) -> set[bytes]:
        """A host gave a sign of life on its connection."""
        host = self._host(host_id)
        host.heard_at = now
        if host.up:
            return set()
        host.up = True
        self._note(host_id, is_silent=False)
        return set(host.holdings)

    def lose(self, host_id: str) -> set[bytes]:
        """A host's connection is gone."""
        return self._take_down(self._host(host_id))

    def expire(self, now: float) -> set[bytes]:
        """Notice who is silent for too long; to be called a few times a heartbeat."""
        late = now - SUSPECT_HEARTBEATS * self.heartbeat_s
        silent = [host for host in self._hosts.values() if host.up and host.heard_at < late]
        return set().union(*(self._take_down(host) for host in silent))

    def remove(self, host_id: str) -> set[bytes]:
        """A host no longer belongs to the fleet."""
        host = self._hosts.get(host_id)
        if host is None:
            return set()
        files = set(host.holdings)
        for file_id in files:
            self._set(host, file_id, None)
        del self._hosts[host_id]
        self._note(host_id, is_silent=False)
        return files

    def is_known(self, host_id: str) -> bool:
        """Whether a host belongs to the fleet."""
        return host_id in self._hosts

    def state(self, host_id: str, now: float) -> HostState:
        return self._state(self._host(host_id), now)

    def set_draining(self, host_id: str, draining: bool) -> None:
        """Whether a host is to be given no copies, and those that it has do not count."""
        self._host(host_id).draining = draining
        self._changed.add(host_id)

    def is_draining(self, host_id: str) -> bool:
        """Whether a host drains, be it up or not."""
        return self._host(host_id).draining

    def room(self, host_id: str, now: float) -> Room:
        """A host as a place for copies."""
        host = self._host(host_id)
        return Room(
            *(host.host_id, host.name, host.zone, self._state(host, now), host.free),
            is_known=host.has_announced,
            heard_at=host.heard_at,
            draining=host.draining,
        )

    def changed(self, now: float) -> set[str]:
        """Hosts that may be in another state than when this was asked last, or have other room, or are removed.

        It is told once: there is one who asks.
        """
        if now >= self._next_gone:
            gone = {host_id for host_id in self._silent if self._state(self._hosts[host_id], now) == "gone"}
            self._silent -= gone
            self._changed |= gone
            self._next_gone = min([self._hosts[host_id].heard_at for host_id in self._silent], default=_LONGEST_S)
            self._next_gone += self.grace_s
        changed, self._changed = self._changed, set()
        return changed

    def state_changes(self, now: float, host_ids: Iterable[str] | None = None) -> list[StateChange]:
        """Which of these hosts (None: of all) are in another state than when this looked last, each told once.

        The first look at a host only notes its state. Ids that are unknown are passed over.
        """
        known = self._hosts.values() if host_ids is None else filter(None, map(self._hosts.get, host_ids))
        changes = []
        for host in known:
            before, after = host.told, self._state(host, now)
            if before != after:
                host.told = after
                if before is not None:
                    changes.append(StateChange(host.host_id, host.name, before, after, _age(host, now)))
        return changes

    def name(self, host_id: str) -> str:
        """What a host is called; empty where none has this id."""
        host = self._hosts.get(host_id)
        return host.name if host is not None else ""

    def heard_at(self) -> dict[str, float]:
        """When every host was heard from last, by id."""
        return {host.host_id: host.heard_at for host in self._hosts.values()}

    def set_room(self, host_id: str, *, used: int, free: int) -> None:
        """How many bytes a host's files take, and how many it has room for."""
        host = self._host(host_id)
        if abs(free - host.told_free) * NOTABLE > host.told_free:
            host.told_free = free
            self._changed.add(host_id)
        host.used, host.free = used, free

    # Holdings

    def apply(
        self, host_id: str, holdings: Sequence[Holding], *, replace: bool, lost: dict[bytes, str] | None = None
    ) -> set[bytes]:
        """A host tells what changed in its holdings, or with `replace` all of them: what does not fit in follows.

        What it held before and does not name counts until it has told all, so that one with many files which comes
        back is not taken to have lost them. Files that it had all of, and has nothing of any more, are put into `lost`,
        with what it notes on them.

        Raises:
          RemoteProtocolError: it announces too many files; nothing is applied then.
        """
        host = self._host(host_id)
        told = {holding.file_id: holding if holding.state != "none" else None for holding in holdings}
        unconfirmed = (set(host.holdings) if replace else host.unconfirmed) - told.keys()
        is_last = len(holdings) < MAX_HEARTBEAT_HOLDINGS
        if is_last:
            told.update(dict.fromkeys(unconfirmed))
            unconfirmed = set()
        gained = sum(holding is not None and file_id not in host.holdings for file_id, holding in told.items())
        dropped = sum(holding is None and file_id in host.holdings for file_id, holding in told.items())
        if len(host.holdings) + gained - dropped - len(unconfirmed) > MAX_HOLDINGS:
            raise RemoteProtocolError(f"{host.name} announces more than {MAX_HOLDINGS:,} files")
        host.unconfirmed = unconfirmed
        if is_last and not host.has_announced:
            host.has_announced = True
            self._changed.add(host_id)
        changed = set()
        notes = {holding.file_id: holding.note for holding in holdings} if lost is not None else {}
        for file_id, holding in told.items():
            before = host.holdings.get(file_id)
            if role(before) != role(holding):
                changed.add(file_id)
            if lost is not None and holding is None and before is not None and before.state == "complete":
                lost[file_id] = notes.get(file_id, "")
            self._set(host, file_id, holding)
        return changed

    def forget_file(self, file_id: bytes) -> list[str]:
        """A file is removed from the fleet; return the ids of the hosts that had some of it."""
        held = self._holders.get(file_id, {})
        holders = [host_id for host_id, holding in held.items() if holds_some(holding)]
        for host_id in list(held):
            self._set(self._hosts[host_id], file_id, None)
        return holders

    def holders(self, file_id: bytes) -> list[str]:
        """Ids of all hosts that hold, fetch or wait for a file."""
        return list(self._holders.get(file_id, ()))

    def held(self, file_id: bytes) -> Mapping[str, Holding]:
        """Everything that hosts have announced of a file, by host; changes with what they announce."""
        return self._holders.get(file_id, {})

    @property
    def not_whole(self) -> Collection[bytes]:
        """The files of which some host holds less than all."""
        return self._not_whole

    def files_of(self, host_id: str) -> list[bytes]:
        """The files that a host holds, fetches or waits for."""
        return list(self._host(host_id).holdings)

    def copies(self, file_ids: Iterable[bytes], without: Collection[str]) -> dict[bytes, Copies]:
        """How often each file is held; `without`: hosts whose copies do not count."""
        return {file_id: self._copies(file_id, without) for file_id in file_ids}

    def _copies(self, file_id: bytes, without: Collection[str]) -> Copies:
        counted = [held for host_id, held in self._holders.get(file_id, {}).items() if host_id not in without]
        complete = sum(holding.state == "complete" for holding in counted)
        return Copies(complete, sum(map(holds_some, counted)) - complete)

    # Swarms

    def members(self, file_id: bytes) -> dict[str, bool]:
        """The hosts that can be dialled for a file, and whether each has all of it."""
        found = self._holders.get(file_id, {}).items()
        return {
            host_id: holding.state == "complete"
            for host_id, holding in found
            if self._hosts[host_id].up and (holding.state not in ("paused", "damaged") or holding.pieces)
        }

    def fetchers(self, file_id: bytes) -> list[str]:
        """The hosts that are up and want peers for a file."""
        found = self._holders.get(file_id, {}).items()
        return [host_id for host_id, held in found if held.state in ("fetching", "waiting") and self._hosts[host_id].up]

    def peer(self, host_id: str, *, complete: bool) -> PeerAddress:
        """How a host is named in handouts."""
        host = self._host(host_id)
        return PeerAddress(host.host_id, host.name, host.zone, host.address, complete)

    def absent(self, file_id: bytes, asker: str, now: float) -> list[AbsentHolder]:
        """Hosts that have some of a file but are not up, the best few; empty while another host that is up has some."""
        others = [
            (self._hosts[host_id], holding)
            for host_id, holding in self._holders.get(file_id, {}).items()
            if host_id != asker and holds_some(holding)
        ]
        if any(host.up for host, _ in others):
            return []
        others.sort(key=lambda other: (other[1].state != "complete", -other[0].heard_at, other[0].name))
        return [AbsentHolder(host.name, _age(host, now)) for host, _ in others[:MAX_ABSENT]]

    # Pages

    def host_page(self, start: int, now: float) -> tuple[list[HostRow], bool]:
        """At most `PAGE_ROWS` hosts by name from the `start`th on, and whether there are more."""
        hosts = sorted(self._hosts.values(), key=_by_name)
        page = hosts[start : start + PAGE_ROWS]
        return [self._host_row(host, now) for host in page], start + PAGE_ROWS < len(hosts)

    def _host_row(self, host: RegisteredHost, now: float) -> HostRow:
        complete = [holding.ordered for holding in host.holdings.values() if holding.state == "complete"]
        return HostRow(
            host_id=host.host_id,
            name=host.name,
            zone=host.zone,
            address=host.address,
            state=self._state(host, now),
            files=len(complete),
            used=host.used,
            free=host.free,
            last_seen_s=_age(host, now),
            ordered=sum(complete),
            arriving=0,
            to_move=None,
            note="",
        )

    def holder_page(self, file_id: bytes, start: int, now: float) -> tuple[list[Holder], bool]:
        """At most `PAGE_ROWS` holders of a file by name from the `start`th on, and whether there are more."""
        hosts = sorted((self._hosts[host_id] for host_id in self._holders.get(file_id, ())), key=_by_name)
        page = hosts[start : start + PAGE_ROWS]
        return [self._holder(host, file_id, now) for host in page], start + PAGE_ROWS < len(hosts)

    def _holder(self, host: RegisteredHost, file_id: bytes, now: float) -> Holder:
        return Holder(
            host_id=host.host_id,
            name=host.name,
            zone=host.zone,
            address=host.address,
            host_state=self._state(host, now),
            last_seen_s=_age(host, now),
            holding=host.holdings[file_id],
        )

    # Inside

    def _host(self, host_id: str) -> RegisteredHost:
        try:
            return self._hosts[host_id]
        except KeyError as e:
            raise UnknownHost(f"no host has the id {host_id}") from e

    def _state(self, host: RegisteredHost, now: float) -> HostState:
        if host.up:
            return "draining" if host.draining else "live"
        return "suspect" if now - host.heard_at <= self.grace_s else "gone"

    def _take_down(self, host: RegisteredHost) -> set[bytes]:
        if not host.up:
            return set()
        host.up = False
        self._note(host.host_id, is_silent=True)
        return set(host.holdings)

    def _note(self, host_id: str, *, is_silent: bool) -> None:
        self._changed.add(host_id)
        (self._silent.add if is_silent else self._silent.discard)(host_id)
        if is_silent:
            self._next_gone = min(self._next_gone, self._hosts[host_id].heard_at + self.grace_s)

    def _set(self, host: RegisteredHost, file_id: bytes, holding: Holding | None) -> None:
        """The one place that changes a holding, in both directions of the relation."""
        before = host.holdings.get(file_id)
        if gained := is_not_whole(holding) - is_not_whole(before):
            self._not_whole[file_id] += gained
            if not self._not_whole[file_id]:
                del self._not_whole[file_id]
        if holding is not None:
            host.holdings[file_id] = holding
            self._holders.setdefault(file_id, {})[host.host_id] = holding
        elif before is not None:
            del host.holdings[file_id]
            host.unconfirmed.discard(file_id)
            held = self._holders[file_id]
            del held[host.host_id]
            if not held:
                del self._holders[file_id]

    def check_invariants(self) -> None:
        """Raise AssertionError unless the state is consistent (for tests)."""
        by_host = {(host.host_id, *item) for host in self._hosts.values() for item in _pairs(host.holdings)}
        by_file = {
            (host_id, file_id, id(held))
            for file_id, holders in self._holders.items()
            for host_id, held in holders.items()
        }
        assert by_host == by_file, "holdings by host and by file differ"
        assert all(self._holders.values()), "a file without holders is kept"
        for file_id, holders in self._holders.items():
            assert self._not_whole[file_id] == sum(map(is_not_whole, holders.values())), "holdings are miscounted"
        assert self._not_whole.keys() <= self._holders.keys(), "what nobody holds is counted"
        assert all(self._not_whole.values()), "a file that is whole everywhere is kept as one that is not"
        for host_id, host in self._hosts.items():
            assert host.host_id == host_id, "a host is filed under another id"
            assert host.unconfirmed <= host.holdings.keys(), "what is not held is to be confirmed"
            assert len(host.holdings) - len(host.unconfirmed) <= MAX_HOLDINGS, "a host has too many holdings"
            for file_id, holding in host.holdings.items():
                assert holding.file_id == file_id, "a holding is filed under another file"
                assert holding.state != "none", "nothing is kept as a holding"


def _pairs(holdings: dict[bytes, Holding]) -> list[tuple[bytes, int]]:
    return [(file_id, id(holding)) for file_id, holding in holdings.items()]


def _age(host: RegisteredHost, now: float) -> float:
    return round(min(max(0.0, now - host.heard_at), _LONGEST_S), 3)


def _by_name(host: RegisteredHost) -> tuple[str, str]:
    return host.name, host.host_id
