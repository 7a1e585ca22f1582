"""Waiting for copies while the master itself waits for hosts, in virtual time with real daemons."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import TimedOut
from tests.sim.fleet import running_fleet
from tests.sim.test_replica_commands import wait
from tests.sim.test_replicas import content


async def test_a_wait_outlasts_hosts_that_come_back_later_than_others_after_the_master_has_restarted(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3, grace_s=60) as (fleet, [a, b, c_]):
        await a.upload(content(a))
        await wait(a, "weights")
        await fleet.crash(b)
        await fleet.crash(c_)
        await fleet.crash_master()
        await fleet.start_master()
        await trio.sleep(5)
        with pytest.raises(TimedOut, match=r"1 of 3 copies .* waits for hosts that were there before"):
            await wait(a, "weights", timeout_s=10)
        await fleet.restart(b)
        await fleet.restart(c_)
        assert (await wait(a, "weights")).complete == 3
