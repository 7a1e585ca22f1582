"""Replicas with real processes: daemons die, disks fill, and the number of copies comes back by itself."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from daemons.master.app import MasterConfig
from daemons.master.reconciler import ROUND_S
from interfiles.placement.registry import SUSPECT_HEARTBEATS
from interfiles.wire.admin_reports import EventReport
from interfiles.wire.reports import StatReport
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, poll

SIZE = 24 * MIB
GRACE_S = 3.0
SILENCE_S = SUSPECT_HEARTBEATS * MasterConfig(state=Path(), grace_s=GRACE_S).heartbeat_s  # until it is noticed
BUSY_S = 1.0  # that the machine may lose
TIMES = 5  # as long as a first copy a later one may take
SLOW = MIB // 4  # bytes a second of each source: a copy takes most of a minute
NAMES = ("h1", "h2", "h3", "h4", "h5", "h6")
REPAIR_TIMEOUT_S = 60.0  # much longer than it takes: the machine may be busy


class Scene:
    """Six hosts, three copies."""

    def __init__(self, fleet: Fleet, *names: str) -> None:
        self.fleet = fleet
        rest = {"interfiles.placement.orders:MIN_REST_S": 3.0}
        fleet.start_master("--replicas", "3", grace=f"{GRACE_S:.0f}s", constants=rest)
        self.hosts = dict(zip(names, fleet.start_clients(*names), strict=True))

    def add_small(self, disk: Path, *arguments: str) -> Daemon:
        """Start a host whose state is on a disk that is all its."""
        small = self.fleet.new_client("small", "--keep-free", "0B", *arguments)
        small.state = disk / "state"
        small.state.mkdir()
        small.socket = small.state / "client.sock"
        self.fleet.start_new(small)
        self.hosts["small"] = small
        return small

    def upload(self, name: str = "h1", size: int = SIZE) -> tuple[Path, str]:
        """Upload a new file; return it and its id."""
        content = make_file(self.hosts[name].home / "film.mov", size)
        return content, self.fleet.cli(self.hosts[name], "upload", "-p", content.name, json=True).done.json["id"]

    def stat(self, file_id: str) -> StatReport:
        """What the fleet knows of a file, asked where the master can be."""
        asked = next(host for host in self.hosts.values() if host.is_running)
        return self.fleet.ask(asked, lambda client: client.stat(file_id))

    def until_copies(self, file_id: str, count: int) -> list[Daemon]:
        """Wait until so many copies count; return the hosts that hold one by order, and run."""

        def are_there() -> bool:
            replicas = self.stat(file_id).replicas
            return (replicas.complete, replicas.under_way) == (count, 0)

        poll(are_there, f"{count} copies of {file_id[:6]}", timeout_s=REPAIR_TIMEOUT_S)
        return [
            self.hosts[holder.name]
            for holder in self.stat(file_id).hosts
            if holder.ordered and holder.state == "complete" and self.hosts[holder.name].is_running
        ]

    def check(self, file_id: str, content: Path, held: list[Daemon]) -> None:
        """Every replica on these hosts is what was uploaded."""
        for host in held:
            assert differences(content, host.state / "replicas" / file_id / content.name) == []

    def kill(self, *hosts: Daemon) -> float:
        """Kill hosts; return when, by the clock of events."""
        killed_at = time.time()
        for host in hosts:
            self.fleet.kill(host)
        return killed_at

    def limit(self, file_id: str, rate: int) -> None:
        """Have each running host that holds a file send so many bytes a second of it; 0: as many as it can."""
        for holder in self.stat(file_id).hosts:
            if (host := self.hosts[holder.name]).is_running:
                self.fleet.ask(host, lambda client: client.set_limits(up=rate))

    def fetched(self, host: Daemon, file_id: str) -> int:
        """Bytes that a host has of a file that it fetches now; 0 also if it does not, or has all of it."""
        transfers = self.fleet.ask(host, lambda client: client.status()).transfers
        return sum(one.bytes_done for one in transfers if (one.id, one.state) == (file_id, "fetching"))

    def events(self, *kinds: str) -> list[EventReport]:
        """What has happened, the oldest first."""
        events = self.fleet.administer(lambda admin: admin.events(last=200)).events
        return [event for event in events if event.kind in kinds]

    def until(self, kind: str, count: int = 1) -> list[EventReport]:
        """Wait until so many events of a kind have happened."""
        poll(lambda: len(self.events(kind)) >= count, f"{kind} {count} times", timeout_s=REPAIR_TIMEOUT_S)
        return self.events(kind)

    def check_time(self, killed_at: float, count: int) -> None:
        """The latest `count` copies, of hosts killed then, were ordered once these were gone, and came soon."""
        gone = [event.at for event in self.events("gone")][-count:]
        ordered, complete = self.events("ordered"), self.events("complete")
        began = {event.host: event.at for event in ordered}
        first_s = max(event.at - began[event.host] for event in complete[:2])
        assert min(gone) - killed_at >= GRACE_S - SILENCE_S
        assert min(gone) <= min(event.at for event in ordered[-count:]), "nothing is copied for a moment's silence"
        bound_s = GRACE_S + SILENCE_S + BUSY_S
        gone_s, copied_s = max(gone) - killed_at, complete[-1].at - killed_at
        print(f"gone after {gone_s:.1f} s, copied after {copied_s:.1f} s; a first copy took {first_s:.1f} s")  # noqa: T201
        assert gone_s < bound_s
        assert copied_s < bound_s + ROUND_S + TIMES * first_s


@pytest.fixture
def scene(own_fleet: Fleet) -> Scene:
    return Scene(own_fleet, *NAMES)


def test_one_host_is_killed_and_then_two_at_once_one_of_which_uploaded_the_file(scene: Scene) -> None:
    content, file_id = scene.upload()
    first, other = scene.until_copies(file_id, 3)
    scene.until("complete", 2)
    killed_at = scene.kill(first)
    scene.until("complete", 3)
    held = scene.until_copies(file_id, 3)
    assert len(held) == 2
    assert first not in held
    scene.check(file_id, content, held)
    scene.check_time(killed_at, 1)

    killed_at = scene.kill(scene.hosts["h1"], other)
    scene.until("complete", 5)
    held = scene.until_copies(file_id, 3)
    assert len(held) == 3
    assert all(host not in (first, other) for host in held)
    scene.check(file_id, content, held)
    scene.check_time(killed_at, 2)
    assert len(scene.events("ordered")) == 5, "two at first, one, and two"


def test_the_master_is_killed_during_a_repair_and_orders_nothing_anew(scene: Scene) -> None:
    content, file_id = scene.upload()
    first, _ = scene.until_copies(file_id, 3)
    scene.kill(first)
    scene.limit(file_id, SLOW)
    repairer = scene.hosts[scene.until("ordered", 3)[-1].host_name]
    poll(lambda: scene.fetched(repairer, file_id), "the repair to be under way", timeout_s=REPAIR_TIMEOUT_S)
    master = scene.fleet.master
    scene.fleet.kill(master)
    before = scene.fetched(repairer, file_id)
    assert 0 < before < SIZE
    poll(lambda: scene.fetched(repairer, file_id) > before, "the copy to go on without the master")

    scene.fleet.start(master)
    scene.until("live", len(NAMES) - 1)
    idle = next(name for name in NAMES if not (scene.hosts[name].state / "replicas").exists() and name != "h1")
    small, other_id = scene.upload(idle, MIB // 4)
    scene.check(other_id, small, scene.until_copies(other_id, 3))
    assert 0 < scene.fetched(repairer, file_id) < SIZE, "it is still under way when the new master has ordered others"
    scene.limit(file_id, 0)
    held = scene.until_copies(file_id, 3)
    assert len(held) == 2
    assert repairer in held
    scene.check(file_id, content, held)
    scene.until("complete", 3)
    assert [event.host_name for event in scene.events("complete") if event.file == file_id] == [repairer.name]
    assert [event.host_name for event in scene.events("ordered", "failed", "released") if event.file == file_id] == []
    scene.fleet.check_logs()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 20 MB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(place)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path, size: int | None = None) -> Path:
    """Write a file of so many bytes, or for as long as the disk takes any; return it."""
    ballast = disk / "ballast"
    with open(ballast, "wb", buffering=0) as file, suppress(OSError):
        while size is None or file.tell() < size:
            file.write(bytes(MIB))
    return ballast


@pytest.mark.root
def test_a_disk_that_is_full_is_told_and_another_host_is_found(own_fleet: Fleet, small_disk: Path) -> None:
    scene = Scene(own_fleet, "h1", "h2")
    scene.add_small(small_disk, "--quota", "100MB")
    _, file_id = scene.upload(size=SIZE)
    poll(
        lambda: "no other live host has room" in scene.stat(file_id).replicas.why_not,
        "the master to say what is lacking",
        timeout_s=REPAIR_TIMEOUT_S,
    )
    scene.until_copies(file_id, 2)
    scene.hosts["h4"] = own_fleet.start_client("h4")
    scene.until_copies(file_id, 3)


@pytest.mark.root
def test_a_disk_that_fills_up_before_an_upload_is_used_once_there_is_room(own_fleet: Fleet, small_disk: Path) -> None:
    scene = Scene(own_fleet, "h1", "h2")
    small = scene.add_small(small_disk)
    ballast = fill(small_disk, 14 * MIB)
    _, file_id = scene.upload(size=8 * MIB)  # before its next heartbeat, or after: room is told with each
    scene.until_copies(file_id, 2)
    why = poll(lambda: scene.stat(file_id).replicas.why_not, "the reason", timeout_s=REPAIR_TIMEOUT_S)
    assert re.search("no other live host has room|1 host with room failed lately", why)
    assert not list(small.state.glob("replicas/*/*"))
    ballast.unlink()
    scene.until_copies(file_id, 3)


@pytest.mark.root
def test_a_disk_that_fills_up_during_a_repair(own_fleet: Fleet, small_disk: Path) -> None:
    scene, size = Scene(own_fleet, *NAMES[:5]), 12 * MIB
    content, file_id = scene.upload(size=size)
    first, _ = scene.until_copies(file_id, 3)
    small = scene.add_small(small_disk, "--zone", "another")  # which has no copy, so the next is for it
    scene.kill(first)
    scene.limit(file_id, SLOW)
    begun = poll(lambda: scene.fetched(small, file_id), "the repair to be under way", timeout_s=REPAIR_TIMEOUT_S)
    assert begun < size
    fill(small_disk)
    failed = scene.until("failed")[0]
    assert (failed.host_name, failed.file) == ("small", file_id)
    assert "its disk is full" in failed.reason
    scene.limit(file_id, 0)

    held = scene.until_copies(file_id, 3)
    assert len(held) == 2
    assert all(host not in (first, small) for host in held)
    scene.check(file_id, content, held)
    assert "small" not in [event.host_name for event in scene.events("complete")]
    poll(lambda: not list(small.state.glob("replicas/*")), "the full host to let go of what it had")
    status = own_fleet.cli(small, "status", json=True).done.json
    assert (status["name"], status["master_state"], status["transfers"]) == ("small", "connected", [])


def test_a_byte_that_the_disk_lost_is_found_by_the_scrub_and_its_piece_alone_fetched_again(own_fleet: Fleet) -> None:
    own_fleet.start_master("--replicas", "2")
    seed = own_fleet.start_client("seed")
    keeper = own_fleet.new_client("keeper", "--scrub-every", "5s")
    own_fleet.start_new(keeper)
    content = make_file(seed.home / "film.mov", 8 * MIB)
    uploaded = own_fleet.cli(seed, "upload", "-p", content.name, json=True).done.json
    replica = keeper.state / "replicas" / uploaded["id"] / "film.mov"
    poll(replica.exists, "the replica", timeout_s=REPAIR_TIMEOUT_S)
    poll(lambda: " complete " in keeper.logged, "it to be complete")
    os.kill(keeper.pid, signal.SIGSTOP)  # it must not look between the two: that would be a person's change
    before = replica.stat()
    with replica.open("r+b") as file:
        file.seek(3 * MIB)
        byte = file.read(1)
        file.seek(3 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(replica, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.kill(keeper.pid, signal.SIGCONT)
    poll(lambda: differences(content, replica) == [], "the byte to be mended", timeout_s=REPAIR_TIMEOUT_S)

    piece = 3 * MIB // uploaded["piece_size"]
    assert re.findall(r" rot file=.* piece=(\d+)", keeper.logged) == [str(piece)]

    def events() -> list[EventReport]:
        return own_fleet.administer(lambda admin: admin.events(last=50)).events

    poll(lambda: "corrupt" in [event.kind for event in events()], "the master to tell of it")
    (corrupt,) = [event for event in events() if event.kind == "corrupt"]
    assert (corrupt.host_name, corrupt.file) == ("keeper", uploaded["id"])
    assert f"({piece})" in corrupt.reason
    poll(lambda: len(fetched(keeper)) == 2, "it to be complete again")
    assert fetched(keeper) == [8 * MIB, uploaded["piece_size"]]


def fetched(daemon: Daemon) -> list[int]:
    """How many bytes each completion took that a daemon has logged."""
    return [int(count) for count in re.findall(r" complete .*fetched=(\d+)", daemon.logged)]
