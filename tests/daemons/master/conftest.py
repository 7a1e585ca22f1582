"""A running master in virtual time."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from tests.daemons.master.scripted import Fleet, running_master


@pytest.fixture
async def fleet(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> AsyncIterator[Fleet]:
    async with running_master(tmp_path / "state") as running:
        yield running


@pytest.fixture
async def tight_fleet(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> AsyncIterator[Fleet]:
    """A fleet whose connections hold next to nothing that is not read."""
    async with running_master(tmp_path / "state", window_bytes=512) as running:
        yield running
