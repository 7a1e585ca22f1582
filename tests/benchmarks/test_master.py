"""The benchmark of the master ends, whatever becomes of the master."""

import sys
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from benchmarks import master
from benchmarks.reconnect import Master, Seeded


class Hanging:
    """A run that gets stuck in its heartbeats, with tasks in its nursery."""

    def __init__(self, _asked: master.Asked, _seeded: Seeded, _master: Master, nursery: trio.Nursery) -> None:
        nursery.start_soon(trio.sleep_forever)

    async def connect(self) -> None:
        await trio.sleep(60)

    async def beat(self) -> None:
        await trio.sleep_forever()

    hand_out = look_up = hold_more = beat


async def test_a_measurement_that_hangs_ends_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(master, "Run", Hanging)
    asked, began = master.Asked(150, 7000, 2.0, 5, None), trio.current_time()
    with pytest.raises(SystemExit, match=r"^The measurement was not over after 20 min; there are no figures\.$"):
        await master.measure(asked, cast("Seeded", None), cast("Master", None))
    assert trio.current_time() - began == 1200


def test_as_many_handouts_as_a_99th_percentile_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["master"])
    monkeypatch.setattr(master, "raise_file_limit", lambda: 10_000)
    assert master.arguments()[0].asks == 300
