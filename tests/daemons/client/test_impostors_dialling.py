"""Whoever connects to a host and is none of the fleet is turned away, in words where he can hear them."""

import ssl
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import trio
from structlog.typing import EventDict
from trio.testing import MockClock

from interfiles.errors import (
    CertificateRefused,
    HandshakeFailed,
    InterFilesError,
    NotAdmitted,
    PeerGone,
    TransportError,
)
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.tls import TLS_HANDSHAKE_TIMEOUT_S, secure
from interfiles.wire import master_messages
from interfiles.wire import peer_messages as m
from interfiles.wire.handshake_messages import WELCOME, Hello
from tests.conftest import LogRecords
from tests.daemons.client.certificates import host_credentials, host_subject
from tests.daemons.client.impostors import IMPOSTORS, Impostor, of_version_1_2, without_certificate
from tests.daemons.client.peers import dialled, fetching, honest_copy
from tests.daemons.client.setting import DAEMON, DAEMON_IP, EPOCH, id_of, until
from tests.daemons.client.world import World
from tests.storage.contents import Content, noise

MEETS_AN_ERROR = {name: impostor for name, impostor in IMPOSTORS.items() if impostor.when_dialling is not None}


def served(records: LogRecords) -> list[EventDict]:
    """What the log says about connections that ended badly."""
    return [record for record in records.records if record.get("task") == "serving a peer"]


@pytest.mark.parametrize("impostor", MEETS_AN_ERROR.values(), ids=MEETS_AN_ERROR)
async def test_an_impostor_is_turned_away(
    world: World, content: Content, log_records: LogRecords, impostor: Impostor, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await honest_copy(world, content)
    assert impostor.when_dialling is not None
    async with world.leaving_nothing():
        with pytest.raises(impostor.when_dialling) as caught:
            async with fetching(world, file_id, shown=impostor.shown(host_subject("hostile"))):
                pytest.fail("it was let in")
        assert caught.type is impostor.when_dialling
    (line,) = served(log_records)
    assert line["level"] == "info"
    assert await honest_copy(world, content) == content.data


async def test_a_removed_host_is_turned_away_in_words(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await world.master.push(master_messages.Revoked(False, [id_of("removed")]))
    await trio.sleep(1)
    async with world.leaving_nothing():
        with pytest.raises(NotAdmitted, match=r"host \w+ of fleet f1f1 was removed from the fleet"):
            async with fetching(world, file_id, name="removed"):
                pytest.fail("it was let in")
    assert await honest_copy(world, content) == content.data
    await world.master.push(master_messages.Revoked(True, []))
    await trio.sleep(1)
    async with fetching(world, file_id, name="removed") as fetcher:
        assert await fetcher.fetch(content) == content.data


@pytest.mark.parametrize(
    ("context", "error"), [(without_certificate, CertificateRefused), (of_version_1_2, HandshakeFailed)]
)
async def test_who_has_no_certificate_or_an_old_tls_hears_why(
    world: World,
    content: Content,
    context: Callable[[], ssl.SSLContext],
    error: type[InterFilesError],
    autojump_clock: MockClock,
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing():
        transport = await world.network.host(world.new_ip()).dial(DAEMON)
        with pytest.raises(error):
            await greet(await secure(transport, context(), accepted=False), "swarm", "host")
        transport.close()
    assert await honest_copy(world, content) == content.data


async def test_nothing_is_said_to_who_shows_no_certificate(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    transport = await world.network.host(world.new_ip()).dial(DAEMON)
    secured = await secure(transport, without_certificate(), accepted=False)
    stream = MessageStream(secured, WELCOME)
    with pytest.raises(TransportError):  # noqa: PT012 - sent before it can know
        await stream.send(Hello("swarm", 1, 1, []))
        await stream.send(m.Open(file_id, "normal"))
        await stream.receive()
    transport.close()


# What is no TLS at all


def _client_hello() -> bytes:
    """The first flight of an honest handshake."""
    out = ssl.MemoryBIO()
    try:
        without_certificate().wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    except ssl.SSLWantReadError:
        return out.read()
    raise AssertionError("there is nobody to shake hands with")


GARBAGE = {
    "nothing": b"",
    "a byte": b"\x16",
    "half of a handshake": _client_hello()[:100],
    "a handshake and no answer": _client_hello(),
    "a plaintext greeting": struct.pack(">II", 13, 0) + b"\x95\x01\xa5swarm\x01\x01\x90",
    "noise": noise(4096),
    "zeros": bytes(4096),
    "a browser": b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "a huge record": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "an endless handshake": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(16_380),
}
WAITING = {"nothing", "a byte", "half of a handshake", "a handshake and no answer"}


@pytest.mark.parametrize("name", GARBAGE)
async def test_a_connection_that_is_no_tls_ends_and_the_honest_are_served_meanwhile(
    world: World, content: Content, log_records: LogRecords, name: str, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await honest_copy(world, content)
    async with world.leaving_nothing(within_s=3):
        transport = await world.network.host(world.new_ip()).dial(DAEMON)
        began = trio.current_time()
        if GARBAGE[name]:
            await transport.send_all(GARBAGE[name])
        assert await honest_copy(world, content) == content.data
        with trio.fail_after(TLS_HANDSHAKE_TIMEOUT_S + 3):
            await _until_closed(transport.receive_some_into)
        if name in WAITING:
            assert trio.current_time() - began == pytest.approx(TLS_HANDSHAKE_TIMEOUT_S, abs=2.5)
        else:
            assert trio.current_time() - began < 3
        transport.close()
    assert {line["level"] for line in served(log_records)} <= {"info"}
    assert await honest_copy(world, content) == content.data


async def _until_closed(receive: Callable[[memoryview], Awaitable[int]]) -> None:
    buffer = memoryview(bytearray(65536))
    try:
        while await receive(buffer):
            pass
    except PeerGone:
        pass


async def test_what_is_damaged_on_its_way_breaks_the_connection(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    ip, damaging = world.new_ip(), False

    def flips(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if damaging else data

    world.network.tap(DAEMON_IP, lambda receiver: flips if receiver == ip else bytes)
    async with fetching(world, file_id, ip=ip) as fetcher:
        damaging = True
        with pytest.raises(PeerGone, match="the connection was damaged on its way"):
            await fetcher.fetch(content)
    assert await honest_copy(world, content) == content.data


# Clocks


async def test_a_certificate_that_expires_while_connected_is_good_until_the_end(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with fetching(world, file_id) as fetcher:
        world.daemon.clock_ahead_s = 31 * 86400.0
        assert await fetcher.fetch(content) == content.data
    with pytest.raises(InterFilesError, match=r"expired (23 h 59 min|1 d)"):
        async with fetching(world, file_id):
            pytest.fail("it was let in")


async def test_a_host_is_admitted_up_to_the_last_second(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    async with AsyncExitStack() as stack:
        for seconds in (-1.0, 1.0):
            good_until = EPOCH + 30 * 86400.0
            world.daemon.clock_ahead_s += good_until + seconds - world.daemon.now
            if seconds > 0:
                with pytest.raises(InterFilesError, match=r"expired 1 s ago"):
                    await stack.enter_async_context(fetching(world, file_id))
            else:
                await stack.enter_async_context(fetching(world, file_id))


async def test_a_member_that_says_nothing_is_given_up(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    transport = await dialled(world, shown=host_credentials("silent"))
    await until(lambda: served(log_records))
    assert "no greeting within 10 s" in served(log_records)[0]["reason"]
    transport.close()
