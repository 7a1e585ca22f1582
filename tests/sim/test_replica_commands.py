"""What people do about copies, in virtual time with real daemons: numbers, waiting, expiry, draining, removing."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import TimedOut, UnknownFile
from interfiles.transport.memory_links import Link
from interfiles.wire import control_messages as c
from interfiles.wire.admin_reports import HostDrainReport
from interfiles.wire.reports import FileListReport, RemoveReport, ReplicasReport
from tests.sim.fleet import Fleet, Host, running_fleet
from tests.sim.test_replicas import SIZE, content, holders, until_copies


async def set_replicas(host: Host, query: str, count: int) -> ReplicasReport:
    return await host.ask(c.SetReplicas(query, count), ReplicasReport)


async def wait(host: Host, query: str, count: int | None = None, timeout_s: float | None = 60.0) -> ReplicasReport:
    return await host.ask(c.WaitReplicas(query, count, timeout_s), ReplicasReport)


async def until_drained(fleet: Fleet, host: Host, *, within_s: float = 60.0) -> list[HostDrainReport]:
    """Drain a host until it can be switched off; what was told meanwhile."""
    told = [await fleet.admin.drain_host(host.name)]
    with trio.fail_after(within_s):
        while told[-1].to_move != 0:
            await trio.sleep(1)
            told.append(await fleet.admin.drain_host(told[-1].host, only_look=True))
    return told


async def told_of_drains(fleet: Fleet, name: str) -> list[tuple[str, str]]:
    """What the events say of a host's drains since the master started, with their reasons."""
    events = (await fleet.admin.events(last=10_000)).events
    return [(event.kind, event.reason) for event in events if event.host_name == name and "drain" in event.kind]


# Numbers


