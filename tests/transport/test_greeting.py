"""How a conversation begins, and how it is ended in words."""

from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from interfiles.errors import (
    InvalidToken,
    NotAdmitted,
    NotPermitted,
    PeerGone,
    PeerSilent,
    RemoteProtocolError,
    UnsupportedVersion,
)
from interfiles.transport.message_stream import MessageStream, greet, welcome
from interfiles.wire import peer_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import WELCOME, Failure, Hello, Role, Welcome
from interfiles.wire.master_messages import FROM_CLIENT, Publish
from tests.transport.setups import (
    Memory,
    Setup,
    Tcp,
    TlsOverMemory,
    TlsOverTcp,
    Unix,
    connected,
    ends,
    fetching,
    receive_exactly,
)

Clock = trio.testing.MockClock
Stream = MessageStream[Message]

HELLO = Hello("swarm", 1, 1, [])


def as_host() -> Role:
    """Every dialler is a host."""
    return "host"


class TestGreeting:
    async def test_both_ends_learn_what_comes_next_and_nothing_of_it_is_lost(self) -> None:
        peer, own = await ends()
        await peer.send_all(encode_frame(Hello("swarm", 1, 7, [])) + encode_frame(m.Cancel([5], True)))
        stream, role = await welcome(own, "swarm", as_host)
        assert role == "host"
        assert await stream.receive() == m.Cancel([5], True)
        raw = Stream(peer, m.FROM_FETCHER)
        raw._decoder.codec = WELCOME
        assert await raw.receive() == Welcome(1, "host", [])

    async def test_a_greeting_over_a_real_stream(self) -> None:
        dialled, accepted = await ends()
        greeted: list[object] = []

        async def dial() -> None:
            stream, welcome = await greet(dialled, "swarm", "host")
            greeted.append(welcome)
            await stream.send(m.Cancel([9], True))
            assert await stream.receive() == m.Have([9])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            stream, _ = await welcome(accepted, "swarm", as_host)
            assert await stream.receive() == m.Cancel([9], True)
            await stream.send(m.Have([9]))
        assert greeted == [Welcome(1, "host", [])]

    async def test_the_dialler_is_asked_who_it_is_once_it_has_said_what_it_wants(self) -> None:
        """So that it can be told why it is not let in."""
        peer, own = await ends()
        asked: list[float] = []

        def admit() -> Role:
            asked.append(trio.current_time())
            raise NotAdmitted("this host was removed")

        async def accept() -> None:
            with pytest.raises(NotAdmitted, match="this host was removed"):
                await welcome(own, "swarm", admit)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            assert not asked
            with pytest.raises(NotAdmitted, match="this host was removed"):
                await greet(peer, "swarm", "host")
        assert len(asked) == 1

    async def test_a_role_that_may_not_have_the_conversation_is_told_so_by_either_end(self) -> None:
        peer, own = await ends()

        async def accept() -> None:
            with pytest.raises(NotPermitted, match="may not be the dialler of a 'swarm'"):
                await welcome(own, "swarm", lambda: "lapsed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            with pytest.raises(NotPermitted, match="a host whose certificate has expired may not be the dialler"):
                await greet(peer, "swarm", "host")
        peer, own = await ends()
        with pytest.raises(NotPermitted, match="a master may not be the acceptor of a 'swarm'"):
            await greet(own, "swarm", "master")
        assert await receive_exactly(peer, 1) == b"", "nothing was sent, and the connection is closed"

    async def test_after_the_greeting_only_the_conversations_messages_are_taken(self) -> None:
        peer, own = await ends()
        hello = encode_frame(HELLO)
        await peer.send_all(hello + hello)
        stream, _ = await welcome(own, "swarm", as_host)
        with pytest.raises(RemoteProtocolError, match="message 1 is not allowed here"):
            await stream.receive()

    @pytest.mark.parametrize("sent", [b"", b"\x00", encode_frame(HELLO)[:-1]])
    async def test_a_dialler_that_does_not_greet_is_closed(self, autojump_clock: Clock, sent: bytes) -> None:
        peer, own = await ends()
        await peer.send_all(sent)
        with pytest.raises(PeerSilent, match="no greeting within 10 s"):
            await welcome(own, "swarm", as_host)
        assert trio.current_time() == 10
        assert await receive_exactly(peer, 1) == b""

    @pytest.mark.parametrize("sent", [b"", encode_frame(Welcome(1, "host", []))[:-1]])
    async def test_an_acceptor_that_does_not_answer_is_closed(self, autojump_clock: Clock, sent: bytes) -> None:
        peer, own = await ends()
        await peer.send_all(sent)
        with pytest.raises(PeerSilent, match="no answer to the greeting within 10 s"):
            await greet(own, "swarm", "host")
        assert trio.current_time() == 10
        with pytest.raises(PeerGone):
            await peer.send_all(b"x")

    async def test_a_cancelled_greeting_closes_the_connection(self, autojump_clock: Clock) -> None:
        for greeting in (
            lambda own: greet(own, "swarm", "host"),
            lambda own: welcome(own, "swarm", as_host),
        ):
            peer, own = await ends()
            with trio.move_on_after(1):
                await greeting(own)
            with pytest.raises(PeerGone):
                await peer.send_all(b"x")

    @pytest.mark.parametrize(
        ("sent", "error", "code"),
        [
            (encode_frame(Hello("swarm", 2, 3, [])), UnsupportedVersion, "unsupported-version"),
            (encode_frame(Hello("fleet", 1, 1, [])), RemoteProtocolError, "remote-protocol"),
            (encode_frame(m.Cancel([1], True)), RemoteProtocolError, "remote-protocol"),
            (b"GET / HTTP/1.1\r\n\r\n", RemoteProtocolError, "remote-protocol"),
        ],
        ids=["version", "conversation", "message", "HTTP"],
    )
    async def test_a_dialler_that_is_refused_is_told_why(
        self, autojump_clock: Clock, sent: bytes, error: type[Exception], code: str
    ) -> None:
        peer, own = await ends()
        async with trio.open_nursery() as nursery:

            async def accept() -> None:
                with pytest.raises(error):
                    await welcome(own, "swarm", as_host)

            nursery.start_soon(accept)
            await peer.send_all(sent)
            failure = await MessageStream(peer, WELCOME).receive()
            peer.close()
        assert isinstance(failure, Failure)
        assert failure.code == code
        assert trio.current_time() == 0, "it closes as soon as the dialler does"

    async def test_a_refusal_reaches_the_dialler_as_the_error_it_was(self) -> None:
        peer, own = await ends()
        await peer.send_all(encode_frame(Failure("invalid-token", "this token is spent")))
        with pytest.raises(InvalidToken, match="this token is spent"):
            await greet(own, "fleet", "master")
        with pytest.raises(PeerGone):
            await peer.send_all(b"x")

    async def test_another_answer_than_welcome_closes_the_connection(self) -> None:
        peer, own = await ends()
        await peer.send_all(encode_frame(m.Have([1])))
        with pytest.raises(RemoteProtocolError):
            await greet(own, "swarm", "host")
        with pytest.raises(PeerGone):
            await peer.send_all(b"x")


class TestFailing:
    @pytest.mark.parametrize("setup_type", [Tcp, Unix, Memory, TlsOverTcp, TlsOverMemory])
    async def test_the_words_arrive_though_the_peer_is_still_sending(
        self, tmp_path: Path, setup_type: Callable[[Path], Setup]
    ) -> None:
        peer, own = await connected(setup_type(tmp_path))
        client = MessageStream(peer, WELCOME)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Stream(own, FROM_CLIENT).fail, "refused", "not today")
            await client.send(Publish(1, bytes(32), 0, 0, 0, False), bytes(8 << 20))
            assert await client.receive() == Failure("refused", "not today")
            client.close()

    async def test_a_peer_that_stays_is_left_soon(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        await stream.fail("refused", "not today")
        assert trio.current_time() == 2
        assert len(await receive_exactly(peer, 1000)) > 0

    async def test_a_peer_that_never_reads_or_never_stops_sending_is_left_soon(self, autojump_clock: Clock) -> None:
        peer, stream = await fetching()
        with trio.move_on_after(0):
            while True:
                await stream.send(m.Cancel([1], True))

        async def flood() -> None:
            try:
                while True:
                    await peer.send_all(bytes(1000))
                    await trio.sleep(0.1)
            except PeerGone:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            await stream.fail("refused", "not today")
            assert trio.current_time() == 2

    async def test_a_peer_that_is_gone_is_no_error(self) -> None:
        peer, stream = await fetching()
        peer.close()
        await stream.fail("refused", "not today")

    async def test_it_is_told_even_when_cancelled(self) -> None:
        peer, stream = await fetching()
        with trio.CancelScope() as scope:
            scope.cancel()
            async with trio.open_nursery() as nursery:

                async def leave() -> None:
                    with trio.CancelScope(shield=True):
                        assert await MessageStream(peer, WELCOME).receive() == Failure("refused", "bye")
                        peer.close()

                nursery.start_soon(leave)
                await stream.fail("refused", "bye")

    @pytest.mark.parametrize("text", ["x" * 5000, "lone \ud800", "\x1b[2J"], ids=["long", "surrogate", "escape"])
    async def test_any_words_can_be_told(self, text: str) -> None:
        peer, stream = await fetching()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.fail, "refused", text)
            failure = await MessageStream(peer, WELCOME).receive()
            peer.close()
        assert isinstance(failure, Failure)
        assert failure.text.isprintable()
        assert len(failure.text) <= 1000
