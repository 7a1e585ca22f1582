"""How long a master takes to compare what its fleet has with what it should have, and for how long nothing else runs.

    python -m benchmarks.reconcile [--files 100000] [--hosts 1000] [--gone 10] [--rounds 7] [--json FILE]

A real catalogue in a temporary directory, a real registry with a holding for every copy, and the real reconciler; the
connections of hosts only count what is said to them. Three rounds are measured, each over everything: nothing is to be
done; some hosts have just been found gone, so all their files lack a copy, and as many orders are given as may be; and
the round after that one, when these are on their way. The longest step is how long a heartbeat may have to wait.
"""

import argparse
import json
import os
import random
import sqlite3
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import structlog
import trio

from benchmarks.master_report import Row
from benchmarks.pair import machine
from daemons.master.__main__ import NEW_OBJECTS
from daemons.master.connection import Connection
from daemons.master.events import Events
from daemons.master.reconciler import MAX_SHARE, Reconciler
from daemons.supervision import spare_collector
from interfiles.placement.registry import Registry
from interfiles.storage.catalogue import Catalogue
from interfiles.storage.executor import ThreadExecutor
from interfiles.wire.codec import Message
from interfiles.wire.master_messages import Holding

FILES: Final = 100_000
HOSTS: Final = 1000
GONE: Final = 10
ROUNDS: Final = 7
RECONCILE_MS: Final = 1000.0  # the bar
ORDERS: Final = "orders"  # among the figures of the round that gives some
COPIES: Final = 3
ZONES: Final = 100
FILE_BYTES: Final = 1 << 30
GRACE_S: Final = 0.01  # so that a lost host is soon gone
ROOM_BYTES: Final = 1 << 44


class Deaf:
    """A connection that counts the orders given on it."""

    is_busy = False

    def __init__(self) -> None:
        self.said: Counter[str] = Counter()

    def push(self, message: Message) -> None:
        """Say something to nobody."""
        self.said[type(message).__name__] += 1


class Steps(trio.abc.Instrument):
    """Times each step of the loop: while one runs nothing else does."""

    def __init__(self) -> None:
        self.longest_s = self.total_s = 0.0
        self._began = time.perf_counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task runs."""
        self._began = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits again, or lets others run."""
        took = time.perf_counter() - self._began
        self.longest_s = max(self.longest_s, took)
        self.total_s += took


