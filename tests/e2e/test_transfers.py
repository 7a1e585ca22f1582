"""What the thing is for: a file or directory from one host to others, and what every command says about it in JSON."""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.content import MIB, allocated_bytes, differences, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import Daemon, open_fds, rss

NAMES = ("source", "one", "two", "three")
MANY_FILES = 10_000
SPARSE_SIZE = 50 << 30
SPARSE_DATA = 4 * MIB

UPLOAD_KEYS = {"id", "name", "size", "pieces", "piece_size", "tracker", "replicas_wanted"}
DOWNLOAD_KEYS = {"id", "path", "size", "seconds", "bytes_from_peers", "bytes_local", "pieces_rejected"}
STAT_KEYS = {"id", "name", "size", "uploaded_at", "piece_size", "pieces", "hosts", "replicas", "local"}
HOLDER_KEYS = {"host", "name", "zone", "address", "state", "pieces"}
HOST_KEYS = {"host", "name", "zone", "address", "state", "files", "used", "free", "last_seen_s"}


@pytest.fixture(scope="module")
def daemons(module_fleet: Fleet) -> dict[str, Daemon]:
    module_fleet.start_master("--replicas", "2")
    return {daemon.name: daemon for daemon in module_fleet.start_clients(*NAMES)}


@pytest.fixture
def fleet(module_fleet: Fleet, daemons: dict[str, Daemon]) -> Iterator[Fleet]:
    yield module_fleet
    module_fleet.check_logs()


def upload(fleet: Fleet, content: Path) -> Any:
    return fleet.cli(fleet.daemons["source"], "upload", "-p", str(content), json=True).done.json


def test_one_gibibyte_reaches_three_hosts_at_once(fleet: Fleet, daemons: dict[str, Daemon]) -> None:
    size = 1 << 30
    content = make_file(daemons["source"].home / "weights.bin", size)
    uploaded = upload(fleet, content)
    assert uploaded.keys() >= UPLOAD_KEYS
    assert (uploaded["name"], uploaded["size"], uploaded["replicas_wanted"]) == ("weights.bin", size, 2)
    assert uploaded["pieces"] * uploaded["piece_size"] == size
    tracker = daemons["source"].home / "weights.bin.tracker"
    assert uploaded["tracker"] == str(tracker)
    assert tracker.stat().st_size < MIB

    others = [daemons[name] for name in NAMES[1:]]
    commands = [fleet.begin_cli(other, "download", "-p", str(tracker), "--json") for other in others]
    for other, command in zip(others, commands, strict=True):
        report = fleet.finish_cli(command).done.json
        copy = other.home / "weights.bin"
        assert report.keys() >= DOWNLOAD_KEYS
        assert (report["id"], report["path"], report["size"]) == (uploaded["id"], str(copy), size)
        assert sum(report["bytes_from_peers"].values()) + report["bytes_local"] >= size
        assert report["bytes_from_peers"].keys() <= set(NAMES) - {other.name}
        assert report["pieces_rejected"] == 0
        assert filecmp.cmp(content, copy, shallow=False)
        assert allocated_bytes(copy) >= size
        assert list(other.home.glob("*.part")) == []

    check_stat_and_hosts(fleet, uploaded)
    for daemon in daemons.values():
        assert rss(daemon) < 300 * MIB, f"{daemon.name} keeps what it moves in memory"
        assert open_fds(daemon) < 100, f"{daemon.name} leaves descriptors open"
    for other in others:
        (other.home / "weights.bin").unlink()
    content.unlink()


def check_stat_and_hosts(fleet: Fleet, uploaded: Any) -> None:
    """Everybody has all of the uploaded file, and every command says so."""
    for query in (str(uploaded["tracker"]), uploaded["id"], uploaded["id"][:8], uploaded["name"]):
        found = fleet.cli(fleet.daemons["two"], "stat", "-p", query, json=True, cwd=Path("/")).done.json
        assert found["id"] == uploaded["id"]
    assert found.keys() >= STAT_KEYS
    assert found["replicas"] == {"wanted": 2, "complete": 4, "under_way": 0, "why_not": ""}
    assert found["local"].items() >= {"state": "complete", "pieces": uploaded["pieces"]}.items()
    assert all(holder.keys() >= HOLDER_KEYS for holder in found["hosts"])
    assert {(holder["name"], holder["state"], holder["pieces"]) for holder in found["hosts"]} == {
        (name, "complete", uploaded["pieces"]) for name in NAMES
    }
    hosts = fleet.cli(fleet.daemons["one"], "hosts", json=True).done.json
    assert all(host.keys() >= HOST_KEYS for host in hosts)
    assert {(host["name"], host["state"]) for host in hosts} == {(name, "live") for name in NAMES}
    addresses = {holder["host"]: holder["address"] for holder in found["hosts"]}
    assert {host["host"]: host["address"] for host in hosts} == addresses
    (listed,) = (f for f in fleet.cli(fleet.daemons["one"], "ls", json=True).done.json if f["id"] == uploaded["id"])
    assert (listed["complete"], listed["size"]) == (4, uploaded["size"])


