"""Draw what `benchmarks.pair` found.

    python -m benchmarks.plot RESULTS.json PICTURE.svg

For every run in the file: each contender's median rate with the least and most, and its CPU seconds per GB. Needs
matplotlib.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

OWN = "#2563a8"
OTHERS = "#9aa5b1"


def draw(runs: list[dict[str, Any]], picture: Path) -> None:
    """Write the picture; its name's ending says of what kind."""
    figure, rows = plt.subplots(len(runs), 2, figsize=(10, 2.6 * len(runs)), squeeze=False, layout="constrained")
    for (rates, costs), run in zip(rows, runs, strict=True):
        found = run["summary"]
        names = list(found)[::-1]
        colours = [OWN if name == "InterFiles" else OTHERS for name in names]
        medians = [found[name]["rate"] for name in names]
        below = [found[name]["rate"] - found[name]["rate_min"] for name in names]
        above = [found[name]["rate_max"] - found[name]["rate"] for name in names]
        rates.barh(names, medians, xerr=[below, above], color=colours)
        rates.set_title(f"{run['bytes'] / (1 << 30):g} GiB, {run['on']}: GB/s", loc="left")
        costs.barh(names, [found[name]["cpu_s_per_gb"] for name in names], color=colours)
        costs.set_title("CPU seconds per GB, both ends", loc="left")
    figure.savefig(picture, metadata={"Date": None} if picture.suffix == ".svg" else None)


def main() -> None:
    """Draw it."""
    results, picture = map(Path, sys.argv[1:])
    draw(json.loads(results.read_text()), picture)


if __name__ == "__main__":
    main()
