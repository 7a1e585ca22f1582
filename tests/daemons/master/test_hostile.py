"""Whatever one connection does ends that connection at most, while an honest host is served beside it."""

import random
import struct

import pytest
import trio
from trio.testing import MockClock

from daemons.master import connection, requests
from interfiles.errors import InterFilesError, PeerGone, RemoteProtocolError
from interfiles.identity import contexts
from interfiles.transport.base import Transport
from interfiles.transport.tls import secure
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire import peer_messages as p
from interfiles.wire.codec import Message
from interfiles.wire.framing import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, encode_frame
from interfiles.wire.handshake_messages import Hello
from tests.daemons.master.scripted import Client, Fleet, holding, manifest

FRAMES = {
    "no header": struct.pack(">II", 0, 0),
    "a header too long": struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
    "a header of 4 GB": struct.pack(">II", 2**32 - 1, 0),
    "a payload too long": struct.pack(">II", 10, MAX_PAYLOAD_BYTES + 1),
    "a payload where none belongs": struct.pack(">II", 3, 4) + bytes([0x92, 32, 1]),
    "no msgpack": struct.pack(">II", 4, 0) + b"\xc1\xc1\xc1\xc1",
    "nested arrays": struct.pack(">II", 60_000, 0) + b"\xdc\x10\x00" * 20_000,
    "text": b"GET / HTTP/1.1\r\nHost: example.net\r\n\r\n",
    "noise": random.Random(3).randbytes(4096),
}
STRANGE: list[Message] = [
    p.Open(bytes(32), "normal"),
    p.Have([1]),
    c.Status(),
    c.MakeToken(60.0, None, ""),
    c.RemoveHost("honest"),
    m.Heard(1),
    m.Forget(bytes(32), True),
    m.Registered("honest", "10.0.0.1:1", 1.0, 3),
    Hello("fleet", 1, 1, []),
    m.Enrol(bytes(8), bytes(16), "render", "", b"request"),
    m.Enrolled("honest", "chain", ["certificate"]),
    m.Revoked(True, ["0" * 32]),
]


MANY_FILES = [bytes([number]) * 32 for number in range(120)]  # more than `few_unsent` lets wait


@pytest.fixture
def few_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_UNSENT", 64)


async def encrypted(fleet: Fleet) -> Transport:
    """A connection without a greeting."""
    return await secure(await fleet.connect(), contexts.asking(), accepted=False)


async def ended(client: Client) -> InterFilesError:
    """Wait for the end of a connection and return its reason."""
    with trio.fail_after(120):
        while True:
            try:
                await client.receive()
            except InterFilesError as e:
                return e


async def is_served(honest: Client) -> None:
    with trio.fail_after(1):
        await honest.announce()
        assert (await honest.hosts())["honest"].state == "live"


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
@pytest.mark.parametrize("stage", ["TLS", "greeting", "admission", "conversation"])
async def test_a_malformed_frame_ends_its_connection(
    fleet: Fleet, autojump_clock: MockClock, frame: bytes, stage: str
) -> None:
    honest = await fleet.join("honest")
    if stage == "TLS":
        transport = await fleet.connect()
    elif stage == "greeting":
        transport = await encrypted(fleet)
    else:
        client = await (fleet.dial() if stage == "admission" else fleet.join("hostile"))
        transport = client.stream.transport
    await transport.send_all(frame)
    with trio.fail_after(60):
        buffer = memoryview(bytearray(4096))
        try:
            while await transport.receive_some_into(buffer):
                pass
        except PeerGone:
            pass
    transport.close()
    await honest.announce()
    await is_served(honest)


@pytest.mark.parametrize(
    "message", STRANGE, ids=lambda message: f"{type(message).__module__[16:]}.{type(message).__name__}"
)
@pytest.mark.parametrize("registered", [True, False])
async def test_what_a_host_may_not_say_ends_its_connection_and_does_nothing(
    fleet: Fleet, autojump_clock: MockClock, message: Message, registered: bool
) -> None:
    honest = await fleet.join("honest")
    client = await (fleet.join("hostile") if registered else fleet.dial())
    await client.stream.transport.send_all(encode_frame(message))
    assert isinstance(await ended(client), RemoteProtocolError)
    await is_served(honest)


@pytest.mark.parametrize(
    "message",
    [
        m.Heartbeat(1, 0, 0, True, []),
        m.Resolve(1, "weights", True),
        m.ListHolders(1, bytes(32), 0),
        m.ListFiles(1, 0),
        m.ListHosts(1, 0),
        m.Remove(1, manifest().file_id, True),
        m.Publish(1, manifest().file_id, 0, 0, 0, False),
    ],
    ids=lambda message: type(message).__name__,
)
async def test_whoever_has_not_registered_may_ask_nothing(
    fleet: Fleet, autojump_clock: MockClock, message: Message
) -> None:
    honest = await fleet.join("honest")
    await honest.publish(manifest())
    stranger = await fleet.dial(honest.credentials)
    await stranger.send(message)
    reason = await ended(stranger)
    assert isinstance(reason, RemoteProtocolError)
    assert str(reason) == f"{type(message).__name__} came before Register"
    assert (await honest.resolve("weights"))[0].name == "weights"


async def test_nobody_registers_twice_on_a_connection(fleet: Fleet, autojump_clock: MockClock) -> None:
    client = await fleet.join("hostile")
    await client.send(m.Register("other", "", "", 1))
    assert str(await ended(client)) == "Register came after Register"


