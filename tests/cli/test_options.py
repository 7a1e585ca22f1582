"""What the shell completes, and how the shared options are read."""

from pathlib import Path

import pytest

from interfiles.cli.options import complete_tracker_files, exactly_one, only_one
from interfiles.errors import UsageError
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import status


@pytest.mark.parametrize(
    ("incomplete", "found"),
    [
        ("", ["sub/", "weights.tracker"]),
        ("we", ["weights.tracker"]),
        ("sub/", ["sub/deep/", "sub/other.tracker"]),
        ("sub/o", ["sub/other.tracker"]),
        (".h", [".hidden.tracker"]),
        ("missing/", []),
    ],
)
def test_tracker_files_and_directories_are_completed(
    incomplete: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("weights.tracker", "weights.bin", ".hidden.tracker", "sub/other.tracker", "sub/notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert complete_tracker_files(incomplete) == found
    assert complete_tracker_files(f"{tmp_path}/{incomplete}") == [f"{tmp_path}/{name}" for name in found]


def test_a_file_is_named_once() -> None:
    assert only_one(None, None) is None
    assert only_one("a", None) == exactly_one(None, "a", "the file") == "a"
    with pytest.raises(UsageError, match="the file is named twice"):
        only_one("a", "b")
    with pytest.raises(UsageError, match="the path is missing; name it with -p"):
        exactly_one(None, None, "the path")


@pytest.mark.parametrize("before", [True, False])
def test_the_socket_is_named_before_or_after_the_command(
    before: bool, interfiles: Command, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERFILES_SOCKET", "/nowhere/client.sock")
    daemon.will(status())
    option = ["--socket", str(daemon.socket)]
    outcome = interfiles(*option, "status") if before else interfiles("status", *option)
    assert outcome.code == 0


def test_the_socket_after_a_command_wins(interfiles: Command, daemon: FakeDaemon) -> None:
    daemon.will(status())
    assert interfiles("--socket", "/nowhere", "status", "--socket", daemon.socket).code == 0


def test_the_socket_before_a_group_of_commands_counts_too(interfiles: Command, tmp_path: Path) -> None:
    option = ["--socket", str(tmp_path / "x.sock")]
    for arguments in ([*option, "hosts"], [*option, "hosts", "list"], ["hosts", *option, "list"]):
        outcome = interfiles(*arguments)
        assert (outcome.code, "x.sock" in outcome.err) == (3, True)
