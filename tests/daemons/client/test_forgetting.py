"""What the master says was removed from the fleet, where that is nothing or does not go."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import UnknownFile
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=12 * PIECE + 10)


async def test_forgetting_what_is_not_here_is_nothing(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.master.push(m.Forget(bytes(32), True))
    await trio.sleep(1)
    assert len(world.master.connections) == 1
    await world.seed(content)


async def test_a_file_that_cannot_be_deleted_does_not_break_the_link(
    world: World, content: Content, failing: Failing, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, Server(world, content, "honest"))
    await world.daemon.wait(content.manifest)
    failing("unlink", errno.EACCES, when=lambda name, **_: b"weights" in os.fsencode(name))
    await world.master.push(m.Forget(content.manifest.file_id, True))
    await trio.sleep(30)
    assert len(world.master.connections) == 1
    with pytest.raises(UnknownFile):
        await world.daemon.verify(content.manifest)
    assert [record for record in log_records.records if "weights.bin" in str(record.get("reason"))]
