"""A whole fleet in virtual time: the scheduler, upload queue and handout that ship, over a model of links.

    python -m benchmarks.sim [--hosts 1000] [--pieces 1000] [--dying 0.05] [--late 0.1] [--mixed]
                             [--zones 2] [--between 20] [--seed 1] [--json FILE]

Host 0 holds the file; all others begin to fetch it within 10 ms. A link delays every message by `LATENCY_S`. An uplink
sends piece after piece; a piece then queues at the receiver's downlink, and a slot is free again when all but a
piece's worth of what it sent has been received, as sockets hold about so much. `--dying`: this share of the receivers
is gone at moments of the first half, chosen by chance; the others are told by the connection, and dial nobody new.
`--late`: this share comes at moments of the first half instead; all are handed out anew then, and keep whom they have.
`--mixed`: links of 20, 100 and 200 Mbit/s in turn, else all have 100. `--zones`: the hosts in their order are in so
many zones of one size, each with a link of `--between` Mbit/s into it from all others, which passes on piece after
piece.

Printed are the times until half of the receivers, 99 of 100, and all that live have the file, as multiples of the
bound; those who came late apart, since they came; how often the source sent the file; duplicates; how often the file
crossed into a zone that had none of it, at most; and a hash of the whole trace: the same arguments give the same.
"""

import argparse
import gc
import heapq
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from benchmarks import bounds
from interfiles.geometry import MIN_PIECE_BYTES, Block, Geometry, PieceIndex
from interfiles.piece_set import PieceSet
from interfiles.placement.zones import Member, zoned_handouts
from interfiles.swarm.decisions import Cancelled
from interfiles.swarm.request_scheduler import RequestScheduler
from interfiles.swarm.upload_queue import SentCounts, UploadQueue

PIECE: Final = MIN_PIECE_BYTES
MBIT: Final = 1e6 / 8
LATENCY_S: Final = 0.0005
TICK_S: Final = 0.25  # how often a download looks for stalls


@dataclass(slots=True)
class Host:
    """`fetchers`: who dialled it; `up_free`, `down_free`: when its link has passed on all that it was given."""

    number: int
    rate: float
    zone: int
    scheduler: RequestScheduler
    sent: SentCounts
    queue: UploadQueue = field(default_factory=UploadQueue)
    fetchers: list["Host"] = field(default_factory=list)
    up_free: float = 0.0
    down_free: float = 0.0
    sent_pieces: int = 0
    got_pieces: int = 0
    done_at: float | None = None
    is_dead: bool = False
    comes_at: float = 0.0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = str(self.number)


