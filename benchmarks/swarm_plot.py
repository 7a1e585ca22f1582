"""Draw what `benchmarks.swarm` found: how the file came to each host, and who sent it to whom.

    python -m benchmarks.swarm_plot RESULTS.json DIRECTORY

Needs matplotlib.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from benchmarks.plot import OTHERS, OWN
from benchmarks.swarm_report import Run, load

_WIDTH: Final = 4.2
_HEIGHT: Final = 3.2


def draw(runs: Sequence[Run], directory: Path) -> None:
    """Write `SCENARIO.svg`, and `SCENARIO-senders.svg` for who says who sent; of each contender its median round."""
    directory.mkdir(parents=True, exist_ok=True)
    for scenario in dict.fromkeys(run.scenario for run in runs):
        of_scenario = [run for run in runs if run.scenario == scenario and run.is_complete]
        shown = [
            _median_round([run for run in of_scenario if run.contender == contender])
            for contender in dict.fromkeys(run.contender for run in of_scenario)
        ]
        if shown:
            _draw_curves(shown, directory / f"{scenario}.svg")
        for run in shown:
            if run.from_hosts:
                _draw_senders(run, directory / f"{scenario}-senders.svg")


def _median_round(runs: Sequence[Run]) -> Run:
    return sorted(runs, key=lambda run: run.all_s)[len(runs) // 2]


def _draw_curves(runs: Sequence[Run], picture: Path) -> None:
    figure, axes = plt.subplots(
        1,
        len(runs),
        figsize=(_WIDTH * len(runs), _HEIGHT),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for plot, run in zip(axes[0], runs, strict=True):
        for curve in run.curves[1:]:
            shares = [min(1.0, came / run.size) * 100 for came in curve]
            plot.plot(run.sample_s, shares, color=OWN if run.contender == "InterFiles" else OTHERS, linewidth=0.8)
        plot.axvline(run.bound_s, color="black", linestyle=":", linewidth=1)
        if run.killed_s is not None:
            plot.axvline(run.killed_s, color="firebrick", linestyle="--", linewidth=1)
        plot.set_title(f"{run.contender}: {run.all_s:.1f} s", loc="left")
        plot.set_xlabel("seconds; dotted: the bound")
    axes[0][0].set_ylabel("% of the file received, by host")
    _save(figure, picture)


def _draw_senders(run: Run, picture: Path) -> None:
    hosts = range(run.receivers + 1)
    shares = [[run.from_hosts.get(to, {}).get(sender, 0) / run.size * 100 for sender in hosts] for to in hosts[1:]]
    figure, plot = plt.subplots(figsize=(_WIDTH * 1.3, _WIDTH), layout="constrained")
    image = plot.imshow(shares, cmap="Blues", vmin=0, aspect="auto")
    plot.set_xticks(hosts, ["source", *map(str, hosts[1:])])
    plot.set_yticks(range(run.receivers), list(map(str, hosts[1:])))
    plot.set_xlabel("sender")
    plot.set_ylabel("receiver")
    plot.set_title(f"{run.contender}, {run.scenario}: % of the file", loc="left")
    figure.colorbar(image)
    _save(figure, picture)


def _save(figure: Figure, picture: Path) -> None:
    figure.savefig(picture, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    """Draw it."""
    results, directory = map(Path, sys.argv[1:])
    draw(load(results.read_text()), directory)


if __name__ == "__main__":
    main()
