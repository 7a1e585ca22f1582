"""Joining a real master: tokens of every kind, crowds, and hosts that come back after they were removed."""

import random
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.joining import join
from daemons.master.enrolment import ENROL_EACH
from interfiles.errors import AlreadyJoined, InterFilesError, InvalidToken, Refused, UntrustedPeer
from interfiles.identity.token import JoinToken
from interfiles.units import HOUR
from tests.conftest import LogRecords
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_fleet import complete_copies, got, until


async def fails(fleet: Fleet, token: JoinToken, name: str = "newcomer") -> InterFilesError:
    """Why a new host cannot join by this token."""
    nursery = fleet._nursery
    caught: list[InterFilesError] = []
    async with trio.open_nursery() as own:
        fleet._nursery = own
        try:
            await fleet.add_host(name, token=token)
        except InterFilesError as e:
            caught.append(e)
        finally:
            fleet._nursery = nursery
            own.cancel_scope.cancel()
    (error,) = caught
    return error


async def is_connected(host: Host) -> bool:
    return (await host.status()).master_state == "connected"


async def test_one_token_joins_a_host_and_who_used_it_is_written_down(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, hosts):
        for host in hosts:
            await until(lambda: is_connected(host))  # noqa: B023
        (token,) = await fleet.admin.tokens()
        assert (token.state, token.used) == ("good", 2)
        assert [(use.name, use.address) for use in token.joined] == [("b", "10.0.0.2"), ("a", "10.0.0.1")]


async def test_a_token_for_one_host_names_it_and_is_used_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "") as (fleet, _):
        token = await fleet.make_token(name="rack-1")
        host = await fleet.add_host("whatever", token=token)
        assert (await host.status()).name == "rack-1"
        error = await fails(fleet, token)
        assert isinstance(error, InvalidToken)
        assert "used" in str(error)


async def test_a_token_used_by_two_at_once_joins_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "") as (fleet, _):
        token = await fleet.make_token(uses=1)
        results: list[str] = []

        async def try_to_join(number: int) -> None:
            try:
                await join(
                    fleet.network.host(f"10.0.2.{number}"),
                    token,
                    name="twin",
                    zone="",
                    rng=random.Random(number),
                    wall_clock=lambda: fleet.now,
                )
                results.append("joined")
            except InvalidToken:
                results.append("refused")

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(try_to_join, number)
        assert sorted(results) == ["joined"] + ["refused"] * 7
        host = await fleet.add_host("a")
        await until(lambda: is_connected(host))
        assert sorted(row.name for row in (await host.hosts()).hosts) == ["a", "twin"]


@pytest.mark.parametrize("why", ["expired", "revoked", "unknown", "wrong secret"])
async def test_a_token_that_is_no_good(tmp_path: Path, why: str, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a") as (fleet, [a]):
        token = await fleet.make_token(ttl_s=HOUR)
        if why == "expired":
            fleet.clock_ahead_s += HOUR + 1
        elif why == "revoked":
            await fleet.admin.revoke_token(token.token_id.hex())
        elif why == "unknown":
            token = replace(token, token_id=bytes(8))
        else:
            token = replace(token, secret=bytes(16))
        error = await fails(fleet, token)
        assert isinstance(error, InvalidToken)
        assert "token" in str(error)
        assert len((await a.hosts()).hosts) == 1


async def test_a_token_of_another_fleet(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a") as (fleet, [a]):
        error = await fails(fleet, replace(fleet.token, authority=bytes(32)))
        assert isinstance(error, UntrustedPeer)
        assert "is not the master that made this token" in str(error)
        assert len((await a.hosts()).hosts) == 1


async def test_the_first_of_several_masters_is_down(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "") as (fleet, _):
        token = replace(fleet.token, masters=("10.0.0.253:4850", *fleet.token.masters))
        host = await fleet.add_host("a", token=token)
        await until(lambda: is_connected(host))
        await fleet.crash(host)
        await fleet.restart(host)
        await until(lambda: is_connected(host))


async def test_more_hosts_than_may_join_at_once_all_do_in_the_end(
    tmp_path: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "") as (fleet, _), trio.open_nursery() as nursery:
        joined: list[float] = []

        async def newcomer(number: int) -> None:
            network = fleet.network.host("10.0.3.1")  # behind one address
            rng = random.Random(number)
            await join(network, fleet.token, name="many", zone="", rng=rng, wall_clock=lambda: fleet.now)
            joined.append(trio.current_time())

        for number in range(ENROL_EACH.burst + 50):
            nursery.start_soon(newcomer, number)
        await until(lambda: len(joined) == ENROL_EACH.burst + 50)
        assert joined[0] < 1
        assert joined[-1] < 60
        waited = [record for record in log_records.records if record["event"] == "cannot join yet"]
        assert waited
        assert all("try again in" in record["reason"] for record in waited)


async def test_a_member_joins_no_second_time(tmp_path: Path, content: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a") as (fleet, [a]):
        await fleet.crash(a)
        nursery = fleet._nursery
        with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012 - the daemon ends its nursery
            async with trio.open_nursery() as own:
                fleet._nursery = own
                await fleet.restart(a, await fleet.make_token())
        fleet._nursery = nursery
        assert caught.group_contains(AlreadyJoined, match="has joined fleet")
        await fleet.restart(a)
        await until(lambda: is_connected(a))


async def test_a_removed_host_joins_again_with_its_files_and_its_name(
    tmp_path: Path, content: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        report, tracker = await a.upload(content)
        (before,) = [row.host for row in (await b.hosts()).hosts if row.name == "a"]
        await fleet.admin.remove_host("a")
        await until(lambda: _knows_that_it_was_removed(a))
        await fleet.crash(a)
        await fleet.restart(a, await fleet.make_token())
        await until(lambda: is_connected(a))
        (after,) = [row.host for row in (await b.hosts()).hosts if row.name == "a"]
        assert after != before, "whoever has the old key is nobody"
        await b.download(tracker)
        assert got(b, content) == content.read_bytes()
        await until(lambda: complete_copies(b, report.id, 2))


async def _knows_that_it_was_removed(host: Host) -> bool:
    return "removed" in (await host.status()).master_note


async def test_its_name_may_be_anothers_by_then(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        await fleet.admin.remove_host("a")
        await fleet.crash(a)
        token = await fleet.make_token(name="a")
        await fleet.add_host("another", token=token)
        await fleet.restart(a, await fleet.make_token())
        await until(lambda: is_connected(a))
        assert sorted(row.name for row in (await b.hosts()).hosts) == ["a", "a-2", "b"]
        with pytest.raises(Refused, match="belongs to the fleet already"):
            raise await fails(fleet, await fleet.make_token(name="a"), "third")
