"""The benchmark of the reconciler, in small: it measures what it says."""

import argparse
from pathlib import Path

import trio

from benchmarks.reconcile import rounds


def test_it_orders_as_many_copies_as_may_be_under_way_and_times_each_round(tmp_path: Path) -> None:
    asked = argparse.Namespace(files=400, hosts=40, gone=4, rounds=2)
    found = trio.run(rounds, asked, tmp_path)
    assert list(found) == ["nothing to do", "4 hosts gone", "the round after"]
    assert found["4 hosts gone"]["orders"] == 32
    assert all(figures["wall_ms"] > 0 and figures["longest_step_ms"] > 0 for figures in found.values())
