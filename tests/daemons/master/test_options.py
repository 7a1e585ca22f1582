"""The master's options in this process: what they become, and what a master is started with where none is given."""

import os
from pathlib import Path

import pytest

from daemons.command_line import run_command
from daemons.master import __main__ as command
from daemons.master.app import MasterConfig
from interfiles.errors import DONE
from interfiles.transport.base import Address


class Started:
    """Stands for the daemon: keeps what it was started with."""

    config: MasterConfig | None = None

    async def __call__(self, config: MasterConfig) -> None:
        self.config = config


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started:
    """What the command line would run; nothing else of the process changes."""
    made = Started()
    monkeypatch.setattr(command, "_main", made)
    monkeypatch.setattr(command, "configure_logging", lambda **_: None)
    monkeypatch.setattr(command, "spare_collector", lambda **_: None)
    monkeypatch.setattr(command, "raise_file_limit", lambda: 1024)
    for variable in [name for name in os.environ if name.startswith(("INTERFILES", "XDG"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(tmp_path)
    return made


def config_of(started: Started, *arguments: str) -> MasterConfig:
    with pytest.raises(SystemExit) as ended:
        run_command(command.app, "interfiles master", arguments)
    assert ended.value.code == DONE
    assert started.config is not None
    return started.config


def test_the_defaults_are_those_of_the_documents(started: Started) -> None:
    config = config_of(started)
    assert (config.replicas, config.grace_s, config.heartbeat_s) == (3, 120, 10)
    assert (config.listen, config.advertise) == (Address("0.0.0.0", 4850), None)


def test_every_option(started: Started, tmp_path: Path) -> None:
    config = config_of(
        started,
        *("--listen", "10.0.0.5", "--advertise", "files.example.net", "--state", "state"),
        *("--replicas", "2", "--grace", "30s"),
    )
    assert (config.listen, config.advertise) == (Address("10.0.0.5", 4850), Address("files.example.net", 0))
    assert (config.state, config.replicas) == (tmp_path / "state", 2)
    assert (config.grace_s, config.heartbeat_s) == (30, 5)
