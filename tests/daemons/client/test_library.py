"""What the library keeps open, and that it looks after every file."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.library import Library
from interfiles.errors import NoSource, StorageFailed
from interfiles.piece_set import PieceSet
from interfiles.storage.executor import InlineExecutor
from interfiles.storage.jobs import JobStore
from interfiles.storage.open_files import OpenFiles
from interfiles.wire import control_messages as c
from interfiles.wire.reports import RemoveReport
from tests.daemons.client.peers import honest_copy
from tests.daemons.client.setting import SlowExecutor, tracker_of
from tests.daemons.client.world import World
from tests.storage.contents import Content, make_tree, uploaded
from tests.storage.test_jobs import RECORD


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


async def test_a_long_look_at_an_old_copy_writes_nothing_into_the_record_of_a_new_one(
    world: World, content: Content, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """After a crash, the new and empty part was trusted for what the old copy had."""
    await world.daemon.stop()
    jobs = world.daemon.records()
    library = Library(jobs, InlineExecutor(), InlineExecutor(), OpenFiles())
    none = PieceSet(content.manifest.piece_count)
    record = replace(
        RECORD,
        file_id=content.manifest.file_id,
        manifest=content.manifest.encode(),
        part=os.fsencode(tmp_path / "part"),
        state="downloading",
        durable=none.to_bytes(),
        note="",
        owned=False,
    )
    whole = replace(record, durable=none.complement().to_bytes(), part=None, state="complete")
    old = await library.add(whole, content.manifest, None)
    await library.add(record, content.manifest, None)
    await library.report_bad(old, [1])
    await library.set_state(old, "withdrawn", note="changed")
    (stored,) = jobs.load_all()
    assert (stored.durable, stored.state, stored.note) == (none.to_bytes(), "downloading", "")
    jobs.close()


@pytest.mark.parametrize("delay_s", [0.05, 0.15, 0.25, 0.35])
async def test_a_caller_that_leaves_in_the_middle_of_rm_leaves_no_part(
    world: World, content: Content, delay_s: float, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    world.daemon.disk = world.daemon.database = SlowExecutor(lambda: 0.1)
    await world.daemon.start()
    await world.daemon.download(content.manifest, detach=True)
    request = c.Remove("", True, False)
    async with world.daemon.calling(request, tracker_of(content.manifest)):
        await trio.sleep(delay_s)
    await trio.sleep(5)
    held = {path.name for path in world.daemon.got.iterdir()}
    assert bool(held) == bool((await world.daemon.status()).transfers)
