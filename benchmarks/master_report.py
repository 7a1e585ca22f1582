"""What the master's benchmark found, beside the bars."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One figure. `bar`: the most that it may be, None where there is none."""

    what: str
    found: float
    unit: str
    bar: float | None = None

    @property
    def ok(self) -> bool:
        """The bar is met."""
        return self.bar is None or self.found <= self.bar


def quantile_ms(seconds: Sequence[float], percent: int) -> float:
    """The value, in milliseconds, that so many of 100 samples do not exceed; the only sample where there is but one."""
    if len(seconds) == 1:
        return 1000 * seconds[0]
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[percent - 1]


def latency_rows(what: str, seconds: Sequence[float], *, bar_ms: float | None = None) -> list[Row]:
    """Median and 99th percentile, which the bar is for."""
    return [
        Row(f"{what}, median", quantile_ms(seconds, 50), "ms"),
        Row(f"{what}, p99", quantile_ms(seconds, 99), "ms", bar_ms),
    ]


def table(rows: Sequence[Row]) -> str:
    """All rows, a line each."""
    width = max(len(row.what) for row in rows)
    lines = []
    for row in rows:
        bar = "" if row.bar is None else f"   bar {row.bar:g} {row.unit}: {'met' if row.ok else 'MISSED'}"
        lines.append(f"{row.what:{width}}{row.found:12,.2f} {row.unit:5}{bar}".rstrip())
    return "\n".join(lines)
