"""Which copies are to be hashed again now, and how quickly: each within its time, spread out, no faster than needed.

Pure: how long ago something was is an argument, so no wall clock can mislead it. Copies go by the age of their last
scrub, the oldest first, which is the order of their deadlines (earliest deadline first: C. L. Liu and J. W. Layland,
1973). Each begins at the latest moment at which it and all after it would end in time, were they read at an even rate
that takes half of the period for all of them. So copies that came together are scrubbed one after another over half a
period, after which their deadlines lie apart for good, and none is read again long before half of its period is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_SCRUB_RATE: Final = 64 << 20
MIN_SCRUB_RATE: Final = 4 << 20  # so that a few small files do not take all day, each with the disk awake
SCRUB_FILE_BYTES: Final = 64 << 10  # what opening and looking at a file counts for, beside its content
SPREAD: Final = 0.5  # of the time, over which all copies are spread ...
SPARE: Final = 0.05  # ... and so much of it is kept back: whoever carries the plan out may be late


@dataclass(frozen=True, slots=True)
class Aged:
    """A copy. `size_bytes`: still to be read; `age_s`: since all of it was last known to be right."""

    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class ScrubPlan:
    """`due`: the positions of the copies to be scrubbed now, in order; `rate`: bytes a second at which to read them."""

    due: tuple[int, ...]
    rate: int


def plan_scrubs(copies: Sequence[Aged], every_s: float) -> ScrubPlan:
    """Plan for copies of which each is to be scrubbed at least every `every_s` seconds.

    A copy whose time is over is due; one of which less than 0.45 of its time is over never is.
    """
    order = sorted(range(len(copies)), key=lambda at: -copies[at].age_s)
    costs = [copies[at].size_bytes + SCRUB_FILE_BYTES for at in order]
    left = [every_s * (1 - SPARE) - copies[at].age_s for at in order]
    per_byte_s = every_s * SPREAD / sum(costs) if costs else 0.0
    due, start = 0, float("inf")
    for at in reversed(range(len(order))):
        start = min(start, left[at]) - costs[at] * per_byte_s
        if start <= 0:  # then so has each one before it
            due = at + 1
            break
    needed = max((total / max(time_s, 1e-9) for total, time_s in zip(accumulate(costs), left, strict=True)), default=0)
    return ScrubPlan(tuple(order[:due]), int(min(max(needed, MIN_SCRUB_RATE), MAX_SCRUB_RATE)))
