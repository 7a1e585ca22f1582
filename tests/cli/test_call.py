"""From a command to the daemons and back."""

import signal
from collections.abc import Iterator
from contextlib import suppress

import pytest
import trio

from interfiles.administration import Admin
from interfiles.cli.call import on_daemon, on_master
from interfiles.control import Daemon
from tests.fake_daemon import FakeDaemon


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own answer to Ctrl-C: a shell that starts pytest in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def interrupted_where_errors_are_dropped(_: Daemon | Admin) -> None:
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    with trio.fail_after(10):
        await trio.sleep_forever()


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_not_lost_when_it_comes_while_c_code_drops_errors(daemon: FakeDaemon) -> None:
    with pytest.raises(KeyboardInterrupt):
        on_daemon(str(daemon.socket), interrupted_where_errors_are_dropped)
    with pytest.raises(KeyboardInterrupt):
        on_master(None, interrupted_where_errors_are_dropped)
