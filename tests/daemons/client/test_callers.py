"""Who calls and what they may do, and a conversation in which the caller is asked."""

import os
import random
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client import callers
from daemons.client.callers import (
    ANSWER_TIMEOUT_S,
    LARGE_CALL_BYTES,
    MAX_CALLS_A_MEMBER,
    MAX_LARGE_CALLS_A_MEMBER,
    MAX_MEMBER_CALLS,
    Call,
    Caller,
    Calls,
    who_calls,
)
from daemons.client.rounds import rounds
from interfiles.errors import NotPermitted, PeerSilent, Refused, RemoteProtocolError
from interfiles.storage.acting import Owner
from interfiles.transport.base import Address, Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream
from interfiles.transport.unix import Credentials, UnixTransport, dial_unix, listen_unix
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from tests.daemons.client.world import World
from tests.storage.contents import Content

GROUP, ANNA, BERT = 47_000, 47_001, 47_002


@pytest.mark.parametrize(
    ("uid", "gid", "groups", "group", "is_served"),
    [
        (ANNA, ANNA, (GROUP,), GROUP, True),
        (ANNA, GROUP, (), GROUP, True),
        (ANNA, ANNA, (5, GROUP, 6), GROUP, True),
        (ANNA, ANNA, (), GROUP, False),
        (ANNA, 0, (0,), GROUP, False),
        (ANNA, ANNA, (GROUP,), None, False),
        (ANNA, ANNA, (GROUP,), 0, False),
    ],
)
async def test_membership_is_the_kernels_to_tell(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    gid: int,
    groups: tuple[int, ...],
    group: int | None,
    is_served: bool,
) -> None:
    listener = listen_unix(tmp_path / "run" / "sock")
    dialled, accepted = await dial_unix(tmp_path / "run" / "sock"), await listener.accept()
    assert who_calls(accepted, group) == Caller(), "the daemon's own user"
    monkeypatch.setattr(callers, "credentials", lambda _: Credentials(uid, gid, groups))
    if is_served:
        assert who_calls(accepted, group) == Caller(Owner(uid, gid, groups))
    else:
        with pytest.raises(NotPermitted, match=r"belongs to another user|you are not in group"):
            who_calls(accepted, group)
    for end in (dialled, accepted, listener):
        end.close()


def test_calls_of_a_member_and_of_all_members_are_bounded() -> None:
    calls = Calls()
    with ExitStack() as held:
        for _ in range(MAX_CALLS_A_MEMBER):
            assert held.enter_context(calls.counted(ANNA))
        assert not held.enter_context(calls.counted(ANNA))
        for number in range(MAX_MEMBER_CALLS - MAX_CALLS_A_MEMBER - 1):
            assert held.enter_context(calls.counted(BERT + number % 10))
        assert not held.enter_context(calls.counted(BERT + 20))
    with calls.counted(ANNA) as is_room:
        assert is_room
    assert not calls._calls


def test_large_requests_of_a_member_are_bounded_and_small_ones_are_not() -> None:
    calls = Calls()
    with ExitStack() as held:
        for _ in range(MAX_LARGE_CALLS_A_MEMBER):
            held.enter_context(calls.sized(ANNA, LARGE_CALL_BYTES + 1))
        with pytest.raises(Refused, match="2 requests of yours"), calls.sized(ANNA, LARGE_CALL_BYTES + 1):
            pass
        with calls.sized(ANNA, LARGE_CALL_BYTES), calls.sized(BERT, LARGE_CALL_BYTES + 1):
            pass
    assert not calls._large


# Questions


@pytest.fixture
async def ends(autojump_clock: MockClock) -> AsyncIterator[tuple[Call, MessageStream[Message]]]:
    """The daemon's end, and the caller's."""
    network = MemoryNetwork(random.Random(1))
    listener = await network.host("10.0.0.1").listen(Address("10.0.0.1", 1))
    dialled: Transport = await network.host("10.0.0.2").dial(listener.address)
    accepted = await listener.accept()
    yield Call(MessageStream(accepted, c.FROM_CLI), Caller(Owner(ANNA, ANNA))), MessageStream(dialled, c.FROM_DAEMON)
    dialled.close()
    accepted.close()
    listener.close()


Ends = tuple[Call, MessageStream[Message]]


async def test_a_question_is_answered(ends: Ends, autojump_clock: MockClock) -> None:
    call, caller = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.listen, nursery.cancel_scope)
        for _ in range(3):
            async with trio.open_nursery() as asking:

                async def answer() -> None:
                    assert await caller.receive() == c.DescribeTree()
                    await caller.send(c.TreeDescription(b"/x"), b"payload")

                asking.start_soon(answer)
                async with call.ask(c.DescribeTree(), c.TreeDescription) as answered:
                    assert answered.message == c.TreeDescription(b"/x")
                    assert answered.payload == b"payload"
        nursery.cancel_scope.cancel()


