"""What each thing that the bare loop does is worth: the loop as it is, beside itself without that.

    python -m benchmarks.variants [--size GIB] [--rounds 5] [--on DIRECTORY] [--json FILE]

In alternation, as `benchmarks.pair`, whose output it prints.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.contenders import BareReserved, BareTls, Contender
from benchmarks.pair import GIB, machine, measure, summary, table
from tests.e2e.content import make_file


class Chunk64(BareTls):
    """Four times as many reads and writes of the socket."""

    name = "64 KiB at once"
    arguments: ClassVar[list[str]] = ["--chunk", "64"]


class Chunk1024(BareTls):
    """Ciphertext that does not stay in the processor's cache."""

    name = "1 MiB at once"
    arguments: ClassVar[list[str]] = ["--chunk", "1024"]


class Fresh(BareTls):
    """No buffer is used again."""

    name = "fresh buffers"
    arguments: ClassVar[list[str]] = ["--fresh"]


class Naive(BareTls):
    """Neither."""

    name = "64 KiB, fresh"
    arguments: ClassVar[list[str]] = ["--chunk", "64", "--fresh"]


class Thread(BareTls):
    """Hashing and writing beside receiving."""

    name = "with a thread"
    arguments: ClassVar[list[str]] = ["--thread"]


ALL: Final[list[type[Contender]]] = [BareTls, BareReserved, Chunk64, Chunk1024, Fresh, Naive, Thread]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description="What each thing that the bare loop does is worth.")
    parser.add_argument("--size", type=float, default=1.0, metavar="GIB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--on", type=Path, default=None, metavar="DIRECTORY")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary to this file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="interfiles-benchmark-", dir=asked.on) as directory:
        scratch, size = Path(directory), int(asked.size * GIB)
        (scratch / "source").mkdir()
        file = make_file(scratch / "source" / "file.bin", size)
        samples = measure(file, scratch, scratch / "out", asked.rounds, ALL)
    found = {name: summary(of, size) for name, of in samples.items()}
    print(f"{asked.size:g} GiB, {asked.rounds} rounds; ratios are of the first line to this one")
    print(table(found))
    if asked.json:
        asked.json.write_text(json.dumps({"bytes": size, "machine": machine(), "summary": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
