"""Who waits at the gate while its limit changes, in virtual time."""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from daemons.client.rate_gate import Flow, RateGate
from interfiles.geometry import MIB


class Flows:
    """Flows that always have more to pass."""

    def __init__(self, gate: RateGate, count: int) -> None:
        self.gate = gate
        self.names = [f"flow {number}" for number in range(count)]
        self.passed: list[tuple[float, str, int]] = []

    async def run(self, name: str) -> None:
        flow = Flow(self.gate, name, lambda: "normal")
        while True:
            count = await flow.next_part(MIB)
            self.passed.append((trio.current_time(), name, count))
            await trio.sleep(0.001)

    def between(self, start: float, end: float) -> Counter[str]:
        counted = Counter[str]()
        for at, name, count in self.passed:
            counted[name] += count if start <= at < end else 0
        return +counted


@pytest.mark.parametrize("before", [None, 100_000_000])
@pytest.mark.parametrize("rate", [100_000, 1_000_000])
async def test_another_limit_holds_at_once_and_everybody_comes_round_soon(
    before: int | None, rate: int, autojump_clock: MockClock
) -> None:
    gate = RateGate(before)
    flows = Flows(gate, 8)
    async with trio.open_nursery() as nursery:
        for name in flows.names:
            nursery.start_soon(flows.run, name)
        await trio.sleep(0.995)
        changed_at = trio.current_time()
        gate.change(rate)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    soon = flows.between(changed_at, changed_at + 0.5)
    assert set(soon) == set(flows.names), "nobody seems to stall"
    assert sum(soon.values()) == pytest.approx(rate * 0.5, rel=0.2)
    assert sum(flows.between(changed_at, changed_at + 10).values()) == pytest.approx(rate * 10, rel=0.02)


async def test_what_was_received_is_paid_for_in_full_whatever_the_limit_becomes(autojump_clock: MockClock) -> None:
    gate = RateGate(100_000_000)
    flow = Flow(gate, "flow", lambda: "normal")
    gate.change(100_000)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.pay, 1_000_000)
        await trio.sleep(5)
        gate.change(50_000)
    assert trio.current_time() - began == pytest.approx(15, rel=0.02)
    assert gate.passed == 1_000_000
