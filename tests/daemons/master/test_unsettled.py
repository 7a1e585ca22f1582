"""What a sweep finds: the same as a look at every file with a plan's eyes, which takes longer."""

from collections.abc import Callable, Sequence
from itertools import product
from typing import cast

import trio

from daemons.master.unsettled import Unsettled
from interfiles.placement.doubts import Doubt, Doubts
from interfiles.placement.fleet_view import FleetView
from interfiles.placement.orders import Orders
from interfiles.placement.registry import Registry
from interfiles.placement.standing import Policy, standing
from interfiles.storage.catalogue import Catalogue, Wanted
from interfiles.wire import master_messages as m

HOSTS = ("live", "too", "draining", "gone")
# What a host has of a file, and whether by order; None: nothing.
HELD: tuple[tuple[m.HoldingState, bool] | None, ...] = (
    None,
    ("complete", False),
    ("complete", True),
    ("fetching", True),
    ("paused", False),
    ("damaged", True),
)


class Files:
    """A catalogue of what is given."""

    def __init__(self, files: Sequence[Wanted]) -> None:
        self.files = sorted(files)

    def wanted_after(self, file_id: bytes, count: int) -> list[Wanted]:
        return [wanted for wanted in self.files if wanted.file_id > file_id][:count]

    def wanted(self, file_ids: Sequence[bytes]) -> list[Wanted]:
        return [wanted for wanted in self.files if wanted.file_id in file_ids]


async def stored(function: Callable[..., list[Wanted]], *args: object) -> list[Wanted]:
    await trio.lowlevel.checkpoint()
    return function(*args)


async def test_it_keeps_what_a_plan_would_have_something_to_do_for() -> None:
    registry, orders, doubts = Registry(heartbeat_s=10, grace_s=30), Orders(), Doubts()
    view, now = FleetView(registry, orders, doubts, Policy()), trio.current_time()
    kinds = list(product((1, 2, 3), (False, True), list(product(HELD, HELD, HELD[:3], HELD[:3]))))
    files = [Wanted(number.to_bytes(32), 100, 1, copies, "x") for number, (copies, *_) in enumerate(kinds, 1)]
    for number, host_id in enumerate(HOSTS):
        registry.admit(host_id, host_id, host_id, "", heard_at=now - 100, draining=host_id == "draining")
        registry.register(host_id, host_id, host_id, "", now - 100)
        has = [(file.file_id, held[number]) for file, (*_, held) in zip(files, kinds, strict=True)]
        announced = [m.Holding(file_id, one[0], 1, 0, 0, "", one[1]) for file_id, one in has if one is not None]
        registry.apply(host_id, announced, replace=True)
    registry.lose("gone")
    for file, (_, is_doubted, _) in zip(files, kinds, strict=True):
        if is_doubted:
            doubts.note(Doubt(file.file_id, "live", 0), now)
    view.refresh(now)
    unsettled = Unsettled(cast("Catalogue", Files(files)), stored, registry, view, orders, doubts)
    found = await unsettled.go_on_sweeping(None)
    kept = {file.file_id for file in files if file.file_id in unsettled}
    to_do = {
        file.file_id
        for file in files
        if registry.held(file.file_id)
        and not standing(view.file(file.file_id, 100, file.replicas, now), view.places.hosts).is_settled
    }
    assert kept == set(found) == to_do
    assert len(files) > len(to_do) > 0


async def test_what_is_known_of_a_file_is_what_the_catalogue_says_though_it_is_as_wanted_by_then() -> None:
    registry, orders, doubts = Registry(heartbeat_s=10, grace_s=30), Orders(), Doubts()
    view, now = FleetView(registry, orders, doubts, Policy()), trio.current_time()
    before = Wanted(bytes(32), 100, 1, 3, "x")
    for host_id in HOSTS[:2]:
        registry.admit(host_id, host_id, host_id, "", heard_at=now)
        registry.register(host_id, host_id, host_id, "", now)
        registry.apply(host_id, [m.Holding(before.file_id, "complete", 1, 0, 0, "", False)], replace=True)
    view.refresh(now)
    catalogue = Files([before])
    unsettled = Unsettled(cast("Catalogue", catalogue), stored, registry, view, orders, doubts)
    await unsettled.look_up([before.file_id])
    assert unsettled.get(before.file_id) == before
    catalogue.files = [before._replace(replicas=2)]  # fewer are wanted: no third one may be ordered
    await unsettled.look_up([before.file_id])
    assert unsettled.get(before.file_id) == catalogue.files[0]
