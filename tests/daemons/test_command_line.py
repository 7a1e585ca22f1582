"""The edge of a daemon's process."""

from typing import Annotated

import pytest
import typer

from daemons.command_line import run_command
from interfiles.errors import DONE, INTERRUPTED, NO_SPACE, USAGE, NoSpace

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def serve(
    size: Annotated[int, typer.Option(help="How much.")] = 1,
    fail: Annotated[str, typer.Option(help="In which way.")] = "",
) -> None:
    """Do as told."""
    match fail:
        case "full":
            raise NoSpace("/data is full; free some room")
        case "stop":
            raise KeyboardInterrupt
        case "abort":
            raise typer.Abort
        case "exit":
            raise typer.Exit(7)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], DONE, ""),
        (["--fail", "exit"], 7, ""),
        (["--fail", "full"], NO_SPACE, "interfiles: /data is full; free some room.\n"),
        (["--fail", "stop"], INTERRUPTED, ""),
        (["--fail", "abort"], INTERRUPTED, ""),
        (["--colour"], USAGE, "interfiles: no such option: --colour; see `interfiles serve --help`.\n"),
        (["extra"], USAGE, "interfiles: got unexpected extra argument(s) (extra); see `interfiles serve --help`.\n"),
        (["--size"], USAGE, "interfiles: option '--size' requires an argument; see `interfiles serve --help`.\n"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_end_is_an_exit_code_and_every_error_a_sentence(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(app, "interfiles serve", arguments)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.err, shown.out) == (code, complaint, "")


def test_help_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_command(app, "interfiles serve", ["--help"])
    assert ended.value.code == DONE
    assert capsys.readouterr().out.startswith("Usage: interfiles serve [OPTIONS]")


def test_a_bug_keeps_its_traceback() -> None:
    broken = typer.Typer(add_completion=False)

    @broken.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(broken, "interfiles serve", [])
