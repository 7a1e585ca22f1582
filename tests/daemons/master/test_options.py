"""The master's options in this process: what they become, and what a master is started with where none is given."""

from pathlib import Path

import pytest

from daemons.command_line import run_command
from daemons.master import __main__ as command
from daemons.master.app import MasterConfig
from interfiles.errors import DONE
from interfiles.transport.base import Address
from tests.daemons import starting
from tests.daemons.starting import Started


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Started[MasterConfig]:
    return starting.started(command, monkeypatch, tmp_path)


def config_of(started: Started[MasterConfig], *arguments: str) -> MasterConfig:
    with pytest.raises(SystemExit) as ended:
        run_command(command.app, "interfiles master", arguments)
    assert ended.value.code == DONE
    assert started.config is not None
    return started.config


def test_the_defaults_are_those_of_the_documents(started: Started[MasterConfig]) -> None:
    config = config_of(started)
    assert (config.replicas, config.grace_s, config.heartbeat_s) == (3, 120, 10)
    assert (config.listen, config.advertise) == (Address("0.0.0.0", 4850), None)


def test_every_option(started: Started[MasterConfig], tmp_path: Path) -> None:
    config = config_of(
        started,
        *("--listen", "10.0.0.5", "--advertise", "files.example.net", "--state", "state"),
        *("--replicas", "2", "--grace", "30s"),
    )
    assert (config.listen, config.advertise) == (Address("10.0.0.5", 4850), Address("files.example.net", 0))
    assert (config.state, config.replicas) == (tmp_path / "state", 2)
    assert (config.grace_s, config.heartbeat_s) == (30, 5)