async def test_a_caller_that_does_not_answer_is_given_up(ends: Ends, autojump_clock: MockClock) -> None:
    call, _ = ends
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.listen, nursery.cancel_scope)
        began = trio.current_time()
        with pytest.raises(PeerSilent, match="did not answer within 30 s"):
            async with call.ask(c.DescribeTree(), c.TreeDescription):
                pytest.fail("nobody answered")
        assert trio.current_time() - began == ANSWER_TIMEOUT_S
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("said", [c.HandedFiles(0, 1), c.HandedPlace(0), c.Status()])
async def test_another_answer_than_was_asked_for_ends_the_conversation(
    ends: Ends, said: Message, autojump_clock: MockClock
) -> None:
    call, caller = ends
    await caller.send(said)

    async def ask() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call.listen, nursery.cancel_scope)
            async with call.ask(c.DescribeTree(), c.TreeDescription):
                pytest.fail("that is no answer")

    with pytest.raises(ExceptionGroup) as caught:
        await ask()
    assert caught.group_contains(RemoteProtocolError, match=f"{type(said).__name__} came while a request was under way")


async def test_descriptors_are_closed_when_the_asker_is_cancelled(tmp_path: Path) -> None:
    listener = listen_unix(tmp_path / "run" / "sock")
    dialled, accepted = await dial_unix(tmp_path / "run" / "sock"), await listener.accept()
    read_end, write_end = os.pipe()
    caller: MessageStream[Message] = MessageStream(dialled, c.FROM_DAEMON)
    call = Call(MessageStream(accepted, c.FROM_CLI), Caller(Owner(ANNA, ANNA)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.listen, nursery.cancel_scope)

        async def answer() -> None:
            await caller.receive()
            assert isinstance(dialled, UnixTransport)
            dialled.attach([write_end])
            await caller.send(c.HandedFiles(0, 1))
            os.close(write_end)

        nursery.start_soon(answer)
        async with call.ask(c.HandFiles(0, 1), c.HandedFiles, descriptors=1) as answered:
            assert len(answered.descriptors) == 1
            nursery.cancel_scope.cancel()
            await trio.sleep_forever()
    call.close()
    assert await trio.to_thread.run_sync(os.read, read_end, 1) == b"", "nobody has the other end any more"
    os.close(read_end)
    for end in (dialled, accepted, listener):
        end.close()


# What members see and may


async def test_a_member_sees_and_commands_only_own_files(
    world: World, content: Content, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.seed(content)
    member = Caller(Owner(ANNA, ANNA))
    monkeypatch.setattr("daemons.client.control_server.who_calls", lambda *_: member)
    assert (await world.daemon.stat(content.manifest)).local.path == ""
    status = await world.daemon.status()
    assert (status.files, status.held, status.transfers) == (1, [], [])
    for command in (world.daemon.pause, world.daemon.resume, world.daemon.verify, world.daemon.wait):
        with pytest.raises(NotPermitted, match="belongs to another user of this host"):
            await command(content.manifest)
    for local in (True, False):
        with pytest.raises(NotPermitted, match="belongs to another user of this host"):
            await world.daemon.remove(content.manifest, local=local)


async def test_what_cannot_be_looked_after_holds_up_nobody_elses_files(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    """The disk of a user's own may never answer."""
    seen: list[str] = []

    class File:
        def __init__(self, name: str, owner: Owner | None) -> None:
            self.label = name
            self.record = type("Record", (), {"rights": owner})()

    files = [File("annas", Owner(ANNA, ANNA)), File("own", None), File("berts", Owner(BERT, BERT))]

    async def look(file: File) -> None:
        seen.append(file.label)
        if file.label == "annas":
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:

        async def go() -> None:
            async with rounds(files, look) as go_round:  # type: ignore[arg-type]
                for _ in range(3):
                    await go_round()
                    await trio.sleep(1)
                await trio.sleep_forever()

        nursery.start_soon(go)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert sorted(seen) == ["annas", *["berts"] * 3, *["own"] * 3]


def test_members_change_nothing_in_the_fleet_about_what_is_not_theirs() -> None:
    Caller().check_commands_fleet("weights")
    with pytest.raises(
        NotPermitted, match=r"^weights\\x0a is not on this host, so it is not yours to change in the fleet"
    ):
        Caller(Owner(ANNA, ANNA)).check_commands_fleet("weights\n")
