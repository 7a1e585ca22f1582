"""Every request of the control socket, good and bad."""

import os
import random
import struct
from pathlib import Path

import msgpack
import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import (
    AmbiguousFile,
    InvalidTrackerFile,
    MasterUnreachable,
    PeerGone,
    UnknownFile,
)
from interfiles.transport.message_stream import greet
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire import peer_messages as p
from interfiles.wire.codec import Message
from interfiles.wire.framing import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, encode_frame
from interfiles.wire.handshake_messages import Hello
from interfiles.wire.reports import (
    DownloadReport,
    FileListReport,
    HostListReport,
    RemoveReport,
    StatReport,
    StatusReport,
    TransferStateReport,
    VerifyReport,
)
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, hand_out
from tests.daemons.client.setting import (
    CALLER_IP,
    CONTROL,
    DAEMON,
    MASTER,
    id_of,
    tracker_of,
)
from tests.daemons.client.world import World
from tests.storage.contents import Content, a_file


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


# Requests that can be answered


async def test_every_request_about_a_file_that_is_here(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    file_id = content.manifest.file_id.hex()
    tracker = tracker_of(content.manifest)
    for query, payload in ((file_id, b""), (file_id[:8].upper(), b""), ("weights.bin", b""), ("", tracker)):
        stat = await world.daemon.ask(c.Stat(query), StatReport, payload)
        assert (stat.id, stat.local.state, stat.local.path) == (file_id, "complete", str(content.root))
        assert stat.complete_info
        waited = await world.daemon.ask(c.Wait(query, None), DownloadReport, payload)
        assert (waited.state, waited.path) == ("complete", str(content.root))
        verified = await world.daemon.ask(c.Verify(query), VerifyReport, payload)
        assert (verified.bad_pieces, verified.pieces, verified.size) == ([], 4, content.manifest.size)
        assert (await world.daemon.ask(c.Pause(query), TransferStateReport, payload)).state == "paused"
        assert (await world.daemon.ask(c.Resume(query), TransferStateReport, payload)).state == "complete"
        report = await world.daemon.ask(
            c.Download(query, os.fsencode(content.root.parent), False, False, None, None), DownloadReport, payload
        )
        assert report.bytes_local == content.manifest.size
    listed = await world.daemon.ask(c.ListFiles(0), FileListReport)
    assert [(row.name, row.local) for row in listed.files] == [("weights.bin", "complete")]
    assert (await world.daemon.ask(c.Remove(file_id, True, False), RemoveReport)).id == file_id


async def test_status_tells_who_this_is_and_what_it_does(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    status = await world.daemon.ask(c.Status(), StatusReport)
    assert (status.host, status.name, status.fleet) == (id_of("tested"), "tested", "f1" * 16)
    assert (status.master, status.address, status.state_directory) == (
        str(MASTER),
        str(DAEMON),
        str(world.daemon.state),
    )
    assert (status.files, status.used, status.transfers) == (1, content.manifest.size, [])
    assert status.free > 0


async def test_a_file_that_only_the_master_knows(world: World, content: Content, autojump_clock: MockClock) -> None:
    world.master.catalogue[content.manifest.file_id] = content.manifest
    stat = await world.daemon.ask(c.Stat("weights.bin"), StatReport)
    assert (stat.local.state, stat.replicas.wanted, stat.uploaded_by) == ("none", 3, "uploader")
    with pytest.raises(UnknownFile, match=r"this host has nothing of weights\.bin"):
        await world.daemon.ask(c.Verify("weights.bin"), VerifyReport)
    request = c.Download("weights.bin", os.fsencode(world.daemon.got), False, True, None, None)
    assert (await world.daemon.ask(request, DownloadReport)).state == "detached"
    await hand_out(world, Server(world, content, "honest"))
    assert (await world.daemon.wait(content.manifest)).state == "complete"


async def test_a_master_that_sends_another_manifest_is_not_believed(
    world: World, content: Content, tree: Content, autojump_clock: MockClock
) -> None:
    async def swap(stream, message: Message) -> bool:  # type: ignore[no-untyped-def]
        if isinstance(message, m.Resolve):
            info = world.master.info(content.manifest.file_id)
            await stream.send(
                m.Resolved(message.request, info), tree.manifest.encode() if message.with_manifest else b""
            )
        return isinstance(message, m.Resolve)

    world.master.catalogue[content.manifest.file_id] = content.manifest
    world.master.answer = swap
    with pytest.raises(UnknownFile, match="the master sent another file"):
        await world.daemon.ask(c.Stat("weights.bin"), StatReport)


async def test_what_is_here_can_be_asked_about_while_the_master_is_away(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    world.master.scope.cancel()
    await trio.sleep(1)
    stat = await world.daemon.ask(c.Stat("weights.bin"), StatReport)
    assert not stat.complete_info
    assert [holder.name for holder in stat.hosts] == ["tested"]
    with pytest.raises(MasterUnreachable, match="this host does not know 'other', and the master"):
        await world.daemon.ask(c.Stat("other"), StatReport)
    for request, kind in ((c.ListFiles(0), FileListReport), (c.ListHosts(), HostListReport)):
        with pytest.raises(MasterUnreachable):
            await world.daemon.ask(request, kind)
    with pytest.raises(MasterUnreachable):
        await world.daemon.remove(content.manifest, local=False)
    assert (await world.daemon.stat(content.manifest)).local.state == "complete", "nothing was removed"
    await world.daemon.remove(content.manifest, local=True)


async def test_several_files_of_one_name(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        await world.daemon.upload(a_file(tmp_path / str(number) / "same", size=1000, seed=number).root)
    with pytest.raises(AmbiguousFile, match=r"'same' could be any of 3 files \(.*\); give more of the id"):
        await world.daemon.ask(c.Verify("same"), VerifyReport)


# Requests that make no sense


def about(query: str, payload: bytes = b"") -> list[tuple[Message, bytes]]:
    """Every request that names a file."""
    download = c.Download(query, b"/tmp", False, True, None, None)
    requests: list[Message] = [
        c.Stat(query), c.Wait(query, 1.0), c.Verify(query), c.Pause(query), c.Resume(query), download
    ]  # fmt: skip
    return [(request, payload) for request in [*requests, c.Remove(query, True, False), c.Remove(query, False, False)]]


BAD_TRACKERS = {
    "noise": random.Random(1).randbytes(1000),
    "a zero": b"\0",
    "cut": None,
    "edited": None,
}


@pytest.mark.parametrize("kind", BAD_TRACKERS)
async def test_a_tracker_file_that_is_not_right(
    world: World, content: Content, kind: str, autojump_clock: MockClock
) -> None:
    good = tracker_of(content.manifest)
    payload = BAD_TRACKERS[kind] or {"cut": good[:-1], "edited": good[:99] + bytes([good[99] ^ 1]) + good[100:]}[kind]
    for request, sent in about("", payload):
        with pytest.raises(InvalidTrackerFile):
            await world.daemon.ask(request, StatReport, sent)
    assert not (await world.daemon.status()).transfers


@pytest.mark.parametrize("query", ["", "nothing", "0000", "\x1b[2J\u202e", "x" * 255, "../../etc/passwd", "日本"])
async def test_a_query_that_finds_nothing(world: World, query: str, autojump_clock: MockClock) -> None:
    for request, payload in about(query):
        with pytest.raises(UnknownFile) as caught:
            await world.daemon.ask(request, StatReport, payload)
        assert "\x1b" not in str(caught.value)


BAD_FRAMES = {
    "a query too long": struct.pack(">II", 303, 0) + msgpack.packb([130, "x" * 298]),
    "a time that is none": struct.pack(">II", 12, 0) + msgpack.packb([138, "", float("nan")]),
    "a time before now": struct.pack(">II", 12, 0) + msgpack.packb([138, "", -1.0]),
    "no path": struct.pack(">II", 6, 0) + msgpack.packb([128, b"", None, False]),
    "a path too long": struct.pack(">II", 4105, 0) + msgpack.packb([128, b"/" * 4097, None, False]),
    "no copies": struct.pack(">II", 8, 0) + msgpack.packb([128, b"/x", 0, False]),
    "a payload for status": encode_frame(c.Status())[:4]
    + struct.pack(">I", 5)
    + encode_frame(c.Status())[8:]
    + b"hello",
    "a payload over every limit": struct.pack(">II", 10, MAX_PAYLOAD_BYTES + 1),
    "a header over the limit": struct.pack(">II", MAX_HEADER_BYTES + 1, 0),
    "a second greeting": encode_frame(Hello("control", 1, 1, [])),
    "a peer's message": encode_frame(p.Open(bytes(32), "normal")),
    "an administrator's message": encode_frame(c.MakeToken(60.0, None, "")),
    "a daemon's message": encode_frame(c.Result()),
    "noise": random.Random(4).randbytes(4096),
    "a browser": b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("frame", BAD_FRAMES.values(), ids=BAD_FRAMES)
async def test_what_breaks_the_rules_is_told_so_and_harms_nobody(
    world: World, frame: bytes, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async with world.leaving_nothing():
        transport = await raw(world)
        await transport.send_all(frame)
        assert b"remote-protocol" in await rest(transport)
    assert await world.daemon.status()
