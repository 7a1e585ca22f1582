"""How fast one host gets a file from another, beside others who do that.

    python -m benchmarks.pair [--size GIB] [--rounds 5] [--on DIRECTORY] [--only NAME ...] [--json FILE] [--plot FILE]

In every round each contender fetches the same file once, in turn, after one round that does not count; so whatever
slows the machine slows all of them. Copies are removed in between: every fetch writes to fresh pages. The source is
read from the page cache. Prints medians with minimum and maximum, and ratios of medians.
"""

import argparse
import json
import os
import platform
import ssl
import statistics
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from benchmarks.contenders import ALL, Contender, Sample
from tests.e2e.content import make_file

GIB: Final = 1 << 30
GB: Final = 1e9
_SAME: Final = 1 << 20


def measure(
    file: Path, scratch: Path, out: Path, rounds: int, contenders: list[type[Contender]]
) -> dict[str, list[Sample]]:
    """Let each fetch the file once a round, and return the samples by name."""
    samples: dict[str, list[Sample]] = {kind.name: [] for kind in contenders}
    with ExitStack() as stack:
        running = [stack.enter_context(kind(file, scratch)) for kind in contenders]
        for number in range(rounds + 1):
            for contender in running:
                out.mkdir()
                sample = contender.fetch(out)
                if number == 0:
                    _check(file, out / file.name, contender)
                else:
                    samples[contender.name].append(sample)
                contender.clear(out)
            print(f"round {number} of {rounds} done", file=sys.stderr, flush=True)
    return samples


def _check(file: Path, copy: Path, contender: Contender) -> None:
    with open(file, "rb") as left, open(copy, "rb") as right:
        while block := left.read(_SAME):
            if right.read(_SAME) != block:
                raise SystemExit(f"{contender.name} delivered something else")


def summary(samples: list[Sample], size: int) -> dict[str, float]:
    """Medians, and the least and most, in GB/s, CPU seconds per GB, and MB."""
    rates = [size / GB / sample.seconds for sample in samples]
    return {
        "rate": statistics.median(rates),
        "rate_min": min(rates),
        "rate_max": max(rates),
        "cpu_s_per_gb": statistics.median(sample.cpu_s for sample in samples) / (size / GB),
        "peak_rss_mb": max(sample.peak_rss for sample in samples) / 1e6,
    }


def table(found: dict[str, dict[str, float]]) -> str:
    """The figures, and each beside those of the first."""
    first = next(iter(found.values()))
    lines = [f"{'':18}{'GB/s':>7}{'min':>7}{'max':>7}{'ratio':>8}{'CPU s/GB':>10}{'ratio':>8}{'peak MB':>9}"]
    for name, f in found.items():
        lines.append(
            f"{name:18}{f['rate']:7.3f}{f['rate_min']:7.3f}{f['rate_max']:7.3f}{first['rate'] / f['rate']:7.2f}×"
            f"{f['cpu_s_per_gb']:10.2f}{first['cpu_s_per_gb'] / f['cpu_s_per_gb']:7.2f}×{f['peak_rss_mb']:9.0f}"
        )
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    known = Path("/proc/cpuinfo").read_text()
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "cores": os.cpu_count(),
        "features": [feature for feature in ("aes", "vaes", "avx2", "avx512f") if f" {feature} " in known],
    }


def main() -> int:
    """Run it, and return the exit code."""
    parser = argparse.ArgumentParser(description="How fast one host gets a file from another, beside others.")
    parser.add_argument("--size", type=float, default=1.0, metavar="GIB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--on", type=Path, default=None, metavar="DIRECTORY", help="where all files are [default: /tmp]"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="the beginnings of the contenders' names")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the samples to this file")
    asked = parser.parse_args()
    wanted = [kind for kind in ALL if not asked.only or any(kind.name.startswith(name) for name in asked.only)]
    for kind in wanted:
        if lacking := kind.missing():
            print(f"{kind.name} is left out: {lacking} is not installed", file=sys.stderr)
    present = [kind for kind in wanted if not kind.missing()]
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        scratch = Path(directory)
        size = int(asked.size * GIB)
        (scratch / "source").mkdir()
        file = make_file(scratch / "source" / "file.bin", size)
        samples = measure(file, scratch, scratch / "out", asked.rounds, present)
    found = {name: summary(of, size) for name, of in samples.items()}
    where = asked.on or tempfile.gettempdir()
    print(f"{asked.size:g} GiB on {where}, {asked.rounds} rounds; ratios are of the first line to this one")
    print(table(found))
    if asked.json:
        runs = json.loads(asked.json.read_text()) if asked.json.exists() else []
        raw = {name: [asdict(sample) for sample in of] for name, of in samples.items()}
        medium = "memory" if str(where).startswith("/dev/shm") else "disk"
        runs.append({"bytes": size, "on": medium, "machine": machine(), "summary": found, "samples": raw})
        asked.json.write_text(json.dumps(runs, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
