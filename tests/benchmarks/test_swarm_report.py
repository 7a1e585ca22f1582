"""The figures of the swarm's benchmark, and its table."""

import json
from dataclasses import asdict

from benchmarks.swarm_report import Run, load, table


def ran(number: int, seconds: list[float], *, contender: str = "one", crossed: int | None = None) -> Run:
    """A run with three receivers, of which some got the file."""
    run = Run("equal", contender, number, 3, 100, bound_s=8.0, crossed=crossed)
    run.done_s = dict(enumerate(seconds, start=1))
    run.sample_s, run.curves, run.busy = [0.1, 0.2], [[0, 0], [0, 2], [0, 0], [0, 0]], 0.75
    run.sent, run.received = [150, 60, 60, 60], [10, 110, 110, 110]
    return run


def test_the_table_has_medians_over_the_rounds_and_ratios() -> None:
    _, line = table([ran(1, [8, 9, 10]), ran(2, [9, 9, 14]), ran(3, [9, 10, 12], crossed=230)]).splitlines()
    assert " ".join(line.split()) == "equal one 3/3 12.00 10.00 14.00 9.00 8.00 1.500 0.20 0.75 1.500 1.100 2.300"


def test_a_round_in_which_not_all_got_the_file_does_not_count() -> None:
    _, line = table([ran(1, [8, 9]), ran(2, [9, 9, 16])]).splitlines()
    assert line.split()[2:4] == ["1/2", "16.00"]


def test_who_always_fails_is_said_to() -> None:
    lines = table([ran(1, [8, 9, 10]), ran(1, [8, 9], contender="two"), ran(2, [], contender="two")]).splitlines()
    assert "failed: at most 2 of 3 hosts got the file" in lines[2]


def test_what_was_written_is_read_again() -> None:
    run = ran(1, [8, 9, 10])
    run.from_hosts = {1: {0: 60, 2: 40}}
    assert load(json.dumps([{**asdict(run), "congestion": "cubic"}])) == [run]