async def test_a_flood_of_requests_that_nobody_reads_ends_and_others_are_served(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    honest, hostile = await fleet.join("honest"), await fleet.join("hostile")
    flood = b"".join(encode_frame(m.ListHosts(number, 0)) for number in range(20_000))

    async def pour() -> None:
        try:
            await hostile.stream.transport.send_all(flood)
        except InterFilesError:
            pass

    with trio.fail_after(300):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pour)
            for _ in range(20):
                await trio.sleep(5)
                await is_served(honest)
            assert (await honest.hosts())["hostile"].state != "live"


async def test_a_flood_of_heartbeats_does_not_starve_others(fleet: Fleet, autojump_clock: MockClock) -> None:
    honest, rude = await fleet.join("honest"), await fleet.join("rude")
    flood = b"".join(encode_frame(m.Heartbeat(number, 0, 0, False, [])) for number in range(2_000))
    heard = 0

    async def drink() -> None:
        nonlocal heard
        while heard < 2_000:
            await rude.expect(m.Heard)
            heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drink)
        nursery.start_soon(rude.stream.transport.send_all, flood)
        await is_served(honest)
        assert heard < 2_000  # in between, not after
    assert heard == 2_000


async def test_a_host_that_reads_nothing_is_cut_off(
    tight_fleet: Fleet, few_unsent: None, autojump_clock: MockClock
) -> None:
    honest, deaf = await tight_fleet.join("honest"), await tight_fleet.join("deaf")
    await deaf.announce(*(holding(file_id, "fetching", 0) for file_id in MANY_FILES))
    began = trio.current_time()
    while (await honest.hosts())["deaf"].state == "live":
        await is_served(honest)
        await trio.sleep(1)
    assert trio.current_time() - began < connection.SEND_TIMEOUT_S + 5


async def test_one_that_goes_on_talking_and_reads_nothing_is_cut_off_too(
    tight_fleet: Fleet, autojump_clock: MockClock
) -> None:
    honest, deaf = await tight_fleet.join("honest"), await tight_fleet.join("deaf")
    await deaf.announce(*(holding(file_id, "fetching", 0) for file_id in MANY_FILES))
    began = trio.current_time()
    while (await honest.hosts())["deaf"].state == "live":
        await deaf.send(m.Heartbeat(2, 0, 0, False, []))
        await is_served(honest)
        await trio.sleep(1)
    assert connection.SEND_TIMEOUT_S <= trio.current_time() - began < connection.SEND_TIMEOUT_S + 5


async def test_one_that_fetches_very_many_files_is_told_of_each(
    tight_fleet: Fleet, few_unsent: None, autojump_clock: MockClock
) -> None:
    busy = await tight_fleet.join("busy")
    await busy.announce(*(holding(file_id, "fetching", 0) for file_id in MANY_FILES))
    told = {(await busy.handout()).file_id for _ in MANY_FILES}
    assert told == set(MANY_FILES)


async def test_a_host_that_reads_nothing_while_many_files_are_removed_is_cut_off(
    tight_fleet: Fleet, few_unsent: None, autojump_clock: MockClock
) -> None:
    honest, deaf = await tight_fleet.join("honest"), await tight_fleet.join("deaf")
    await deaf.announce(*(holding(file_id) for file_id in MANY_FILES))
    for file_id in MANY_FILES:
        await honest.remove(file_id)
    assert (await honest.hosts())["deaf"].state == "suspect"
    again = await tight_fleet.rejoin(deaf, holdings=[holding(MANY_FILES[-1])])
    assert [message.file_id for message in again.pushed if isinstance(message, m.Forget)] == [MANY_FILES[-1]]


async def test_a_payload_that_never_ends_is_given_up(fleet: Fleet, autojump_clock: MockClock) -> None:
    honest, hostile = await fleet.join("honest"), await fleet.join("hostile")
    transport = hostile.stream.transport
    await transport.send_all(encode_frame(m.Publish(1, bytes(32), 0, 0, 0, False), 2 << 20))
    began = trio.current_time()

    async def trickle() -> None:
        try:
            while True:
                await transport.send_all(b"x")
                await trio.sleep(1)
        except InterFilesError:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle)
        for _ in range(9):
            await trio.sleep(5)
            await honest.announce()
        await ended(hostile)
    assert trio.current_time() - began < 60
    await honest.publish(manifest())


async def test_large_payloads_that_are_never_taken_are_given_up(
    tight_fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "LARGE_PAYLOAD_BYTES", 1_000)
    honest = await tight_fleet.join("honest")
    await honest.publish(manifest(pieces=5_000))
    hostile = [await tight_fleet.join(f"hostile-{number}") for number in range(requests.MAX_LARGE_PAYLOADS)]
    for client in hostile:
        await client.send(m.Resolve(1, "weights", True))
    await trio.testing.wait_all_tasks_blocked()
    began = trio.current_time()

    async def beat() -> None:
        while True:
            await honest.send(m.Heartbeat(1, 0, 0, False, []))
            await trio.sleep(5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        await honest.resolve("weights", with_manifest=True)
        nursery.cancel_scope.cancel()
    assert 1 < trio.current_time() - began < connection.SEND_TIMEOUT_S + 5


async def test_connections_over_the_limit_wait_until_silent_ones_are_cut_off(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    await fleet.stop()
    fleet.max_connections = 3
    await fleet.start()
    strangers = [await fleet.connect() for _ in range(3)]
    await trio.sleep(5)
    await is_served(await fleet.join("honest"))
    for stranger in strangers:
        stranger.close()
