"""The edge: every error is one sentence and an exit code, and nothing that happens is a traceback."""

import importlib
import io
import json
import sys
from pathlib import Path

import pytest
import typer

from interfiles import __version__, errors
from interfiles.cli import app as module
from interfiles.cli import output
from tests.cli.conftest import Command
from tests.fake_daemon import FakeDaemon
from tests.samples import HOSTILE, status

COMMANDS = ["upload", "download", "wait", "pause", "resume", "verify", "rm", "stat", "ls", "token", "status", "hosts"]
COMMANDS += ["replicas"]
NESTED = [["hosts", "list"], ["hosts", "remove"], ["hosts", "drain"], ["hosts", "undrain"], ["replicas", "set"]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.UsageError, 2),
        (errors.PathNotFound, 2),
        (errors.MasterUnreachable, 3),
        (errors.UnknownFile, 4),
        (errors.UnknownHost, 4),
        (errors.InvalidTrackerFile, 5),
        (errors.VerificationFailed, 5),
        (errors.NoSource, 6),
        (errors.TimedOut, 6),
        (errors.NotPermitted, 7),
        (errors.NoSpace, 8),
        (errors.DestinationExists, 9),
        (errors.Refused, 9),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_every_error_of_the_daemon_has_its_exit_code(
    error: type[errors.InterFilesError], code: int, options: list[str], interfiles: Command, daemon: FakeDaemon
) -> None:
    daemon.will(error("something is wrong, do something"))
    outcome = interfiles("status", *options)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err == "interfiles: something is wrong, do something.\n"


def test_an_error_of_a_newer_daemon_is_a_refusal(interfiles: Command, daemon: FakeDaemon) -> None:
    class Newer(errors.InterFilesError):
        code = "newer"

    daemon.will(Newer(f"it is full moon {HOSTILE}."))
    outcome = interfiles("status")
    assert outcome.code == 9
    assert outcome.err == "interfiles: it is full moon evil\\x1b[2J\\u202etxt\\x0a.\n"


def test_no_daemon(interfiles: Command, tmp_path: Path) -> None:
    outcome = interfiles("status")
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(
        f"interfiles: the client daemon is not running (no socket at {tmp_path}/run/client.sock); "
        "start it with `interfiles client`, or name the socket of another"
    )
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["downlod"], "no such command 'downlod'. Did you mean 'download'? See `interfiles --help`."),
        (["hosts", "frob"], "no such command 'frob'; see `interfiles hosts --help`."),
        (["status", "--jsn"], "no such option: --jsn (Possible options: --json); see `interfiles status --help`."),
        (["status", "extra"], "got unexpected extra argument(s) (extra); see `interfiles status --help`."),
        (["replicas"], "missing command; see `interfiles replicas --help`."),
        (["download"], "the file (a tracker file, a file id or a name) is missing; name it with -p."),
        (["upload"], "the file or directory is missing; name it with -p."),
        (["upload", "-p"], "option '-p' requires an argument; see `interfiles --help`."),
        (
            ["upload", "-p", "a", "--replicas", "x"],
            "'x' is not a number of copies; it is 1 to 1,000.",
        ),
        (["upload", "-p", "a", "--replicas", "３"], "'３' is not a number of copies; it is 1 to 1,000."),
        (["upload", "a", "--expire-in", "0"], "'0' is no time at all; write 10s, 2m, 1h or 30d."),
        (["wait", "-p", "a", "--replicas", "0"], "'0' is not a number of copies; it is 1 to 1,000."),
        (
            ["wait", "-p", "a", "--replicas", "abc"],
            "'abc' is not a number of copies, and the file is named already, with -p.",
        ),
        (["wait", "-p", "a", "b", "--replicas", "2"], "the file is named twice, with -p and as 'b'; name it once."),
        (["download", "a", "-p", "b"], "the file is named twice, with -p and as 'a'; name it once."),
        (["download", "a", "--timeout", "5"], "'5' is not a duration; write 10s, 2m, 1h or 30d."),
        (
            ["stat", "missing.tracker"],
            "there is no tracker file missing.tracker; give the path of one, or a file's id or name.",
        ),
        (["status", f"--{HOSTILE}"], None),
        (["upload", "-p", "x", "--replicas", "0"], None),
        (["upload", "-p", "x", "--replicas", "many"], None),
        (["token", "--uses", "0"], None),
        (["hosts", "remove"], None),
    ],
)
def test_usage_errors(arguments: list[str], sentence: str | None, interfiles: Command) -> None:
    outcome = interfiles(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("interfiles: ")
    assert outcome.err.count("\n") == 1
    assert "\x1b" not in outcome.err
    assert sentence is None or outcome.err == f"interfiles: {sentence}\n"


def test_without_a_command_the_help_is_shown_as_an_error(interfiles: Command) -> None:
    outcome = interfiles()
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("Usage: interfiles [OPTIONS] COMMAND")


def test_version(interfiles: Command) -> None:
    assert interfiles("--version").out == f"interfiles {__version__}\n"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), *NESTED], ids=" ".join)