def fill(catalogue: Path, files: int, hosts: int) -> list[list[Holding]]:
    """Put files into the catalogue, and return what each host holds, as a placement by zone would have it."""
    rng, zones = random.Random(1), min(ZONES, hosts)
    held: list[list[Holding]] = [[] for _ in range(hosts)]
    rows = []
    for number in range(files):
        file_id = rng.randbytes(32)
        rows.append((file_id, f"file-{number}", 0, 1, FILE_BYTES, 1 << 20, 1024, 0, "uploader", COPIES))
        for copy, zone in enumerate(rng.sample(range(zones), COPIES)):
            host = zone + zones * rng.randrange((hosts - 1 - zone) // zones + 1)
            held[host].append(Holding(file_id, "complete", 1024, 0, 0, "", copy > 0))
    with closing(sqlite3.connect(catalogue)) as database, database:
        marks = ", ".join("?" * len(rows[0]))
        columns = "file_id, name, is_directory, entries, size, piece_size, pieces, uploaded_at, uploaded_by, replicas"
        database.executemany(f"INSERT INTO files ({columns}) VALUES ({marks})", rows)
    return held


def registered(held: list[list[Holding]]) -> Registry:
    """Hosts that are up and have announced all that they hold."""
    registry, now = Registry(heartbeat_s=10.0, grace_s=GRACE_S), trio.current_time()
    for number, holdings in enumerate(held):
        name, zone = f"{number:032x}", f"zone-{number % ZONES}"
        registry.admit(name, f"host-{number}", zone, "", heard_at=now)
        registry.register(name, f"host-{number}", zone, "", now)
        registry.set_room(name, used=0, free=ROOM_BYTES)
        for start in range(0, len(holdings) + 1, 100):
            registry.apply(name, holdings[start : start + 100], replace=start == 0)
    return registry


async def measured(reconciler: Reconciler) -> dict[str, float]:
    """One look at everything; milliseconds."""
    steps, began, used = Steps(), time.perf_counter(), time.process_time()
    trio.lowlevel.add_instrument(steps)
    await reconciler.reconcile(sweep=True)
    trio.lowlevel.remove_instrument(steps)
    took, used = time.perf_counter() - began, time.process_time() - used
    return {
        "wall_ms": took * 1e3,
        "cpu_ms": used * 1e3,
        "loop_ms": steps.total_s * 1e3,
        "longest_step_ms": steps.longest_s * 1e3,
    }


async def rounds(asked: argparse.Namespace, directory: Path) -> dict[str, dict[str, float]]:
    """Medians by what there was to do.

    Raises:
      SystemExit: hosts are gone and nothing was ordered, so it was not that which was timed, in a sentence.
    """
    path, database = directory / "catalogue.sqlite", ThreadExecutor(1)
    Catalogue(path, new_fleet_id="f" * 32, now=0.0).close()
    held = fill(path, asked.files, asked.hosts)
    found: dict[str, list[dict[str, float]]] = {}
    with closing(Catalogue(path, new_fleet_id="f" * 32, now=0.0)) as catalogue:
        for _ in range(asked.rounds):
            registry = registered(held)
            reconciler, connections = _reconciler(catalogue, database, registry)
            await reconciler.reconcile(sweep=True)  # the first one sees every host for the first time
            found.setdefault("nothing to do", []).append(await measured(reconciler))
            lost = list(connections)[: asked.gone]
            for host in lost:
                connections.pop(host)
                registry.lose(host)
            await trio.sleep(2 * GRACE_S)
            found.setdefault(f"{asked.gone} hosts gone", []).append(await measured(reconciler))
            said = sum((cast("Deaf", connection).said for connection in connections.values()), Counter[str]())
            if not said["Order"]:
                raise SystemExit(f"Nothing was ordered though {asked.gone} hosts are gone; there are no figures.")
            found[f"{asked.gone} hosts gone"][-1][ORDERS] = said["Order"]
            found.setdefault("the round after", []).append(await measured(reconciler))
    return {
        case: {key: round(statistics.median(one[key] for one in several), 1) for key in several[0]}
        for case, several in found.items()
    }


def _reconciler(
    catalogue: Catalogue, database: ThreadExecutor, registry: Registry
) -> tuple[Reconciler, dict[str, Connection]]:
    connections = {host: cast("Connection", Deaf()) for host in registry.heard_at()}

    async def stored(function: Callable[..., object], *args: object) -> object:
        return await database.run(lambda: function(*args))

    events = Events(registry, wall_clock=time.time, secret=os.urandom)
    return Reconciler(catalogue, stored, registry, connections, events), connections  # type: ignore[arg-type]


def rows() -> list[Row]:
    """The figures for 100,000 files on 1,000 hosts beside their bar, and for how long nothing else runs."""
    asked = argparse.Namespace(files=FILES, hosts=HOSTS, gone=GONE, rounds=ROUNDS)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory:
        found = trio.run(rounds, asked, Path(directory))
    made = []
    for case, figures in found.items():
        what = f"reconcile {FILES:,} files, {HOSTS:,} hosts, {case}"
        made.append(Row(what, figures["wall_ms"], "ms", RECONCILE_MS))
        made.append(Row(f"{what}: the longest step", figures["longest_step_ms"], "ms"))
        if ORDERS in figures:
            made.append(Row(f"{what}: orders", figures[ORDERS], ""))
    return made


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="How long a master takes to look at every file.")
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--hosts", type=int, default=HOSTS)
    parser.add_argument("--gone", type=int, default=GONE)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked = parser.parse_args()
    spare_collector(new_objects=NEW_OBJECTS, rounds=1)  # as the master does
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory:
        found = trio.run(rounds, asked, Path(directory))
    for case, figures in found.items():
        print(f"{case:20}", "  ".join(f"{key} {value:,.1f}" for key, value in figures.items()))
    if asked.json:
        shape = {"files": asked.files, "hosts": asked.hosts, "copies": COPIES, "rounds": asked.rounds}
        result = {**shape, "max_share": MAX_SHARE, "medians": found, "machine": machine()}
        asked.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
