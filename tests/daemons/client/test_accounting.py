"""What a download says of where its bytes came from: each counts once, whatever a crash came upon."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.library import Library
from interfiles.errors import NoSpace
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.setting import link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, noise, uploaded

ZEROS, OLD, NEW = (
    3,
    2,
    10,
)  # pieces of a new version: what needs nobody, what the old one has too, what is to be fetched


@pytest.fixture
def content(tmp_path: Path) -> Content:
    path = tmp_path / "original" / "weights.bin"
    path.parent.mkdir()
    path.write_bytes(bytes(ZEROS * PIECE) + noise((OLD + NEW) * PIECE, 9))
    return uploaded(path)


@pytest.fixture
def server(world: World, content: Content) -> Server:
    """An honest server that needs nearly a second for a piece; the old version is at the destination."""
    (world.daemon.got / "weights.bin").write_bytes(content.data[: (ZEROS + OLD) * PIECE])
    made = Server(world, content, "honest")
    world.network.set_link(made.ip, link(rate=PIECE * 1.1))
    return made


async def is_counted_once(world: World, content: Content) -> None:
    report = await world.daemon.wait(content.manifest)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data
    assert report.bytes_local == (ZEROS + OLD) * PIECE
    assert sum(report.bytes_from_peers.values()) == NEW * PIECE


@pytest.mark.parametrize("moment_s", [0.3, 1.1, 2.2, 3.4, 4.6])
async def test_after_crashes(
    world: World, content: Content, server: Server, moment_s: float, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, overwrite=True, detach=True)
    await hand_out(world, server)
    for _ in range(2):
        await trio.sleep(moment_s)
        assert (await world.daemon.transfer()).bytes_done < content.manifest.size
        await world.daemon.restart()
    await is_counted_once(world, content)


async def test_what_was_copied_and_not_recorded_was_copied_all_the_same(
    world: World, content: Content, server: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async def fail(*_: object) -> None:
        raise NoSpace("not now")

    with monkeypatch.context() as patched:
        patched.setattr(Library, "record_progress", fail)
        await world.daemon.download(content.manifest, overwrite=True, detach=True)
        await hand_out(world, server)
        await trio.sleep(20)  # it is tried some times
        await world.daemon.crash()
    assert not server.answered
    await world.daemon.start()
    await is_counted_once(world, content)


async def test_after_a_pause(world: World, content: Content, server: Server, autojump_clock: MockClock) -> None:
    await world.daemon.download(content.manifest, overwrite=True, detach=True)
    await hand_out(world, server)
    for _ in range(3):
        await until(lambda: bool(server.answered))
        await trio.sleep(1.3)
        await world.daemon.pause(content.manifest)
        server.answered.clear()
        await world.daemon.resume(content.manifest)
    await is_counted_once(world, content)
