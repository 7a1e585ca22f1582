"""How often something may be tried, by whom and in all: token buckets."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from interfiles.errors import RateLimited
from interfiles.units import format_duration

_ROUNDING_S: Final = 1e-4  # sums of floats come out a little over what was spent: no try is refused for that
MAX_KEYS: Final = 4096  # the addresses remembered; more push out those that tried least recently


@dataclass(frozen=True, slots=True)
class Rate:
    """`burst` tries at once, and one more every `every_s` seconds."""

    burst: int
    every_s: float


class RateLimiter:
    """Tries are counted against the rate of their key, and against that of all keys together."""

    def __init__(self, *, each: Rate, overall: Rate) -> None:
        self._each = each
        self._overall = overall
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._all_full_at = 0.0

    def count(self, key: str, now: float) -> None:
        """Count a try at `now` (seconds on any one clock).

        Raises:
          RateLimited: it is one too many, and not counted; the sentence says how long to wait.
        """
        own = _spent(self._each, self._full_at.get(key, 0.0), now)
        overall = _spent(self._overall, self._all_full_at, now)
        wait_s = max(own - now - self._each.burst * self._each.every_s, 0.0)
        wait_s = max(overall - now - self._overall.burst * self._overall.every_s, wait_s)
        if wait_s > _ROUNDING_S:
            raise RateLimited(f"too many tries to join in a short time; try again in {format_duration(wait_s)}")
        self._full_at[key], self._all_full_at = own, overall
        self._full_at.move_to_end(key)
        while len(self._full_at) > MAX_KEYS:
            self._full_at.popitem(last=False)


def _spent(rate: Rate, full_at: float, now: float) -> float:
    """When the bucket is full again, after one more try: the generic cell rate algorithm (ITU-T I.371)."""
    return max(full_at, now) + rate.every_s
