"""The daemon's part in joining: once, from wherever the token comes; and again after it was removed."""

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import AlreadyJoined, InterFilesError, InvalidToken, NotAdmitted, NotJoined, RemoteProtocolError
from interfiles.transport.base import Address
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import HostListReport
from tests.daemons.client.certificates import CA, credentials, host_credentials, host_subject, join_token
from tests.daemons.client.peers import honest_copy
from tests.daemons.client.scripted_master import saying
from tests.daemons.client.setting import DAEMON_IP, MASTER_IP, id_of, until
from tests.daemons.client.world import World, running_world
from tests.storage.contents import Content


async def test_a_daemon_joins_once_and_remembers(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_world(tmp_path, joined=False) as world:
        world.daemon.token = join_token()
        await world.daemon.start()
        assert world.daemon.serving is not None
        assert world.daemon.serving.joined_now
        await until(lambda: world.master.heartbeats)
        world.daemon.token = None
        await world.daemon.restart()
        assert not world.daemon.serving.joined_now
        assert world.daemon.serving.identity.host_id == id_of("tested")
        assert len(world.master.messages(m.Enrol)) == 1


async def _fails_to_start(world: World, error: type[InterFilesError], words: str) -> None:
    caught: list[BaseException] = []
    async with trio.open_nursery() as nursery:
        world.daemon._nursery = nursery
        try:
            await world.daemon.start()
        except error as e:
            caught.append(e)
    assert len(caught) == 1
    assert words in str(caught[0])


async def test_a_daemon_without_a_token_says_how_to_get_one(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_world(tmp_path, joined=False) as world:
        await _fails_to_start(world, NotJoined, "join one with --join TOKEN (on the master's host: interfiles token)")
        network = world.network.host("10.0.0.1")
        (await network.listen(Address("10.0.0.1", 4851))).close()


async def test_a_second_join_is_an_error(world: World, autojump_clock: MockClock) -> None:
    await world.daemon.stop()
    world.daemon.token = join_token()
    await _fails_to_start(world, AlreadyJoined, "this host has joined fleet f1f1 as tested already; start it without")
    assert not world.master.messages(m.Enrol)


@pytest.mark.parametrize("spare", ["", "IF1-NONSENSE", join_token().encode()])
async def test_the_environments_token_is_not_looked_at_once_joined(
    world: World, spare: str, autojump_clock: MockClock
) -> None:
    world.daemon.spare_token = spare
    await world.daemon.restart()
    assert not world.master.messages(m.Enrol)
    assert await world.daemon.status()


async def test_the_environments_token_is_used_to_join(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_world(tmp_path, joined=False) as world:
        world.daemon.spare_token = "IF1-NONSENSE"
        await _fails_to_start(world, InvalidToken, "token")
    async with running_world(tmp_path / "other", joined=False) as world:
        world.daemon.spare_token = join_token().encode()
        await world.daemon.start()
        assert len(world.master.messages(m.Enrol)) == 1


async def test_a_refused_join_leaves_a_daemon_that_can_join_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_world(tmp_path, joined=False) as world:
        nursery = world.daemon._nursery
        world.daemon.token = join_token()
        world.master.answer = saying(m.Enrol, Failure("invalid-token", "the token is spent"))
        await _fails_to_start(world, InvalidToken, "the token is spent")
        world.master.answer, world.daemon._nursery = None, nursery
        await world.daemon.start()
        assert await world.daemon.status()


async def test_a_useless_answer_leaves_a_daemon_that_can_join_later(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with running_world(tmp_path, joined=False) as world:
        nursery = world.daemon._nursery
        world.daemon.token = join_token()
        world.master.answer = saying(m.Enrol, m.Enrolled("x", host_credentials("x").chain, [CA.certificate]))
        await _fails_to_start(world, RemoteProtocolError, "certificate that is not good")
        world.master.answer, world.daemon._nursery = None, nursery
        await world.daemon.start()
        assert await world.daemon.status()


# Joining again


async def _removed(world: World) -> None:
    """Have the master remove the daemon."""
    world.master.removed.append(id_of("tested"))
    world.network.cut(DAEMON_IP, MASTER_IP)
    await trio.sleep(10)


async def test_a_removed_host_is_told_so_in_words(world: World, autojump_clock: MockClock) -> None:
    await _removed(world)
    for _ in range(2):
        status = await world.daemon.status()
        assert status.master_state == "connecting"
        assert status.master_note == "this host was removed; join it anew"
        with pytest.raises(NotAdmitted, match="this host was removed; join it anew"):
            await world.daemon.ask(c.ListHosts(), HostListReport)
        await world.daemon.restart()
        await trio.sleep(10)


async def _rejoins(world: World, content: Content) -> None:
    """Join by a token in the same state directory; the host comes back as another one, with its files."""
    world.daemon.token = join_token(authority=world.master.authorities[0])
    world.master.heard.clear()
    world.master.catalogue.clear()
    world.master.answer = _as_another_host(world)
    await world.daemon.start()
    assert world.daemon.serving is not None
    assert world.daemon.serving.joined_now
    assert world.daemon.serving.identity.host_id == id_of("another")
    await until(lambda: world.master.catalogue)
    await until(lambda: world.master.holdings)
    assert [holding.state for holding in world.master.holdings.values()] == ["complete"]
    newest = world.master.authorities[0]
    shown = credentials(host_subject("fetcher"), newest, trusted=newest)
    assert await honest_copy(world, content, shown=shown) == content.data


def _as_another_host(world: World):  # type: ignore[no-untyped-def]
    async def enrol(stream, message) -> bool:  # type: ignore[no-untyped-def]
        if isinstance(message, m.Enrol):
            chain = world.master.issue(message.signing_request, id_of("another"))
            await stream.send(m.Enrolled("tested", chain, world.master.certificates))
        return isinstance(message, m.Enrol)

    return enrol


@pytest.mark.parametrize("knows", [True, False], ids=["told before", "asks now"])
async def test_a_removed_host_joins_again_and_keeps_its_files(
    world: World, content: Content, knows: bool, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    if knows:
        await _removed(world)
    else:
        world.master.removed.append(id_of("tested"))
    await world.daemon.stop()
    await _rejoins(world, content)


async def test_a_host_whose_ca_has_retired_joins_again_and_keeps_its_files(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.stop()
    world.master.rotate()
    world.master.authorities.pop()
    world.daemon.token = join_token()  # of the CA by which it has joined: anybody may say that this is no good any more
    await _fails_to_start(world, AlreadyJoined, "already")
    world.daemon._nursery = world.nursery
    await _rejoins(world, content)


async def test_a_removed_host_with_a_master_that_is_away_waits_for_it(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await _removed(world)
    await world.daemon.stop()
    world.master.scope.cancel()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_rejoins, world, content)
        await trio.sleep(100)
        nursery.start_soon(world.master.run)
        await until(lambda: world.daemon.serving and world.daemon.serving.joined_now)
        await trio.sleep(5)
        nursery.cancel_scope.cancel()


async def test_whether_it_was_removed_is_not_taken_from_who_is_not_the_master(
    world: World, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    world.master.shown = host_credentials("taken over")
    world.master.removed.append(id_of("tested"))
    world.daemon.token = join_token()
    await _fails_to_start(world, AlreadyJoined, "already")
