"""What one master carries: memory and processor time for each host, and how soon it answers.

    python -m benchmarks.master [--hosts 5000] [--files 1000000] [--seconds 60] [--asks 300] [--json FILE]

A real master process gets a state directory with so many files and hosts. The hosts connect from this process, each by
TLS and with a certificate of its own; they were put into the catalogue as if they had joined, as joining is a handshake
more for each, and over before anything is measured. First some connect, then the others; each sends heartbeats from
then on to the end. Times are taken in this process, so what it does itself is in them, and so is the time for which
either of the two waits for a core beside other work on the machine, which is told. Prints a table, and ends with 1 if a
bar is missed, or if it takes longer than a master that works could. Six minutes or so with the usual numbers, on two
cores.
"""

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import trio

from benchmarks import reconcile
from benchmarks.master_catalogue import file, fill
from benchmarks.master_load import HEARTBEAT_S, Host, Noticed, connect, holding
from benchmarks.master_report import Row, latency_rows, table
from benchmarks.pair import machine
from benchmarks.processes import waited_s
from benchmarks.reconnect import Master, Seeded, seed
from daemons.master.__main__ import NEW_OBJECTS
from daemons.master.app import CATALOGUE_NAME
from daemons.supervision import raise_file_limit, spare_collector
from interfiles.transport.message_stream import MessageStream
from interfiles.units import format_duration
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import (
    MAX_HEARTBEAT_HOLDINGS,
    PAGE_ROWS,
    FilePage,
    HolderPage,
    ListFiles,
    ListHolders,
    Resolve,
    Resolved,
)

HOST_KIB: Final = 100.0  # bars
CPU_PERCENT: Final = 30.0
HANDOUT_MS: Final = 50.0
STAT_MS: Final = 10.0
PAGE_MS: Final = 50.0

FEW_HOSTS: Final = 1000
HELD: Final = 16  # files that each host has
SWARMS: Final = (3, 100)  # hosts of which a file is fetched: three have it all, the others fetch it
SOURCES: Final = 3
SETTLE_S: Final = 12.0  # over a heartbeat
CONNECTED_WITHIN_S: Final = 300.0
MEASURED_WITHIN_S: Final = 1200.0  # all that a master is needed for
DIALS: Final = 64  # at once
ASK_EVERY_S: Final = 0.15
PAGES: Final = 200
QUESTIONS: Final = 1_000  # of each kind
OTHER_FILES: Final = 100  # descriptors of this process that are no host's

# Rows of what needs no master, each from a benchmark of its own.
ALONE: Final[tuple[Callable[[], list[Row]], ...]] = (reconcile.rows,)


@dataclass(frozen=True)
class Asked:
    """What a person asks to be measured."""

    hosts: int
    files: int
    seconds: float
    asks: int
    profile: str | None


