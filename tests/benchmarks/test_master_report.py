"""The rows and table of the master's benchmark."""

import pytest

from benchmarks.master_catalogue import file
from benchmarks.master_report import Row, latency_rows, quantile_ms, table


def test_a_bar_is_the_most_that_a_figure_may_be() -> None:
    assert Row("memory", 100, "KiB", 100).ok
    assert not Row("memory", 100.1, "KiB", 100).ok
    assert Row("memory", 1e9, "KiB").ok


def test_the_bar_of_a_latency_is_for_its_99th_percentile() -> None:
    median, p99 = latency_rows("answer", [0.001 * number for number in range(101)], bar_ms=98)
    assert median.found == pytest.approx(50)
    assert median.ok
    assert p99.found == pytest.approx(99)
    assert not p99.ok


def test_one_sample_is_every_percentile() -> None:
    assert quantile_ms([0.25], 50) == quantile_ms([0.25], 99) == 250


def test_the_table_names_each_bar_and_whether_it_is_met() -> None:
    lines = table([Row("a", 1, "ms"), Row("bcd", 2, "%", 3), Row("e", 4, "%", 3)]).splitlines()
    assert lines[0] == "a          1.00 ms"
    assert lines[1].endswith("2.00 %       bar 3 %: met")
    assert lines[2].endswith("4.00 %       bar 3 %: MISSED")


def test_files_are_in_the_order_of_their_names_and_their_ids_in_none() -> None:
    files = [file(number) for number in range(100)]
    assert files == sorted(files, key=lambda info: info.name)
    assert files != sorted(files, key=lambda info: info.file_id)
    assert len({info.file_id for info in files}) == 100
