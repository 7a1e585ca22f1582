"""Descriptors that travel on Unix sockets: those that are wanted arrive, and no other stays open."""

import array
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import PeerGone, RemoteProtocolError
from interfiles.transport.message_stream import MessageStream
from interfiles.transport.unix import MAX_DESCRIPTORS, Closers, UnixTransport, dial_unix, listen_unix
from interfiles.wire.control_messages import FROM_CLI, Status
from interfiles.wire.framing import encode_frame
from tests.transport.setups import receive_exactly


def open_descriptors() -> int:
    """How many are open, once what is to be closed is."""
    for thread in threading.enumerate():
        if thread.name == "closing":
            thread.join(10)
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[UnixTransport, UnixTransport]]:
    """Two ends of a connection; both are closed, and no descriptor is left."""
    listener = listen_unix(tmp_path / "run" / "client.sock")
    before = open_descriptors()
    dialled, accepted = await dial_unix(tmp_path / "run" / "client.sock"), await listener.accept()
    assert isinstance(accepted, UnixTransport)
    yield dialled, accepted
    dialled.close()
    accepted.close()
    assert open_descriptors() == before
    listener.close()


def send_raw(transport: UnixTransport, data: bytes, descriptors: Sequence[int]) -> None:
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    transport.socket.sendmsg([data], [rights])


class Descriptors:
    """Some open descriptors of this test's own."""

    def __init__(self, count: int) -> None:
        self.all = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]

    def __enter__(self) -> list[int]:
        return self.all

    def __exit__(self, *_: object) -> None:
        for descriptor in self.all:
            os.close(descriptor)


Pair = tuple[UnixTransport, UnixTransport]


class TestDescriptors:
    @pytest.mark.parametrize("count", [1, 5, MAX_DESCRIPTORS])
    async def test_those_that_are_expected_arrive_and_close_on_exec(self, pair: Pair, count: int) -> None:
        dialled, accepted = pair
        with Descriptors(count) as descriptors:
            accepted.expect(count)
            dialled.attach(descriptors)
            await dialled.send_all(b"message")
            await dialled.send_all(b"more")
            assert await receive_exactly(accepted, 11) == b"messagemore"
            taken = accepted.take()
            assert len(taken) == count
            assert accepted.take() == []
            for descriptor in taken:
                assert not os.get_inheritable(descriptor)
                assert os.path.sameopenfile(descriptor, descriptors[0])
                os.close(descriptor)

    @pytest.mark.parametrize("count", [1, 5, 250])
    async def test_those_that_nobody_asked_for_are_closed_and_end_the_conversation(
        self, pair: Pair, count: int
    ) -> None:
        dialled, accepted = pair
        with Descriptors(count) as descriptors:
            before = open_descriptors()
            send_raw(dialled, b"x", descriptors)
            with pytest.raises(RemoteProtocolError, match="descriptors came"):
                await receive_exactly(accepted, 1)
            assert open_descriptors() == before
            send_raw(dialled, b"y", descriptors)  # it goes on, while it is told why the conversation ends
            assert await receive_exactly(accepted, 1) == b"y"
            assert open_descriptors() == before
            assert accepted.take() == []

    async def test_one_more_than_expected_is_too_many(self, pair: Pair) -> None:
        dialled, accepted = pair
        accepted.expect(5)
        with Descriptors(3) as descriptors:
            before = open_descriptors()
            send_raw(dialled, b"x", descriptors)
            await receive_exactly(accepted, 1)
            assert open_descriptors() == before + 3
            send_raw(dialled, b"x", descriptors)
            with pytest.raises(RemoteProtocolError, match="6 descriptors came where 5 were asked for"):
                await receive_exactly(accepted, 1)
            assert open_descriptors() == before

    async def test_control_data_that_is_cut_is_fatal_even_where_so_many_are_expected(self, pair: Pair) -> None:
        dialled, accepted = pair
        accepted.expect(250)
        with Descriptors(250) as descriptors:
            before = open_descriptors()
            send_raw(dialled, b"x", descriptors)
            with pytest.raises(RemoteProtocolError, match="more than 64 descriptors came at once"):
                await receive_exactly(accepted, 1)
            assert open_descriptors() == before

    async def test_those_that_were_not_taken_are_closed_with_the_connection(self, pair: Pair) -> None:
        dialled, accepted = pair
        with Descriptors(4) as descriptors:
            before = open_descriptors()
            accepted.expect(4)
            send_raw(dialled, b"x", descriptors)
            await receive_exactly(accepted, 1)
            accepted.close()
            assert open_descriptors() == before - 1

    async def test_those_that_nobody_read_are_closed_by_the_system(self, pair: Pair) -> None:
        dialled, accepted = pair
        read_end, write_end = os.pipe()
        send_raw(dialled, b"x", [write_end])
        os.close(write_end)
        accepted.close()
        dialled.close()
        assert os.read(read_end, 1) == b"", "nobody has the other end any more"
        os.close(read_end)

    async def test_a_full_socket_is_waited_for(self, pair: Pair) -> None:
        dialled, accepted = pair
        with contextlib.suppress(BlockingIOError):
            while True:
                dialled.socket.send(bytes(65536))
        with Descriptors(1) as descriptors:
            dialled.attach(descriptors)
            accepted.expect(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(dialled.send_all, b"end")
                await trio.testing.wait_all_tasks_blocked()
                came = bytearray(65536)
                while not bytes(came).rstrip(b"\0").endswith(b"end"):
                    came = bytearray(65536)
                    await accepted.receive_some_into(memoryview(came))
        (taken,) = accepted.take()
        os.close(taken)

    async def test_sending_to_who_has_left_is_told(self, pair: Pair) -> None:
        dialled, accepted = pair
        accepted.close()
        with Descriptors(1) as descriptors:
            dialled.attach(descriptors)
            with pytest.raises(PeerGone):
                await dialled.send_all(b"x")

    async def test_messages_are_read_as_on_every_transport(self, pair: Pair) -> None:
        dialled, accepted = pair
        stream = MessageStream(accepted, FROM_CLI)
        await dialled.send_all(encode_frame(Status()))
        assert await stream.receive() == Status()
        with Descriptors(2) as descriptors:
            dialled.attach(descriptors)
            await dialled.send_all(encode_frame(Status()))
            with pytest.raises(RemoteProtocolError, match="2 descriptors came where none were asked for"):
                await stream.receive()


def test_a_file_system_that_never_answers_a_close_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    closers, answer, really = Closers(), threading.Event(), os.close
    slow, quick = os.dup(0), os.dup(0)

    def close(descriptor: int) -> None:
        if descriptor == slow:
            answer.wait(10)
        really(descriptor)

    monkeypatch.setattr(os, "close", close)
    closers.close([slow], 47_001)
    closers.close([quick], 47_002)
    for _ in range(1000):
        if not closers.count(47_002):
            break
        threading.Event().wait(0.001)
    assert (closers.count(47_001), closers.count(47_002)) == (1, 0)
    answer.set()
    open_descriptors()
    assert closers.count(47_001) == 0
    closers.close([], 47_001)
    assert closers.count(47_001) == 0
