"""Virtual time that repeats exactly, and content for the fleets."""

import random
from pathlib import Path

import pytest
import trio


@pytest.fixture(autouse=True)
def deterministic_scheduling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a seed choose the order in which ready tasks run: a private switch of trio's, which is pinned."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr(trio._core._run, "_r", random.Random(1))


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """Five megabytes and a bit that are like nothing else: twenty-one pieces."""
    path = tmp_path / "weights.bin"
    path.write_bytes(random.Random(7).randbytes(5 * 1024 * 1024 + 12_345))
    return path
