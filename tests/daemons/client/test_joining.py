"""Becoming a member of a fleet, with a master that answers, refuses, falls silent or talks nonsense."""

import random

import pytest
import trio
from trio.testing import MockClock

from daemons.client.joining import ENROL_TIMEOUT_S, RETRY_CAP_S, join
from interfiles.errors import AlreadyJoined, InterFilesError, InvalidToken, NotJoined, RemoteProtocolError, UsageError
from interfiles.identity.token import JoinToken
from interfiles.storage.jobs import Identity
from interfiles.transport.base import Address
from interfiles.transport.memory import MemoryNetwork
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from tests.conftest import LogRecords
from tests.daemons.client.peers import Stream
from tests.daemons.client.scripted_master import Master
from tests.daemons.client.setting import FLEET, MASTER, MASTER_IP, id_of, until
from tests.daemons.client.world import World, running_world


@pytest.fixture
def master(autojump_clock: MockClock) -> Master:
    """A master that is not running yet."""
    return Master(MemoryNetwork(random.Random(1)))


def token(*masters: str) -> JoinToken:
    return JoinToken(masters or (str(MASTER),), b"token id", b"secret".ljust(16))


async def joined(master: Master, *masters: str) -> Identity:
    network = master.network.host("10.0.0.1")
    return await join(network, token(*masters), name="new", zone="rack-a", rng=random.Random(1))


async def test_the_master_mints_the_identity(master: Master, autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        made = await joined(master)
        nursery.cancel_scope.cancel()
    assert made == Identity(FLEET, id_of("new"), "new", "rack-a", b"credential".ljust(32), (str(MASTER),))
    assert master.messages(m.Enrol) == [m.Enrol(b"token id", b"secret".ljust(16), "new", "rack-a")]


async def test_the_masters_are_tried_in_turn_until_one_answers(
    master: Master, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_start_after, master, 100.0)
        made = await joined(master, "10.0.0.250:4850", str(MASTER))
        nursery.cancel_scope.cancel()
    assert made.masters == ("10.0.0.250:4850", str(MASTER))
    assert 100 <= trio.current_time() <= 100 + RETRY_CAP_S + 1
    refusals = [record for record in log_records.records if record["event"] == "the master does not answer"]
    assert 15 <= len(refusals) <= 100, "for ever, at a pace that nobody minds"


async def _start_after(master: Master, seconds: float) -> None:
    await trio.sleep(seconds)
    await master.run()


@pytest.mark.parametrize("code", ["invalid-token", "not-permitted", "refused", "from-the-future"])
async def test_a_refusal_is_final_and_in_the_masters_words(
    master: Master, code: str, autojump_clock: MockClock
) -> None:
    async def refuse(stream: Stream, message: Message) -> bool:
        await stream.send(Failure(code, "the token is spent\x1b[2J"))
        return True

    master.answer = refuse
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        with pytest.raises(InterFilesError) as caught:
            await joined(master)
        nursery.cancel_scope.cancel()
    assert str(caught.value) == r"the token is spent\x1b[2J"
    assert isinstance(caught.value, InvalidToken) == (code == "invalid-token")
    assert len(master.connections) == 1


async def test_another_answer_is_no_masters(master: Master, autojump_clock: MockClock) -> None:
    async def mistake(stream: Stream, message: Message) -> bool:
        await stream.send(m.Heard(1))
        return True

    master.answer = mistake
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        with pytest.raises(RemoteProtocolError, match="Heard came in place of Enrolled"):
            await joined(master)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["says nothing", "closes"])
async def test_a_master_that_does_not_answer_is_asked_again(
    master: Master, how: str, autojump_clock: MockClock
) -> None:
    async def say_nothing(stream: Stream, message: Message) -> bool:
        if how == "closes":
            stream.close()
        return len(master.connections) < 4

    master.answer = say_nothing
    if how == "closes":
        master.answer = _closing(master)
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        await joined(master)
        nursery.cancel_scope.cancel()
    assert len(master.connections) == 4
    assert trio.current_time() < 3 * (ENROL_TIMEOUT_S + RETRY_CAP_S)


