"""What the library keeps open, and that it looks after every file."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import NoSource, StorageFailed
from interfiles.storage.jobs import JobStore
from interfiles.wire import control_messages as c
from interfiles.wire.reports import RemoveReport
from tests.daemons.client.peers import honest_copy
from tests.daemons.client.setting import tracker_of
from tests.daemons.client.world import World
from tests.storage.contents import Content, make_tree, uploaded


async def test_old_stores_close_when_files_are_replaced(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    root = tmp_path / "original" / "many"
    make_tree(root, {f"{number:03}": bytes([number]) * 20_000 for number in range(100)})
    content = uploaded(root)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(4):
        await world.seed(content)
        assert await honest_copy(world, content) == content.data
    await trio.sleep(1)
    assert len(os.listdir("/proc/self/fd")) <= before + 100 + 5
    await world.daemon.remove(content.manifest)
    await trio.sleep(1)
    assert len(os.listdir("/proc/self/fd")) <= before + 5


async def test_the_library_looks_after_files_though_one_makes_trouble(
    world: World, content: Content, tree: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.seed(tree)

    def fail(*_: object) -> None:
        raise StorageFailed("the client's database cannot be written")

    content.root.write_bytes(b"changed")
    with monkeypatch.context() as patched:
        patched.setattr(JobStore, "set_state", fail)
        await trio.sleep(130)
        assert await honest_copy(world, tree) == tree.data, "the daemon is still there"
    await trio.sleep(130)
    assert (await world.daemon.stat(content.manifest)).local.state == "none"
    with pytest.raises(NoSource):
        await world.daemon.download(content.manifest, timeout_s=1)
    await world.daemon.ask(c.Remove("", True, False), RemoveReport, tracker_of(content.manifest))
