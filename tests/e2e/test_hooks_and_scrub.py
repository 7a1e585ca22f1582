"""A command that real clients run for their downloads, and rot that they find on a real disk."""

import os
import shlex
import signal
from pathlib import Path
from typing import Any

from tests.e2e.content import MIB, make_file
from tests.e2e.fleet import Fleet
from tests.e2e.processes import poll

HOOK = """#!/bin/sh
env -0 | grep -z '^INTERFILES_' > "$1.new"
echo "got $INTERFILES_NAME"
mv "$1.new" "$1"
"""


def hook(path: Path) -> Path:
    path.write_text(HOOK)
    path.chmod(0o755)
    return path


def facts(told: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in told.read_text().split("\0") if line)


def test_a_hook_is_run_for_a_download_and_can_ask_the_daemon(own_fleet: Fleet) -> None:
    fleet = own_fleet
    fleet.start_master()
    source = fleet.start_client("source")
    told = fleet.directory / "what was told"
    command = shlex.join([str(hook(fleet.directory / "a hook")), str(told)])
    reader = fleet.start_client("reader", "--on-complete", command)
    content = make_file(source.home / "-rf $(x) *.bin", 3 * MIB)
    uploaded = fleet.cli(source, "upload", "-p", str(content), json=True).done.json
    report = fleet.cli(reader, "download", "-p", uploaded["tracker"], json=True).done.json
    poll(told.exists, "the hook to be run")
    found = facts(told)
    assert float(found.pop("INTERFILES_SECONDS")) >= 0
    fleet_id = fleet.cli(reader, "status", json=True).done.json["fleet"]
    assert found == {
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