def _closing(master: Master):  # type: ignore[no-untyped-def]
    async def close(stream: Stream, message: Message) -> bool:
        if len(master.connections) < 4:
            stream.close()
            return True
        return False

    return close


async def test_what_answers_but_is_no_master(master: Master, autojump_clock: MockClock) -> None:
    listener = await master.network.host(MASTER_IP).listen(MASTER)

    async def answer() -> None:
        transport = await listener.accept()
        await transport.send_all(b"SSH-2.0-OpenSSH_9.9\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        with pytest.raises(RemoteProtocolError):
            await joined(master)
        nursery.cancel_scope.cancel()


async def test_a_token_with_an_address_that_is_none(master: Master, autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        await joined(master, "nonsense")


async def test_joining_can_be_cancelled_and_leaves_no_connection(master: Master, autojump_clock: MockClock) -> None:
    async def say_nothing(stream: Stream, message: Message) -> bool:
        return True

    master.answer = say_nothing
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        for seconds in range(1, 30, 3):
            with trio.move_on_after(seconds):
                await joined(master)
            await trio.sleep(1)
            assert not master.network._pipes
        nursery.cancel_scope.cancel()


# The daemon's part in it


async def test_a_daemon_joins_once_and_remembers(tmp_path, autojump_clock: MockClock) -> None:  # type: ignore[no-untyped-def]
    async with running_world(tmp_path, joined=False) as world:
        world.daemon.token = token()
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


async def test_a_daemon_without_a_token_says_how_to_get_one(tmp_path, autojump_clock: MockClock) -> None:  # type: ignore[no-untyped-def]
    async with running_world(tmp_path, joined=False) as world:
        await _fails_to_start(world, NotJoined, "join one with --join TOKEN (on the master's host: interfiles token)")
        network = world.network.host("10.0.0.1")
        (await network.listen(Address("10.0.0.1", 4851))).close()


async def test_a_second_join_is_an_error(world: World, autojump_clock: MockClock) -> None:
    await world.daemon.stop()
    world.daemon.token = token()
    await _fails_to_start(world, AlreadyJoined, "this host has joined fleet f1f1 as tested already; start it without")
    assert not world.master.messages(m.Enrol)


@pytest.mark.parametrize("spare", ["", "IF1-NONSENSE", token().encode()])
async def test_the_environments_token_is_not_looked_at_once_joined(
    world: World, spare: str, autojump_clock: MockClock
) -> None:
    world.daemon.spare_token = spare
    await world.daemon.restart()
    assert not world.master.messages(m.Enrol)
    assert await world.daemon.status()


async def test_the_environments_token_is_used_to_join(tmp_path, autojump_clock: MockClock) -> None:  # type: ignore[no-untyped-def]
    async with running_world(tmp_path, joined=False) as world:
        world.daemon.spare_token = "IF1-NONSENSE"
        await _fails_to_start(world, InvalidToken, "token")
    async with running_world(tmp_path / "other", joined=False) as world:
        world.daemon.spare_token = token().encode()
        await world.daemon.start()
        assert len(world.master.messages(m.Enrol)) == 1


async def test_a_refused_join_leaves_a_daemon_that_can_join_later(tmp_path, autojump_clock: MockClock) -> None:  # type: ignore[no-untyped-def]
    async def refuse(stream: Stream, message: Message) -> bool:
        await stream.send(Failure("invalid-token", "the token is spent"))
        return True

    async with running_world(tmp_path, joined=False) as world:
        nursery = world.daemon._nursery
        world.daemon.token = token()
        world.master.answer = refuse
        await _fails_to_start(world, InvalidToken, "the token is spent")
        world.master.answer, world.daemon._nursery = None, nursery
        await world.daemon.start()
        assert await world.daemon.status()
