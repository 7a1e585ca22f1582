"""How soon a file can be on all hosts at best, whatever is done, by the rates of their links alone.

Sizes are in bytes, rates in bytes per second, times in seconds. A rate is the nominal one of the link: headers take
about 4.5 % of it for TCP in frames of 1500 bytes, so nothing that is real comes nearer than 1.045 times a bound.
"""

import math
from collections.abc import Sequence


def equal_uplinks_s(size: int, pieces: int, rate: float, receivers: int) -> float:
    """Everybody sends at `rate`: the file leaves the source once, and its last piece doubles until all have it."""
    return size / rate * (1 + math.floor(math.log2(receivers)) / pieces)


def fluid_s(
    size: int, source_up: float, ups: Sequence[float], downs: Sequence[float], *, link: float | None = None
) -> float:
    """The rates differ: no sooner than the source, the slowest receiver, all uplinks together, or a link allow.

    `ups` and `downs` are of the receivers. `link`: the rate of the one between two zones, which the file crosses once.
    """
    bounds = [size / source_up, size / min(downs), len(downs) * size / (source_up + sum(ups))]
    if link is not None:
        bounds.append(size / link)
    return max(bounds)
