"""The network in memory: links take their time, faults are seen by whom they should be, and runs repeat."""

import random

import pytest
import trio
import trio._core._run
import trio.testing

from interfiles.errors import ConnectFailed, PeerGone
from interfiles.transport.base import Address, Listener, Transport
from interfiles.transport.memory import LISTEN_BACKLOG, MemoryNetwork
from interfiles.transport.memory_links import Link
from tests.transport.setups import connect, flood, receive_exactly

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
MB = 1_000_000

Clock = trio.testing.MockClock


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork(random.Random(1))


async def timed_transfer(sender: Transport, receiver: Transport, count: int) -> float:
    """Send so many bytes; return the time at which the last has arrived."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.send_all, bytes(count))
        await receive_exactly(receiver, count)
    return trio.current_time()


class TestLinks:
    async def test_without_a_link_everything_is_at_once(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        assert await timed_transfer(*await connect(network, A, B), 5 * MB) == 0

    async def test_the_slower_of_uplink_and_downlink_and_both_latencies_count(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        network.set_link(A, Link(uplink_bytes_per_s=1 * MB, latency_s=0.010))
        network.set_link(B, Link(downlink_bytes_per_s=4 * MB, latency_s=0.005))
        ends = await connect(network, A, B)
        assert trio.current_time() == pytest.approx(0.030)  # there and back
        arrived = await timed_transfer(*ends, 2 * MB)
        assert arrived == pytest.approx(0.030 + 2.0 + 0.015, rel=0.02)

    async def test_connections_share_an_uplink_fairly(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.set_link(A, Link(uplink_bytes_per_s=1 * MB))
        pairs = [await connect(network, A, host) for host in (B, B, C)]
        done = []

        async def transfer(pair: tuple[Transport, Transport]) -> None:
            done.append(await timed_transfer(*pair, MB))

        async with trio.open_nursery() as nursery:
            for pair in pairs:
                nursery.start_soon(transfer, pair)
        assert max(done) == pytest.approx(3.0)
        assert min(done) == pytest.approx(3.0, rel=0.1)

    async def test_connections_share_a_downlink(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.set_link(C, Link(downlink_bytes_per_s=1 * MB))
        pairs = [await connect(network, host, C) for host in (A, B)]
        async with trio.open_nursery() as nursery:
            for pair in pairs:
                nursery.start_soon(timed_transfer, *pair, MB)
        assert trio.current_time() == pytest.approx(2.0)

    async def test_up_and_down_do_not_wait_for_each_other(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.set_link(A, Link(uplink_bytes_per_s=1 * MB, downlink_bytes_per_s=1 * MB))
        a, b = await connect(network, A, B)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timed_transfer, a, b, MB)
            nursery.start_soon(timed_transfer, b, a, MB)
        assert trio.current_time() == pytest.approx(1.0, rel=0.02)

    async def test_a_short_message_passes_a_long_transfer_of_another_connection(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        network.set_link(A, Link(uplink_bytes_per_s=1 * MB))
        bulk, other = await connect(network, A, B), await connect(network, A, C)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(timed_transfer, *bulk, 3 * MB)
            await trio.sleep(1)
            assert await timed_transfer(*other, 10) < 1.2
            nursery.cancel_scope.cancel()

    async def test_a_host_reaches_itself_at_once(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.set_link(A, Link(uplink_bytes_per_s=1, downlink_bytes_per_s=1, latency_s=1))
        assert await timed_transfer(*await connect(network, A, A), MB) == 0

    async def test_jitter_delays_but_does_not_reorder(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.set_link(A, Link(latency_s=0.1, jitter=5.0))
        a, b = await connect(network, A, B)
        sent, took = [], []

        async def send() -> None:
            for number in range(50):
                sent.append(trio.current_time())
                await a.send_all(bytes([number]))
                await trio.sleep(0.2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for number in range(50):
                assert await receive_exactly(b, 1) == bytes([number])
                took.append(trio.current_time() - sent[number])
        assert 0.1 <= min(took) < 0.3 < max(took) <= 0.6

    @pytest.mark.parametrize("window", [1 << 16, 1 << 20])
    async def test_a_sender_feels_a_receiver_that_does_not_read(self, autojump_clock: Clock, window: int) -> None:
        network = MemoryNetwork(random.Random(1), window_bytes=window)
        a, b = await connect(network, A, B)
        with trio.move_on_after(1):
            await flood(a)
        assert window <= network.bytes_sent(A, B) <= window + (1 << 16)
        await receive_exactly(b, window)


class TestWatching:
    async def test_bytes_are_counted_by_sender_and_receiver(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        a, b = await connect(network, A, B)
        await a.send_all(bytes(1000))
        await b.send_all(bytes(50))
        assert [network.bytes_sent(*pair) for pair in ((A, B), (B, A), (A, C))] == [1000, 50, 0]

    async def test_a_tap_sees_what_a_host_sends_and_whom_to(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        seen: dict[str, bytes] = {}

        def make_tap(receiver: str) -> "Tap":
            return Tap(seen, receiver)

        network.tap(A, make_tap)
        a, b = await connect(network, A, B)
        d, c = await connect(network, C, A)
        await a.send_all(b"to b")
        await b.send_all(b"to a")
        await c.send_all(b"to c")
        assert seen == {B: b"to b", C: b"to c"}
        assert await receive_exactly(b, 4) == b"to b"
        assert await receive_exactly(d, 4) == b"to c"

    async def test_a_tap_can_corrupt_and_swallow(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        network.tap(A, lambda _: lambda data: data.replace(b"good", b"evil").removeprefix(b"skip"))
        a, b = await connect(network, A, B)
        for data in (b"skip", b"all good", b"skip this"):
            await a.send_all(data)
        a.close()
        assert await receive_exactly(b, 100) == b"all evil this"


class Tap:
    """Collects what is sent to each host."""

    def __init__(self, seen: dict[str, bytes], receiver: str) -> None:
        self.seen = seen
        self.receiver = receiver

    def __call__(self, data: bytes) -> bytes:
        self.seen[self.receiver] = self.seen.get(self.receiver, b"") + data
        return data


class TestBounds:
    async def test_a_listener_that_does_not_accept_lets_only_so_many_wait(
        self, autojump_clock: Clock, network: MemoryNetwork
    ) -> None:
        listener = await network.host(B).listen(Address("0.0.0.0", 4850))
        address = Address(B, 4850)
        for _ in range(LISTEN_BACKLOG):
            await network.host(A).dial(address)
        with pytest.raises(ConnectFailed, match="does not answer within 10 s"):
            await network.host(A).dial(address)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.host(A).dial, address)
            await trio.sleep(5)
            await listener.accept()

    async def test_closed_connections_leave_no_trace(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        for _ in range(3):
            for end in await connect(network, A, B):
                end.close()
        survivor, _ = await connect(network, A, B)
        network.crash(B, silent=True)
        survivor.close()
        assert not network._pipes

    async def test_ports_are_used_again_only_when_free(self, autojump_clock: Clock, network: MemoryNetwork) -> None:
        listeners: list[Listener] = [await network.host(A).listen(Address(A, 0)) for _ in range(3)]
        network._ports_given = 0
        listeners += [await network.host(A).listen(Address(A, 0)) for _ in range(3)]
        assert len({listener.address.port for listener in listeners}) == 6


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trio draw the order of its tasks from a seed; these are private names of the pinned version."""
    monkeypatch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)


