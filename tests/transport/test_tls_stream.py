"""Bytes over TLS: all of them, in order, or an error; in few and large calls, and in little memory."""

import gc
import hashlib
import os
import random
import ssl
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Final

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from interfiles.errors import ContentChanged, PeerGone, StorageFailed, TransportError
from interfiles.identity import contexts
from interfiles.transport.base import Transport
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.memory_links import Link
from interfiles.transport.tls import CIPHERTEXT_BYTES, TlsTransport
from tests.transport.setups import connect, receive_exactly
from tests.transport.tls_ends import (
    ACCEPTOR,
    ALICES,
    BOBS,
    DIALLER,
    Cut,
    Wire,
    both,
    cable,
    run_in_virtual_time,
    secured,
    watched,
)

LARGE = random.Random(7).randbytes(4 << 20)
RECORD = 16 << 10


async def received(transport: Transport, into: bytearray) -> None:
    """Receive until the end or an error, which is raised."""
    buffer = memoryview(bytearray(1 << 16))
    while count := await transport.receive_some_into(buffer):
        into += buffer[:count]


class TestBytes:
    @given(
        data=st.lists(st.integers(0, 3 * RECORD), min_size=1, max_size=5),
        cuts=st.lists(st.sampled_from([1, 5, 21, 22, 1000, RECORD, 1 << 18]), min_size=1, max_size=4),
        reads=st.lists(st.sampled_from([1, 100, RECORD - 1, RECORD + 1, 1 << 18]), min_size=1, max_size=4),
        seed=st.integers(0, 9),
    )
    @settings(max_examples=60)
    def test_however_they_are_cut_on_their_way_they_arrive_intact(
        self, data: list[int], cuts: list[int], reads: list[int], seed: int
    ) -> None:
        if sum(cuts) < 5 * len(cuts) or sum(reads) < 5 * len(reads):
            data = [length % 500 for length in data]  # byte by byte takes long enough with these
        sent = [random.Random(seed).randbytes(length) for length in data]

        async def exchange() -> None:
            ends = await cable()
            dialled, accepted = await secured(ends=(ends[0], Cut(ends[1], cuts)))

            async def send() -> None:
                for part in sent:
                    await dialled.send_all(part)
                dialled.close()

            got, turn = bytearray(), 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                while count := await accepted.receive_some_into(
                    view := memoryview(bytearray(reads[turn % len(reads)]))
                ):
                    got += view[:count]
                    turn += 1
            assert bytes(got) == b"".join(sent)

        run_in_virtual_time(exchange)

    async def test_nothing_of_them_is_seen_on_the_cable(self) -> None:
        network, seen = MemoryNetwork(random.Random(1)), bytearray()

        def see(data: bytes) -> bytes:
            seen.extend(data)
            return data

        for end in (DIALLER, ACCEPTOR):
            network.tap(end, lambda _: see)
        ends = await secured(ends=await connect(network, DIALLER, ACCEPTOR))
        for sender, receiver in (ends, ends[::-1]):
            await sender.send_all(b"the secret of the token" * 3)
            await receive_exactly(receiver, 3 * 23)
        assert len(seen) > 1000
        assert b"secret" not in seen
        for name in (b"interfiles://", b"InterFiles fleet", b"a" * 32, b"b" * 32):
            assert name not in seen, "TLS 1.3 hides the certificates too"

    async def test_what_waits_is_taken_in_one_call_though_it_came_in_many_records(self) -> None:
        dialled, accepted = await secured()
        buffer = memoryview(bytearray(1 << 18))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialled.send_all, LARGE)
            counts, left = [], len(LARGE)
            while left:
                await trio.testing.wait_all_tasks_blocked()
                counts.append(await accepted.receive_some_into(buffer))
                left -= counts[-1]
        assert max(counts) > 8 * RECORD
        assert len(counts) < len(LARGE) // (4 * RECORD)

    async def test_bulk_goes_in_large_calls_of_the_transport_below_but_never_all_at_once(self) -> None:
        ends = await cable()
        sender, reader = Cut(ends[0], [1 << 20]), Cut(ends[1], [1 << 20])
        dialled, accepted = await secured(ends=(sender, reader))
        before = reader.reads
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialled.send_all, LARGE)
            got = await receive_exactly(accepted, len(LARGE), at_once=1 << 20)
        assert hashlib.sha256(got).digest() == hashlib.sha256(LARGE).digest()
        assert CIPHERTEXT_BYTES < sender.largest_write < CIPHERTEXT_BYTES * 1.01
        assert reader.reads - before < len(LARGE) / RECORD / 2

    async def test_nothing_is_nothing(self) -> None:
        dialled, accepted = await secured()
        await dialled.send_all(b"")
        await dialled.send_all(b"x")
        assert await receive_exactly(accepted, 1) == b"x"


