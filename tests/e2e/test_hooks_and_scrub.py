"""A command that real clients run for their downloads, and rot that they find on a real disk."""

import json
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import poll

HOOK = f"""#!/bin/sh
{shlex.quote(sys.executable)} -P -m interfiles.cli stat -p "$INTERFILES_ID" --json > "$1.stat"
env -0 | grep -z '^INTERFILES_' > "$1.new"
echo "got $INTERFILES_NAME"
mv "$1.new" "$1"
"""


def hook(directory: Path) -> tuple[str, Path]:
    """Make a hook; return its command, and where it writes what it is told once it has asked the daemon."""
    path, told = directory / "a hook", directory / "what was told"
    path.write_text(HOOK)
    path.chmod(0o755)
    return shlex.join([str(path), str(told)]), told


def facts(told: Path) -> dict[str, str]:
    """What a hook was told, but for how long the transfer took."""
    poll(told.exists, "the hook to be run")
    found = dict(line.split("=", 1) for line in told.read_text().split("\0") if line)
    assert float(found.pop("INTERFILES_SECONDS")) >= 0
    return found


def answer(told: Path) -> Any:
    """What the daemon answered to the hook's `interfiles stat`."""
    return json.loads(told.with_name(f"{told.name}.stat").read_text())


def test_a_hook_is_run_for_a_download_and_can_ask_the_daemon(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master()
    source = fleet.start_client("source")
    command, told = hook(fleet.directory)
    reader = fleet.start_client("reader", "--on-complete", command)
    content = make_file(source.home / "-rf $(x) *.bin", 3 * MIB)
    uploaded = fleet.cli(source, "upload", "-p", str(content), json=True).done.json
    report = fleet.cli(reader, "download", "-p", uploaded["tracker"], json=True).done.json
    fleet_id = fleet.cli(reader, "status", json=True).done.json["fleet"]
    assert facts(told) == {
        "INTERFILES_EVENT": "complete",
        "INTERFILES_KIND": "download",
        "INTERFILES_ID": uploaded["id"],
        "INTERFILES_NAME": "-rf $(x) *.bin",
        "INTERFILES_PATH": report["path"],
        "INTERFILES_SIZE": str(3 * MIB),
        "INTERFILES_HOST": "reader",
        "INTERFILES_FLEET": fleet_id,
        "INTERFILES_SOCKET": str(reader.socket),
    }
    poll(lambda: "got -rf $(x) *.bin" in reader.logged, "what the hook says in the log")
    asked = answer(told)
    assert (asked["id"], asked["name"]) == (uploaded["id"], "-rf $(x) *.bin")
    assert (asked["local"]["state"], asked["local"]["path"]) == ("complete", report["path"]), "of the reader's daemon"


def test_a_hook_is_run_for_a_copy_that_the_master_ordered(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master("--replicas", "2")
    source = fleet.start_client("source")
    command, told = hook(fleet.directory)
    keeper = fleet.start_client("keeper", "--on-complete", command)
    content = make_file(source.home / "weights.bin", 3 * MIB)
    uploaded = fleet.cli(source, "upload", "-p", str(content), json=True).done.json
    replica = keeper.state / "replicas" / uploaded["id"] / "weights.bin"
    assert facts(told) == {
        "INTERFILES_EVENT": "complete",
        "INTERFILES_KIND": "replica",
        "INTERFILES_ID": uploaded["id"],
        "INTERFILES_NAME": "weights.bin",
        "INTERFILES_PATH": str(replica),
        "INTERFILES_SIZE": str(3 * MIB),
        "INTERFILES_HOST": "keeper",
        "INTERFILES_FLEET": fleet.ask(keeper, lambda client: client.status()).fleet,
        "INTERFILES_SOCKET": str(keeper.socket),
    }
    asked = answer(told)["local"]
    assert (asked["state"], asked["ordered"], asked["path"]) == ("complete", True, str(replica))


def test_a_hook_that_cannot_be_run_is_refused_at_the_start(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master()
    daemon = fleet.new_client("reader", "--on-complete", "/no/such/program")
    fleet.launch(daemon)
    assert daemon.process is not None
    assert daemon.process.wait(30) == 2
    assert daemon.logged.count("\n") == 1
    assert daemon.logged.startswith("interfiles: --on-complete names /no/such/program, which is no program that can")


def test_a_flipped_byte_is_found_by_the_scrub_and_shown(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master()
    source = fleet.start_client("source", "--scrub-every", "2s")
    content = make_file(source.home / "weights.bin", 3 * MIB)
    uploaded = fleet.cli(source, "upload", "-p", str(content), json=True).done.json
    poll(lambda: status(fleet)["finished_at"], "the first scrub")
    assert status(fleet)["damaged"] == 0

    before = content.stat()
    os.kill(source.pid, signal.SIGSTOP)  # it must not look between the two: that would be a person's change
    with open(content, "r+b") as file:
        file.seek(2 * MIB + 17)
        byte = file.read(1)[0]
        file.seek(2 * MIB + 17)
        file.write(bytes([byte ^ 4]))
    os.utime(content, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.kill(source.pid, signal.SIGCONT)
    poll(lambda: status(fleet)["damaged"] == 1, "the scrub to find it")
    bad = 2 * MIB // uploaded["piece_size"]
    assert " rot file=" in source.logged

    poll(lambda: stat(fleet, uploaded["id"])["hosts"][0]["doing"] == "damaged", "the master to know of it")
    found = stat(fleet, uploaded["id"])
    assert found["local"]["note"] == f"1 piece on disk does not match its hash ({bad})"
    assert found["local"]["pieces"] == uploaded["pieces"] - 1
    assert found["replicas"]["complete"] == 0
    assert "damaged" in fleet.cli(source, "stat", "-p", uploaded["id"]).done.out
    assert "1 file has bad pieces on disk" in fleet.cli(source, "status").done.out


def status(fleet: Fleet) -> dict[str, int]:
    found: dict[str, int] = fleet.cli(fleet.daemons["source"], "status", json=True).done.json["scrub"]
    return found


def stat(fleet: Fleet, file_id: str) -> Any:
    return fleet.cli(fleet.daemons["source"], "stat", "-p", file_id, json=True).done.json
