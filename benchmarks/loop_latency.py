"""Whether the daemons answer while they move bytes at full speed.

    python -m benchmarks.loop_latency [--size GIB] [--on DIRECTORY] [--cold]

One client fetches a file from another, both on this machine. Every few milliseconds this process asks both of them: a
greeting alone (two turns of the daemon's loop), `status`, and `stat`, which the master answers; first while they are
idle, then during the transfer. Prints one line of JSON: milliseconds by daemon and question, and how long a heartbeat
was overdue at most, as the master counts it. This process takes its share of the same processors. With `--cold` the
source is not in the page cache.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import trio

from interfiles.control import Daemon as Client
from tests.e2e.content import make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon

IDLE_S: Final = 3.0
PAUSE_S: Final = 0.02
HEARTBEAT_S: Final = 10.0

Samples = dict[str, list[float]]


def summary(samples: Samples) -> dict[str, dict[str, float]]:
    """Median, 99th percentile and worst, in milliseconds."""
    return {
        question: {
            "count": len(found),
            "p50_ms": round(1000 * statistics.median(found), 2),
            "p99_ms": round(1000 * statistics.quantiles(found, n=100, method="inclusive")[98], 2),
            "max_ms": round(1000 * max(found), 2),
        }
        for question, found in samples.items()
    }


async def ask(daemon: Daemon, tracker: str, samples: Samples) -> None:
    """Ask one daemon again and again until cancelled."""
    client = Client(daemon.socket)
    questions: dict[str, Callable[[], Awaitable[object]]] = {
        "greeting": client.check,
        "status": client.status,
        "stat": lambda: client.stat(tracker),
    }
    while True:
        for question, put in questions.items():
            began = trio.current_time()
            await put()
            samples.setdefault(f"{daemon.name} {question}", []).append(trio.current_time() - began)
            await trio.sleep(PAUSE_S)


async def watch_heartbeats(daemon: Daemon, late: list[float]) -> None:
    """Note how long ago the master heard from whom it heard longest ago, beyond a heartbeat's length."""
    while True:
        await trio.sleep(1)
        late.append(max(host.last_seen_s for host in await Client(daemon.socket).hosts()) - HEARTBEAT_S)


async def measure(daemons: list[Daemon], tracker: str, out: Path) -> dict[str, object]:
    """Ask both daemons at rest, then during a transfer."""
    idle: Samples = {}
    with trio.move_on_after(IDLE_S):
        async with trio.open_nursery() as nursery:
            for daemon in daemons:
                nursery.start_soon(ask, daemon, tracker, idle)
    busy: Samples = {}
    late: list[float] = []
    async with trio.open_nursery() as nursery:
        for daemon in daemons:
            nursery.start_soon(ask, daemon, tracker, busy)
        nursery.start_soon(watch_heartbeats, daemons[0], late)
        began = trio.current_time()
        report = await Client(daemons[-1].socket).download(tracker, directory=out)
        seconds = trio.current_time() - began
        nursery.cancel_scope.cancel()
    return {
        "gb_per_s": round(report.size / 1e9 / seconds, 3),
        "idle": summary(idle),
        "busy": summary(busy),
        "heartbeat_overdue_s": round(max(late, default=0.0), 2),
    }


def main() -> None:
    """Run it once."""
    parser = argparse.ArgumentParser(description="Whether the daemons answer while they move bytes at full speed.")
    parser.add_argument("--size", type=float, default=8.0, metavar="GIB")
    parser.add_argument(
        "--on", type=Path, default=None, metavar="DIRECTORY", help="where all files are [default: /tmp]"
    )
    parser.add_argument("--cold", action="store_true", help="the source must be read from the disk")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        scratch = Path(directory)
        file = make_file(scratch / "file.bin", int(asked.size * (1 << 30)))
        with Fleet(scratch) as fleet:
            fleet.start_master()
            daemons = fleet.start_clients("seed", "client")
            uploaded = fleet.cli(daemons[0], "upload", "-p", str(file), "-o", directory, json=True).done.json
            if asked.cold:
                with file.open("rb") as content:
                    os.fsync(content.fileno())
                    os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            print(json.dumps(trio.run(measure, daemons, uploaded["tracker"], scratch / "client")))


if __name__ == "__main__":
    main()
