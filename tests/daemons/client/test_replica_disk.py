"""Orders that the disk does not take: at once, by what is kept free of it, or while the copy comes."""

import errno
import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.storage import part_layout
from interfiles.units import format_bytes
from interfiles.wire import master_messages as m
from tests.daemons.client.peers import Server, hand_out, serving
from tests.daemons.client.setting import link, until
from tests.daemons.client.test_allowance import FRAGMENT, GIB, a_disk
from tests.daemons.client.world import World
from tests.storage.contents import Content, Failing, path_of


async def order(world: World, content: Content) -> None:
    world.master.catalogue[content.manifest.file_id] = content.manifest
    await world.master.push(m.Order(content.manifest.file_id, content.manifest.size))


async def declined(world: World) -> m.Declined:
    """The only thing that the daemon declines, however long the master waits."""
    await until(lambda: world.master.messages(m.Declined))
    await trio.sleep(60)
    (one,) = world.master.messages(m.Declined)
    assert isinstance(one, m.Declined)
    return one


def traces(world: World, content: Content) -> list[Path]:
    """Whatever lies in the daemon's directory of a content, or of a place for it."""
    names = content.manifest.name, content.manifest.file_id.hex()
    return [path for path in world.daemon.state.rglob("*") if path.name.startswith(names)]


@pytest.mark.parametrize(("keep_free", "reserve"), [(None, 5 * GIB), (30 * GIB, 30 * GIB), (0, 0)])
async def test_an_order_that_would_take_of_what_is_kept_free_is_declined(
    world: World,
    content: Content,
    monkeypatch: pytest.MonkeyPatch,
    keep_free: int | None,
    reserve: int,
    autojump_clock: MockClock,
) -> None:
    size, room = content.manifest.size, 100 * FRAGMENT
    world.daemon.keep_free = keep_free
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(100 * GIB, reserve + room))
    await world.daemon.restart()
    await trio.sleep(5)
    assert world.master.heartbeats[-1].free == room
    await order(world, content)
    answer = await declined(world)
    assert (answer.code, answer.rest_s, answer.whole_host) == ("no-space", 0.0, True)
    assert answer.text == f"it has room for {format_bytes(room)} of copies, this one needs {format_bytes(size)}"
    assert content.manifest.file_id not in world.master.holdings
    assert traces(world, content) == []
    monkeypatch.setattr(os, "statvfs", lambda _: a_disk(100 * GIB, reserve + size + FRAGMENT))
    await order(world, content)
    await until(lambda: content.manifest.file_id in world.master.holdings)
    assert len(world.master.messages(m.Declined)) == 1


async def test_an_order_whose_space_cannot_be_reserved_is_declined_before_anything_is_fetched(
    world: World, content: Content, failing: Failing, autojump_clock: MockClock
) -> None:
    failing("fallocate", errno.ENOSPC, module=part_layout)
    server = Server(world, content, "honest")
    await serving(world, server)
    await order(world, content)
    await until(lambda: world.master.messages(m.Declined))
    await hand_out(world, server)
    answer = await declined(world)
    assert (answer.code, answer.rest_s, answer.whole_host) == ("no-space", 0.0, True)
    assert answer.text.endswith(" cannot be written: No space left on device; make room on that disk")
    assert server.opened_at == []
    assert content.manifest.file_id not in world.master.holdings
    assert traces(world, content) == []


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
async def test_a_disk_that_is_full_while_a_copy_comes_has_it_declined_and_given_up(
    world: World, content: Content, failing: Failing, call: str, autojump_clock: MockClock
) -> None:
    file_id, server = content.manifest.file_id, Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=4e4))

    def is_full(descriptor: int, *_: object) -> bool:
        """From when the master has heard of a piece on."""
        held = world.master.holdings.get(file_id)
        return held is not None and held.pieces > 0 and path_of(descriptor).endswith(".part")

    failing(call, errno.ENOSPC, when=is_full)
    await order(world, content)
    await until(lambda: file_id in world.master.holdings)
    await hand_out(world, server)
    answer = await declined(world)
    assert (answer.code, answer.rest_s, answer.whole_host) == ("no-space", 0.0, True)
    assert answer.text.endswith(" cannot be written: No space left on device; make room on that disk")
    assert traces(world, content) == []
    assert world.master.holdings[file_id].state == "none"
    assert (await world.daemon.status()).transfers == []
