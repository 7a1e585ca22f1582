"""How soon a file is on all hosts of a fleet, beside others who do that, and beside what their links allow at best.

    python -m benchmarks.swarm [--size MIB] [--rounds 3] [--only SCENARIO ...] [--contenders NAME ...]
                               [--slower 2] [--congestion cubic] [--on DIRECTORY] [--json FILE] [--plot DIRECTORY]

Every host is a network namespace of this machine with shaped links (`benchmarks.namespaces`); needs root. In every
round each contender spreads the same file once, in turn, over a network that is made for it. The time is from the start
of all receivers' commands to the moment when the last one has the file; so the start of the commands counts, and all
hosts share this machine's cores. All files are in memory, unless another directory is named: hosts do not share a disk.

Printed are medians over the rounds: seconds until all receivers had the file, with the least and the most; until half
of them had; the bound and the ratio to it; seconds until the first hundredth had come; the share of this machine's
cores in use, near 1 where these were scarcer than the links; and in sizes of the file what the source sent, what a
receiver received on average, what of that was content that it had already, as it says, and what crossed between zones,
both ways.
"""

import argparse
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import namespaces, processes, swarm_contenders, swarm_scenarios
from benchmarks.namespaces import Network
from benchmarks.pair import machine
from benchmarks.swarm_contenders import Contender, FetchFailed, Ground
from benchmarks.swarm_report import Run, table
from benchmarks.swarm_scenarios import Scenario
from interfiles.geometry import choose_piece_size
from tests.e2e.processes import FleetError

MIB: Final = 1 << 20
RUN_TIMEOUT_S: Final = 300.0
SAMPLE_S: Final = 0.1
LOOK_S: Final = 0.01
MEMORY: Final = Path("/dev/shm")
_PROBE_BYTES: Final = 16


@dataclass
class Spread:
    """Which pieces no receiver has yet: a piece is there when its first and its last bytes are on a receiver's disk."""

    contender: Contender
    size: int
    _probes: dict[int, tuple[bytes, bytes]] = field(init=False)

    def __post_init__(self) -> None:
        self._piece_size = choose_piece_size(self.size)
        with open(self.contender.ground.file, "rb", buffering=0) as file:
            found = {start: self._probe(file.fileno(), start) for start in range(0, self.size, self._piece_size)}
        self._probes = found

    def is_everywhere(self) -> bool:
        """Whether the receivers hold every piece between them."""
        for number in self.contender.ground.scenario.receivers:
            path = self.contender.content(number)
            if path is None:
                continue
            try:
                with open(path, "rb", buffering=0) as file:
                    there = [at for at, probe in self._probes.items() if self._probe(file.fileno(), at) == probe]
            except FileNotFoundError:  # it gets its real name meanwhile
                continue
            for start in there:
                del self._probes[start]
        return not self._probes

    def _probe(self, file: int, start: int) -> tuple[bytes, bytes]:
        end = min(start + self._piece_size, self.size)
        return os.pread(file, _PROBE_BYTES, start), os.pread(file, _PROBE_BYTES, end - _PROBE_BYTES)


def run_once(kind: type[Contender], scenario: Scenario, file: Path, congestion: str | None, number: int) -> Run:
    """Let one contender spread the file once; whatever fails is in the notes."""
    size = file.stat().st_size
    run = Run(scenario.name, kind.name, number, len(scenario.receivers), size, scenario.bound_s(size))
    with tempfile.TemporaryDirectory(prefix=f"{kind.__name__}-", dir=file.parent.parent) as directory:
        Path(directory).chmod(0o755)  # a tracker gives up root
        with Network(scenario.links, between=scenario.between, congestion=congestion) as network:
            contender = kind(Ground(network, scenario, file, Path(directory)))
            try:
                with contender:
                    watch(contender, network, run)
                    _check(contender, run)
            except (FleetError, OSError, subprocess.SubprocessError) as e:
                run.notes.append(str(e))
            run.notes += contender.notes
    return run


def watch(contender: Contender, network: Network, run: Run) -> None:
    """Time the receivers, and count what goes over the links meanwhile."""
    scenario = contender.ground.scenario
    spread = Spread(contender, run.size) if scenario.source_dies else None
    before, used_s = network.count(), processes.machine_cpu_s()
    run.curves = [[] for _ in scenario.links]
    pending = set(scenario.receivers)
    began = time.perf_counter()
    next_sample = began
    contender.begin()
    while pending and time.perf_counter() - began < RUN_TIMEOUT_S:
        for number in sorted(pending):
            try:
                if not contender.has_all(number):
                    continue
                run.done_s[number] = time.perf_counter() - began
            except FetchFailed as e:
                run.notes.append(f"host {number}: {e}")
            pending.discard(number)
        now = time.perf_counter()
        if now >= next_sample:
            next_sample = now + SAMPLE_S
            run.sample_s.append(round(now - began, 3))
            for curve, came, earlier in zip(run.curves, network.count().received, before.received, strict=True):
                curve.append(came - earlier)
            if spread is not None and run.killed_s is None and spread.is_everywhere():
                contender.kill_source()
                run.killed_s = time.perf_counter() - began
        time.sleep(LOOK_S)
    after = network.count()
    cores = os.cpu_count() or 1
    run.busy = (processes.machine_cpu_s() - used_s) / cores / (time.perf_counter() - began)
    if pending:
        run.notes.append(f"{len(pending)} hosts were not done within {RUN_TIMEOUT_S:.0f} s")
    run.sent = [now - earlier for now, earlier in zip(after.sent, before.sent, strict=True)]
    run.received = [now - earlier for now, earlier in zip(after.received, before.received, strict=True)]
    if scenario.between is not None:
        run.crossed = after.crossed - before.crossed
    told = {number: contender.duplicate_bytes(number) for number in scenario.receivers}
    run.duplicate_bytes = {number: count for number, count in told.items() if count is not None}
    run.from_hosts = {number: sent for number in scenario.receivers if (sent := contender.sent_by_host(number))}


