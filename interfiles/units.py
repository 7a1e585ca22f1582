"""Durations, sizes and rates: how people write them, and how they are shown. Every figure has its unit.

Sizes are decimal (1 GB is 10⁹ bytes) unless written with an i (1 GiB is 2³⁰); a small b is never a byte.
"""

import re
from typing import Final

from interfiles.errors import UsageError, printable

MINUTE: Final = 60
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

_DURATIONS: Final = {"s": 1, "m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY}
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_SHOWN_POWERS: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_SHOWN_DURATIONS: Final = ((DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s"))

_MAX_DURATION_S: Final = 10_000 * DAY
_MAX_BYTES: Final = 2**63 - 1

_NUMBER: Final = r"(\d{1,19}(?:\.\d{1,9})?)"
_DURATION: Final = re.compile(rf"{_NUMBER}\s?([a-z]+)", re.ASCII)
_SIZE: Final = re.compile(rf"{_NUMBER}\s?([kKmMgGtTpP]?)(i?)B", re.ASCII)
_COUNT: Final = re.compile(r"\d{1,19}", re.ASCII)
_RATE: Final = re.compile(rf"{_NUMBER}\s?([kKmMgGtTpP]?)(i?)(B|bit)(?:/s)?", re.ASCII)


def parse_duration(text: str) -> float:
    """Read `10s`, `2m`, `1.5h` or `30d`; return seconds.

    Raises:
      UsageError: it is not such a duration, or 0, or over 10,000 days.
    """
    match = _DURATION.fullmatch(text.strip())
    if text.strip() == "0" or (match is not None and float(match[1]) == 0):
        raise UsageError(f"'{printable(text)}' is no time at all; write 10s, 2m, 1h or 30d")
    if match is None or match[2] not in _DURATIONS:
        raise UsageError(f"'{printable(text)}' is not a duration; write 10s, 2m, 1h or 30d")
    seconds = float(match[1]) * _DURATIONS[match[2]]
    if seconds > _MAX_DURATION_S:
        raise UsageError(f"'{printable(text)}' is too long a duration; at most {_MAX_DURATION_S // DAY}d is allowed")
    return seconds


def parse_size(text: str) -> int:
    """Read `64KiB`, `1.5GB` or `300B`, or `0`, which needs no unit; return bytes.

    Raises:
      UsageError: it is not such a size, or does not fit in 63 bits.
    """
    if text.strip() == "0":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{printable(text)}' is not a size; write 64KiB, 300MB or 1.5GB")
    return _scaled(text, match[1], match[2], bool(match[3]))


def parse_rate(text: str) -> int:
    """Read `100Mbit/s`, `10MB/s` or `5MiB/s`, or the same without `/s`; return bytes a second.

    A number without a unit is none: half of all people mean bits by it.

    Raises:
      UsageError: it is not such a rate, or does not fit in 63 bits.
    """
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"'{printable(text)}' is not a rate; write 10MB/s (bytes), 5MiB/s or 80Mbit/s (bits)")
    scaled = _scaled(text, match[1], match[2], bool(match[3]))
    return scaled // 8 if match[4] == "bit" else scaled


def parse_count(text: str, what: str, most: int) -> int:
    """Read a whole number from 1 to `most`; `what` names it in the error's sentence: `a number of copies`.

    Raises:
      UsageError: it is not such a number.
    """
    if _COUNT.fullmatch(text.strip()) is None or not 1 <= int(text) <= most:
        raise UsageError(f"'{printable(text)}' is not {what}; it is 1 to {most:,}")
    return int(text)


def _scaled(text: str, number: str, prefix: str, binary: bool) -> int:
    if binary and not prefix:
        raise UsageError(f"'{printable(text)}' has an i without a prefix; write 64KiB or 64kB")
    unit: int = (1024 if binary else 1000) ** _POWERS[prefix.lower()]
    whole, _, fraction = number.partition(".")
    # in whole numbers: a float would lose the last digits of large sizes
    scaled = int(whole) * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
    if scaled > _MAX_BYTES:
        raise UsageError(f"'{printable(text)}' is too large; at most 2^63 - 1 bytes are allowed")
    return scaled


def format_bytes(count: int) -> str:
    """Show a number of bytes: `512 B`, `1.4 TB`, `220 GB`."""
    value, power = float(count), 0
    while round(value, 1 if value < 99.95 else 0) >= 1000 and power < len(_SHOWN_POWERS) - 1:
        value /= 1000
        power += 1
    if power == 0:
        return f"{count:,} B"
    return f"{value:.1f} {_SHOWN_POWERS[power]}" if value < 99.95 else f"{value:,.0f} {_SHOWN_POWERS[power]}"


def format_rate(bytes_per_second: float) -> str:
    """Show a rate: `410 MB/s`."""
    return f"{format_bytes(round(bytes_per_second))}/s"


def format_count(count: int, singular: str = "", plural: str = "") -> str:
    """Show a number: `4,388`, or with its noun `1 file`, `231 files`; `plural` where it takes more than an s."""
    if not singular:
        return f"{count:,}"
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def format_duration(seconds: float) -> str:
    """Show a duration in its largest unit, and the next one below ten: `4.5 s`, `17 s`, `2 min 30 s`, `3 h`."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}".removesuffix(".0") + " s"
    rounded = round(seconds)
    for at, (unit, name) in enumerate(_SHOWN_DURATIONS):
        if rounded < unit:
            continue
        count, rest = divmod(rounded, unit)
        if unit == 1 or count >= 10:
            return f"{count:,} {name}"
        smaller, smaller_name = _SHOWN_DURATIONS[at + 1]
        return f"{count} {name} {rest // smaller} {smaller_name}" if rest >= smaller else f"{count} {name}"
    return f"{rounded} s"
