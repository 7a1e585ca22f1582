"""Fleets of several zones in virtual time: what crosses between them, and that nothing waits for ever."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_fleet import download_all, got, slow, until

SIZE = 12_000_000


@pytest.fixture
def large(tmp_path: Path) -> Path:
    made = tmp_path / "original" / "large.bin"
    made.parent.mkdir(exist_ok=True)
    made.write_bytes(random.Random(1).randbytes(SIZE))
    return made


@asynccontextmanager
async def zones(directory: Path, **sizes: int) -> AsyncIterator[tuple[Fleet, list[Host]]]:
    """So many hosts a zone, in order."""
    async with running_fleet(directory, "") as (fleet, _):
        hosts = []
        for zone, size in sizes.items():
            for number in range(size):
                host = await fleet.add_host(f"{zone}{number}", zone=zone)
                fleet.network.set_link(host.ip, slow())
                hosts.append(host)
        yield fleet, hosts


def crossed(fleet: Fleet, hosts: list[Host], zone: str) -> int:
    """The bytes that all others have sent into a zone."""
    pairs = product(hosts, hosts)
    return sum(fleet.network.bytes_sent(a.ip, b.ip) for a, b in pairs if a.zone != zone == b.zone)


async def progress(host: Host) -> int:
    return sum(transfer.bytes_done for transfer in (await host.status()).transfers)


async def some(host: Host) -> bool:
    return await progress(host) > SIZE // 4


async def test_each_piece_crosses_into_a_zone_about_once(
    tmp_path: Path, large: Path, autojump_clock: MockClock
) -> None:
    async with zones(tmp_path, a=4, b=6, c=1) as (fleet, hosts):
        _, tracker = await hosts[0].upload(large)
        await download_all(hosts[1:], tracker)
        assert all(got(host, large) == large.read_bytes() for host in hosts[1:])
        assert crossed(fleet, hosts, "a") < 0.05 * SIZE, "it has a source of its own"
        assert SIZE < crossed(fleet, hosts, "b") < 1.3 * SIZE
        assert SIZE < crossed(fleet, hosts, "c") < 1.3 * SIZE


@pytest.mark.parametrize("silent", [False, True])
async def test_gateways_that_die_on_the_way_keep_nobody_waiting(
    silent: bool, tmp_path: Path, large: Path, autojump_clock: MockClock
) -> None:
    async with zones(tmp_path, a=1, b=6) as (fleet, [source, *others]):
        _, tracker = await source.upload(large)
        dying, living = others[:3], others[3:]
        async with trio.open_nursery() as nursery:
            for host in living:
                nursery.start_soon(host.download, tracker)
            for host in dying:
                await host.download(tracker, detach=True)
            await until(lambda: some(dying[0]))
            for host in dying:
                await fleet.crash(host, silent=silent)
        assert all(got(host, large) == large.read_bytes() for host in living)
        assert crossed(fleet, [source, *others], "b") < 2 * SIZE


async def test_without_a_master_the_other_gateways_do_what_fell_to_a_dead_one(
    tmp_path: Path, large: Path, autojump_clock: MockClock
) -> None:
    async with zones(tmp_path, a=1, b=3) as (fleet, [source, dying, *living]):
        _, tracker = await source.upload(large)
        async with trio.open_nursery() as nursery:
            for host in living:
                nursery.start_soon(host.download, tracker)
            await dying.download(tracker, detach=True)
            await until(lambda: some(dying))
            await fleet.crash_master()
            await fleet.crash(dying)
        assert all(got(host, large) == large.read_bytes() for host in living)


async def test_when_all_of_the_own_zone_leave_the_last_fetches_from_others(
    tmp_path: Path, large: Path, autojump_clock: MockClock
) -> None:
    async with zones(tmp_path, a=1, b=5) as (fleet, [source, last, *others]):
        _, tracker = await source.upload(large)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(last.download, tracker)
            for host in others:
                await host.download(tracker, detach=True)
            await until(lambda: some(last))
            for host in others:
                await fleet.crash(host)
        assert got(last, large) == large.read_bytes()


async def test_a_host_that_starts_in_another_zone_goes_on_there(
    tmp_path: Path, large: Path, autojump_clock: MockClock
) -> None:
    async with zones(tmp_path, a=2, b=3) as (fleet, [source, *others]):
        _, tracker = await source.upload(large)
        moved = others[-1]
        await moved.download(tracker, detach=True)
        await until(lambda: some(moved))
        await fleet.crash(moved)
        moved.zone = "a"
        await fleet.restart(moved)
        await download_all(others[:-1], tracker)
        await until(lambda: is_complete(moved))
        assert {host.name: host.zone for host in (await source.hosts()).hosts}[moved.name] == "a"
        for named, zone, why in (
            (None, "a", "one that names none stays where it was"),
            ("", "", "one that names the empty one leaves"),
            (None, "", "for good"),
        ):
            moved.zone = named
            await fleet.crash(moved)
            await fleet.restart(moved)
            assert (await moved.status()).zone == zone, why


async def is_complete(host: Host) -> bool:
    return (host.directory / "got" / "large.bin").exists()
