"""upload, download, wait, pause and resume: what they ask, print and end with."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from interfiles.errors import DestinationExists, NoSource, TimedOut
from interfiles.units import MINUTE
from interfiles.wire import control_messages as messages
from interfiles.wire.control_messages import MIN_EXPIRE_S
from interfiles.wire.reports import DownloadReport, TransferStateReport
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import DOWNLOAD, HOSTILE, HOSTILE_SHOWN, ID, TRACKER, UPLOAD, UPLOADED_AT, progress, status, transfer

OTHER = "0b" * 32
GOES_ON = "Watch it with interfiles wait {0}, stop it with interfiles rm --local {0}."


@pytest.fixture
def here(interfiles: Command) -> Path:
    return Path.cwd()


# upload


@pytest.mark.parametrize("option", [["-p"], ["--path"], []])
def test_upload(option: list[str], interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    daemon.will(progress("hashing"), UPLOAD, TRACKER)
    outcome = interfiles("upload", *option, "weights/")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "weights.tracker  9c41e07b2d55 · 18.4 GB in 231 files · 4,388 pieces of 4 MiB · wanted on 3 hosts\n"
    )
    assert (here / "weights.tracker").read_bytes() == TRACKER
    assert daemon.request == messages.Upload(os.fsencode(here / "weights"), None, False, None)


def test_upload_as_json(interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    daemon.will(progress("hashing"), UPLOAD, TRACKER)
    outcome = interfiles("upload", "-p", "weights", "-o", "w.t", "--replicas", "5", "--copy", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    report = json.loads(outcome.out)
    assert {
        key: report[key] for key in ("id", "name", "size", "pieces", "piece_size", "replicas_wanted", "tracker")
    } == {
        "id": ID,
        "name": "weights",
        "size": 18_400_000_000,
        "pieces": 4388,
        "piece_size": 4 << 20,
        "replicas_wanted": 3,
        "tracker": str(here.resolve() / "w.t"),
    }
    assert daemon.request == messages.Upload(os.fsencode(here / "weights"), 5, True, None)


def test_upload_of_what_expires(interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    daemon.will(msgspec.structs.replace(UPLOAD, expires_at=UPLOADED_AT), TRACKER)
    outcome = interfiles("upload", "-p", "weights", "--expire-in", "7d")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(" · wanted on 3 hosts · expires 2025-11-22 09:14\n")
    assert daemon.request == messages.Upload(os.fsencode(here / "weights"), None, False, 7 * 86_400.0)


def test_an_upload_that_would_expire_at_once_is_a_mistake(interfiles: Command, daemon: FakeDaemon) -> None:
    outcome = interfiles("upload", "-p", "weights", "--expire-in", "59s")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == "interfiles: a file expires in 1 min at the earliest; 59 s is too soon.\n"
    assert daemon.requests == []


def test_the_help_of_upload_says_after_how_long_a_file_may_expire(interfiles: Command) -> None:
    assert MIN_EXPIRE_S == MINUTE
    assert "after so long, 1m at least" in " ".join(interfiles("upload", "--help").out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("hosts", "can"),
    [
        (2, "2 that can hold a copy, so 2"),
        (1, "1 that can hold a copy, so 1"),
        (0, "none that can hold a copy, so no copy"),
    ],
)
def test_upload_into_a_fleet_with_fewer_hosts_than_wanted_says_so(
    hosts: int, can: str, interfiles: Command, daemon: FakeDaemon
) -> None:
    daemon.will(msgspec.structs.replace(UPLOAD, hosts=hosts), TRACKER)
    outcome = interfiles("upload", "-p", "weights")
    assert outcome.code == 0
    assert outcome.err == f"weights is wanted on 3 hosts; the fleet has {can} until more join.\n"
    for enough in (3, 4, None):
        daemon.will(msgspec.structs.replace(UPLOAD, hosts=enough), TRACKER)
        assert interfiles("upload", "-p", "weights").err == ""


def test_upload_while_the_master_is_away_says_so(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(msgspec.structs.replace(UPLOAD, published=False), TRACKER)
    outcome = interfiles("upload", "-p", "weights")
    assert outcome.code == 0
    assert (
        outcome.err == "The master is away: other hosts can fetch it once this host has told the master, by itself.\n"
    )


def test_upload_leaves_what_is_in_the_way(interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_text("my notes")
    outcome = interfiles("upload", "-p", "weights")
    assert outcome.code == 9
    assert outcome.err.endswith(
        "weights.tracker exists and is no tracker file; it stays as it is, choose another place for it.\n"
    )
    assert daemon.requests == []


# download


@pytest.mark.parametrize("option", [["-p"], []])
def test_download(option: list[str], interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER)
    daemon.will(progress(), DOWNLOAD)
    outcome = interfiles("download", *option, "weights.tracker")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "Done: /data/weights (18.4 GB in 17 s, 1.1 GB/s, every piece verified).\n"
    assert daemon.requests == [(messages.Download("", os.fsencode(here.resolve()), False, False, None, None), TRACKER)]


def test_download_as_json(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(progress(), DOWNLOAD)
    outcome = interfiles("download", "-p", "weights", "-o", "/data", "--overwrite", "--timeout", "2m", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert msgspec.convert(json.loads(outcome.out), DownloadReport) == DOWNLOAD
    assert daemon.request == messages.Download("weights", b"/data", True, False, 120.0, None)


def test_download_in_the_background(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(msgspec.structs.replace(DOWNLOAD, name=HOSTILE, state="detached"))
    outcome = interfiles("download", "-p", "weights", "--detach", "--priority", "low")
    assert outcome.code == 0
    assert outcome.out == (f"Started: {HOSTILE_SHOWN} is fetched in the background. {GOES_ON.format('9c41e07b2d55')}\n")
    assert daemon.request == messages.Download("weights", os.fsencode(Path.cwd().resolve()), False, True, None, "low")


def test_a_download_that_waits_says_for_what_and_ends_at_its_timeout(interfiles: Command, daemon: FakeDaemon) -> None:
    text = "no host that is up has weights (render-01 has it, last seen 3 h ago)"
    daemon.will(progress("waiting", text=text), NoSource("nobody came"))
    outcome = interfiles("download", "-p", "weights", "--timeout", "10s", "--json")
    assert (outcome.code, outcome.out) == (6, "")
    assert outcome.err == (f"interfiles: {text}. Waiting; Ctrl-C leaves it queued.\ninterfiles: nobody came.\n")


def test_a_destination_that_exists(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(DestinationExists("/data/weights exists and differs; use --overwrite, or -o for another place"))
    outcome = interfiles("download", "-p", "weights")
    assert outcome.code == 9
    assert outcome.err == ("interfiles: /data/weights exists and differs; use --overwrite, or -o for another place.\n")


def test_a_bad_tracker_file_is_refused_whether_a_daemon_runs_or_not(interfiles: Command, here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER[:100])
    outcome = interfiles("download", "-p", "weights.tracker")
    assert outcome.code == 5
    assert outcome.err.startswith("interfiles: weights.tracker is truncated: 100 of ")


def test_a_daemon_that_dies_during_a_download(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(progress())
    outcome = interfiles("download", "-p", "weights")
    assert outcome.code == 3
    assert outcome.err == (
        "interfiles: the client daemon went away before the download was done; start it again, and the download goes "
        "on by itself.\n"
    )


# wait


def test_wait(interfiles: Command, daemon: FakeDaemon, here: Path) -> None:
    (here / "weights.tracker").write_bytes(TRACKER)
    daemon.will(progress(), DOWNLOAD)
    outcome = interfiles("wait", "weights.tracker", "--timeout", "1h")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Done: /data/weights (18.4 GB in 17 s")
    assert daemon.requests == [(messages.Wait("", 3600.0), TRACKER)]


def test_wait_for_all_is_a_stream_of_reports(interfiles: Command, daemon: FakeDaemon) -> None:
    second = msgspec.structs.replace(DOWNLOAD, id=OTHER)
    daemon.will(status(transfer(), transfer("paused", file_id="0c" * 32), transfer("waiting", file_id=OTHER)))
    daemon.will(progress(), DOWNLOAD)
    daemon.will(second)
    outcome = interfiles("wait", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    reports = [msgspec.json.decode(line, type=DownloadReport) for line in outcome.out.splitlines()]
    assert reports == [DOWNLOAD, second]
    assert [request for request, _ in daemon.requests][1:] == [messages.Wait(ID, None), messages.Wait(OTHER, None)]


@pytest.mark.parametrize("command", ["wait", "pause"])
def test_all_downloads_are_not_what_was_shared_and_has_changed(
    command: str, interfiles: Command, daemon: FakeDaemon
) -> None:
    """Such a file ended the command, and the downloads behind it were never looked at."""
    daemon.will(status(transfer("withdrawn"), transfer("damaged"), transfer("paused", file_id=OTHER)))
    assert interfiles(command).code == 0
    assert len(daemon.requests) == 1


def test_wait_ends_with_the_first_that_fails(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(status(transfer(), transfer(file_id=OTHER)))
    daemon.will(TimedOut("weights got nothing for 5 s"))
    assert interfiles("wait", "--timeout", "5s").code == 6


@pytest.mark.parametrize(("command", "what"), [("wait", "wait for"), ("pause", "pause"), ("resume", "resume")])
def test_nothing_to_do(command: str, what: str, interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(status())
    outcome = interfiles(command)
    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == f"There is no download to {what} on this host.\n"


# pause and resume


def test_pause_and_resume(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(TransferStateReport(id=ID, name=HOSTILE, state="paused"))
    for _ in range(2):
        daemon.will(TransferStateReport(id=ID, name="weights", state="fetching"))
    assert interfiles("pause", "-p", "weights").out == f"Paused {HOSTILE_SHOWN}.\n"
    assert interfiles("resume", "-p", "weights").out == "Resumed weights.\n"
    assert json.loads(interfiles("resume", "weights", "--json").out) == {
        "id": ID,
        "name": "weights",
        "state": "fetching",
    }
    asked = [request for request, _ in daemon.requests]
    assert asked == [messages.Pause("weights"), messages.Resume("weights"), messages.Resume("weights")]


def test_copies_are_waited_for_once_a_file_and_not_paused(interfiles: Command, daemon: FakeDaemon) -> None:
    copies = status(transfer("copying"), transfer("copying"), transfer(file_id=OTHER))
    daemon.will(copies)
    daemon.will(TransferStateReport(id=OTHER, name="weights", state="paused"))
    assert interfiles("pause").code == 0
    assert [request for request, _ in daemon.requests[1:]] == [messages.Pause(OTHER)]
    daemon.requests.clear()
    daemon.will(copies)
    for _ in range(2):
        daemon.will(DOWNLOAD)
    assert interfiles("wait").code == 0
    assert [request for request, _ in daemon.requests[1:]] == [messages.Wait(ID, None), messages.Wait(OTHER, None)]


def test_pause_and_resume_all(interfiles: Command, daemon: FakeDaemon) -> None:
    all_of_them = status(transfer(), transfer("paused", file_id="0c" * 32), transfer("waiting", file_id=OTHER))
    for command, state, chosen in (("pause", "paused", [ID, OTHER]), ("resume", "fetching", ["0c" * 32])):
        daemon.requests.clear()
        daemon.will(all_of_them)
        for file_id in chosen:
            daemon.will(TransferStateReport(id=file_id, name="weights", state=state))
        assert interfiles(command).code == 0
        asked = [
            request.query for request, _ in daemon.requests[1:] if isinstance(request, messages.Pause | messages.Resume)
        ]
        assert asked == chosen
