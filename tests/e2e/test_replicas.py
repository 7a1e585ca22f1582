"""Replicas with real processes: daemons die, disks fill, and the number of copies comes back by itself."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from interfiles.wire.reports import StatReport
from tests.e2e.content import MIB, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, poll

SIZE = 24 * MIB
GRACE_S = 3.0
NAMES = ("h1", "h2", "h3", "h4", "h5", "h6")
REPAIR_TIMEOUT_S = 60.0  # much longer than it takes: the machine may be busy


class Scene:
    """Six hosts, three copies."""

    def __init__(self, fleet: Fleet, *names: str) -> None:
        self.fleet = fleet
        rest = {"interfiles.placement.orders:MIN_REST_S": 3.0}
        fleet.start_master("--replicas", "3", grace=f"{GRACE_S:.0f}s", constants=rest)
        self.hosts = dict(zip(names, fleet.start_clients(*names), strict=True))

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

    def check(self, file_id: str, content: Path) -> None:
        """Every replica on a running host is what was uploaded."""
        found = [
            path
            for host in self.hosts.values()
            if host.is_running
            for path in host.state.glob(f"replicas/{file_id}/{content.name}")
        ]
        assert found
        assert all(differences(content, path) == [] for path in found)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.fleet.administer(lambda admin: admin.events(last=200)).events]


@pytest.fixture
def scene(own_fleet: Fleet) -> Scene:
    return Scene(own_fleet, *NAMES)


def test_one_host_is_killed_and_then_two_at_once(scene: Scene) -> None:
    content, file_id = scene.upload()
    first, _ = scene.until_copies(file_id, 3)
    scene.fleet.kill(first)
    poll(lambda: "gone" in scene.kinds(), "the killed host to be gone", timeout_s=REPAIR_TIMEOUT_S)
    two = scene.until_copies(file_id, 3)
    assert first not in two
    scene.check(file_id, content)
    for host in two:
        scene.fleet.kill(host)
    poll(lambda: scene.kinds().count("gone") == 3, "both killed hosts to be gone", timeout_s=REPAIR_TIMEOUT_S)
    last = scene.until_copies(file_id, 3)
    assert all(host not in (first, *two) for host in last)
    scene.check(file_id, content)
    poll(lambda: scene.kinds().count("complete") == 5, "two at first, one, and two", timeout_s=REPAIR_TIMEOUT_S)
    assert scene.kinds().count("ordered") == 5


def test_the_master_is_killed_during_a_repair(scene: Scene) -> None:
    content, file_id = scene.upload(size=64 * MIB)
    first, _ = scene.until_copies(file_id, 3)
    scene.fleet.kill(first)
    poll(lambda: scene.kinds().count("ordered") == 3, "the repair to begin", timeout_s=REPAIR_TIMEOUT_S)
    master = scene.fleet.master
    scene.fleet.kill(master)
    scene.fleet.start(master)
    held = scene.until_copies(file_id, 3)
    assert len(held) == 2
    scene.check(file_id, content)
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


def test_a_disk_that_is_full_is_told_and_another_host_is_found(own_fleet: Fleet, small_disk: Path) -> None:
    scene = Scene(own_fleet, "h1", "h2")
    small = own_fleet.new_client("small", "--quota", "100MB", "--keep-free", "0B")
    small.state = small_disk / "state"
    small.state.mkdir()
    small.socket = small.state / "client.sock"
    own_fleet.start_new(small)
    scene.hosts["small"] = small
    _, file_id = scene.upload(size=SIZE)
    poll(
        lambda: "no other live host has room" in scene.stat(file_id).replicas.why_not,
        "the master to say what is lacking",
        timeout_s=REPAIR_TIMEOUT_S,
    )
    scene.until_copies(file_id, 2)
    scene.hosts["h4"] = own_fleet.start_client("h4")
    scene.until_copies(file_id, 3)


def test_a_disk_that_fills_up_meanwhile(own_fleet: Fleet, small_disk: Path) -> None:
    scene = Scene(own_fleet, "h1", "h2")
    small = own_fleet.new_client("small", "--keep-free", "0B")
    small.state = small_disk / "state"
    small.state.mkdir()
    small.socket = small.state / "client.sock"
    own_fleet.start_new(small)
    scene.hosts["small"] = small
    subprocess.run(
        [sys.executable, "-c", f"open({str(small_disk / 'ballast')!r}, 'wb').write(bytes(14 << 20))"], check=True
    )
    _, file_id = scene.upload(size=8 * MIB)  # before its next heartbeat, or after: room is told with each
    scene.until_copies(file_id, 2)
    poll(lambda: scene.stat(file_id).replicas.why_not != "", "the reason", timeout_s=REPAIR_TIMEOUT_S)
    assert not list(small.state.glob("replicas/*/*"))
    (small_disk / "ballast").unlink()
    scene.until_copies(file_id, 3)


def test_a_byte_that_the_disk_lost_is_found_by_the_scrub_and_mended(own_fleet: Fleet) -> None:
    own_fleet.start_master("--replicas", "2")
    seed = own_fleet.start_client("seed")
    keeper = own_fleet.new_client("keeper", "--scrub-every", "5s")
    own_fleet.start_new(keeper)
    content = make_file(seed.home / "film.mov", 8 * MIB)
    file_id = own_fleet.cli(seed, "upload", "-p", content.name, json=True).done.json["id"]
    replica = keeper.state / "replicas" / file_id / "film.mov"
    poll(replica.exists, "the replica", timeout_s=REPAIR_TIMEOUT_S)
    before = replica.stat()
    with replica.open("r+b") as file:
        file.seek(3 * MIB)
        byte = file.read(1)
        file.seek(3 * MIB)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(replica, ns=(before.st_atime_ns, before.st_mtime_ns))
    poll(lambda: differences(content, replica) == [], "the byte to be mended", timeout_s=REPAIR_TIMEOUT_S)

    def kinds() -> list[str]:
        return [event.kind for event in own_fleet.administer(lambda admin: admin.events(last=50)).events]

    poll(lambda: "corrupt" in kinds(), "the master to tell of it", timeout_s=REPAIR_TIMEOUT_S)
