"""Callers that leave, stay silent, read nothing or are somebody else; and what is shown to those who wait."""

import os
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client import callers, control_server
from daemons.client.control_server import REQUEST_TIMEOUT_S
from daemons.client.hashing_progress import PROGRESS_S
from interfiles.errors import (
    InterFilesError,
    NoSource,
    PeerGone,
    RemoteProtocolError,
    TimedOut,
)
from interfiles.transport.memory_pipe import STALL_TIMEOUT_S, MemoryTransport
from interfiles.transport.message_stream import HANDSHAKE_TIMEOUT_S, greet
from interfiles.transport.unix import Credentials
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import (
    DownloadReport,
    HostListReport,
    StatusReport,
    UploadReport,
    decode_report,
)
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out
from tests.daemons.client.setting import (
    CALLER_IP,
    CONTROL,
    SlowExecutor,
    id_of,
    link,
    tracker_of,
    until,
)
from tests.daemons.client.world import World, result_of
from tests.storage.contents import PIECE, Content, a_file


async def raw(world: World, *, greeted: bool = True):  # type: ignore[no-untyped-def]
    """A caller's connection."""
    transport = await world.network.host(CALLER_IP).dial(CONTROL)
    if greeted:
        await greet(transport, "control", "local")
    return transport


async def rest(transport) -> bytes:  # type: ignore[no-untyped-def]
    """All that comes until the daemon closes."""
    came, buffer = b"", memoryview(bytearray(65536))
    with trio.fail_after(120):
        try:
            while count := await transport.receive_some_into(buffer):
                came += buffer[:count]
        except PeerGone:
            pass
    transport.close()
    return came


async def test_another_users_caller_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def call_as(uid: int) -> None:
        monkeypatch.setattr(control_server, "caller_uid", lambda _: uid)
        monkeypatch.setattr(callers, "credentials", lambda _: Credentials(uid, uid, ()))

    monkeypatch.setattr(control_server, "SocketTransport", MemoryTransport)
    monkeypatch.setattr(callers, "SocketTransport", MemoryTransport)
    call_as(os.geteuid() + 1)
    with pytest.raises(InterFilesError, match="this daemon belongs to another user") as caught:
        await world.daemon.status()
    assert caught.value.code == "not-permitted"
    for uid in (0, os.geteuid()):
        call_as(uid)
        assert await world.daemon.status()


async def test_callers_that_say_nothing_are_given_up(world: World, autojump_clock: MockClock) -> None:
    async with world.leaving_nothing(within_s=REQUEST_TIMEOUT_S + 5):
        silent = [await raw(world, greeted=False), await raw(world), await raw(world)]
        await silent[2].send_all(encode_frame(c.Stat(""), 1000))
        began = trio.current_time()
        for transport, patience_s in zip(
            silent, (HANDSHAKE_TIMEOUT_S, REQUEST_TIMEOUT_S, REQUEST_TIMEOUT_S), strict=True
        ):
            await rest(transport)
            assert trio.current_time() - began <= patience_s + 3
    assert await world.daemon.status()


async def test_many_silent_callers_do_not_lock_others_out_for_long(world: World, autojump_clock: MockClock) -> None:
    silent = [await raw(world, greeted=False) for _ in range(100)]
    await trio.sleep(HANDSHAKE_TIMEOUT_S + 1)
    with trio.fail_after(1):
        assert await world.daemon.status()
    for transport in silent:
        transport.close()


async def test_a_caller_that_says_more_is_told(world: World, content: Content, autojump_clock: MockClock) -> None:
    async with world.daemon.calling(
        c.Download("", os.fsencode(world.daemon.got), False, False, None, None), tracker_of(content.manifest)
    ) as stream:
        await stream.send(c.Status())
        with pytest.raises(RemoteProtocolError, match="Status came while"):
            await result_of(stream)


async def test_an_upload_or_verify_whose_caller_leaves_is_abandoned(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    world.daemon.disk = SlowExecutor(lambda: 1.0)
    await world.daemon.restart()
    await trio.sleep(20)
    other = a_file(content.root.parent / "other", size=5 * PIECE)
    async with world.leaving_nothing():
        async with world.daemon.calling(c.Upload(os.fsencode(other.root), None, False, None)):
            await trio.sleep(1.5)
        async with world.daemon.calling(c.Verify(content.manifest.file_id.hex())):
            await trio.sleep(0.5)
        await trio.sleep(5)
    assert (await world.daemon.status()).files == 1


async def test_a_download_whose_caller_leaves_goes_on(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    content = a_file(tmp_path / "original" / "large", size=12 * PIECE)
    server = Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=1e6))
    request = c.Download("", os.fsencode(world.daemon.got), False, False, None, None)
    async with world.daemon.calling(request, tracker_of(content.manifest)) as stream:
        assert isinstance(await stream.receive(), c.Progress)
    await hand_out(world, server)
    await until((world.daemon.got / "large").exists)
    assert (world.daemon.got / "large").read_bytes() == content.data


