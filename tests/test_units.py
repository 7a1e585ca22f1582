"""Durations, sizes and rates as people write and read them."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interfiles.errors import UsageError
from interfiles.units import (
    format_bytes,
    format_count,
    format_duration,
    format_rate,
    parse_count,
    parse_duration,
    parse_rate,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10s", 10),
        ("2m", 120),
        ("2min", 120),
        ("1h", 3600),
        ("30d", 2_592_000),
        ("1.5h", 5400),
        (" 10 s ", 10),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("300B", 300),
        ("64KiB", 65_536),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("1.5GB", 1_500_000_000),
        ("1.5 GiB", 1_610_612_736),
        ("10TB", 10**13),
        ("9007199254740993B", 2**53 + 1),
        ("0.1kB", 100),
        ("0", 0),
        (" 0 ", 0),
        ("0B", 0),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100Mbit/s", 12_500_000),
        ("10MB/s", 10_000_000),
        ("1GiB/s", 1 << 30),
        ("800bit/s", 100),
        ("1.5 Gbit/s", 187_500_000),
        ("5MiB/s", 5 << 20),
        ("10MB", 10_000_000),
        ("80Mbit", 10_000_000),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "10", "s", "-1s", "1 week", "1h30m", "1e3s", "١s", "10 000s", "99999999d", "\x1b[2J"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["0", "0s", " 0.0 h"])
def test_no_time_at_all_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match=r"^'.*' is no time at all; write 10s, 2m, 1h or 30d$"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "count"), [("1", 1), ("007", 7), (" 1000", 1000)])
def test_counts(text: str, count: int) -> None:
    assert parse_count(text, "a number of copies", 1000) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "+1", "1001", "1.0", "1_0", "٣", "３", "9" * 5000, "\x1b[2J"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(UsageError, match=r"^'.*' is not a number of copies; it is 1 to 1,000$"):
        parse_count(text, "a number of copies", 1000)


@pytest.mark.parametrize(
    "text", ["", "10", "00", "0.0", "-0", "10Gb", "10iB", "-1B", "1.5.5GB", "10EB", "9223372036854775808B", "MB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"^'.*' (is not a size|has an i|is too large)"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "100", "100M", "100/s", "100Mb/s", "100Mbps", "1MB/h"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a rate; write 10MB/s \(bytes\), 5MiB/s or 80Mbit/s \(bits\)$"):
        parse_rate(text)


@pytest.mark.parametrize("parse", [parse_duration, parse_size, parse_rate])
def test_control_characters_are_escaped_in_the_sentence(parse: Callable[[str], float]) -> None:
    with pytest.raises(UsageError) as caught:
        parse("\x1b]52;c\x07")
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (18_400_000_000, "18.4 GB"),
        (220_000_000_000, "220 GB"),
        (1_400_000_000_000, "1.4 TB"),
        (99_949_999, "99.9 MB"),
        (99_950_000, "100 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (2**63 - 1, "9,223 PB"),
    ],
)
def test_bytes_are_shown_with_three_digits_or_so(count: int, shown: str) -> None:
    assert format_bytes(count) == shown


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_shown_bytes_read_back_within_a_twentieth(count: int) -> None:
    shown = format_bytes(count).replace(",", "")
    assert abs(parse_size(shown) - count) <= count / 20


def test_rates_are_shown_by_the_second() -> None:
    assert format_rate(410_000_000.4) == "410 MB/s"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0 s"),
        (0.44, "0.4 s"),
        (4.5, "4.5 s"),
        (8, "8 s"),
        (9.96, "10 s"),
        (17.4, "17 s"),
        (59.6, "1 min"),
        (60, "1 min"),
        (150, "2 min 30 s"),
        (630, "10 min"),
        (3600, "1 h"),
        (3630, "1 h"),
        (3660, "1 h 1 min"),
        (3 * 3600 + 720, "3 h 12 min"),
        (86_400, "1 d"),
        (30 * 86_400, "30 d"),
    ],
)
def test_durations_are_shown_in_one_or_two_units(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


def test_counts_have_thousands_separators_and_their_noun() -> None:
    assert format_count(4388) == "4,388"
    assert format_count(1, "file") == "1 file"
    assert format_count(4388, "piece") == "4,388 pieces"
    assert format_count(2, "entry", "entries") == "2 entries"