class TestFiles:
    async def test_a_file_that_is_too_short_is_a_changed_one_and_what_there_is_was_sent(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(LARGE[: 300 << 10])
        dialled, accepted = await secured()
        got = bytearray()

        async def send() -> None:
            with (tmp_path / "file").open("rb") as file, pytest.raises(ContentChanged, match="ends 7 bytes too early"):
                await dialled.send_file(file.fileno(), 10, (300 << 10) - 3)
            dialled.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await received(accepted, got)
        assert bytes(got) == LARGE[10 : 300 << 10]

    async def test_a_disk_that_does_not_read_is_told_in_words(self, tmp_path: Path) -> None:
        dialled, _ = await secured()
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            with pytest.raises(StorageFailed, match="the disk cannot read the file: Is a directory"):
                await dialled.send_file(fd, 0, 1)
        finally:
            os.close(fd)


# Of the first record: "it MUST be ignored for all purposes" (RFC 8446, 5.1).
LEGACY_VERSION: Final = (1, 2)


class TestDamage:
    @pytest.mark.parametrize("flip_at", [0, 1, 2, 3, 4, 5, 6, 20, RECORD, RECORD + 22, 50_000, 99_999])
    async def test_a_flipped_bit_gives_an_error_and_never_another_byte(self, flip_at: int) -> None:
        dialled, accepted, wire = await watched()
        wire.flip_at = flip_at
        sent, got = LARGE[:100_000], bytearray()

        async def send() -> None:
            with suppress(PeerGone):
                await dialled.send_all(sent)
            dialled.close()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            with trio.move_on_after(5), suppress(PeerGone):
                await received(accepted, got)
            accepted.close()
        assert len(got) < len(sent)
        assert sent.startswith(bytes(got))

    @given(st.integers(0, 2000).filter(lambda at: at not in LEGACY_VERSION))
    @settings(max_examples=60)
    def test_a_flipped_bit_of_the_handshake_gives_a_typed_error(self, flip_at: int) -> None:
        async def shake() -> None:
            network = MemoryNetwork(random.Random(1))
            wire = Wire(flip_at=flip_at)
            network.tap(DIALLER, lambda _: wire)
            ends = await connect(network, DIALLER, ACCEPTOR)
            found = await both(contexts.dialling(ALICES), contexts.accepting(BOBS), ends)
            if flip_at < wire.passed:
                assert isinstance(found[1], TransportError), found

        run_in_virtual_time(shake)

    @pytest.mark.parametrize("order", ["00", "1", "10"], ids=["repeated", "left out", "swapped"])
    async def test_records_in_another_order_are_damage(self, order: str) -> None:
        ends = await cable()
        dialled, accepted = await secured(ends=ends)
        records = []
        for text in (b"one", b"two"):
            dialled._tls.write(text)
            records.append(dialled._outgoing.read())
        for number in order:
            await ends[0].send_all(records[int(number)])
        got = bytearray()
        with pytest.raises(PeerGone, match="the connection was damaged on its way"):
            await received(accepted, got)
        assert bytes(got) in (b"", b"one")

    async def test_bytes_that_are_no_tls_after_the_handshake_are_damage(self) -> None:
        ends = await cable()
        _, accepted = await secured(ends=ends)
        await ends[0].send_all(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(PeerGone, match="damaged on its way"):
            await accepted.receive_some_into(memoryview(bytearray(10)))

    async def test_an_end_in_the_middle_of_a_record_gives_nothing_of_it(self) -> None:
        cut = await cable()
        dialled, accepted = await secured(ends=cut)
        dialled._tls.write(b"y" * 100)
        await cut[0].send_all(dialled._outgoing.read()[:-1])
        dialled.close()
        assert await receive_exactly(accepted, 100) == b""

    async def test_a_peer_that_ends_tls_properly_has_ended(self) -> None:
        """As `openssl s_client` does; the reader went round for ever, and all of its daemon stood still."""
        ends = await cable()
        dialled, accepted = await secured(ends=ends)
        await dialled.send_all(b"last words")
        with pytest.raises(ssl.SSLWantReadError):
            dialled._tls.unwrap()
        await dialled._flush()
        assert await receive_exactly(accepted, 100) == b"last words"
        for _ in range(3):
            assert await accepted.receive_some_into(memoryview(bytearray(10))) == 0


class TestMemory:
    async def test_a_connection_that_says_little_costs_little(self) -> None:
        network = MemoryNetwork(random.Random(1))
        context = contexts.dialling(ALICES), contexts.accepting(BOBS)

        async def pair() -> list[object]:
            made = await both(*context, await connect(network, DIALLER, ACCEPTOR))
            dialled, accepted = made
            assert isinstance(dialled, TlsTransport)
            assert isinstance(accepted, TlsTransport)
            await dialled.send_all(b"hello")
            await receive_exactly(accepted, 5)
            return [dialled, accepted]

        await pair()
        gc.collect()
        tracemalloc.start()
        try:
            kept = [await pair() for _ in range(100)]
            gc.collect()
            used, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert len(kept) == 100
        assert used / 200 < 8 << 10, "of each of 200 ends, beside what OpenSSL keeps"

    async def test_the_buffer_grows_once_a_read_has_filled_it(self) -> None:
        dialled, accepted = await secured()
        small = len(accepted._ciphertext)
        for _ in range(50):
            await dialled.send_all(b"x" * 100)
            await receive_exactly(accepted, 100)
        assert len(accepted._ciphertext) == small <= 16 << 10
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialled.send_all, LARGE)
            await receive_exactly(accepted, len(LARGE))
        assert len(accepted._ciphertext) == CIPHERTEXT_BYTES
        assert len(dialled._ciphertext) == small

    async def test_a_sender_keeps_no_more_than_the_cable_has_room_for(self) -> None:
        """Nothing is encrypted ahead of a receiver that does not read."""
        dialled, accepted = await secured()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dialled.send_all, LARGE)
            await trio.testing.wait_all_tasks_blocked()
            assert dialled._outgoing.pending == 0
            assert accepted._incoming.pending == 0
            nursery.cancel_scope.cancel()


async def test_both_ends_flood_each_other_over_a_slow_link(autojump_clock: trio.testing.MockClock) -> None:
    network = MemoryNetwork(random.Random(1), window_bytes=32 << 10)
    for name in (DIALLER, ACCEPTOR):
        network.set_link(name, Link(uplink_bytes_per_s=1 << 20, downlink_bytes_per_s=1 << 20, latency_s=0.02))
    ends = await secured(ends=await connect(network, DIALLER, ACCEPTOR))
    got = [bytearray(), bytearray()]

    async def take(which: int) -> None:
        got[which] += await receive_exactly(ends[which], len(LARGE))

    async with trio.open_nursery() as nursery:
        for which, end in enumerate(ends):
            nursery.start_soon(end.send_all, LARGE)
            nursery.start_soon(take, which)
    assert got == [LARGE, LARGE]