async def test_another_number_of_copies_comes_about(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d", replicas=1) as (fleet, hosts):
        report, tracker = await hosts[0].upload(content(hosts[0]))
        assert (report.replicas_wanted, report.hosts) == (1, 4)
        told = await set_replicas(hosts[3], "weights", 3)
        assert (told.name, told.replicas_wanted, told.hosts) == ("weights", 3, 4)
        assert (await wait(hosts[2], report.id)).complete == 3
        assert len(holders(fleet, report.id)) == 2
        more = await hosts[1].ask(c.SetReplicas("", 9), ReplicasReport, content=tracker)
        assert (more.replicas_wanted, more.hosts) == (9, 4)
        with pytest.raises(UnknownFile):
            await set_replicas(hosts[0], "nothing", 2)


async def test_waiting_for_copies_ends_with_as_many_as_there_are_hosts_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=3) as (_, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        assert (report.replicas_wanted, report.hosts) == (3, 2)
        found = await wait(hosts[1], report.id)
        assert (found.complete, found.hosts, found.replicas_wanted) == (2, 2, 3)
        began = trio.current_time()
        why = r"no other host could hold one \(2 live hosts, all with some of it or set against it\)"
        said = rf"^weights has 2 of 3 copies after 10 s: {why}$"
        with pytest.raises(TimedOut, match=said):
            await wait(hosts[0], report.id, 3, 10.0)
        assert trio.current_time() - began == pytest.approx(10, abs=0.1)
        await set_replicas(hosts[0], report.id, 2)
        with pytest.raises(TimedOut, match="only 2 copies are wanted; `interfiles replicas set` changes that"):
            await wait(hosts[0], report.id, 3, 5.0)


async def test_waiting_goes_on_while_the_master_is_away(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        await fleet.crash_master()
        report, _ = await hosts[0].upload(content(hosts[0]))
        assert (report.published, report.hosts) == (False, None)
        for query in (report.id, "weights"):
            said = (
                r"nobody could say within 5 s how many copies of weights there are: the master at .* is not reachable"
            )
            with pytest.raises(TimedOut, match=said):
                await wait(hosts[0], query, None, 5.0)
        with pytest.raises(TimedOut, match="this host does not know 'weights', and the master at"):
            await wait(hosts[1], "weights", None, 5.0)
        found = list[ReplicasReport]()
        async with trio.open_nursery() as nursery:

            async def wait_long() -> None:
                found.append(await wait(hosts[0], report.id, None, None))

            nursery.start_soon(wait_long)
            await trio.sleep(100)
            assert not found
            await fleet.start_master()
        assert found[0].complete == 2


async def test_a_file_that_is_removed_is_not_waited_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b", replicas=1) as (_, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        async with trio.open_nursery() as nursery:

            async def remove() -> None:
                await trio.sleep(10)
                await hosts[0].ask(c.Remove(report.id, False, False), RemoveReport)

            nursery.start_soon(remove)
            with pytest.raises(UnknownFile):
                await wait(hosts[1], report.id, 2, None)


# Expiry


async def until_forgotten(hosts: list[Host]) -> None:
    """Wait until no host has anything."""
    with trio.fail_after(60):
        for host in hosts:
            while True:
                if not (await host.status()).held:
                    break
                await trio.sleep(1)


async def test_an_upload_that_expires_leaves_the_fleet_and_stays_where_people_have_it(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        path = content(hosts[0])
        report, tracker = await hosts[0].upload(path, expire_s=600.0)
        expires_at = (await hosts[1].stat(report.id)).expires_at
        assert expires_at == report.expires_at
        assert 590 < expires_at - fleet.now <= 601
        await hosts[2].download(tracker)
        listed = (await hosts[1].ask(c.ListFiles(0), FileListReport)).files
        assert [file.expires_at for file in listed] == [expires_at]
        await hosts[0].upload(path)  # this one says nothing of it
        assert (await hosts[1].stat(report.id)).expires_at == expires_at
        await trio.sleep(550)
        assert (await hosts[1].stat(report.id)).replicas.complete == 2
        await trio.sleep(60)
        await until_forgotten(hosts)
        assert (await hosts[1].ask(c.ListFiles(0), FileListReport)).files == []
        assert holders(fleet, report.id) == []
        assert path.stat().st_size == (hosts[2].directory / "got/weights").stat().st_size == SIZE


async def test_another_upload_of_what_expires_did_not_say_that_it_does(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=1) as (_, hosts):
        first, _ = await hosts[0].upload(content(hosts[0]), expire_s=600.0)
        assert first.expires_at
        for host in hosts:
            again, _ = await host.upload(content(host))
            assert (again.id, again.expires_at) == (first.id, first.expires_at)


async def test_when_an_upload_expires_is_kept_while_the_master_is_away(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=1) as (fleet, hosts):
        await fleet.crash_master()
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path, expire_s=3600.0, replicas=2)
        await hosts[0].upload(path)
        await fleet.crash(hosts[0])
        await fleet.restart(hosts[0])
        await fleet.start_master()
        found = await wait(hosts[1], "weights", 2)
        assert found.replicas_wanted == 2, "the later upload, which named no number, has lost nothing either"
        assert (await hosts[1].stat("weights")).expires_at == report.expires_at


# Draining


async def test_a_host_is_drained_and_undrained(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c d", replicas=2) as (fleet, hosts):
        for number in range(5):
            await hosts[0].upload(content(hosts[0], f"file{number}", seed=number))
        await trio.sleep(30)
        told = await until_drained(fleet, hosts[0])
        assert {(one.state, one.draining, one.why_not) for one in told} == {("draining", True, "")}
        begun, done = ("draining", "by hand"), ("drained", "it can be switched off")
        assert (await told_of_drains(fleet, "a")) == [begun, done]
        rows = {row.name: row for row in (await hosts[1].hosts()).hosts}
        assert (rows["a"].state, rows["a"].to_move, rows["b"].to_move) == ("draining", 0, None)
        await fleet.crash(hosts[0])
        for number in range(5):
            on_others = [host for host in (await hosts[1].stat(f"file{number}")).hosts if host.name != "a"]
            assert [host.state for host in on_others] == ["complete", "complete"]
        await fleet.restart(hosts[0])
        await trio.sleep(5)
        ended = await fleet.admin.undrain_host("a")
        assert (ended.draining, ended.to_move) == (False, None)
        again = ("draining", f"connected from {hosts[0].ip}:4851")  # it registered while it drained
        assert (await told_of_drains(fleet, "a")) == [begun, done, again, ("undrained", "by hand")]
        looked = await fleet.admin.drain_host("a", only_look=True)
        assert (looked.draining, looked.to_move) == (False, None), "looking begins nothing"


async def test_how_far_the_drain_of_a_large_file_is_and_what_is_on_too_few_hosts_then(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=1) as (fleet, hosts):
        await hosts[0].upload(content(hosts[0], size=10 * SIZE))
        await hosts[0].upload(content(hosts[0], "both", seed=2), replicas=2)
        await trio.sleep(30)
        fleet.network.set_link(hosts[0].ip, Link(uplink_bytes_per_s=SIZE / 10))
        told = await until_drained(fleet, hosts[0], within_s=300)
        left = [one.left_bytes for one in told if one.to_move]
        assert left == sorted(left, reverse=True)
        assert 10 * SIZE >= left[1] > left[len(left) // 2] > left[-1]
        assert (told[-1].left_bytes, told[-1].short) == (0, 1)
        done = ("drained", "it can be switched off; 1 file with fewer copies than wanted")
        assert (await told_of_drains(fleet, "a")) == [("draining", "by hand"), done]


async def test_a_drain_goes_on_when_the_master_is_restarted_and_its_end_is_told_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=1) as (fleet, hosts):
        files = {(await hosts[0].upload(content(hosts[0], f"file{n}", seed=n)))[0].id for n in range(10)}
        fleet.network.set_link(hosts[0].ip, Link(uplink_bytes_per_s=SIZE / 10))
        report = await fleet.admin.drain_host("a")
        with trio.fail_after(60):
            while report.to_move is None or report.to_move > 6:  # of these 4 are under way
                await trio.sleep(1)
                report = await fleet.admin.drain_host("a", only_look=True)
        await fleet.crash_master()
        await trio.sleep(3)
        await fleet.start_master()
        found = [await fleet.admin.drain_host("a", only_look=True)]
        with trio.fail_after(120):
            while found[-1].to_move != 0:
                await trio.sleep(1)
                found.append(await fleet.admin.drain_host("a", only_look=True))
        assert all(one.draining for one in found), "nobody had to begin it again"
        assert {path.parent.name for path in fleet.directory.glob("[bc]/state/replicas/*/file*")} == files
        await trio.sleep(300)
        assert "ordered" in [event.kind for event in (await fleet.admin.events(last=10_000)).events]
        begun = ("draining", f"connected from {hosts[0].ip}:4851")
        assert (await told_of_drains(fleet, "a")) == [begun, ("drained", "it can be switched off")]


async def test_what_is_on_its_way_to_a_host_that_drains_goes_elsewhere_at_once(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        fleet.network.set_link(hosts[0].ip, Link(uplink_bytes_per_s=SIZE / 30))
        report, _ = await hosts[0].upload(content(hosts[0]))
        await trio.sleep(5)
        (taker,) = [host for host in hosts[1:] if (await host.status()).transfers]
        await fleet.admin.drain_host(taker.name)
        await trio.sleep(3)
        assert not (await taker.status()).transfers
        await until_copies(hosts[0], report.id, 2)
        (held,) = holders(fleet, report.id)
        assert taker.directory not in held.parents


async def test_a_drain_says_what_cannot_be_moved_and_goes_on_when_it_can(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a", replicas=1) as (fleet, hosts):
        await fleet.add_host("small", quota=1000)
        await hosts[0].upload(content(hosts[0]))
        await fleet.admin.drain_host("a")
        await trio.sleep(20)
        stuck = await fleet.admin.drain_host("a", only_look=True)
        assert (stuck.to_move, stuck.why_not) == (
            1,
            "weights: no other live host has room for 3.1 MB (small has the most: 1.0 kB)",
        )
        await fleet.add_host("large")
        told = await until_drained(fleet, hosts[0])
        assert told[-1].why_not == ""


async def test_a_host_that_others_could_stand_in_for_soon_is_waited_for(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """One that is away for a moment only could hold what is on the host that drains."""
    async with running_fleet(tmp_path, "a b c", replicas=2, grace_s=600) as (fleet, [a, b, c_]):
        await trio.sleep(30)
        await fleet.crash(c_)
        await a.upload(content(a))
        await until_copies(a, "weights", 2)
        await fleet.admin.drain_host("b")
        await trio.sleep(60)
        assert (await fleet.admin.drain_host("b", only_look=True)).to_move == 1
        await fleet.restart(c_)
        await until_drained(fleet, b)


async def test_that_a_host_is_drained_is_told_once_whatever_becomes_of_its_files(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=1) as (fleet, [a, _b, c_]):
        _, tracker = await a.upload(content(a))
        await until_drained(fleet, a)
        for _ in range(20):
            await c_.download(tracker)
            await trio.sleep(7)
            await c_.ask(c.Remove("weights", local=True, delete=True), RemoveReport)
            await trio.sleep(1.3)
        told = (await fleet.admin.events(last=10_000)).events
        assert sum(event.kind == "drained" for event in told) == 1


async def test_what_is_on_a_host_that_is_away_is_moved_when_it_is_back(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b", replicas=1, grace_s=60) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await fleet.crash(hosts[0])
        await trio.sleep(100)
        first = await fleet.admin.drain_host("a")
        await trio.sleep(20)
        later = await fleet.admin.drain_host("a", only_look=True)
        assert [(one.state, one.draining) for one in (first, later)] == [("gone", True)] * 2
        assert (first.to_move, later.to_move) == (None, 1), "it is told what is only there"
        assert await told_of_drains(fleet, "a") == [("draining", "by hand")]
        await fleet.admin.undrain_host("a")
        assert (await told_of_drains(fleet, "a"))[1:] == [("undrained", "by hand")]
        await fleet.admin.drain_host("a")
        await fleet.restart(hosts[0])
        await until_drained(fleet, hosts[0])
        assert len(holders(fleet, report.id)) == 1


async def test_a_host_that_was_away_when_the_master_started_is_not_drained_before_it_says_what_it_has(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    """It was, for nothing was known to be on it: what was nowhere else could have been thrown away with it."""
    async with running_fleet(tmp_path, "a b", replicas=1, grace_s=60) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await fleet.crash(hosts[0])
        await fleet.admin.drain_host("a")
        await fleet.crash_master()
        await fleet.start_master()
        await trio.sleep(150)
        looked = await fleet.admin.drain_host("a", only_look=True)
        assert (looked.state, looked.draining, looked.to_move) == ("gone", True, None)
        assert await told_of_drains(fleet, "a") == []
        fleet.network.set_link(hosts[0].ip, Link(uplink_bytes_per_s=SIZE / 10))
        await fleet.restart(hosts[0])
        told = await until_drained(fleet, hosts[0])
        assert 1 in [one.to_move for one in told]
        assert len(holders(fleet, report.id)) == 1


# Removing


async def test_a_removed_file_takes_its_replicas_along(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=3) as (fleet, hosts):
        path = content(hosts[0])
        report, _ = await hosts[0].upload(path)
        await until_copies(hosts[0], report.id, 3)
        removed = await hosts[1].ask(c.Remove(report.id, False, False), RemoveReport)
        assert (removed.hosts, removed.ordered, removed.deleted) == (2, True, True)
        await until_forgotten(hosts)
        assert holders(fleet, report.id) == []
        assert path.stat().st_size == SIZE


async def test_a_replica_that_is_removed_here_is_made_elsewhere(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_fleet(tmp_path, "a b c", replicas=2) as (fleet, hosts):
        report, _ = await hosts[0].upload(content(hosts[0]))
        await until_copies(hosts[0], report.id, 2)
        (replica,) = holders(fleet, report.id)
        (here, other) = (hosts[1], hosts[2]) if replica.is_relative_to(hosts[1].directory) else (hosts[2], hosts[1])
        assert (await here.stat(report.id)).local.ordered
        removed = await here.ask(c.Remove(report.id, True, False), RemoveReport)
        assert (removed.ordered, removed.deleted) == (True, True)
        await trio.sleep(5)
        await until_copies(hosts[0], report.id, 2)
        (replica,) = holders(fleet, report.id)
        assert replica.is_relative_to(other.directory)
