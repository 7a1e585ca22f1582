"""How quickly a host may fetch in the background while it fetches for people too.

Nobody knows how wide the host's line is. What people's downloads get now, and the best that came lately, tell enough:
a quarter of the one, or a fifth of the other, is a fifth of the line at most once things are even, so people keep four
fifths of what they would have alone; and where their sources are slow, the rest of the line is made use of.
"""

from typing import Final

BESIDE_SHARE: Final = 0.25  # of what people get now
BEST_SHARE: Final = 0.2  # of the best that came lately
MIN_SPARE_RATE: Final = 1 << 20  # bytes a second: a replica is not put off for ever
FADING_S: Final = 600.0  # in which the best is half forgotten


class SpareRate:
    """Rates are bytes a second, times seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._best = 0.0
        self._at = 0.0

    def update(self, people: float, background: float, now: float) -> int | None:
        """The rate for the background from now on, given what both get now; None: as quickly as can be."""
        self._best *= 0.5 ** ((now - self._at) / FADING_S)
        self._best, self._at = max(self._best, people + background), now
        if people <= 0:
            return None
        return int(max(people * BESIDE_SHARE, self._best * BEST_SHARE, MIN_SPARE_RATE))
