"""stat, ls and hosts: what they ask, print and end with."""

import json
from pathlib import Path

import pytest

from interfiles.errors import MasterUnreachable, UnknownFile, UnknownHost
from interfiles.wire import control_messages as messages
from interfiles.wire.admin_reports import HostRemovedReport
from interfiles.wire.reports import FileListReport, HostListReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import HOSTS, ID, STAT, TRACKER, file_report


def test_stat(interfiles: Command, daemon: FakeDaemon) -> None:
    Path("weights.tracker").write_bytes(TRACKER)
    daemon.will(STAT)
    outcome = interfiles("stat", "-p", "weights.tracker")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("weights/  9c41e07b2d55\n  18.4 GB in 231 files · 4,388 pieces of 4 MiB · uploaded ")
    assert daemon.requests == [(messages.Stat(""), TRACKER)]


def test_stat_as_json_has_what_the_contract_lists(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(STAT)
    report = json.loads(interfiles("stat", "9c41e0", "--json").out)
    assert report.keys() >= {
        *("id", "name", "size", "uploaded_at", "piece_size", "pieces", "hosts", "replicas", "local"),
    }
    assert report["hosts"][2].keys() >= {"host", "name", "zone", "address", "state", "pieces"}
    assert [host["state"] for host in report["hosts"]] == ["complete", "complete", "partial", "complete"]
    assert report["replicas"] == {"wanted": 3, "complete": 3, "under_way": 1, "why_not": ""}
    assert report["local"].keys() >= {"state", "pieces", "path"}


def test_stat_of_an_unknown_file(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(UnknownFile("no file of this fleet is called weights"))
    assert interfiles("stat", "-p", "weights").code == 4


def test_ls(interfiles: Command, daemon: FakeDaemon) -> None:
    for _ in range(2):
        daemon.will(FileListReport(files=[file_report("a")], next_start=1))
        daemon.will(FileListReport(files=[file_report("b")], next_start=None))
    assert [line.split()[:2] for line in interfiles("ls").out.splitlines()] == [
        ["NAME", "ID"],
        ["a", ID[:12]],
        ["b", ID[:12]],
    ]
    assert [file["name"] for file in json.loads(interfiles("ls", "--json").out)] == ["a", "b"]


def test_ls_of_an_empty_fleet_prints_nothing_to_count(interfiles: Command, daemon: FakeDaemon) -> None:
    for _ in range(2):
        daemon.will(FileListReport(files=[], next_start=None))
    outcome = interfiles("ls")
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "The fleet has no files yet; `interfiles upload -p PATH` shares one.\n"
    assert interfiles("ls", "--json").out == "[]\n"


def test_json_before_the_command_of_a_group_counts_too(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(HostListReport(hosts=HOSTS))
    assert len(json.loads(interfiles("hosts", "--json", "list").out)) == 2


@pytest.mark.parametrize("command", [["hosts"], ["hosts", "list"]])
def test_hosts(command: list[str], interfiles: Command, daemon: FakeDaemon) -> None:
    for _ in range(2):
        daemon.will(HostListReport(hosts=HOSTS))
    outcome = interfiles(*command)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0] == (
        "HOST       ZONE    ADDRESS         STATE  FILES  REPLICAS    USED    FREE  LAST SEEN"
    )
    listed = json.loads(interfiles(*command, "--json").out)
    assert isinstance(listed, list)
    known = {"host", "name", "zone", "address", "state", "files", "used", "free", "last_seen_s"}
    assert listed[0].keys() == known | {"ordered", "arriving", "to_move", "note"}


def test_hosts_while_the_master_is_away(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(MasterUnreachable("the master at 10.0.0.5:4850 does not answer"))
    assert interfiles("hosts").code == 3


def test_hosts_remove(interfiles: Command, master: FakeDaemon) -> None:
    for _ in range(2):
        master.will(HostRemovedReport(host="ab" * 16, name="render-07"))
    command = ["hosts", "remove", "render-07", "--state", str(master.socket.parent)]
    assert interfiles(*command).out == f"Removed render-07 from the fleet (host id {'ab' * 16}).\n"
    assert json.loads(interfiles(*command, "--json").out) == {"host": "ab" * 16, "name": "render-07"}
    assert master.requests[0] == (messages.RemoveHost("render-07"), b"")


def test_hosts_remove_of_an_unknown_host(interfiles: Command, master: FakeDaemon) -> None:
    master.will(UnknownHost("no host is called render-99"))
    outcome = interfiles("hosts", "remove", "render-99", "--state", master.socket.parent)
    assert (outcome.code, outcome.err) == (4, "interfiles: no host is called render-99.\n")
