"""What a run in a swarm was, and the table of figures of several."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Run:
    """One contender, once. Bytes are those that went over the hosts' links, by host; host 0 is the source.

    `done_s`: when each receiver had the file, in seconds since the start of all of them. `crossed`: between the zones.
    `curves`: what each host had received at every sample (bytes, host 0 first), and `sample_s` when that was.
    `from_hosts`: bytes of good pieces by receiver and by who sent them, for those who say; so `duplicate_bytes`, of
    content that a receiver had already. `killed_s`: when the source
    was killed, if it was. `busy`: the share of this machine's cores that was used meanwhile, by whomever; near 1 the
    cores were what was scarce, not the links. `notes`: what went wrong, in sentences.
    """

    scenario: str
    contender: str
    round: int
    receivers: int
    size: int
    bound_s: float
    done_s: dict[int, float] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    crossed: int | None = None
    sample_s: list[float] = field(default_factory=list)
    curves: list[list[int]] = field(default_factory=list)
    from_hosts: dict[int, dict[int, int]] = field(default_factory=dict)
    duplicate_bytes: dict[int, int] = field(default_factory=dict)
    killed_s: float | None = None
    busy: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether all receivers got the file."""
        return len(self.done_s) == self.receivers

    @property
    def all_s(self) -> float:
        """Seconds until the last receiver had it."""
        return max(self.done_s.values())

    @property
    def median_s(self) -> float:
        """Seconds until half the receivers had it."""
        return statistics.median(self.done_s.values())

    @property
    def first_s(self) -> float:
        """Seconds until the receivers had a hundredth of the file between them: what starting the commands took."""
        came = (sum(at) for at in zip(*self.curves[1:], strict=True))
        return next((at for at, bytes_ in zip(self.sample_s, came, strict=True) if bytes_ * 100 >= self.size), 0.0)

    @property
    def source_sent(self) -> float:
        """What the source sent, in sizes of the file."""
        return self.sent[0] / self.size

    @property
    def host_received(self) -> float:
        """What a receiver received on average, in sizes of the file: over 1 are duplicates and what is no content."""
        return statistics.mean(self.received[1:]) / self.size

    @property
    def duplicate(self) -> float | None:
        """What a receiver got of content that it had already, on average, in sizes of the file."""
        return statistics.mean(self.duplicate_bytes.values()) / self.size if self.duplicate_bytes else None

    @property
    def host_crossed(self) -> float | None:
        """What crossed between the zones, both ways, in sizes of the file."""
        return None if self.crossed is None else self.crossed / self.size


HEAD = f"{'':13}{'':12}{'done':>6}{'all s':>8}{'least':>8}{'most':>8}{'median s':>10}{'bound s':>9}{'ratio':>8}"
HEAD_SENT = f"{'first s':>9}{'busy':>6}{'source':>8}{'received':>10}{'twice':>8}{'crossed':>9}"


def load(text: str) -> list[Run]:
    """The runs in the JSON that `benchmarks.swarm` writes."""
    known = {known.name for known in fields(Run)}
    runs = []
    for found in json.loads(text):
        run = Run(**{name: value for name, value in found.items() if name in known})
        run.done_s = _by_number(run.done_s)
        run.duplicate_bytes = _by_number(run.duplicate_bytes)
        run.from_hosts = {number: _by_number(sent) for number, sent in _by_number(run.from_hosts).items()}
        runs.append(run)
    return runs


def _by_number(found: Mapping[Any, T]) -> dict[int, T]:
    """The same with numbers as keys, which JSON has as text."""
    return {int(number): value for number, value in found.items()}


def table(runs: Sequence[Run]) -> str:
    """A line for each scenario and contender: medians over those rounds in which all receivers got the file."""
    lines = [HEAD + HEAD_SENT]
    for scenario in dict.fromkeys(run.scenario for run in runs):
        of_scenario = [run for run in runs if run.scenario == scenario]
        for contender in dict.fromkeys(run.contender for run in of_scenario):
            rounds = [run for run in of_scenario if run.contender == contender]
            lines.append(_line(rounds))
    return "\n".join(lines)


def _line(rounds: Sequence[Run]) -> str:
    first = rounds[0]
    done = f"{sum(run.is_complete for run in rounds)}/{len(rounds)}"
    start = f"{first.scenario:13}{first.contender:12}{done:>6}"
    good = [run for run in rounds if run.is_complete]
    if not good:
        most = max(len(run.done_s) for run in rounds)
        return f"{start}  failed: at most {most} of {first.receivers} hosts got the file"
    times = [run.all_s for run in good]
    all_s = statistics.median(times)
    return (
        f"{start}{all_s:8.2f}{min(times):8.2f}{max(times):8.2f}{_median(good, lambda run: run.median_s):10.2f}"
        f"{first.bound_s:9.2f}{all_s / first.bound_s:8.3f}"
        f"{_median(good, lambda run: run.first_s):9.2f}{_median(good, lambda run: run.busy):6.2f}"
        f"{_median(good, lambda run: run.source_sent):8.3f}"
        f"{_median(good, lambda run: run.host_received):10.3f}"
        f"{_known(8, (run.duplicate for run in good))}{_known(9, (run.host_crossed for run in good))}"
    )


def _median(runs: Sequence[Run], figure: Callable[[Run], float]) -> float:
    return statistics.median(map(figure, runs))


def _known(width: int, found: Iterable[float | None]) -> str:
    known = [share for share in found if share is not None]
    return f"{statistics.median(known):{width}.3f}" if known else " " * width
