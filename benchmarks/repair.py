"""What a person's download keeps of its rate while replicas are made beside it, with real daemons on shaped links.

    python -m benchmarks.repair [--rate 100] [--size 120] [--rounds 3] [--json FILE]

Each host is a network namespace with a link of RATE Mbit/s both ways; needs root. Two scenes, each alone and beside
replicas in turn:

- up: the host that has the person's file makes four others copies of another, much larger file meanwhile;
- down: the person's own host is ordered a copy of another, much larger file from a third host meanwhile.

Beside replicas the download begins once they are seen to arrive. Prints the rates, and the medians' ratio.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks import namespaces
from benchmarks.namespaces import HUB_ADDRESS, Link, Network
from benchmarks.pair import machine
from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, poll

KEPT: Final = 0.8  # of its rate, by a download: the bar
MBIT: Final = 1_000_000
REPAIRED_TIMES: Final = 8  # as large as the person's file: it must not be done before
ARRIVING_S: Final = 3.0  # until replicas have found their pace
SCENES: Final = {"up": 6, "down": 3}  # hosts


def start(fleet: Fleet, network: Network, scene: str) -> list[Daemon]:
    """A master at the bridge, and a client on each host; where the person's host is to get no replica, without room."""
    fleet.start_master_in(network.hub, f"{HUB_ADDRESS}:4850")
    daemons = []
    for number, (namespace, address) in enumerate(zip(network.hosts, network.addresses, strict=True)):
        room = ["--quota", "1MB"] if scene == "up" and number == 1 else []
        daemon = fleet.new_client(f"h{number}", "--listen", f"{address}:4851", "--scrub-every", "never", *room)
        daemon.namespace = namespace
        daemons.append(daemon)
    fleet.start_new(*daemons)
    return daemons


def measure(scene: str, *, beside: bool, rate: int, size: int) -> dict[str, Any]:
    """Let the host `h1` download from `h0`, alone or beside replicas, and return at what rate."""
    hosts = [Link(rate * MBIT, rate * MBIT) for _ in range(SCENES[scene])]
    with (
        tempfile.TemporaryDirectory(prefix="interfiles-benchmark-") as directory,
        Network(hosts) as network,
        Fleet(Path(directory)) as fleet,
    ):
        daemons = start(fleet, network, scene)
        source, person = daemons[0], daemons[1]
        tracker = source.home / "wanted.tracker"
        content = make_file(source.home / "wanted.bin", size * MIB)
        fleet.ask(source, lambda client: client.upload(content, replicas=1, tracker=tracker))
        repairing = source if scene == "up" else daemons[2]
        if beside:
            large = make_file(repairing.home / "large.bin", REPAIRED_TIMES * size * MIB, seed=2)
            fleet.ask(repairing, lambda client: client.upload(large, replicas=len(daemons)))
            arriving = daemons[2] if scene == "up" else person
            poll(lambda: fleet.ask(arriving, lambda client: client.limits()).bytes_down > 0, "replicas to arrive")
            time.sleep(ARRIVING_S)
        began = time.monotonic()
        got = person.home / "got"
        got.mkdir()
        fleet.ask(person, lambda client: client.download(tracker, directory=got))
        seconds = time.monotonic() - began
        still = sum(
            transfer.name == "large.bin"
            for daemon in daemons
            for transfer in fleet.ask(daemon, lambda client: client.status()).transfers
        )
    if beside and not still:
        sys.exit("the replicas were complete before the download was: make them larger")
    return {"scene": scene, "beside": beside, "seconds": round(seconds, 3), "rate": round(size * MIB / seconds)}


def main() -> None:
    """Run all."""
    parser = argparse.ArgumentParser(description="What a download keeps of its rate while replicas are made.")
    parser.add_argument("--rate", type=int, default=100, metavar="MBIT/S")
    parser.add_argument("--size", type=int, default=120, metavar="MIB", help="of the person's file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=SCENES)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    asked = parser.parse_args()
    if lacking := namespaces.missing():
        sys.exit(f"this needs {lacking}")
    rows, kept = [], {}
    print(f"{'':6}{'beside':>8}{'seconds':>10}{'MB/s':>8}")
    for scene in [asked.only] if asked.only else list(SCENES):
        for _ in range(asked.rounds):
            for beside in (False, True):
                row = measure(scene, beside=beside, rate=asked.rate, size=asked.size)
                rows.append(row)
                print(f"{scene:6}{beside!s:>8}{row['seconds']:10.2f}{row['rate'] / 1e6:8.2f}", flush=True)
        rates = {
            beside: statistics.median(row["rate"] for row in rows if (row["scene"], row["beside"]) == (scene, beside))
            for beside in (False, True)
        }
        kept[scene] = round(rates[True] / rates[False], 3)
        print(f"{scene}: a download keeps {kept[scene]:.0%} of its rate", flush=True)
    found = {"rate_mbit": asked.rate, "size_mib": asked.size, "kept": kept, "machine": machine(), "runs": rows}
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    if missed := [scene for scene, share in kept.items() if share < KEPT]:
        sys.exit(f"less than {KEPT:.0%} was kept: {', '.join(missed)}")


if __name__ == "__main__":
    main()
