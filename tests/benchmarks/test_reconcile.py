"""The benchmark of the reconciler, in small: it measures what it says."""

import argparse
from pathlib import Path

import pytest
import trio

from benchmarks import reconcile
from benchmarks.reconcile import rounds
from daemons.master.reconciler import Reconciler


def asked(gone: int = 4) -> argparse.Namespace:
    return argparse.Namespace(files=400, hosts=40, gone=gone, rounds=2)


def test_it_orders_as_many_copies_as_may_be_under_way_and_times_each_round(tmp_path: Path) -> None:
    found = trio.run(rounds, asked(), tmp_path)
    assert list(found) == ["nothing to do", "4 hosts gone", "the round after"]
    assert found["4 hosts gone"]["orders"] == 32
    assert all(figures["wall_ms"] > 0 and figures["longest_step_ms"] > 0 for figures in found.values())


def test_the_orders_are_a_row_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FILES": 400, "HOSTS": 40, "GONE": 4, "ROUNDS": 1}.items():
        monkeypatch.setattr(reconcile, name, value)
    (row,) = [row for row in reconcile.rows() if "orders" in row.what]
    assert (row.what, row.found) == ("reconcile 400 files, 40 hosts, 4 hosts gone: orders", 32)


def test_it_ends_with_a_sentence_where_nothing_is_ordered_though_hosts_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reconciler, "_perform", lambda *_: None)
    with pytest.raises(SystemExit, match=r"^Nothing was ordered though 4 hosts are gone; there are no figures\.$"):
        trio.run(rounds, asked(), tmp_path)
