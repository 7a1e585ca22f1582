"""A rate that is kept to, and who may go next under it.

A token bucket (RFC 2697 has one in words): credit grows with time up to a small burst, and what passes is taken from
it. Those who find too little credit stand in line by start-time fair queueing (Goyal, Vin, Cheng, "Start-time Fair
Queueing", 1996), so that flows share by their weights whatever the sizes of what they ask for; within a flow, and where
flows are even, who came first goes first.

Rates are bytes a second, times seconds of one monotonic clock.
"""

import heapq
from dataclasses import dataclass
from typing import Final

from interfiles.errors import UsageError, printable
from interfiles.units import format_rate, parse_rate

BURST_S: Final = 0.1  # so much time's worth may pass at once: a process that wakes late makes good for it
MIN_BURST_BYTES: Final = 8 << 10
PART_S: Final = 0.05  # what all who take turns pass in one round: short enough that nobody seems stalled meanwhile
MIN_PART_BYTES: Final = 1 << 10
MAX_PART_BYTES: Final = 256 << 10
MIN_RATE: Final = 10_000  # with less, pieces take minutes and peers give up
SLOT_RATE: Final = 2 << 20  # for each upload slot: a block then takes half a second
SPARE_SHARE: Final = 0.9  # of the rate: who uses less has room for another slot
FULL_ROUNDS: Final = 10  # in which it was used up, before it is tried with a slot less
LEAST: Final = f"the least is {format_rate(MIN_RATE)}; to move nothing at all, use interfiles pause"
NO_LIMIT: Final = ("none", "unlimited")
_FRACTION: Final = 0.01  # of a byte: what rounding may lack


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """A place in line, for so many bytes."""

    start: float
    number: int
    flow: str
    count: int


class RateLimit:
    """`rate` None: no limit, everybody may go at once."""

    def __init__(self, rate: int | None, now: float) -> None:
        self.passed = 0  # bytes, since the beginning
        self._rate = rate
        self._credit = 0.0
        self._at = now
        self._line: list[Turn] = []  # a heap
        self._left: set[Turn] = set()  # of it, those who do not wait any more
        self._finish: dict[str, float] = {}
        self._clock = 0.0
        self._joined = 0
        self._ended = 0  # turns up to this number were ended by a change

    @property
    def rate(self) -> int | None:
        return self._rate

    @property
    def burst(self) -> float:
        """Bytes that may pass at once after a rest."""
        return max((self._rate or 0) * BURST_S, MIN_BURST_BYTES)

    def change(self, rate: int | None, now: float) -> None:
        """Another rate from now on, which owes nothing for what went before.

        All turns are over: whoever waits joins again, for as much as `part_bytes` now says.
        """
        self._earn(now)
        self._rate = rate
        self._credit = max(0.0, min(self._credit, self.burst)) if rate is not None else 0.0
        for turn in self._line:
            if turn not in self._left and turn.flow in self._finish:
                self._finish[turn.flow] = min(self._finish[turn.flow], turn.start)
        self._line.clear()
        self._left.clear()
        self._ended = self._joined

    def part_bytes(self, wanted: int) -> int:
        """How much of `wanted` to ask for at once, so that all who are in line come round soon."""
        if self._rate is None:
            return wanted
        fair = int(self._rate * PART_S) // (len(self._line) - len(self._left) + 1)
        return min(wanted, max(MIN_PART_BYTES, min(fair, MAX_PART_BYTES)))

    def join(self, flow: str, count: int, weight: float) -> Turn:
        """Stand in line for `count` bytes."""
        start = max(self._clock, self._finish.get(flow, 0.0))
        self._finish[flow] = start + count / weight
        self._joined += 1
        turn = Turn(start, self._joined, flow, count)
        heapq.heappush(self._line, turn)
        return turn

    def take(self, turn: Turn, now: float) -> bool:
        """Whether the bytes may pass now; they count as passed then, and the turn is over."""
        self._earn(now)
        if self.is_ended(turn):
            return False
        if self._rate is not None:
            if self.first() is not turn or self._lacking(turn) > 0:
                return False
            self._credit -= turn.count
        self.passed += turn.count
        self._clock = max(self._clock, turn.start)
        self.leave(turn)
        return True

    def wait_s(self, turn: Turn, now: float) -> float:
        """How long it takes until `take` may say yes, if the rate stays; inf for who is not first."""
        self._earn(now)
        if self._rate is None:
            return 0.0
        return self._lacking(turn) / self._rate if self.first() is turn else float("inf")

    def is_ended(self, turn: Turn) -> bool:
        """Whether the rate has changed since it joined."""
        return turn.number <= self._ended

    def first(self) -> Turn | None:
        """Who goes next."""
        while self._line and self._line[0] in self._left:
            self._left.discard(heapq.heappop(self._line))
        return self._line[0] if self._line else None

    def leave(self, turn: Turn) -> None:
        """Wait no more. To be called once a turn, unless `take` said yes."""
        if not self.is_ended(turn):
            self._left.add(turn)
            self.first()

    def forget(self, flow: str) -> None:
        """The flow is over: nobody stands in line for it."""
        self._finish.pop(flow, None)

    def _lacking(self, turn: Turn) -> float:
        """Bytes of credit that are missing; what is larger than a burst goes on credit of the time after it."""
        lacking = min(turn.count, self.burst) - self._credit
        return lacking if lacking > _FRACTION else 0.0

    def _earn(self, now: float) -> None:
        if self._rate is not None:
            self._credit = min(self._credit + (now - self._at) * self._rate, self.burst)
        self._at = now


def parse_limit(text: str) -> int | None:
    """Read a limit: a rate as `parse_rate`, or `none`; return bytes a second, None where there is to be no limit.

    Raises:
      UsageError: it is neither, or too low.
    """
    if text.strip().lower() in NO_LIMIT:
        return None
    rate = parse_rate(text)
    if rate < MIN_RATE:
        raise UsageError(f"a limit of {printable(text)} is too low; {LEAST}")
    return rate


class SlotCount:
    """How many upload slots to have, of at most `most`: under a limit few, as long as these use it up.

    Few and full ones give whole pieces sooner. Where receivers are slow, more of them are needed to use the limit up.
    """

    def __init__(self, rate: int | None, most: int) -> None:
        self._most = most
        self._rate = rate
        self._full_rounds = 0
        self.slots = self._least()

    def adapt(self, rate: int | None, passed: float, *, is_line: bool) -> int:
        """Once a round of a second: the limit now, bytes that passed in the round, whether others wait for a slot."""
        if rate is None or rate != self._rate:
            self._rate, self._full_rounds = rate, 0
            self.slots = self._least()
        elif passed < SPARE_SHARE * rate:
            self._full_rounds = 0
            self.slots = min(self.slots + is_line, self._most)
        else:
            self._full_rounds += 1
            if self._full_rounds >= FULL_ROUNDS and self.slots > self._least():
                self._full_rounds, self.slots = 0, self.slots - 1
        return self.slots

    def _least(self) -> int:
        return self._most if self._rate is None else min(max(self._rate // SLOT_RATE, 1), self._most)
