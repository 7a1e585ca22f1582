"""How quickly a host may fetch in the background while it fetches for people too.

Nobody knows how wide the host's line is. What people's downloads get now, and the best that came lately, tell enough:
a ninth of the one, or a twelfth of the other, is a tenth of the line at most once things are even. It takes some
seconds until they are, as what is under way in the network comes all the same; so people keep four fifths of what they
would have alone even of a short download, and where their sources are slow, some of the line is made use of.
"""

from collections import deque
from typing import Final

BESIDE_SHARE: Final = 0.11  # of what people get now
BEST_SHARE: Final = 0.08  # of the best that came lately
MIN_SPARE_RATE: Final = 64 << 10  # bytes a second: no replica is put off for ever, and no line of 10 Mbit/s filled
FADING_S: Final = 600.0  # in which the best is half forgotten
SUSTAINED_LOOKS: Final = (
    10  # in which a rate was seen throughout: a first piece, or a burst, is not what a line carries
)


class SpareRate:
    """Rates are bytes a second, times seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._best = 0.0
        self._at = 0.0
        self._lately: deque[float] = deque(maxlen=SUSTAINED_LOOKS)

    def update(self, people: float | None, background: float, now: float) -> int | None:
        """The rate for the background from now on, given what both get now; None: as quickly as can be.

        `people` None: they fetch nothing. To be called at even intervals, some a second.
        """
        self._best *= 0.5 ** ((now - self._at) / FADING_S)
        self._at = now
        self._lately.append((people or 0.0) + background)
        if len(self._lately) == SUSTAINED_LOOKS:
            self._best = max(self._best, min(self._lately))
        if people is None:
            return None
        return int(max(people * BESIDE_SHARE, self._best * BEST_SHARE, MIN_SPARE_RATE))