def test_help_teaches_by_example_and_fits_80_columns(
    command: list[str], interfiles: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = interfiles(*command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"Usage: interfiles {' '.join(command)}" in outcome.out
    if command != ["hosts", "list"]:
        assert "\n  Examples:\n    interfiles " in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80
    assert "..." not in outcome.out.replace("[ARGS]...", "")


def test_every_command_is_listed(interfiles: Command) -> None:
    listed = interfiles("--help").out
    assert [name for name in [*COMMANDS, "master", "client"] if f"\n  {name} " not in listed] == []


def test_a_bug_is_a_sentence_that_asks_for_a_report(
    interfiles: Command, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("interfiles.cli.reports.status_lines", broken)
    for debug in ("", "1"):
        monkeypatch.setenv("INTERFILES_DEBUG", debug)
        daemon.will(status())
        outcome = interfiles("status")
        assert outcome.code == module.BUG
        assert outcome.err.splitlines()[-1] == (
            "interfiles: this is a bug in InterFiles (KeyError); please report it, with what INTERFILES_DEBUG=1 shows."
        )
        assert ("Traceback" in outcome.err) is bool(debug)


def test_ctrl_c_anywhere_ends_with_130(interfiles: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interfiles.cli.daemon.on_daemon", interrupted)
    outcome = interfiles("status")
    assert (outcome.code, outcome.out) == (130, "")


# Streams


class _Broken(io.StringIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error


def test_a_reader_that_stops_is_no_error(
    interfiles: Command, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.will(status())
    monkeypatch.setattr(sys, "stdout", _Broken(BrokenPipeError()))
    outcome = interfiles("status")
    assert (outcome.code, outcome.err) == (0, "")


def test_output_that_cannot_be_written_is_an_error(
    interfiles: Command, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.will(status())
    monkeypatch.setattr(sys, "stdout", _Broken(OSError(28, "No space left on device")))
    outcome = interfiles("status", "--json")
    assert (outcome.code, outcome.err) == (9, "interfiles: the output cannot be written: No space left on device.\n")


def test_closed_streams_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    output.emit("a result")
    output.complain("an error")
    assert not output.is_terminal(sys.stdout)


def test_json_is_one_line_of_ascii(interfiles: Command, daemon: FakeDaemon) -> None:
    import msgspec

    daemon.will(msgspec.structs.replace(status(), name=f"größe{HOSTILE}"))
    outcome = interfiles("status", "--json")
    assert outcome.out.isascii()
    assert outcome.out.count("\n") == 1
    assert "\x1b" not in outcome.out
    assert json.loads(outcome.out)["name"] == f"größe{HOSTILE}"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TERM": "xterm", "COLUMNS": "50"}, output.Screen(50, colour=True)),
        ({"TERM": "xterm", "COLUMNS": "50", "NO_COLOR": ""}, output.Screen(50, colour=True)),
        ({"TERM": "xterm", "COLUMNS": "50", "NO_COLOR": "1"}, output.Screen(50)),
        ({"TERM": "dumb", "COLUMNS": "50"}, output.Screen(50, is_dumb=True)),
    ],
)
def test_a_screen_is_what_the_terminal_can_show(
    environ: dict[str, str], expected: output.Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    assert output.Screen.of(terminal) == expected
    assert output.Screen.of(io.StringIO()) == output.Screen()


def test_the_console_script_ends_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["interfiles", "downlod"])
    with pytest.raises(SystemExit) as caught:
        importlib.import_module("interfiles.cli.__main__").main()
    assert caught.value.code == 2
    assert isinstance(module.app, typer.Typer)
