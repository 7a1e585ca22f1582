"""Whoever proves nothing takes no room from members, and its time is bounded at every step."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from daemons.master.hosts import ADMISSION_TIMEOUT_S
from interfiles.errors import InterFilesError
from interfiles.identity import contexts
from interfiles.identity.authority import new_key, request_for
from interfiles.transport.base import Transport
from interfiles.transport.memory_links import Link
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S
from interfiles.transport.tls import TLS_HANDSHAKE_TIMEOUT_S, secure
from interfiles.wire import master_messages as m
from interfiles.wire.framing import encode_frame
from interfiles.wire.session import hello
from tests.conftest import LogRecords
from tests.daemons.master.scripted import Fleet

ROOM = 256  # a quarter of what it usually is: so many handshakes take their time here
CROWD = 1_000
ENOUGH = ROOM + 100  # of those that take a handshake each
LONGEST_S = TLS_HANDSHAKE_TIMEOUT_S + HANDSHAKE_TIMEOUT_S + ADMISSION_TIMEOUT_S + 5


@pytest.fixture
async def wide(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> Fleet:
    """A master that takes as many connections as a real one, `ROOM` of them from strangers."""
    await fleet.stop()
    monkeypatch.setattr("daemons.master.hosts.MAX_STRANGERS", ROOM)
    fleet.max_connections = 4_000
    await fleet.start()
    return fleet


def tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


async def silence(fleet: Fleet) -> Transport:
    """A connection on which nothing is ever said."""
    return await fleet.connect(ip="10.6.6.6")


async def encrypted_silence(fleet: Fleet) -> Transport:
    """TLS without a certificate, and no greeting."""
    return await secure(await fleet.connect(ip="10.6.6.6"), contexts.asking(), accepted=False)


async def greeted_silence(fleet: Fleet) -> Transport:
    """A stranger that greets, and asks for nothing."""
    return (await fleet.dial(ip="10.6.6.6")).stream.transport


@pytest.mark.parametrize(("kind", "count"), [(silence, CROWD), (encrypted_silence, ENOUGH), (greeted_silence, ENOUGH)])
async def test_a_crowd_of_them_leaves_members_served(
    wide: Fleet,
    autojump_clock: MockClock,
    log_records: LogRecords,
    kind: Callable[[Fleet], Awaitable[Transport]],
    count: int,
) -> None:
    member = await wide.join("member")
    before = tasks()
    crowd = [await kind(wide) for _ in range(count)]
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() - before <= ROOM + 5
    with trio.fail_after(1):
        await member.announce()
        again = await wide.rejoin(member)
        await wide.join("newcomer")
        assert (await again.hosts())["newcomer"].state == "live"
    assert sum(record["event"] == "crowded by strangers" for record in log_records.records) == 1
    await trio.sleep(LONGEST_S - 6)
    await again.announce()
    await trio.sleep(6)
    assert tasks() - before <= 15, "all of them were shown out"
    for transport in crowd:
        transport.close()


async def test_who_has_waited_longest_makes_room(wide: Fleet, autojump_clock: MockClock) -> None:
    first, second = await wide.dial(), await wide.dial()
    crowd = [await silence(wide) for _ in range(ROOM - 1)]
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(InterFilesError):
        await first.enrol(wide.token, "first")
    await second.enrol(wide.token, "second")
    for transport in crowd:
        transport.close()


async def trickle(transport: Transport, data: bytes, *, every_s: float) -> float:
    """Say it byte by byte for as long as somebody listens; return how long that was, in seconds."""
    began = trio.current_time()
    buffer = memoryview(bytearray(65536))

    async def listen() -> None:
        try:
            while await transport.receive_some_into(buffer):
                pass
        except InterFilesError:
            pass
        nursery.cancel_scope.cancel()

    with trio.fail_after(600):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            try:
                for at in range(len(data)):
                    await transport.send_all(data[at : at + 1])
                    await trio.sleep(every_s)
            except InterFilesError:
                pass
            await trio.sleep_forever()
    transport.close()
    return trio.current_time() - began


def client_hello() -> bytes:
    """The first flight of a TLS handshake."""
    sent = bytearray()

    class Recorder:
        remote = None

        async def send_all(self, data: bytes | memoryview) -> None:
            sent.extend(data)

        async def wait_readable(self) -> None:
            pass

        async def receive_some_into(self, buffer: memoryview) -> int:
            return 0

        def promise(self, count: int) -> None:
            pass

        def close(self) -> None:
            pass

    async def record() -> None:
        try:
            await secure(Recorder(), contexts.asking(), accepted=False)  # type: ignore[arg-type]
        except InterFilesError:
            pass

    trio.run(record)
    return bytes(sent)


TLS_FLIGHT = client_hello()
ENROL = encode_frame(m.Enrol(bytes(8), bytes(16), "render", "", request_for(new_key())))


@pytest.mark.parametrize("every_s", [0.5, 5.0])
async def test_a_slow_tls_handshake_ends(fleet: Fleet, autojump_clock: MockClock, every_s: float) -> None:
    before = tasks()
    lasted = await trickle(await fleet.connect(), TLS_FLIGHT, every_s=every_s)
    assert lasted == pytest.approx(TLS_HANDSHAKE_TIMEOUT_S, abs=1)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


@pytest.mark.parametrize("every_s", [1.0, 5.0])
async def test_a_slow_greeting_ends(fleet: Fleet, autojump_clock: MockClock, every_s: float) -> None:
    before = tasks()
    lasted = await trickle(await encrypted_silence(fleet), encode_frame(hello("fleet")), every_s=every_s)
    assert lasted == pytest.approx(HANDSHAKE_TIMEOUT_S, abs=3)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


@pytest.mark.parametrize("every_s", [0.5, 5.0])
async def test_a_slow_request_to_join_ends(fleet: Fleet, autojump_clock: MockClock, every_s: float) -> None:
    before = tasks()
    lasted = await trickle(await greeted_silence(fleet), ENROL, every_s=every_s)
    assert lasted == pytest.approx(ADMISSION_TIMEOUT_S, abs=3)
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


async def test_a_request_to_join_with_a_payload_is_refused_before_it_comes(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    frame = bytearray(ENROL)
    frame[4:8] = (1 << 20).to_bytes(4, "big")
    lasted = await trickle(await greeted_silence(fleet), bytes(frame) + bytes(1 << 10), every_s=0.001)
    assert lasted < 5


async def until_shown_out(transport: Transport, *, every_s: float) -> float:
    """Ask for the CAs again and again, without reading; return how long that went on, in seconds."""
    began = trio.current_time()
    with trio.fail_after(60):
        while True:
            try:
                await transport.send_all(encode_frame(m.GetAuthorities()))
            except InterFilesError:
                return trio.current_time() - began
            await trio.sleep(every_s)


@pytest.mark.parametrize("every_s", [0.01, 1.0])
async def test_a_stranger_that_only_asks_is_shown_out_too(
    tight_fleet: Fleet, autojump_clock: MockClock, every_s: float
) -> None:
    before = tasks()
    stranger = await tight_fleet.dial()
    assert await until_shown_out(stranger.stream.transport, every_s=every_s) < ADMISSION_TIMEOUT_S + 4
    stranger.close()
    await trio.testing.wait_all_tasks_blocked()
    assert tasks() == before


async def test_members_and_newcomers_get_through_a_steady_stream_of_strangers(
    wide: Fleet, autojump_clock: MockClock
) -> None:
    member = await wide.join("member")
    for ip in ("10.6.6.6", "10.0.0.254", "10.7.7.7"):
        wide.network.set_link(ip, Link(latency_s=0.01))
    crowd: list[Transport] = []

    async def arrive() -> None:
        while True:
            crowd.append(await silence(wide))
            await trio.sleep(0.001)

    async with trio.open_nursery() as nursery:
        for _ in range(40):  # a thousand a second
            nursery.start_soon(arrive)
        await trio.sleep(0.5)
        for number in range(3):
            newcomer = await wide.enrol(f"newcomer-{number}", ip="10.7.7.7")
            await newcomer.register()
            await member.announce()
        nursery.cancel_scope.cancel()
    assert len(crowd) > ROOM
    for transport in crowd:
        transport.close()
