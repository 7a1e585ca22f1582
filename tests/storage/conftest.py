from collections.abc import Iterator

import pytest

from interfiles.storage.open_files import OpenFiles
from tests.storage.contents import Failing, no_leaks


@pytest.fixture
def files() -> Iterator[OpenFiles]:
    """The daemon's open files; whatever a test leaves open fails it."""
    with no_leaks():
        made = OpenFiles()
        yield made
        assert len(made) == 0, "a store was not closed"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    return Failing(monkeypatch)
