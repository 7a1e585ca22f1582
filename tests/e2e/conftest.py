"""What end-to-end tests share: fleets, and the daemons' logs where a test fails."""

import os
import shutil
import signal
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        fleets = {id(value): value for value in item.funcargs.values() if isinstance(value, Fleet)}
        report.sections += [("Logs of the daemons", fleet.logs()) for fleet in fleets.values()]
    return report


@pytest.fixture(scope="session", autouse=True)
def heed_interrupts() -> Iterator[None]:
    """Let processes that tests start hear Ctrl-C: who is started in the background of a script ignores it, for good."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@contextmanager
def _fleet(factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An empty fleet in a directory that goes at the end, as it may be large; its path is short, for the sockets."""
    directory = factory.mktemp("fleet")
    try:
        with Fleet(directory, bytecode=factory.getbasetemp() / "bytecode") as fleet:
            yield fleet
    finally:
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def module_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An empty fleet for a whole module."""
    with _fleet(tmp_path_factory) as fleet:
        yield fleet


@pytest.fixture
def own_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """An empty fleet for one test."""
    with _fleet(tmp_path_factory) as fleet:
        yield fleet


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory with a short path that other users can enter."""
    directory = Path(tempfile.mkdtemp(prefix="interfiles-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def other_uid() -> int:
    """Another user's id, which a process of this test may take on."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    return 65534
