"""How exactly real daemons on loopback keep to their limits.

    python -m benchmarks.limits [--seconds 6] [--rates 1 10 50] [--json FILE]

For each rate, up and down, a fleet with a source and four receivers. What passes is counted by the daemon that has the
limit, content bytes from one moment to another; nothing before the limit was reached counts. Prints a table.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.pair import machine
from tests.e2e.content import make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, poll

MB: Final = 1_000_000
WARM_S: Final = 1.5
RECEIVERS: Final = 4


def moved(fleet: Fleet, daemon: Daemon, way: str) -> tuple[float, int]:
    """The time, and the content bytes that a daemon has moved one way."""
    began = time.perf_counter()
    report = fleet.ask(daemon, lambda client: client.limits())
    at = (began + time.perf_counter()) / 2
    return at, report.bytes_up if way == "up" else report.bytes_down


def measure(rate: int, way: str, seconds: float) -> dict[str, Any]:
    """Run a fleet under one limit, and return what passed."""
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory, Fleet(Path(directory)) as fleet:
        fleet.start_master()
        source, *receivers = fleet.start_clients("source", *(f"receiver-{n}" for n in range(RECEIVERS)))
        content = make_file(source.home / "file.bin", int(rate * (seconds + 3 * WARM_S)))
        tracker = source.home / "file.bin.tracker"
        fleet.ask(source, lambda client: client.upload(content, tracker=tracker))
        limited = source if way == "up" else receivers[0]
        fetching = receivers if way == "up" else receivers[:1]
        limits = {way: rate}
        fleet.ask(limited, lambda client: client.set_limits(**limits))
        for receiver in fetching:
            directory_of = receiver.home
            fleet.ask(
                receiver,
                lambda client, to=directory_of: client.download(tracker, directory=to, detach=True),  # type: ignore[misc]
            )
        poll(lambda: moved(fleet, limited, way)[1] > 0, "the first bytes")
        time.sleep(WARM_S)
        start, before = moved(fleet, limited, way)
        time.sleep(seconds)
        end, after = moved(fleet, limited, way)
    found = (after - before) / (end - start)
    return {
        "way": way,
        "limit": rate,
        "rate": round(found),
        "share": round(found / rate, 4),
        "s": round(end - start, 2),
    }


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description="How exactly limits are kept to.")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rates", type=int, nargs="+", default=[1, 10, 50], metavar="MB/S")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    asked = parser.parse_args()
    print(f"{'':6}{'limit MB/s':>12}{'measured':>12}{'share':>9}")
    rows = []
    for way in ("up", "down"):
        for rate in asked.rates:
            row = measure(rate * MB, way, asked.seconds)
            rows.append(row)
            print(f"{way:6}{rate:12}{row['rate'] / MB:12.3f}{row['share']:9.4f}", flush=True)
    found = {"receivers": RECEIVERS, "machine": machine(), "runs": rows}
    print(json.dumps(found))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if any(not 0.95 <= row["share"] <= 1.05 for row in rows):
        sys.exit("a limit was not kept to within 5 %")


if __name__ == "__main__":
    main()
