"""Hosts whose disks do not take the copies that they were ordered, in virtual time: others make them."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.library import Library
from interfiles.errors import NoSpace
from interfiles.placement.orders import MIN_REST_S
from interfiles.storage import part_layout
from tests.sim.fleet import Fleet, running_fleet
from tests.sim.test_replicas import content, holders, until_copies
from tests.storage.contents import Failing, path_of

ROOM = 1 << 20  # of the disk that is full


class FirstDisk:
    """That of the host which is ordered a copy first: it has room for so many bytes of replicas."""

    def __init__(self, room: int) -> None:
        self.host = ""
        self._left = room

    def is_full(self, descriptor: int, *arguments: object) -> bool:
        """Whether a call fails, by what it is told; what it writes is counted."""
        directory, _, place = path_of(descriptor).partition("/state/replicas/")
        host = Path(directory).name
        if not place.endswith(".part") or host != (self.host or host):
            return False
        self.host = host
        self._left -= sum(len(data) for data in arguments if isinstance(data, memoryview))
        return self._left <= 0


def left(directory: Path, host: str) -> list[Path]:
    """What a host has of copies, and of places for them."""
    return [place for where in ("replicas", "leftovers") for place in directory.glob(f"{host}/state/{where}/*")]


async def told(fleet: Fleet, kind: str) -> list[tuple[str, str, str]]:
    """Host, file and reason of each event of a kind."""
    events = (await fleet.admin.events(last=100)).events
    return [(event.host_name, event.file, event.reason) for event in events if event.kind == kind]


@pytest.mark.parametrize(("call", "room"), [("pwrite", ROOM), ("fsync", 0), ("fallocate", 0)])
async def test_a_copy_that_a_disk_does_not_take_is_made_elsewhere(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, call: str, room: int
) -> None:
    disk = FirstDisk(room)
    module = part_layout if call == "fallocate" else os
    Failing(monkeypatch)(call, errno.ENOSPC, when=disk.is_full, module=module)
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, [a, *_]):
        path = content(a)
        report, _ = await a.upload(path)
        await until_copies(a, report.id, 2)
        ((host, file_id, reason),) = await told(fleet, "failed")
        assert (host, file_id) == (disk.host, report.id)
        assert reason.endswith(" cannot be written: No space left on device; make room on that disk")
        (replica,) = holders(fleet, report.id)
        assert replica.read_bytes() == path.read_bytes()
        (other,) = {"b", "c"} - {disk.host}
        assert replica.is_relative_to(tmp_path / other)
        assert left(tmp_path, disk.host) == []
        more = [(await a.upload(content(a, f"more{seed}", seed=seed)))[0].id for seed in range(2, 6)]
        await trio.sleep(MIN_REST_S / 2)
        ordered = {(host, file_id) for host, file_id, _ in await told(fleet, "ordered")}
        assert ordered == {(disk.host, report.id)} | {(other, one) for one in (report.id, *more)}, "it rests"


async def test_a_copy_that_was_declined_and_cannot_be_removed_kept_others_from_being_made(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job store is on the full disk too: for ten minutes the copy counted as one on its way."""

    tries: list[float] = []

    async def full(*_: object, **__: object) -> None:
        tries.append(trio.current_time())
        raise NoSpace("the disk of the client's database is full")

    disk = FirstDisk(ROOM)
    Failing(monkeypatch)("pwrite", errno.ENOSPC, when=disk.is_full)
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, [a, *_]):
        report, _ = await a.upload(content(a))
        with monkeypatch.context() as patched:
            patched.setattr(Library, "remove", full)
            await until_copies(a, report.id, 2, within_s=10)
            await trio.sleep(MIN_REST_S / 2)
            assert left(tmp_path, disk.host)
            assert [host for host, _, _ in await told(fleet, "failed")] == [disk.host]
            assert 1 <= len(tries) <= 3, "it is tried once a minute"
        await trio.sleep(120)
        assert not left(tmp_path, disk.host)
        assert len(holders(fleet, report.id)) == 1