class Run:
    """One run against a master that serves, in the order of the methods; `rows` has what was found."""

    def __init__(self, asked: Asked, seeded: Seeded, master: Master, nursery: trio.Nursery) -> None:
        self.rows: Final[list[Row]] = []
        self._asked = asked
        self._master = master
        self._nursery = nursery
        self._noticed = Noticed()
        self._rng = random.Random(1)
        self._dials = trio.CapacityLimiter(DIALS)
        self._began_kib = master.rss_kib
        # the files that the swarms fetch are nobody's else
        first = len(SWARMS)
        *these, (self._asker, self._credentials) = seeded.hosts.items()
        self._hosts = [
            Host(
                name,
                credentials,
                [self._rng.randrange(first, asked.files) for _ in range(HELD)],
                self._rng.randrange(first, asked.files),
                self._noticed,
            )
            for name, credentials in these
        ]

    async def connect(self) -> None:
        """Memory for each host, with few and with all of them."""
        began = trio.current_time()
        self.rows.append(Row("the master's memory before", self._began_kib / 1024, "MiB"))
        for count in sorted({min(FEW_HOSTS, self._asked.hosts), self._asked.hosts}):
            with trio.fail_after(CONNECTED_WITHIN_S):
                async with trio.open_nursery() as starting:
                    for host in self._hosts[self._noticed.up : count]:
                        starting.start_soon(self._nursery.start, host.run, self._master.address, self._dials)
            self._check()
            _say(f"{count:,} hosts are connected, {trio.current_time() - began:.0f} s after the first dial")
            await trio.sleep(SETTLE_S)
            each = (self._master.rss_kib - self._began_kib) / count
            self.rows.append(Row(f"memory a host, {count:,} connected", each, "KiB", HOST_KIB))
        self.rows.append(Row("the master's memory then", self._master.rss_kib / 1024, "MiB"))

    async def beat(self) -> None:
        """Heartbeats, and nothing else."""
        self._noticed.answers.clear()
        began, cpu_s, own_s, wait_s = trio.current_time(), self._master.cpu_s, time.process_time(), self._waited_s()
        await trio.sleep(self._asked.seconds)
        took = trio.current_time() - began
        beats = self._noticed.answers.copy()
        cpu_s, own_s = self._master.cpu_s - cpu_s, time.process_time() - own_s
        waited = [after - before for after, before in zip(self._waited_s(), wait_s, strict=True)]
        self.rows.extend(
            [
                Row("heartbeats a second", len(beats) / took, ""),
                Row("of one core, the master", 100 * cpu_s / took, "%", CPU_PERCENT),
                Row("of one core, this process", 100 * own_s / took, "%"),
                Row("of its time the master waited for a core", 100 * waited[0] / took, "%"),
                Row("of its time this process waited for one", 100 * waited[1] / took, "%"),
                Row("the master's time for a heartbeat", 1000 * cpu_s / len(beats), "ms"),
                *latency_rows("heartbeat to answer", beats),
            ]
        )
        self._check()

    async def hand_out(self) -> None:
        """Hosts that begin to fetch, until they are told of peers; the heartbeats of all go on."""
        for number, size in enumerate(SWARMS):
            swarm, others = self._hosts[:size], self._hosts[size:]
            for place, host in enumerate(swarm):
                host.say([holding(number, "complete" if place < SOURCES else "fetching")])
            await trio.sleep(2)
            found = []
            for _ in range(self._asked.asks):
                await trio.sleep(self._rng.uniform(0, 2 * ASK_EVERY_S))
                found.append(await self._rng.choice(others).fetch(number))
            self.rows.extend(latency_rows(f"handout in a swarm of {size}", found, bar_ms=HANDOUT_MS))
            for host in swarm:
                host.say([holding(number, "none")])
        self._check()

    async def look_up(self) -> None:
        """Pages of `ls`, and what `stat` asks; the heartbeats of all go on."""
        stream = await connect(self._master.address, self._asker, self._credentials)
        count = self._asked.files
        try:
            for where, start in (("start", 0), ("middle", count // 2), ("end", count - PAGES * PAGE_ROWS)):
                starts = range(start, start + PAGES * PAGE_ROWS, PAGE_ROWS)
                walked = [await _ask(stream, ListFiles(n, at), FilePage) for n, at in enumerate(starts)]
                self.rows.extend(latency_rows(f"page of ls, going on from the {where}", walked, bar_ms=PAGE_MS))
            jumped = [await _ask(stream, ListFiles(n, count - PAGE_ROWS - n), FilePage) for n in range(PAGES)]
            self.rows.extend(latency_rows("page of ls, straight at the end", jumped))  # as no client asks for
            by_id, by_name, holders = [], [], []
            for number in range(QUESTIONS):
                told = file(self._rng.randrange(count))
                by_id.append(await _ask(stream, Resolve(number, told.file_id.hex()[:12], False), Resolved))
                by_name.append(await _ask(stream, Resolve(number, told.name, False), Resolved))
                holders.append(await _ask(stream, ListHolders(number, told.file_id, 0), HolderPage))
            self.rows.extend(latency_rows("stat: a file by its id", by_id, bar_ms=STAT_MS))
            self.rows.extend(latency_rows("stat: a file by its name", by_name, bar_ms=STAT_MS))
            self.rows.extend(latency_rows("stat: who holds it", holders, bar_ms=STAT_MS))
        finally:
            stream.close()
        self._check()

    async def hold_more(self) -> None:
        """Memory for each file that a host holds."""
        before = self._master.rss_kib
        for host in self._hosts:
            numbers = [self._rng.randrange(len(SWARMS), self._asked.files) for _ in range(MAX_HEARTBEAT_HOLDINGS)]
            host.say([holding(number, "complete") for number in numbers])
            await trio.sleep(0.002)
        await trio.sleep(SETTLE_S)
        each = (self._master.rss_kib - before) * 1024 / (len(self._hosts) * MAX_HEARTBEAT_HOLDINGS)
        self.rows.append(Row("memory a file that a host holds", each, "B"))
        self._check()

    def _waited_s(self) -> tuple[float, float]:
        return waited_s(self._master.pid), waited_s(os.getpid())

    def _check(self) -> None:
        if self._noticed.lost:
            raise SystemExit(f"{len(self._noticed.lost)} hosts lost their master: {self._noticed.lost[0]}")


async def _ask(stream: MessageStream[Message], question: Message, kind: type[Message]) -> float:
    """Seconds until a question is answered."""
    began = trio.current_time()
    await stream.send(question)
    while not isinstance(await stream.receive(), kind):
        pass
    return trio.current_time() - began


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


async def measure(asked: Asked, seeded: Seeded, master: Master) -> Sequence[Row]:
    """Run all against a master that serves.

    Raises:
      SystemExit: it takes too long, in a sentence.
    """
    with trio.move_on_after(MEASURED_WITHIN_S) as deadline:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            run = Run(asked, seeded, master, nursery)
            await run.connect()
            with _profiled(master, asked) if asked.profile else nullcontext():
                await run.beat()
            for step in (run.hand_out, run.look_up, run.hold_more):
                _say(f"{step.__name__} ...")
                await step()
            nursery.cancel_scope.cancel()
    if deadline.cancelled_caught:
        raise SystemExit(
            f"The measurement was not over after {format_duration(MEASURED_WITHIN_S)}; there are no figures."
        )
    return run.rows


def _profiled(master: Master, asked: Asked) -> subprocess.Popen[bytes]:
    command = [
        str(Path(sys.executable).with_name("py-spy")),
        "record",
        "--pid",
        str(master.pid),
        "--duration",
        str(round(asked.seconds - 1)),
    ]
    return subprocess.Popen([*command, "--format", "raw", "--output", str(asked.profile), "--rate", "200"])


def arguments() -> tuple[Asked, Path | None]:
    """What was asked for, and where the figures go."""
    parser = argparse.ArgumentParser(description="What one master carries.")
    parser.add_argument("--hosts", type=int, default=5000)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of heartbeats alone")
    parser.add_argument("--asks", type=int, default=300, help="for handouts, in each swarm")
    parser.add_argument("--profile", metavar="FILE", help="write what the master does during the heartbeats (py-spy)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    given = parser.parse_args()
    most = raise_file_limit() - OTHER_FILES
    if not max(SWARMS) < given.hosts <= most:
        parser.error(f"--hosts {given.hosts}: this process may hold {most:,} connections; {max(SWARMS) + 1} are needed")
    if given.files < 2 * PAGES * PAGE_ROWS:
        parser.error(f"--files {given.files}: {2 * PAGES * PAGE_ROWS:,} are needed")
    return Asked(given.hosts, given.files, given.seconds, given.asks, given.profile), given.json


def main() -> int:
    """Run it, and return the exit code."""
    asked, out = arguments()
    gc.disable()  # the pauses of this process are not the master's
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory:
        began = time.perf_counter()
        seeded = seed(Path(directory), asked.hosts + 1)  # one asks, the others are there
        seeded_s, began = time.perf_counter() - began, time.perf_counter()
        fill(seeded.state / CATALOGUE_NAME, asked.files)
        filled_s = time.perf_counter() - began
        _say(
            f"a catalogue of {asked.files:,} files is made ({filled_s:.0f} s), {asked.hosts:,} hosts ({seeded_s:.0f} s)"
        )
        master = Master(seeded.state, None)
        master.start()
        try:
            rows = [*trio.run(measure, asked, seeded, master)]
        finally:
            master.stop(at_once=False)
    gc.enable()  # the master's own code runs here from now on
    spare_collector(new_objects=NEW_OBJECTS, rounds=1)  # as the master does
    for measure_alone in ALONE:
        rows += measure_alone()
    print(f"{asked.hosts:,} hosts, {asked.files:,} files, a heartbeat every {HEARTBEAT_S:.0f} s")
    print(table(rows))
    found: dict[str, Any] = {**asdict(asked), "machine": machine(), "seeded_s": seeded_s, "filled_s": filled_s}
    found["rows"] = [asdict(row) | {"found": round(row.found, 3), "ok": row.ok} for row in rows]
    if out:
        out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