def _check(contender: Contender, run: Run) -> None:
    """Take out who has something else than the file."""
    file = contender.ground.file
    for number in sorted(run.done_s):
        if not filecmp.cmp(file, contender.directory(number) / file.name, shallow=False):
            del run.done_s[number]
            run.notes.append(f"host {number} got something else")


def measure(
    kinds: Sequence[type[Contender]], scenarios: Sequence[Scenario], file: Path, rounds: int, congestion: str | None
) -> Iterator[Run]:
    """Every scenario, round and contender, in this order; each is said as soon as it is known."""
    for scenario in scenarios:
        for number in range(1, rounds + 1):
            for kind in kinds:
                run = run_once(kind, scenario, file, congestion, number)
                took = f"{run.all_s:.2f} s" if run.is_complete else f"{len(run.done_s)} of {run.receivers} hosts"
                print(f"{scenario.name}, round {number} of {rounds}, {kind.name}: {took}", file=sys.stderr, flush=True)
                for note in run.notes:
                    print(f"  {note}", file=sys.stderr, flush=True)
                yield run


def write(path: Path, runs: Sequence[Run], scenarios: Sequence[Scenario], congestion: str) -> None:
    """Add the runs to a file of JSON, one a line, each with all that is needed to understand it."""
    found = json.loads(path.read_text()) if path.exists() else []
    described = {scenario.name: asdict(scenario) for scenario in scenarios}
    where = {"machine": machine(), "congestion": congestion}
    found += [{**asdict(run), "network": described[run.scenario], **where} for run in runs]
    path.write_text("[\n" + ",\n".join(json.dumps(run) for run in found) + "\n]\n")


def write_noise(path: Path, size: int) -> None:
    """A file that nothing can compress or find twice."""
    rng = random.Random(1)
    with open(path, "wb") as file:
        file.writelines(rng.randbytes(min(MIB, size - at)) for at in range(0, size, MIB))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How soon a file is on all hosts of a fleet, beside others.")
    names = [scenario.name for scenario in swarm_scenarios.ALL]
    parser.add_argument("--size", type=float, default=100.0, metavar="MIB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="SCENARIO", help=", ".join(names))
    parser.add_argument("--contenders", nargs="+", metavar="NAME", help="the beginnings of the contenders' names")
    parser.add_argument(
        "--slower", type=float, default=1.0, metavar="FACTOR", help="divide all rates by this, to spare this machine"
    )
    parser.add_argument("--congestion", metavar="NAME", help="TCP's congestion control [default: the system's]")
    parser.add_argument(
        "--on", type=Path, default=MEMORY, metavar="DIRECTORY", help=f"where all files are [default: {MEMORY}]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the runs to this file")
    parser.add_argument("--plot", type=Path, metavar="DIRECTORY", help="draw them into this directory")
    return parser.parse_args()


def main() -> int:
    """Run it, and return the exit code."""
    asked = _arguments()
    if lacking := namespaces.missing():
        print(f"This benchmark needs {lacking}.", file=sys.stderr)
        return 2
    wanted = [
        kind
        for kind in swarm_contenders.ALL
        if not asked.contenders or any(kind.name.startswith(name) for name in asked.contenders)
    ]
    for kind in wanted:
        if lacking := kind.missing():
            print(f"{kind.name} is left out: {lacking} is not installed", file=sys.stderr)
    present = [kind for kind in wanted if not kind.missing()]
    scenarios = [scenario.slower(asked.slower) for scenario in swarm_scenarios.ALL if scenario.name in asked.only]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with Network(scenarios[0].links[:1], congestion=asked.congestion) as network:
            congestion = network.congestion
    except OSError as e:
        print(e, file=sys.stderr)
        return 2
    runs: list[Run] = []
    code = 0
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        Path(directory).chmod(0o755)
        (Path(directory) / "source").mkdir()
        file = Path(directory) / "source" / "file.bin"
        write_noise(file, int(asked.size * MIB))
        try:
            for run in measure(present, scenarios, file, asked.rounds, asked.congestion):
                runs.append(run)  # noqa: PERF402 - one by one, so that what came before Ctrl-C is kept
        except KeyboardInterrupt:
            print("Interrupted; this is what was found before.", file=sys.stderr)
            code = 128 + signal.SIGINT
    print(f"{asked.size:g} MiB in {asked.on}, {asked.rounds} rounds, {congestion}, rates divided by {asked.slower:g}")
    print(table(runs))
    if asked.json:
        write(asked.json, runs, scenarios, congestion)
    if asked.plot:
        from benchmarks import swarm_plot

        swarm_plot.draw(runs, asked.plot)
    return code


if __name__ == "__main__":
    sys.exit(main())
