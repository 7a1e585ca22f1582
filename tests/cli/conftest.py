"""Commands in this process, against a daemon that plays a script."""

import io
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from interfiles.cli import progress
from interfiles.cli.app import run
from tests.fake_daemon import FakeDaemon


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A client daemon; its socket is the default one of `interfiles`."""
    with FakeDaemon(tmp_path / "run" / "client.sock").running() as fake:
        yield fake


@pytest.fixture
def master(tmp_path: Path) -> Iterator[FakeDaemon]:
    """A master; its state directory is `tmp_path / "master"`."""
    with FakeDaemon(tmp_path / "master" / "master.sock", "admin").running() as fake:
        yield fake


@pytest.fixture
def interfiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    """Run a command as a script would: no terminal, in the empty directory `tmp_path / "here"`, times in UTC."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("INTERFILES_SOCKET", str(tmp_path / "run" / "client.sock"))
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

    def command(*arguments: str | os.PathLike[str]) -> Outcome:
        capsys.readouterr()
        code = run([os.fspath(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    yield command
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Let a `Bar` or `StatusLine` draw on a terminal of 80 columns; return what it wrote, each line as it was left."""
    written = io.StringIO()
    consoles = []

    def console(**options: object) -> Console:
        consoles.append(Console(file=written, force_terminal=True, width=80, highlight=False, color_system=None))
        return consoles[-1]

    monkeypatch.setattr("rich.console.Console", console)
    monkeypatch.setattr(progress, "_MIN_REDRAW_S", 0)
    return lambda: _as_left(written.getvalue())


def _as_left(written: str) -> str:
    """What stands on a terminal after these bytes: as much of one as a line needs that is drawn again and again."""
    lines, row = [""], 0
    for sequence, character in re.findall(r"\x1b\[([?0-9;]*[A-Za-z])|([^\x1b])", written):
        if sequence == "1A":
            row -= 1
        elif sequence == "2K" or character == "\r":
            lines[row] = lines[row] if character else ""
        elif character == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif character:
            lines[row] += character
    return "\n".join(lines).strip()
