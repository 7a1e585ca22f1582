"""Commands in this process, against a daemon that plays a script."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

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