def trace(seed: int) -> list[tuple[float, int, int]]:
    """Run a small fleet with faults; return when which host had received how much."""
    seen: list[tuple[float, int, int]] = []

    async def receive(host: int, transport: Transport) -> None:
        total, buffer = 0, memoryview(bytearray(100_000))
        try:
            while count := await transport.receive_some_into(buffer):
                total += count
                seen.append((trio.current_time(), host, total))
        except PeerGone:
            seen.append((trio.current_time(), host, -1))

    async def send(transport: Transport) -> None:
        try:
            await transport.send_all(bytes(2 * MB))
        except PeerGone:
            pass
        transport.close()

    async def main() -> None:
        network = MemoryNetwork(random.Random(seed))
        names = [f"10.0.1.{number}" for number in range(6)]
        for name in names:
            network.set_link(name, Link(uplink_bytes_per_s=MB, latency_s=0.01, jitter=0.5))
        async with trio.open_nursery() as nursery:
            for sender in names[:2]:
                for number, name in enumerate(names[2:]):
                    dialled, accepted = await connect(network, sender, name)
                    nursery.start_soon(send, dialled)
                    nursery.start_soon(receive, number, accepted)
            await trio.sleep(1)
            network.cut(names[0], names[2])
            network.partition(names[1], names[3])
            await trio.sleep(1)
            network.heal(names[1], names[3])
            network.crash(names[4])

    trio._core._run._r.seed(seed)
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return seen


def test_a_run_repeats_exactly(deterministic: None) -> None:
    first = trace(5)
    assert len(first) > 50
    assert first == trace(5)
    assert first != trace(6)
