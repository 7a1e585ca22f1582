"""How fast bytes flow, smoothed."""

import math
from typing import Final

HALF_LIFE_S: Final = 1.0  # long enough to read as a figure, short enough to follow a link that changes


class RateMeter:
    """An exponentially weighted rate in bytes a second."""

    def __init__(self, now: float) -> None:
        self.total = 0
        self._weighted = 0.0
        self._weight_s = 0.0
        self._at = now

    def add(self, count: int, now: float) -> None:
        """`count` bytes have passed since the last call."""
        self._decay(now)
        self.total += count
        self._weighted += count

    def rate(self, now: float) -> float:
        """Bytes a second, as of now; 0 before any time has passed."""
        self._decay(now)
        return self._weighted / self._weight_s if self._weight_s > 0 else 0.0

    def _decay(self, now: float) -> None:
        elapsed = max(0.0, now - self._at)
        self._at = now
        kept = 0.5 ** (elapsed / HALF_LIFE_S)
        self._weighted *= kept
        # the integral of the same weights over the time that has passed: an average from the first moment on
        self._weight_s = self._weight_s * kept + (1 - kept) * HALF_LIFE_S / math.log(2)
