"""What is left over of replicas that were released, and how long."""

import os
from pathlib import Path

import trio
from trio.testing import MockClock

from daemons.client.replicas import CLEAR_S
from interfiles.storage.leftovers import leftovers_in
from interfiles.units import DAY
from tests.daemons.client.setting import id_of, until
from tests.daemons.client.world import World

SIZE = 1000
WEEK_S = 7.0 * DAY


def leave_over(world: World, name: str, *, age_s: float) -> None:
    place = world.daemon.state / "leftovers" / f"{id_of(name) * 2}-{SIZE}"
    place.mkdir(parents=True)
    (place / name).write_bytes(bytes(SIZE))
    since = world.daemon.now - age_s
    os.utime(place, (since, since))


def left(world: World) -> list[str]:
    """Names of what is left over, the oldest first."""
    return [next(found.path.iterdir()).name for found in leftovers_in(world.daemon.state / "leftovers")]


async def test_leftovers_over_a_lowered_quota_stayed_until_the_room_was_needed(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    for age, name in enumerate("dcba"):
        leave_over(world, name, age_s=age * CLEAR_S)
    world.daemon.quota = 3 * SIZE
    await world.daemon.start()
    await until(lambda: left(world) == ["b", "c", "d"])
    leave_over(world, "e", age_s=0)
    await until(lambda: left(world) == ["c", "d", "e"], within_s=CLEAR_S + 1, every_s=60)


async def test_what_has_been_left_over_for_a_week_goes_at_the_next_look(
    world: World, autojump_clock: MockClock
) -> None:
    leave_over(world, "old", age_s=WEEK_S - CLEAR_S / 2)
    leave_over(world, "young", age_s=WEEK_S - 1.5 * CLEAR_S)
    await trio.sleep(CLEAR_S - 60)
    assert left(world) == ["old", "young"]
    await until(lambda: left(world) == ["young"], within_s=120, every_s=1)
    await trio.sleep(CLEAR_S - 120)
    assert left(world) == ["young"]
    await until(lambda: left(world) == [], within_s=240, every_s=1)
