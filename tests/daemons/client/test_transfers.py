"""Pause, resume and remove, in every state and at every moment; and what the master has removed."""

import errno
import os
import random
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import Refused, StorageFailed, UnknownFile
from interfiles.storage import finishing
from interfiles.wire import master_messages as m
from tests.daemons.client.peers import Server, fetching, hand_out, serving
from tests.daemons.client.setting import SlowExecutor, link, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, Failing, a_file, tree_of

PIECES = 12


@pytest.fixture
def content(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "weights.bin", size=PIECES * PIECE + 10)


@pytest.fixture
def server(world: World, content: Content) -> Server:
    """An honest server that needs three seconds for it all."""
    made = Server(world, content, "honest")
    world.network.set_link(made.ip, link(rate=1e6))
    return made


def hesitant() -> SlowExecutor:
    rng = random.Random(5)
    return SlowExecutor(lambda: rng.random() / 10)


async def begin(world: World, server: Server) -> None:
    """Download until some pieces are there."""
    await world.daemon.download(server.content.manifest, detach=True)
    await hand_out(world, server)
    await until(lambda: _bytes_done(world))


async def _bytes_done(world: World) -> bool:
    return (await world.daemon.transfer()).bytes_done >= 3 * PIECE


async def state_of(world: World) -> str:
    return (await world.daemon.transfer()).state


async def nothing_is_left(world: World, server: Server) -> None:
    """No record, no part, nobody who fetches."""
    assert not list(world.daemon.got.iterdir())
    assert not (await world.daemon.status()).transfers
    asked = len(server.answered)
    await trio.sleep(100)
    assert len(server.answered) == asked
    assert not list(world.daemon.got.iterdir())


# Pause and resume


