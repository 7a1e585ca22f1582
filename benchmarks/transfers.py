"""What else can be asked of the data path.

    python -m benchmarks.transfers [--on DIRECTORY] [--rounds 5] [--only hashing small fan_out memory commands]

hashing   `upload` of 4 GiB from the page cache: GB/s from the command's start to its exit
small     10,000 files of 10 KiB in a directory, beside one file of the same size: seconds, and their ratio
fan_out   one host to four at once, beside one to one, 1 GiB: GB/s in all, and their ratio
memory    a 20 GiB file, sparse but for one MiB in 64, moves: the daemons' peaks of resident memory
commands  `interfiles status` from start to exit, in seconds

Rounds alternate where two things are compared. Prints one line of JSON with medians.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks import processes
from tests.e2e.content import make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon

GIB: Final = 1 << 30
KIB: Final = 1 << 10
SMALL_FILES: Final = 10_000
SMALL_BYTES: Final = 10 * KIB

Found = dict[str, Any]


@contextmanager
def running(scratch: Path, clients: int) -> Iterator[tuple[Fleet, list[Daemon]]]:
    """A fleet; the first client is the source."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory, Fleet(Path(directory)) as fleet:
        fleet.start_master()
        yield fleet, fleet.start_clients(*(f"client-{number}" for number in range(clients)))


def upload(fleet: Fleet, daemon: Daemon, path: Path) -> str:
    """Upload a path, and return the tracker file's."""
    report = fleet.cli(daemon, "upload", "-p", str(path), "-o", str(fleet.directory), json=True).done.json
    return str(report["tracker"])


def fetch_s(fleet: Fleet, daemons: list[Daemon], tracker: str, *, keep: bool = False) -> float:
    """Seconds from the first command's start to the last one's exit; the copies are removed again.

    `keep`: not these, but forgotten; each is in a directory of its own. ext4 takes several times as long to make files
    for a minute after so many were removed: it does not use their inodes again so soon, and looks for others.
    """
    places = [Path(tempfile.mkdtemp(prefix="got-", dir=daemon.home)) for daemon in daemons]
    began = time.perf_counter()
    commands = [
        fleet.begin_cli(daemon, "download", "-p", tracker, "-o", str(place))
        for daemon, place in zip(daemons, places, strict=True)
    ]
    for command in commands:
        fleet.finish_cli(command, timeout_s=600).done  # noqa: B018 - it raises
    seconds = time.perf_counter() - began
    for daemon in daemons:
        fleet.cli(daemon, "rm", "-p", tracker, "--local", "--yes", *(() if keep else ("--delete",))).done  # noqa: B018
    os.sync()  # else the next one's would wait for what removing has left the disk to do
    return seconds


def hashing(scratch: Path, rounds: int) -> Found:
    """How fast `upload` hashes what is in the page cache."""
    size = 4 * GIB
    file = make_file(scratch / "to-hash.bin", size)
    with running(scratch, 1) as (fleet, [daemon]):
        rates = []
        for _ in range(rounds):
            began = time.perf_counter()
            tracker = upload(fleet, daemon, file)
            rates.append(size / 1e9 / (time.perf_counter() - began))
            fleet.cli(daemon, "rm", "-p", tracker, "--local", "--yes").done  # noqa: B018
    file.unlink()
    return {"gb_per_s": round(statistics.median(rates), 3), "all": [round(rate, 3) for rate in rates]}


def small(scratch: Path, rounds: int) -> Found:
    """Many small files beside one large."""
    tree = scratch / "small"
    for number in range(SMALL_FILES):
        path = tree / f"{number // 100:03}" / f"{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_file(path, SMALL_BYTES, seed=number)
    one = make_file(scratch / "one.bin", SMALL_FILES * SMALL_BYTES)
    with running(scratch, 2) as (fleet, [source, client]):
        trackers = [upload(fleet, source, path) for path in (tree, one)]
        fetch = partial(fetch_s, fleet, [client], keep=True)
        seconds = [[fetch(tracker) for tracker in trackers] for _ in range(rounds + 1)][1:]
    many, alone = (statistics.median(column) for column in zip(*seconds, strict=True))
    return {"many_s": round(many, 3), "one_s": round(alone, 3), "ratio": round(many / alone, 2)}


