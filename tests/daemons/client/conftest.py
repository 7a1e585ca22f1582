"""A running daemon in virtual time, that repeats exactly."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.transport.memory import MemoryNetwork
from tests.daemons.client.scripted_master import Master
from tests.daemons.client.world import World, running_world
from tests.storage.contents import Content, Failing, a_file, a_tree


@pytest.fixture(autouse=True)
def deterministic_scheduling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a seed choose the order in which ready tasks run: a private switch of trio's, which is pinned."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", random.Random(1))


@pytest.fixture
async def world(tmp_path: Path, autojump_clock: MockClock) -> AsyncIterator[World]:
    async with running_world(tmp_path) as running:
        yield running


@pytest.fixture
async def master(autojump_clock: MockClock) -> AsyncIterator[Master]:
    """A master alone in its network."""
    async with trio.open_nursery() as nursery:
        made = Master(MemoryNetwork(random.Random(1)))
        await nursery.start(made.run)
        yield made
        nursery.cancel_scope.cancel()


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """A file in four pieces."""
    return a_file(tmp_path / "original" / "weights.bin")


@pytest.fixture
def tree(tmp_path: Path) -> Content:
    """A directory with a bit of everything, in five pieces."""
    return a_tree(tmp_path / "original" / "tree")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)