async def test_a_paused_download_neither_fetches_nor_serves_until_it_is_resumed(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    assert await world.daemon.pause(content.manifest) == "paused"
    asked = len(server.answered)
    await trio.sleep(100)
    assert len(server.answered) == asked
    assert await state_of(world) == "paused"
    with pytest.raises(AssertionError, match="paused"):
        async with fetching(world, content.manifest.file_id):
            pass
    assert world.master.holdings[content.manifest.file_id].state == "paused"
    assert await world.daemon.resume(content.manifest) == "downloading"
    await world.daemon.wait(content.manifest)
    assert len(server.answered) <= PIECES + 1 + 4, "nothing is fetched again but what was under way"


async def test_pausing_and_resuming_twice_is_no_mistake(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    assert [await world.daemon.pause(content.manifest) for _ in range(2)] == ["paused"] * 2
    assert [await world.daemon.resume(content.manifest) for _ in range(2)] == ["downloading"] * 2
    await world.daemon.wait(content.manifest)
    assert await world.daemon.resume(content.manifest) == "complete"


async def test_what_is_waited_for_and_paused_says_so(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    with pytest.raises(Refused, match="was stopped: the file is paused on this host"):  # noqa: PT012
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_pause_soon, world, content)
            try:
                await world.daemon.wait(content.manifest)
            except Refused as e:
                refusal = e
        raise refusal


async def _pause_soon(world: World, content: Content) -> None:
    await trio.sleep(0.5)
    await world.daemon.pause(content.manifest)


async def test_a_withdrawn_file_cannot_be_paused(world: World, content: Content, autojump_clock: MockClock) -> None:
    await world.seed(content)
    content.root.unlink()
    await world.daemon.restart()
    with pytest.raises(Refused, match=r"cannot be paused: .*weights\.bin"):
        await world.daemon.pause(content.manifest)


async def test_a_download_that_cannot_be_finished_can_be_paused_and_goes_on(
    world: World, content: Content, server: Server, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise StorageFailed("not now")

    with monkeypatch.context() as patched:
        patched.setattr(finishing, "finish", fail)
        await world.daemon.download(content.manifest, detach=True)
        await hand_out(world, server)
        await until(lambda: _has_note(world, "not now"))
        assert await world.daemon.pause(content.manifest) == "paused"
    assert await world.daemon.resume(content.manifest) == "downloading"
    await world.daemon.wait(content.manifest)


async def test_a_part_that_is_gone_when_it_should_be_finished_is_fetched_again(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    destination = world.daemon.got / content.manifest.name
    destination.write_bytes(b"in the way")
    await hand_out(world, server)
    await until(lambda: _has_note(world, "exists"))
    for path in world.daemon.got.iterdir():  # what was in the way, and the part
        path.unlink()
    await world.daemon.wait(content.manifest, timeout_s=100)
    assert destination.read_bytes() == content.data


async def _has_note(world: World, words: str) -> bool:
    return words in (await world.daemon.transfer()).note


async def test_a_pause_at_any_moment_holds_or_is_refused(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    world.daemon.disk = world.daemon.database = hesitant()
    await world.daemon.restart()
    await until(lambda: len(world.master.connections) > 1)
    server = Server(world, content, "honest")
    await serving(world, server)
    for moment in range(1, 16):
        await world.daemon.download(content.manifest, detach=True)
        await world.master.hand_out(content.manifest.file_id, server.peer)
        await trio.sleep(moment / 20)
        try:
            assert await world.daemon.pause(content.manifest) == "paused"
        except Refused:
            await world.daemon.wait(content.manifest)
        else:
            asked = len(server.answered)
            await trio.sleep(20)
            assert await state_of(world) == "paused"
            assert len(server.answered) == asked
            await world.daemon.resume(content.manifest)
            await world.daemon.wait(content.manifest)
        await world.daemon.remove(content.manifest, delete=True)
        assert not list(world.daemon.got.iterdir())


# Remove


@pytest.mark.parametrize("seed", range(6))
async def test_a_download_that_is_removed_leaves_nothing(
    world: World,
    content: Content,
    server: Server,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    monkeypatch.setattr(trio._core._run, "_r", random.Random(seed))
    await serving(world, server)
    async with world.leaving_nothing():
        await begin(world, server)
        report = await world.daemon.remove(content.manifest)
        assert (report.deleted, report.path) == (False, "")
    await nothing_is_left(world, server)


async def test_a_download_that_is_removed_at_any_moment_leaves_nothing(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    world.daemon.disk = world.daemon.database = hesitant()
    await world.daemon.restart()
    await until(lambda: len(world.master.connections) > 1)
    server = Server(world, content, "honest")
    await serving(world, server)
    for moment in range(1, 16):
        await world.daemon.download(content.manifest, detach=True)
        await world.master.hand_out(content.manifest.file_id, server.peer)
        await trio.sleep(moment / 20)
        await world.daemon.remove(content.manifest, delete=True)
        await nothing_is_left(world, server)


@pytest.mark.parametrize(
    ("remove", "whence"), [("rm --local", "this host"), ("rm", "the fleet"), ("another host's rm", "the fleet")]
)
async def test_a_download_that_is_removed_ends_for_those_who_wait(
    world: World, content: Content, server: Server, remove: str, whence: str, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    outcomes: list[str] = []

    async def wait() -> None:
        try:
            await world.daemon.wait(content.manifest)
        except Refused as e:
            outcomes.append(str(e))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.sleep(0.2)
        if remove == "another host's rm":
            await world.master.push(m.Forget(content.manifest.file_id, False))
        else:
            await world.daemon.remove(content.manifest, local=remove == "rm --local")
    assert outcomes == [
        (
            f"the download of weights.bin ({content.manifest.file_id.hex()[:12]}) was stopped: "
            f"the file was removed from {whence}"
        )
    ]


async def test_a_paused_download_that_is_removed_leaves_nothing(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    await world.daemon.pause(content.manifest)
    await world.daemon.remove(content.manifest)
    await nothing_is_left(world, server)


async def test_a_removed_download_can_be_begun_anew(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    await world.daemon.remove(content.manifest)
    await world.daemon.download(content.manifest, detach=True)
    await world.master.hand_out(content.manifest.file_id, server.peer)
    await world.daemon.wait(content.manifest)
    assert (world.daemon.got / "weights.bin").read_bytes() == content.data


async def test_removing_and_downloading_at_once_ends_in_one_of_the_two(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    world.daemon.disk = world.daemon.database = hesitant()
    await world.daemon.restart()
    await until(lambda: len(world.master.connections) > 1)
    await serving(world, server)
    for _ in range(8):
        await world.daemon.download(content.manifest, detach=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.daemon.remove, content.manifest)
            nursery.start_soon(_begin_again, world, content)
        await trio.sleep(1)
        if (await world.daemon.status()).transfers:
            await world.master.hand_out(content.manifest.file_id, server.peer)
            await world.daemon.wait(content.manifest)
            assert (world.daemon.got / "weights.bin").read_bytes() == content.data
            await world.daemon.remove(content.manifest, delete=True)
        assert not list(world.daemon.got.iterdir())


async def _begin_again(world: World, content: Content) -> None:
    await trio.sleep(0.05)
    await world.daemon.download(content.manifest, detach=True)


@pytest.mark.parametrize("delete", [False, True])
async def test_a_complete_download_is_removed_with_its_content_on_request(
    world: World, tree: Content, delete: bool, autojump_clock: MockClock
) -> None:
    await world.daemon.download(tree.manifest, detach=True)
    await hand_out(world, Server(world, tree, "honest"))
    await world.daemon.wait(tree.manifest)
    there = world.daemon.got / "tree"
    (there / "a" / "mine").write_bytes(b"mine")
    report = await world.daemon.remove(tree.manifest, delete=delete)
    assert (report.deleted, report.path) == (delete, str(there))
    if delete:
        assert tree_of(there) == {"a": None, "a/mine": (b"mine", False)}, "what is not of the file stays"
    else:
        assert tree_of(tree.root).items() <= tree_of(there).items()


async def test_what_was_uploaded_in_place_is_never_deleted(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    assert not (await world.daemon.remove(content.manifest, delete=True)).deleted
    assert content.root.read_bytes() == content.data


async def test_an_own_copy_goes_with_its_record(world: World, content: Content, autojump_clock: MockClock) -> None:
    await world.daemon.upload(content.root, copy=True)
    assert (await world.daemon.remove(content.manifest)).deleted
    assert not list((world.daemon.state / "copies").iterdir())
    assert content.root.read_bytes() == content.data


async def test_what_is_not_here_cannot_be_paused_resumed_waited_for_verified_or_removed(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    for command in (
        world.daemon.pause,
        world.daemon.resume,
        world.daemon.wait,
        world.daemon.verify,
        world.daemon.remove,
    ):
        with pytest.raises(UnknownFile, match=r"this host has nothing of weights\.bin; interfiles download fetches it"):
            await command(content.manifest)


async def test_content_that_cannot_be_deleted_is_forgotten_all_the_same(
    world: World, content: Content, server: Server, failing: Failing, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    failing("unlink", errno.EACCES, when=lambda name, **_: b".part" in os.fsencode(name))
    with pytest.raises(Exception, match="removed"):
        await world.daemon.remove(content.manifest)
    assert not (await world.daemon.status()).transfers
    asked = len(server.answered)
    await trio.sleep(100)
    assert len(server.answered) == asked


# From the whole fleet


async def test_removing_from_the_fleet_asks_the_master(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    report = await world.daemon.remove(content.manifest, local=False)
    assert report.hosts == 0, "others that had it"
    assert world.master.messages(m.Remove) == [m.Remove(0, file_id, False)] or world.master.messages(m.Remove)
    assert file_id not in world.master.catalogue
    await until(lambda: world.master.holdings.get(file_id) is None or world.master.holdings[file_id].state == "none")


async def test_what_the_master_has_removed_is_forgotten(
    world: World, content: Content, server: Server, autojump_clock: MockClock
) -> None:
    await begin(world, server)
    await world.master.push(m.Forget(content.manifest.file_id, False))
    await until(lambda: _no_transfers(world))
    await nothing_is_left(world, server)


async def _no_transfers(world: World) -> bool:
    return not (await world.daemon.status()).transfers