def fan_out(scratch: Path, rounds: int) -> Found:
    """One host to four, and to one."""
    size = GIB
    file = make_file(scratch / "fan-out.bin", size)
    with running(scratch, 5) as (fleet, [source, *clients]):
        tracker = upload(fleet, source, file)
        groups = (clients[:1], clients)
        seconds = [[fetch_s(fleet, group, tracker) for group in groups] for _ in range(rounds + 1)][1:]
    alone, four = (statistics.median(column) for column in zip(*seconds, strict=True))
    file.unlink()
    return {
        "one_gb_per_s": round(size / 1e9 / alone, 3),
        "four_gb_per_s": round(4 * size / 1e9 / four, 3),
        "ratio": round(4 * alone / four, 2),
    }


def memory(scratch: Path, _rounds: int) -> Found:
    """What both daemons need at most while 20 GB move, from the upload on."""
    size, step = 20 * 10**9, 10**7
    file, noise = scratch / "large.bin", random.Random(1).randbytes(step)
    with file.open("wb") as out:
        for number in range(size // step):  # no two pieces are the same, none is of zeros
            out.write(noise[number:] + noise[:number])
    with running(scratch, 2) as (fleet, daemons):
        began = time.perf_counter()
        tracker = upload(fleet, daemons[0], file)
        hashed_s = time.perf_counter() - began
        took_s = fetch_s(fleet, daemons[1:], tracker)
        peaks = [round(processes.peak_rss(daemon.pid) / 1e6) for daemon in daemons]
    file.unlink()
    return {
        "source_mb": peaks[0],
        "receiver_mb": peaks[1],
        "upload_gb_per_s": round(size / 1e9 / hashed_s, 3),
        "download_gb_per_s": round(size / 1e9 / took_s, 3),
    }


def durability(scratch: Path, rounds: int) -> Found:
    """What it costs to make pieces durable while they come, beside doing so once at the end."""
    size = 2 * GIB
    file = make_file(scratch / "durable.bin", size)
    with running(scratch, 2) as (fleet, [source, client]):
        careless = fleet.new_client("careless")
        careless.constants = {"daemons.client.download:SYNC_BYTES": 1 << 60, "daemons.client.download:SYNC_S": 1e6}
        fleet.start_new(careless)
        tracker = upload(fleet, source, file)
        seconds = [[fetch_s(fleet, [to], tracker) for to in (client, careless)] for _ in range(rounds + 1)][1:]
    as_shipped, at_the_end = (statistics.median(column) for column in zip(*seconds, strict=True))
    file.unlink()
    return {
        "as_shipped_s": round(as_shipped, 3),
        "at_the_end_s": round(at_the_end, 3),
        "ratio": round(as_shipped / at_the_end, 2),
    }


def commands(scratch: Path, rounds: int) -> Found:
    """How long a command takes that only asks the daemon."""
    with running(scratch, 1) as (fleet, [daemon]):
        command = [str(Path(sys.executable).with_name("interfiles")), "status"]
        used = [processes.run(command, env=fleet.environment(daemon)) for _ in range(4 * rounds)]
    return {
        "status_s": round(statistics.median(run.seconds for run in used), 3),
        "least_s": min(r.seconds for r in used),
    }


CASES: Final[dict[str, Callable[[Path, int], Found]]] = {
    "hashing": hashing,
    "small": small,
    "fan_out": fan_out,
    "memory": memory,
    "durability": durability,
    "commands": commands,
}


def main() -> None:
    """Run them once."""
    parser = argparse.ArgumentParser(description="What else can be asked of the data path.")
    parser.add_argument(
        "--on", type=Path, default=None, metavar="DIRECTORY", help="where all files are [default: /tmp]"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    asked = parser.parse_args()
    found: Found = {}
    for name in asked.only:
        with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
            found[name] = CASES[name](Path(directory), asked.rounds)
        medium = "memory" if str(asked.on).startswith("/dev/shm") else "disk"
        print(json.dumps({name: found[name], "on": medium}), flush=True)


if __name__ == "__main__":
    main()
