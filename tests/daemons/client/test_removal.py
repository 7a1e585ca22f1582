"""A host is removed from the fleet: connections with it end at once, and none is made again."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.master_link import STORE_RETRY_S
from interfiles.errors import NoSpace, NotAdmitted, PeerGone
from interfiles.storage.jobs import JobStore
from interfiles.transport.message_stream import greet
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.client.certificates import host_credentials
from tests.daemons.client.peers import Server, Stream, dialled, fetching, hand_out, honest_copy
from tests.daemons.client.setting import id_of, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file

CUT_WITHIN_S = 2.0


async def remove(world: World, *names: str) -> None:
    """Have the master remove hosts, and tell the daemon."""
    world.master.removed += [id_of(name) for name in names]
    await world.master.push(m.Revoked(False, [id_of(name) for name in names]))


class SendsSlowly(Server):
    """Sends a piece a second, and sees when its connection ends."""

    def __init__(self, world: World, content: Content, name: str) -> None:
        super().__init__(world, content, name)
        self.ended_at: list[float] = []

    async def answer(self, stream: Stream, piece: int) -> None:
        await trio.sleep(0.5)
        await super().answer(stream, piece)

    async def converse(self, stream: Stream) -> None:
        try:
            await super().converse(stream)
        finally:
            self.ended_at.append(trio.current_time())


@pytest.fixture
def large(tmp_path: Path) -> Content:
    return a_file(tmp_path / "original" / "large.bin", size=20 * PIECE)


async def test_a_running_download_from_a_removed_host_is_cut_and_goes_on_from_others(
    world: World, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    removed, honest = SendsSlowly(world, large, "removed"), SendsSlowly(world, large, "honest")
    await world.daemon.download(large.manifest, detach=True)
    await hand_out(world, removed, honest)
    await until(lambda: len(removed.answered) > 3)
    began = trio.current_time()
    await remove(world, "removed")
    await until(lambda: removed.ended_at)
    assert removed.ended_at[0] - began < CUT_WITHIN_S
    report = await world.daemon.wait(large.manifest)
    assert (world.daemon.got / "large.bin").read_bytes() == large.data
    assert (len(removed.opened_at), len(honest.opened_at)) == (1, 1)
    assert report.bytes_from_peers["removed"] < report.bytes_from_peers["honest"]
    (cut,) = [record for record in log_records.records if record["event"] == "cut a removed host off"]
    assert (cut["host_id"], cut["connections"]) == (id_of("removed"), 1)


async def test_a_removed_host_that_fetches_is_cut_and_the_others_are_not(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as honest, fetching(world, file_id, name="removed") as removed:
        began = trio.current_time()
        await remove(world, "removed")
        await removed.end()
        assert trio.current_time() - began < CUT_WITHIN_S
        assert await honest.fetch(content) == content.data
        with pytest.raises(NotAdmitted, match="was removed from the fleet"):
            async with fetching(world, file_id, name="removed"):
                pytest.fail("it was let in")


async def test_one_that_does_not_read_is_cut_too(world: World, large: Content, autojump_clock: MockClock) -> None:
    file_id = await world.seed(large)
    await honest_copy(world, large)
    async with world.leaving_nothing():
        async with fetching(world, file_id, name="removed") as removed:
            await removed.ask(*range(20))
            await trio.sleep(1)
            await remove(world, "removed")
            await trio.sleep(CUT_WITHIN_S)
            with pytest.raises(PeerGone):
                await removed.ask(0)


async def test_all_connections_of_all_who_were_removed_are_cut(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing(), trio.open_nursery() as nursery:
        ended: list[str] = []

        async def stay(name: str) -> None:
            async with fetching(world, file_id, name=name) as fetcher:
                await fetcher.end()
                ended.append(name)

        for name in ("a", "b", "c") * 5:
            nursery.start_soon(stay, name)
        await trio.sleep(1)
        await remove(world, "a", "c", "unknown")
        await trio.sleep(CUT_WITHIN_S)
        assert sorted(ended) == ["a"] * 5 + ["c"] * 5
        nursery.cancel_scope.cancel()


async def test_one_that_was_about_to_be_let_in_is_not(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    """Its certificate was verified before the removal; it says who it is only afterwards."""
    await world.seed(content)
    transport = await dialled(world, shown=host_credentials("removed"))
    await trio.sleep(1)
    await remove(world, "removed")
    await trio.sleep(1)
    with pytest.raises(NotAdmitted, match="was removed from the fleet"):
        await greet(transport, "swarm", "host")


async def test_after_a_restart_without_the_master_it_is_refused_in_both_directions(
    world: World, content: Content, large: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    removed, honest = Server(world, large, "removed"), SendsSlowly(world, large, "honest")
    await remove(world, "removed")
    await world.daemon.download(large.manifest, detach=True)
    await hand_out(world, removed, honest)
    await until(lambda: len(honest.answered) > 2)
    world.master.scope.cancel()
    await world.daemon.restart()
    with pytest.raises(NotAdmitted, match="was removed from the fleet"):
        async with fetching(world, file_id, name="removed"):
            pytest.fail("it was let in")
    await world.daemon.wait(large.manifest)
    assert removed.opened_at == []
    assert await honest_copy(world, content) == content.data


async def test_who_was_removed_while_this_host_was_away_is_told_to_it_first(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await world.daemon.stop()
    world.master.removed += [id_of(str(number)) for number in range(400)]
    await world.daemon.start()
    await until(lambda: len(world.master.connections) == 2)
    await trio.sleep(0.5)
    for name in ("0", "399"):
        with pytest.raises(NotAdmitted):
            async with fetching(world, file_id, name=name):
                pytest.fail("it was let in")
    assert await honest_copy(world, content) == content.data


async def test_a_removal_that_cannot_be_kept_counts_all_the_same_and_is_kept_once_there_is_room(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)

    def fail(*_: object, **__: object) -> None:
        raise NoSpace("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "save_revoked", fail)
        await remove(world, "removed")
        await trio.sleep(10)
        with pytest.raises(NotAdmitted):
            async with fetching(world, file_id, name="removed"):
                pytest.fail("it was let in")
        assert len(world.master.connections) == 1, "a new link would not mend the disk"
    await trio.sleep(STORE_RETRY_S)
    world.master.scope.cancel()
    await world.daemon.restart()
    with pytest.raises(NotAdmitted):
        async with fetching(world, file_id, name="removed"):
            pytest.fail("it was let in")
