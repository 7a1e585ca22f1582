"""A daemon's command in this process: what it would start, and with what."""

import os
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import pytest

C = TypeVar("C")


class Started(Generic[C]):
    """Stands for the daemon: keeps the configuration that it was started with."""

    config: C | None = None

    async def __call__(self, config: C) -> None:
        self.config = config


def started(command: ModuleType, monkeypatch: pytest.MonkeyPatch, directory: Path) -> Started[C]:
    """What the command line would run, in this directory; nothing else of the process changes.

    `command`: the module of the daemon's command.
    """
    made = Started[C]()
    monkeypatch.setattr(command, "_main", made)
    for name in ("configure_logging", "spare_collector"):
        monkeypatch.setattr(command, name, lambda **_: None, raising=False)
    monkeypatch.setattr(command, "raise_file_limit", lambda: 1024)
    for variable in [name for name in os.environ if name.startswith(("INTERFILES", "XDG"))]:
        monkeypatch.delenv(variable)
    monkeypatch.chdir(directory)
    return made