async def test_a_caller_that_reads_nothing_is_dropped_and_its_download_goes_on(
    world: World, content: Content, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    world.network._window_bytes = 1000
    before = world.connections
    request = c.Download("", os.fsencode(world.daemon.got), False, False, None, None)
    async with world.daemon.calling(request, tracker_of(content.manifest)) as stream:
        await trio.sleep(STALL_TIMEOUT_S + 60)
        with pytest.raises(PeerGone):
            await stream.send(c.Status())
    assert world.connections == before
    world.network._window_bytes = 256 << 10
    await hand_out(world, Server(world, content, "honest"))
    assert (await world.daemon.wait(content.manifest)).state == "complete"


# Time and progress


async def test_no_source_is_told_with_what_is_waited_for(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    with pytest.raises(NoSource, match=r"no host has weights\.bin, which uploader uploaded; the download stays queued"):
        await world.daemon.download(content.manifest, timeout_s=5)
    assert trio.current_time() - began == pytest.approx(5, abs=1)
    await world.master.push(
        m.Handout(content.manifest.file_id, [], [m.AbsentHolder("rack-1", 7200.0), m.AbsentHolder("rack-2", 60.0)], [])
    )
    with pytest.raises(
        NoSource, match=r"no host that is up has weights\.bin \(rack-1 has it, last seen 2 h ago, rack-2"
    ):
        await world.daemon.wait(content.manifest, timeout_s=5)
    await world.master.hand_out(content.manifest.file_id, Server(world, content, "gone").peer)
    with pytest.raises(NoSource, match=r"the hosts that are up have nothing more of weights\.bin, or do not answer"):
        await world.daemon.wait(content.manifest, timeout_s=5)
    await world.master.hand_out(content.manifest.file_id)
    world.master.scope.cancel()
    await trio.sleep(1)
    with pytest.raises(NoSource, match=r"no peer answers for weights\.bin and the master at .* is away"):
        await world.daemon.wait(content.manifest, timeout_s=5)
    with pytest.raises(NoSource, match="rm --local"):
        await world.daemon.wait(content.manifest, timeout_s=0)


class StopsAfterThree(Server):
    async def answer(self, stream: Stream, piece: int) -> None:
        if len(self.answered) > 3:
            await trio.sleep_forever()
        await super().answer(stream, piece)


async def test_a_download_that_stops_moving_times_out(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, StopsAfterThree(world, content, "stopping"))
    began = trio.current_time()
    with pytest.raises(TimedOut, match=r"weights\.bin \(\w{12}\) got nothing for 3 s; the download stays queued"):
        await world.daemon.wait(content.manifest, timeout_s=3)
    assert trio.current_time() - began == pytest.approx(3, abs=1)


async def test_progress_is_shown_some_times_a_second_and_not_more(
    world: World, tmp_path: Path, autojump_clock: MockClock
) -> None:
    content = a_file(tmp_path / "original" / "large", size=200 * PIECE)
    server = Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=20e6))
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, server)
    began, shown = trio.current_time(), list[c.Progress]()
    await world.daemon.ask(c.Wait("large", None), DownloadReport, shown=shown)
    took = trio.current_time() - began
    assert took > 2
    assert 5 < len(shown) <= took / PROGRESS_S + 2
    assert [each.done for each in shown] == sorted(each.done for each in shown)
    assert {each.total for each in shown} == {content.manifest.size}
    assert {each.phase for each in shown} <= {"waiting", "checking", "fetching", "finishing"}
    assert shown[-1].rate == pytest.approx(20e6, rel=0.2)
    assert shown[len(shown) // 2].peers == 1


async def test_a_download_without_a_source_gives_signs_of_life(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    shown = list[c.Progress]()
    request = c.Download("", os.fsencode(world.daemon.got), False, False, 30.0, None)
    with pytest.raises(NoSource):
        await world.daemon.ask(request, DownloadReport, tracker_of(content.manifest), shown=shown)
    assert 20 <= len(shown) <= 40
    phases = [each.phase for each in shown]
    assert phases[-1] == "waiting"
    assert phases.index("waiting") >= 1, "a moment's patience before it is said"
    assert shown[-1].text == "no host has weights.bin, which uploader uploaded"


async def test_hashing_is_shown(world: World, content: Content, autojump_clock: MockClock) -> None:
    world.daemon.disk = SlowExecutor(lambda: 1.0)
    await world.daemon.restart()
    shown = list[c.Progress]()
    await world.daemon.ask(c.Upload(os.fsencode(content.root), None, True, None), UploadReport, shown=shown)
    assert {each.phase for each in shown} >= {"hashing"}
    assert "copying" in {each.text for each in shown}
    assert shown[-1].done <= shown[-1].total == content.manifest.size
    assert len(shown) <= 200


async def test_a_result_too_large_for_one_page_is_paged(world: World, autojump_clock: MockClock) -> None:
    async def pages(stream, message: Message) -> bool:  # type: ignore[no-untyped-def]
        if isinstance(message, m.ListHosts):
            rows = [
                m.HostRow(id_of(f"h{n}"), f"h{n}", "", "10.0.0.9:1", "live", 0, 0, 0, 0.0, 0, 0, None, "")
                for n in range(message.start, min(message.start + 64, 150))
            ]
            await stream.send(m.HostPage(message.request, rows, message.start + 64 < 150))
        return isinstance(message, m.ListHosts)

    world.master.answer = pages
    assert len((await world.daemon.ask(c.ListHosts(), HostListReport)).hosts) == 150


async def test_a_failure_is_said_once_and_the_connection_closed(world: World, autojump_clock: MockClock) -> None:
    async with world.daemon.calling(c.Stat("nothing")) as stream:
        failure = await stream.receive()
        assert isinstance(failure, Failure)
        assert failure.code == "unknown-file"
        with pytest.raises(PeerGone):
            await stream.receive()
    with pytest.raises(RemoteProtocolError):
        decode_report(b"\xc1", StatusReport)
