"""Where the daemon's bytes pass one way: all its sessions wait here while there is a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from daemons.client.notice import Notice
from interfiles.errors import NotPermitted, Refused
from interfiles.priority import WEIGHTS
from interfiles.swarm.rate_limit import LEAST, MIN_RATE, RateLimit
from interfiles.units import format_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemons.client.callers import Caller
    from interfiles.priority import Priority
    from interfiles.swarm.rate_limit import Turn
    from interfiles.wire.control_messages import Limit


class RateGate:
    """A `RateLimit` on trio's clock. `changed`: told when the rate is another."""

    def __init__(self, rate: int | None) -> None:
        self.changed = Notice()
        self._limit = RateLimit(rate, trio.current_time())
        self._bells: dict[Turn, trio.Event] = {}

    @property
    def rate(self) -> int | None:
        """Bytes a second; None: no limit."""
        return self._limit.rate

    @property
    def gives_way(self) -> bool:
        """Whether others are to have nearly all of the line now."""
        return False

    @property
    def passed(self) -> int:
        """Bytes that have passed while there was a limit."""
        return self._limit.passed

    def change(self, rate: int | None) -> None:
        """Keep to another rate from now on, those who wait included."""
        self._limit.change(rate, trio.current_time())
        for bell in self._bells.values():
            bell.set()
        self.changed.tell()

    def part_bytes(self, wanted: int) -> int:
        """How much of `wanted` to pass at once, so that others come round soon."""
        return self._limit.part_bytes(wanted)

    async def wait_for(self, flow: str, wanted: int, weight: float) -> int:
        """Wait until some of `wanted` bytes may pass; return how many, at least one.

        It is no checkpoint where they may at once.

        Cancellation:
          They did not pass.
        """
        turn = self._limit.join(flow, self.part_bytes(wanted), weight)
        try:
            while not self._limit.take(turn, now := trio.current_time()):
                bell = self._bells[turn] = trio.Event()
                with trio.move_on_after(self._limit.wait_s(turn, now)):
                    await bell.wait()
                if self._limit.is_ended(turn):
                    del self._bells[turn]
                    turn = self._limit.join(flow, self.part_bytes(wanted), weight)
            return turn.count
        except BaseException:
            self._limit.leave(turn)
            raise
        finally:
            self._bells.pop(turn, None)
            if (first := self._limit.first()) in self._bells and first is not None:
                self._bells[first].set()

    def forget(self, flow: str) -> None:
        """The flow is over."""
        self._limit.forget(flow)


class SpareGate(RateGate):
    """A gate before another: what passes it has waited at both."""

    def __init__(self, beyond: RateGate) -> None:
        super().__init__(None)
        self._beyond = beyond
        self._known = beyond.rate

    @property
    def rate(self) -> int | None:
        rates = [rate for rate in (self._limit.rate, self._beyond.rate) if rate is not None]
        return min(rates, default=None)

    @property
    def gives_way(self) -> bool:
        return self._limit.rate is not None

    def change(self, rate: int | None) -> None:
        """Keep to another rate of its own from now on; to be called now and then, for the other gate's changes too."""
        if (rate, self._beyond.rate) != (self._limit.rate, self._known):
            self._known = self._beyond.rate
            super().change(rate)

    def part_bytes(self, wanted: int) -> int:
        return min(super().part_bytes(wanted), self._beyond.part_bytes(wanted))

    async def wait_for(self, flow: str, wanted: int, weight: float) -> int:
        count = left = await super().wait_for(flow, wanted, weight)
        while left:
            left -= await self._beyond.wait_for(flow, left, weight)
        return count

    def forget(self, flow: str) -> None:
        super().forget(flow)
        self._beyond.forget(flow)


@dataclass(frozen=True, slots=True)
class Limits:
    """The daemon's two gates, for content bytes to and from peers."""

    up: RateGate
    down: RateGate

    def change(self, caller: Caller, wanted: Limit) -> None:
        """Keep to what a caller wants from now on; who wants nothing may only look.

        Raises:
          NotPermitted: the caller is neither the daemon's own user nor root.
          Refused: a limit is too low.
        """
        changes = [(gate, rate) for gate, rate in ((self.up, wanted.up), (self.down, wanted.down)) if rate is not None]
        if changes and caller.owner is not None:
            raise NotPermitted(
                "the limits are for all who use this daemon; only its own user and root may change them, everybody may "
                "look with interfiles limit"
            )
        for _, rate in changes:
            if 0 < rate < MIN_RATE:
                raise Refused(f"a limit of {format_rate(rate)} is too low; {LEAST}")
        for gate, rate in changes:
            gate.change(rate or None)


class Flow:
    """One flow through a gate. Implements `Pace`.

    `priority` is asked each time; `on_pass` is told of each part that may pass.
    """

    def __init__(
        self,
        gate: RateGate,
        name: str,
        priority: Callable[[], Priority],
        on_pass: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.gate = gate
        self.priority = priority
        self._name = name
        self._on_pass = on_pass

    @property
    def is_limited(self) -> bool:
        return self.gate.rate is not None

    async def next_part(self, wanted: int) -> int:
        """Wait until some of `wanted` bytes may pass; return how many, at least one."""
        count = await self._wait_for(wanted)
        self._on_pass(count)
        return count

    async def pay(self, count: int) -> None:
        """Wait for as long as `count` bytes, which have passed, should have taken."""
        while count:
            count -= await self._wait_for(count)

    def close(self) -> None:
        """The flow is over."""
        self.gate.forget(self._name)

    async def _wait_for(self, wanted: int) -> int:
        return await self.gate.wait_for(self._name, wanted, WEIGHTS[self.priority()])
