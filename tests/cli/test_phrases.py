"""The sentences that a person reads at the end of a command."""

from pathlib import Path

import msgspec
import pytest

from interfiles.cli import phrases
from interfiles.cli.output import Screen
from interfiles.wire.reports import DownloadReport
from tests.samples import DOWNLOAD, HOSTILE, HOSTILE_SHOWN, REMOVED, UPLOAD, VERIFIED


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, "Done: /data/weights (18.4 GB in 17 s, 1.1 GB/s, every piece verified)."),
        (
            {"bytes_from_peers": {"a": 8_400_000_000}, "bytes_local": 10_000_000_000},
            "Done: /data/weights (18.4 GB in 17 s, 494 MB/s, 10.0 GB of it from this host, every piece verified).",
        ),
        (
            {"bytes_from_peers": {}, "bytes_local": 18_400_000_000},
            "Done: /data/weights (18.4 GB, all of it from this host, every piece verified).",
        ),
        (
            {"pieces_rejected": 1},
            (
                "Done: /data/weights (18.4 GB in 17 s, 1.1 GB/s, 1 bad piece refused and fetched again, "
                "every piece verified)."
            ),
        ),
        ({"size": 0, "bytes_from_peers": {}}, "Done: /data/weights (0 B, every piece verified)."),
        (
            {"size": 5, "bytes_from_peers": {"a": 5}, "seconds": 0.0},
            "Done: /data/weights (5 B in 0 s, 5 B/s, every piece verified).",
        ),
        ({"path": f"/{HOSTILE}"}, f"Done: /{HOSTILE_SHOWN} (18.4 GB in 17 s, 1.1 GB/s, every piece verified)."),
    ],
)
def test_downloaded(changes: dict[str, object], sentence: str) -> None:
    report: DownloadReport = msgspec.structs.replace(DOWNLOAD, **changes)
    assert phrases.downloaded(report) == sentence


def test_uploaded() -> None:
    report = msgspec.structs.replace(UPLOAD, tracker="/srv/weights.tracker")
    assert phrases.uploaded(report, Screen()) == [
        "/srv/weights.tracker  9c41e07b2d55 · 18.4 GB in 231 files · 4,388 pieces of 4 MiB · wanted on 3 hosts"
    ]
    small = msgspec.structs.replace(report, size=7, files=1, pieces=1, piece_size=256 << 10, replicas_wanted=0)
    assert phrases.uploaded(small, Screen(50)) == [
        "/srv/weights.tracker  9c41e07b2d55 · 7 B",
        "1 piece of 256 KiB",
    ]


@pytest.mark.parametrize(
    ("changes", "local", "sentence"),
    [
        (
            {},
            False,
            "Removed weights from the fleet; 3 other hosts are told to forget it. /data/weights stays where it is.",
        ),
        (
            {"hosts": 1, "deleted": True},
            False,
            "Removed weights from the fleet; 1 other host is told to forget it. /data/weights is deleted.",
        ),
        ({"hosts": 0, "path": ""}, False, "Removed weights from the fleet; no other host had any of it."),
        ({}, True, "Removed weights from this host alone. /data/weights stays where it is."),
        (
            {"ordered": True, "deleted": True},
            True,
            (
                "Removed weights from this host alone; it was the fleet's copy, and the master makes another elsewhere "
                "if it can. /data/weights is deleted."
            ),
        ),
    ],
)
def test_removed(changes: dict[str, object], local: bool, sentence: str) -> None:
    assert phrases.removed(msgspec.structs.replace(REMOVED, **changes), local=local) == sentence


def test_verified() -> None:
    assert phrases.verified(VERIFIED) == "weights: all 4,388 pieces match (18.4 GB, checked in 3.1 s)."


@pytest.mark.parametrize(
    ("bad", "start"),
    [
        ([7], "weights: 1 of 4,388 pieces does not match (piece 7) and is no longer served; "),
        ([7, 4000], "weights: 2 of 4,388 pieces do not match (pieces 7, 4,000) and are no longer served; "),
        (
            list(range(9)),
            "weights: 9 of 4,388 pieces do not match (pieces 0, 1, 2, 3, 4, …) and are no longer served; ",
        ),
    ],
)
def test_found_bad(bad: list[int], start: str) -> None:
    sentence = phrases.found_bad(msgspec.structs.replace(VERIFIED, bad_pieces=bad))
    assert sentence == start + "`interfiles download` fetches what is missing, over an upload in place with --overwrite"


def test_bad_pieces_of_a_replica_were_for_people_to_fetch_again() -> None:
    sentence = phrases.found_bad(msgspec.structs.replace(VERIFIED, bad_pieces=[7], ordered=True))
    assert sentence.endswith("is no longer served; it is the fleet's copy, and is mended by itself")


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [(0, 10, "0 %"), (9_999, 10_000, "99 %"), (10, 10, "100 %"), (0, 0, "100 %"), (10**18, 10**18 + 1, "99 %")],
)
def test_percent_says_100_only_when_all_is_there(done: int, total: int, shown: str) -> None:
    assert phrases.percent(done, total) == shown


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (9_400_000_000, 18_400_000_000, "9.4 of 18.4 GB"),
        (940_000_000, 18_400_000_000, "940 MB of 18.4 GB"),
        (0, 5, "0 of 5 B"),
    ],
)
def test_part_of_has_the_unit_once_where_it_can(done: int, total: int, shown: str) -> None:
    assert phrases.part_of(done, total) == shown


def test_time_left() -> None:
    assert phrases.time_left(0, 100, 10) == "10 s"
    assert phrases.time_left(1, 100, 10) == "10 s"
    assert phrases.time_left(0, 100, 0) == ""
    assert phrases.time_left(100, 100, 10) == ""


def test_paths_are_short_below_the_current_directory_and_whole_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path.resolve()
    (here / "sub" / "weights").mkdir(parents=True)
    monkeypatch.chdir(here / "sub")
    assert phrases.place(str(here / "sub" / "weights")) == "weights/"
    assert phrases.place(str(here / "sub" / "file")) == "file"
    assert phrases.place(str(here / "file")) == str(here / "file")
    (here / "sub" / "weights").rmdir()
    (here / "sub").rmdir()
    assert phrases.place("/data/weights") == "/data/weights"


def test_home_relative(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/srv/ada")
    assert phrases.home_relative("/srv/ada/.local/state") == "~/.local/state"
    assert phrases.home_relative("/srv/adam") == "/srv/adam"