class Simulation:
    """Events in the order of their times; `run` works them off."""

    def __init__(
        self,
        hosts: int,
        pieces: int,
        *,
        seed: int,
        dying: float = 0.0,
        mixed: bool = False,
        late: float = 0.0,
        zones: int = 1,
        between: float = 20,
    ) -> None:
        self.now = 0.0
        self.events = 0
        self.geometry = Geometry(pieces * PIECE, PIECE)
        self._rng = random.Random(seed)
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._trace = blake2b(digest_size=8)
        self._ends: dict[tuple[int, int], float] = {}  # when all has arrived that one host has sent to another
        self._between = between * MBIT
        self._link_free = [0.0] * zones  # when the link into a zone has passed on all that it was given
        self.crossed = [0] * zones  # pieces that went into a zone
        rates = [rate * MBIT for rate in ((20, 100, 200) if mixed else (100,))]
        self.hosts = [
            Host(
                number,
                100 * MBIT if number == 0 else rates[number % len(rates)],
                max(number - 1, 0) * zones // hosts,
                RequestScheduler(self.geometry, PieceSet.full(pieces) if number == 0 else PieceSet(pieces)),
                SentCounts(pieces),
            )
            for number in range(hosts + 1)
        ]
        self._left = hosts
        self._salt = seed.to_bytes(8, "big")
        self._members: dict[str, Member] = {}
        for host in self._rng.sample(self.hosts[1:], round(hosts * late)):
            host.comes_at = (1 - self._rng.random()) * self.bound_s / 2
            self._at(host.comes_at, self.join, host)
        self.join(*(host for host in self.hosts if not host.comes_at))
        for host in self._rng.sample(self.hosts[1:], round(hosts * dying)):
            self._at(self._rng.random() * self.bound_s / 2, self.kill, host)

    @property
    def receivers(self) -> list[Host]:
        """Those that fetch, and live."""
        return [host for host in self.hosts[1:] if not host.is_dead]

    @property
    def bound_s(self) -> float:
        """The least time, by the rates alone."""
        source, others, size = self.hosts[0], self.hosts[1:], self.geometry.size
        if len(self.crossed) == len({host.rate for host in self.hosts}) == 1:
            return bounds.equal_uplinks_s(size, self.geometry.piece_count, source.rate, len(others))
        rates = [host.rate for host in others]
        link = self._between if len(self.crossed) > 1 else None
        return bounds.fluid_s(size, source.rate, rates, rates, link=link)

    @property
    def trace(self) -> str:
        """The hash of every piece's way so far."""
        return self._trace.hexdigest()

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work off events until everybody has the file, nothing happens any more, or `until` says so."""
        while self._queue and self._left and not until():
            self.now, _, act, arguments = heapq.heappop(self._queue)
            act(*arguments)

    def kill(self, host: Host) -> None:
        """End a host now."""
        if host.number and host.done_at is None:
            self._left -= 1
        host.is_dead = True
        for fetcher in host.fetchers:
            if not fetcher.is_dead:
                self._at(self.now + LATENCY_S, self._lose, fetcher, host)
        for peer in host.scheduler.peers():
            self._at(self.now + LATENCY_S, self._drop, self.hosts[int(peer)], host)

    def join(self, *hosts: Host) -> None:
        """Hosts come: all are handed out anew whom to dial. Who is dialled already stays so."""
        hosts = tuple(host for host in hosts if not host.is_dead)
        self._members |= {host.name: Member(str(host.zone), complete=host.number == 0) for host in hosts}
        names = [name for name in self._members if name != "0" and not self.hosts[int(name)].is_dead]
        members = {name: self._members[name] for name in self._members if not self.hosts[int(name)].is_dead}
        for name, told in zoned_handouts(members, names, salt=self._salt).items():
            host = self.hosts[int(name)]
            foreign = {peer for peer in told.peers if members[peer].zone != members[name].zone}
            near = set(told.peers) - foreign
            host.scheduler.abroad.place(near=near, foreign=foreign, gateways=told.gateways, me=name, now=self.now)
            if host.done_at is None:
                for peer in told.peers:
                    if peer not in host.scheduler.offers:
                        self._dial(host, self.hosts[int(peer)])
        for host in hosts:
            if host.number:
                self._at(self.now + TICK_S, self._tick, host)

    def _dial(self, host: Host, peer: Host) -> None:
        peer.fetchers.append(host)
        peer.queue.add(host.name, peer.sent, PIECE, self.now)
        host.scheduler.add_peer(peer.name, peer.scheduler.picker.held, self.now)
        self._at(self.now + self._rng.random() * 0.01, self._ask, host, peer)

    def _at(self, when: float, act: Callable[..., None], *arguments: Any) -> None:
        self.events += 1
        heapq.heappush(self._queue, (when, self.events, act, arguments))

    def _lose(self, host: Host, peer: Host) -> None:
        host.scheduler.remove_peer(peer.name)
        for other in host.scheduler.peers():
            self._ask(host, self.hosts[int(other)])

    def _drop(self, host: Host, fetcher: Host) -> None:
        host.fetchers.remove(fetcher)
        self._serve(host, host.queue.drop(fetcher.name, self.now))

    # A receiver

    def _tick(self, host: Host) -> None:
        if host.is_dead or host.done_at is not None:
            return
        stalled = host.scheduler.expire(self.now)
        for stall in stalled:
            self._cancel(host, stall.cancelled)
        for peer in host.scheduler.peers():
            if stalled or host.scheduler.has_room(peer):
                self._ask(host, self.hosts[int(peer)])
        self._at(self.now + TICK_S, self._tick, host)

    def _ask(self, host: Host, peer: Host) -> None:
        if host.is_dead or peer.is_dead:
            return
        decision = host.scheduler.next_asks(peer.name, self.now, self._rng)
        self._cancel(host, decision.cancelled)
        if decision.asks:
            bits = 0
            for piece in decision.asks:
                bits |= 1 << piece
            self._at(self.now + LATENCY_S, self._hear_ask, peer, host, bits)

    def _cancel(self, host: Host, cancelled: list[Cancelled]) -> None:
        for entry in cancelled:
            self._at(self.now + LATENCY_S, self._hear_cancel, self.hosts[int(entry.peer)], host, entry.piece)

    def _begin(self, host: Host, peer: Host, piece: PieceIndex) -> None:
        if host.is_dead or peer.is_dead:
            return
        arrival = host.scheduler.on_block(peer.name, piece, 0, PIECE, self.now)
        self._cancel(host, arrival.cancelled)

    def _end(self, host: Host, peer: Host, piece: PieceIndex) -> None:
        if host.is_dead or peer.is_dead:
            return
        self._trace.update(f"{self.now:.9f} {peer.number} {host.number} {piece};".encode())
        scheduler = host.scheduler
        scheduler.on_block_end(peer.name, PIECE, self.now)
        host.got_pieces += 1
        if scheduler.begin_write(peer.name, piece, self.now):
            scheduler.on_taken(peer.name, Block(piece, 0, PIECE))
            scheduler.end_write(peer.name, piece, self.now)
            scheduler.on_verified(piece)
            self._at(self.now + LATENCY_S, self._tell, host, piece)
            if scheduler.picker.is_complete:
                host.done_at = self.now
                self._left -= 1
        if scheduler.has_room(peer.name):
            self._ask(host, peer)

    def _tell(self, host: Host, piece: PieceIndex) -> None:
        if host.is_dead:
            return
        bit, offers = 1 << piece, host.scheduler.offers
        for fetcher in host.fetchers:
            scheduler = fetcher.scheduler
            if fetcher.done_at is not None or (
                (offered := offers.get(fetcher.name)) is not None and offered.bits & bit
            ):
                continue  # it has that itself, as this host knows
            if not fetcher.is_dead and scheduler.add_haves(host.name, [piece]) and scheduler.has_room(host.name):
                self._ask(fetcher, host)

    def _dropped(self, host: Host, peer: Host, piece: PieceIndex) -> None:
        if not host.is_dead and not peer.is_dead:
            for other in host.scheduler.on_dropped(peer.name, piece):
                if host.scheduler.has_room(other):
                    self._ask(host, self.hosts[int(other)])

    # A sender

    def _hear_ask(self, host: Host, fetcher: Host, pieces: int) -> None:
        if not host.is_dead and not fetcher.is_dead:
            self._serve(host, host.queue.ask(fetcher.name, pieces, self.now))

    def _hear_cancel(self, host: Host, fetcher: Host, piece: PieceIndex) -> None:
        if host.is_dead or fetcher.is_dead:
            return
        self._serve(host, host.queue.cancel(fetcher.name, 1 << piece, self.now))
        heard = max(self.now + LATENCY_S, self._ends.get((host.number, fetcher.number), 0.0))
        self._at(heard, self._dropped, fetcher, host, piece)

    def _serve(self, host: Host, turn: list[str]) -> None:
        while turn:
            more: list[str] = []
            for fetcher in turn:
                more += self._send(host, self.hosts[int(fetcher)])
            turn = more

    def _sent(self, host: Host, fetcher: Host) -> None:
        if not host.is_dead and not fetcher.is_dead:
            self._serve(host, self._send(host, fetcher))

    def _send(self, host: Host, fetcher: Host) -> list[str]:
        """Send the next piece, and return who has a slot if that one has none any more."""
        piece = host.queue.next(fetcher.name, self.now)
        if piece is None:
            return host.queue.grant(self.now)
        pair = (host.number, fetcher.number)
        start = max(self.now, host.up_free)
        host.up_free = start + PIECE / host.rate
        passing = PIECE / fetcher.rate
        came, first = host.up_free, start
        if host.zone != fetcher.zone:
            first = max(start, self._link_free[fetcher.zone])
            came = self._link_free[fetcher.zone] = max(came, first + PIECE / self._between)
            self.crossed[fetcher.zone] += 1
        end = max(came + LATENCY_S, max(first + LATENCY_S, fetcher.down_free) + passing)
        self._at(max(self.now + LATENCY_S, self._ends.get(pair, 0.0)), self._begin, fetcher, host, piece)
        self._at(end, self._end, fetcher, host, piece)
        self._at(max(host.up_free, end - LATENCY_S - passing), self._sent, host, fetcher)
        fetcher.down_free = self._ends[pair] = end
        host.sent_pieces += 1
        return []


def simulate(
    hosts: int,
    pieces: int,
    *,
    seed: int,
    dying: float = 0.0,
    mixed: bool = False,
    late: float = 0.0,
    zones: int = 1,
    between: float = 20,
) -> dict[str, Any]:
    """Run one, and return its figures."""
    began = time.perf_counter()
    simulation = Simulation(hosts, pieces, seed=seed, dying=dying, mixed=mixed, late=late, zones=zones, between=between)
    simulation.run()
    everybody = simulation.receivers
    complete = sum(host.done_at is not None for host in everybody)
    receivers = [host for host in everybody if not host.comes_at]
    done = sorted(host.done_at for host in receivers if host.done_at is not None)
    took = [host.done_at - host.comes_at for host in everybody if host.comes_at and host.done_at is not None]
    times = [at / simulation.bound_s for at in done] + [float("inf")] * (len(receivers) - len(done))
    cuts = statistics.quantiles(times, n=100, method="inclusive") if len(done) == len(receivers) > 1 else [0.0] * 99
    got = sum(host.got_pieces for host in everybody)
    return {
        "hosts": hosts,
        "pieces": pieces,
        "seed": seed,
        "dying": dying,
        "late": late,
        "mixed": mixed,
        "zones": zones,
        "between": between if zones > 1 else None,
        "complete": complete,
        "living": len(everybody),
        "bound_s": round(simulation.bound_s, 3),
        "p50": round(cuts[49], 3),
        "p99": round(cuts[98], 3),
        "p100": round(times[-1], 3),
        "late_p100": round(max(took) / simulation.bound_s, 3) if took else None,
        "source_sent": round(simulation.hosts[0].sent_pieces / pieces, 3),
        "duplicates": round(got / (pieces * len(everybody)) - 1, 4),
        "crossed": round(max(simulation.crossed) / pieces, 3),
        "most_dialled": max(len(host.fetchers) for host in simulation.hosts),
        "trace": simulation.trace,
        "events": simulation.events,
        "took_s": round(time.perf_counter() - began, 1),
    }


def main() -> None:
    """Run one and print its figures."""
    parser = argparse.ArgumentParser(description="A whole fleet in virtual time.")
    parser.add_argument("--hosts", type=int, default=1000, help="that receive")
    parser.add_argument("--pieces", type=int, default=1000, help="of 256 KiB")
    parser.add_argument("--dying", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--late", type=float, default=0.0, metavar="SHARE")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--zones", type=int, default=1)
    parser.add_argument("--between", type=float, default=20, metavar="MBIT", help="a second, into each zone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", help="add the figures to this file, as a line")
    asked = parser.parse_args()
    gc.disable()  # nothing here is in a cycle, and looking for cycles would take a fifth of the time
    found = simulate(
        asked.hosts,
        asked.pieces,
        seed=asked.seed,
        dying=asked.dying,
        mixed=asked.mixed,
        late=asked.late,
        zones=asked.zones,
        between=asked.between,
    )
    line = json.dumps(found)
    print(line)
    if asked.json:
        with open(asked.json, "a", encoding="utf-8") as out:
            out.write(line + "\n")


if __name__ == "__main__":
    main()
