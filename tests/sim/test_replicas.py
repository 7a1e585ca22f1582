"""Replicas in virtual time with real daemons: the wanted number of copies comes about, and comes about again."""

import random
import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

import daemons.client.replicas as replicas_module
from interfiles.errors import NoSpace
from interfiles.wire import control_messages as c
from interfiles.wire.reports import FileListReport
from tests.sim.fleet import Fleet, Host, running_fleet

SIZE = 3 << 20


def content(host: Host, name: str = "weights", *, seed: int = 1, size: int = SIZE) -> Path:
    path = host.directory / name
    path.write_bytes(random.Random(seed).randbytes(size))
    return path


async def until_copies(host: Host, file_id: str, count: int, *, within_s: float = 60.0) -> None:
    """Wait until so many copies count, and nothing more is on its way."""
    with trio.fail_after(within_s):
        while True:
            replicas = (await host.stat(file_id)).replicas
            if replicas.complete == count and not replicas.under_way:
                return
            await trio.sleep(0.5)


def holders(fleet: Fleet, file_id: str) -> list[Path]:
    """The replicas on all hosts' disks."""
    return sorted(fleet.directory.glob(f"*/state/replicas/{file_id}/weights"))


async def test_an_upload_is_copied_to_as_many_hosts_as_are_wanted(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d e", replicas=3) as (fleet, hosts):
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 3, within_s=10)
        copies = holders(fleet, report.id)
        assert len(copies) == 2
        assert all(copy.read_bytes() == path.read_bytes() for copy in copies)
        await trio.sleep(300)
        assert len(holders(fleet, report.id)) == 2, "nothing more is copied"


async def test_a_copy_on_a_host_that_is_gone_is_made_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d", replicas=3, grace_s=60) as (fleet, hosts):
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 3, within_s=10)
        (lost, _) = [host for host in hosts if holders(fleet, report.id)[0].is_relative_to(host.directory)] + [None]
        assert lost is not None
        await fleet.crash(lost)
        await trio.sleep(50)
        assert len(holders(fleet, report.id)) == 2, "within the grace time nothing moves"
        await trio.sleep(20)
        await until_copies(hosts[0], report.id, 3, within_s=10)
        assert len(holders(fleet, report.id)) == 3


@pytest.mark.parametrize("replicas", [1, 2])
async def test_no_more_than_wanted(replicas: int, tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=replicas) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await trio.sleep(30)
        assert len(holders(fleet, report.id)) == replicas - 1


async def test_a_file_that_is_called_by_the_id_of_another_keeps_neither_from_being_copied(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a", replicas=2) as (fleet, [a]):
        report, _ = await a.upload(content(a))
        decoy, _ = await a.upload(content(a, report.id, seed=2, size=1000))
        await fleet.add_host("b")
        await until_copies(a, report.id, 2)
        await until_copies(a, decoy.id, 2)


async def test_a_host_whose_disk_is_full_is_shown_on_every_host_until_it_holds_a_copy(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_place = replicas_module._make_place

    def fail(*_: object) -> None:
        raise NoSpace("the disk of /srv is full")

    async with running_fleet(tmp_path, "a b", replicas=2) as (fleet, [a, b]):
        monkeypatch.setattr(replicas_module, "_make_place", fail)
        report, _ = await a.upload(content(a))

        async def shown(host: Host) -> list[str]:
            """What `hosts` says of b, and `ls` and `stat` of the file."""
            (note,) = [row.note for row in (await host.hosts()).hosts if row.name == "b"]
            (file,) = (await host.ask(c.ListFiles(0), FileListReport)).files
            return [note, file.why_not, (await host.stat(report.id)).replicas.why_not]

        await trio.sleep(70)  # it has rested for a minute between
        why = "1 host with room failed lately; b is tried again in"
        for host in (a, b):
            failed, *waits = await shown(host)
            assert re.fullmatch(r"it failed 2 times and is given no copies for 1 min 5\d s", failed)
            assert waits == [f"{why} {failed.rpartition('for ')[2]}"] * 2
        failures = [one for one in (await fleet.admin.events(last=256)).events if one.kind == "failed"]
        assert [(one.host_name, one.reason) for one in failures] == [("b", "the disk of /srv is full")] * 2

        monkeypatch.setattr(replicas_module, "_make_place", make_place)
        await until_copies(a, report.id, 2, within_s=120)
        assert await shown(a) == await shown(b) == ["", "", ""]
