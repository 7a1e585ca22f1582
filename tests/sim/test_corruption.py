"""Bytes that change on the way, or before it: whose fault it is, and that the right ones arrive in the end."""

from collections.abc import Callable
from pathlib import Path

import pytest
from trio.testing import MockClock

from interfiles.geometry import MIB
from interfiles.transport.memory_pipe import MemoryTransport
from interfiles.transport.tls import TlsTransport
from tests.conftest import LogRecords
from tests.sim.fleet import Host, running_fleet
from tests.sim.test_fleet import got, slow


def spoiling(every: int) -> Callable[[bytes], bytes]:
    """Flips a byte in the middle of each `every` bytes."""
    sent = 0

    def spoil(data: bytes) -> bytes:
        nonlocal sent
        start, sent = sent, sent + len(data)
        mark = (start // every + 1) * every - every // 2
        if start <= mark < sent:
            at = len(data) // 2  # not in the header
            return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        return data

    return spoil


def lie(monkeypatch: pytest.MonkeyPatch, liar: Host, to: Host, *, every: int) -> None:
    """Have one host spoil the content that it sends to another, before it is encrypted."""
    write, spoilers = TlsTransport._write, dict[TlsTransport, Callable[[bytes], bytes]]()

    def write_spoiled(self: TlsTransport, data: memoryview) -> None:
        assert isinstance(self._inner, MemoryTransport)
        pipe = self._inner._outgoing
        if (pipe.sender, pipe.receiver) == (liar.ip, to.ip) and len(data) > 10_000:  # else it is no piece's
            data = memoryview(spoilers.setdefault(self, spoiling(every))(bytes(data)))
        write(self, data)

    monkeypatch.setattr(TlsTransport, "_write", write_spoiled)


async def test_a_peer_that_corrupts_what_it_sends_is_blamed_and_the_rest_comes_from_others(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b c") as (fleet, [a, b, host_c]):
        _, tracker = await a.upload(content)
        await b.download(tracker)
        for host in (a, b):
            fleet.network.set_link(host.ip, slow())
        lie(monkeypatch, b, host_c, every=MIB // 2)
        report = await host_c.download(tracker)
        assert got(host_c, content) == content.read_bytes()
        assert report.pieces_rejected >= 1
        assert (await b.verify(report.id)).bad_pieces == [], "the disk of b was never at fault"


async def test_a_lone_corrupting_source_is_tried_again_until_all_is_right(
    tmp_path: Path, content: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (_, [a, b]):
        _, tracker = await a.upload(content)
        lie(monkeypatch, a, b, every=3 * MIB)
        report = await b.download(tracker)
        assert got(b, content) == content.read_bytes()
        assert report.pieces_rejected >= 1


async def test_what_is_damaged_on_its_way_ends_the_connection_and_is_nobodys_fault(
    tmp_path: Path, content: Path, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with running_fleet(tmp_path, "a b") as (fleet, [a, b]):
        _, tracker = await a.upload(content)
        fleet.network.tap(a.ip, lambda receiver: spoiling(3 * MIB) if receiver == b.ip else bytes)
        report = await b.download(tracker)
        assert got(b, content) == content.read_bytes()
        assert report.pieces_rejected == 0, "not a byte of it was taken for content"
        assert sum(report.bytes_from_peers.values()) == report.size, "what was dropped does not count"
        assert fleet.network.bytes_sent(a.ip, b.ip) < 1.02 * report.size + 3 * MIB
    reasons = [record["reason"] for record in log_records.records if record.get("task") == "fetching from a"]
    assert reasons
    assert all("the connection was damaged on its way" in reason for reason in reasons)