def make_many_files(root: Path) -> None:
    """Ten thousand entries: small files, and everything else that a directory may have."""
    odd = [
        "Übergröße.txt",
        "数据集.bin",
        "данные",
        "ملف",
        "🚀 launch",
        "new\nline",
        "esc\x1b[2J",
        " space ",
        "-rf",
        "a\\b",
    ]
    for number in range(MANY_FILES - 100):
        path = root / f"part-{number % 37}" / f"sub{number % 5}" / f"file-{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{number}\n".encode() * (number % 50))
        if number % 11 == 0:
            path.chmod(0o755)
    for name in odd:
        (root / "odd" / name).mkdir(parents=True)
        (root / "odd" / name / name).write_text(name)
    for number in range(20):
        (root / f"empty-{number}").mkdir()
        (root / f"link-{number}").symlink_to(f"part-{number}/sub{number % 5}")
    (root / "deep" / "er").mkdir(parents=True)
    (root / "deep" / "er" / "up").symlink_to("../../odd")
    (root / "deep" / "dangling").symlink_to("nowhere")


def test_ten_thousand_small_files_arrive_as_they_are(fleet: Fleet, daemons: dict[str, Daemon]) -> None:
    root = daemons["source"].home / "many files"
    make_many_files(root)
    uploaded = upload(fleet, root)
    assert uploaded["files"] > 9_900
    fleet.cli(daemons["one"], "download", "-p", uploaded["tracker"]).done  # noqa: B018 - it raises
    assert differences(root, daemons["one"].home / root.name) == []
    again = fleet.cli(daemons["one"], "download", "-p", uploaded["tracker"], json=True).done.json
    assert sum(again["bytes_from_peers"].values()) <= uploaded["size"] * 1.1, "what is there already is not fetched"


@pytest.mark.parametrize("name", ["nothing.bin", "tiny.bin"])
def test_files_of_no_or_one_byte_arrive(fleet: Fleet, daemons: dict[str, Daemon], name: str) -> None:
    content = daemons["source"].home / name
    content.write_bytes(b"x" * (name == "tiny.bin"))
    uploaded = upload(fleet, content)
    report = fleet.cli(daemons["three"], "download", "-p", uploaded["tracker"], json=True).done.json
    assert report["size"] == content.stat().st_size
    assert differences(content, daemons["three"].home / name) == []


def test_a_huge_sparse_file_is_hashed_and_fetched_quickly_and_arrives_sparse(
    fleet: Fleet, daemons: dict[str, Daemon]
) -> None:
    content = daemons["source"].home / "disk.img"
    with open(content, "wb") as file:
        for offset in (0, SPARSE_SIZE // 3 + 12_345, SPARSE_SIZE - SPARSE_DATA):
            file.seek(offset)
            file.write(os.urandom(SPARSE_DATA))
    uploaded = fleet.cli(daemons["source"], "upload", "-p", content.name, json=True, timeout_s=40).done.json
    assert uploaded["size"] == SPARSE_SIZE
    report = fleet.cli(daemons["one"], "download", "-p", uploaded["tracker"], json=True, timeout_s=40).done.json
    copy = daemons["one"].home / content.name
    assert copy.stat().st_size == SPARSE_SIZE
    assert allocated_bytes(copy) <= 5 * uploaded["piece_size"], "only pieces with data take space"
    assert sum(report["bytes_from_peers"].values()) <= 5 * uploaded["piece_size"]
    for offset in (0, SPARSE_SIZE // 3, SPARSE_SIZE - 2 * SPARSE_DATA):
        with open(content, "rb") as left, open(copy, "rb") as right:
            left.seek(offset)
            right.seek(offset)
            assert left.read(2 * SPARSE_DATA) == right.read(2 * SPARSE_DATA)
