"""The link to a master that refuses, closes, falls silent, or talks nonsense; and what is announced over it."""

import random
import struct
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.master_link import BACKOFF_CAP_S, MAX_REQUESTS, REGISTER_TIMEOUT_S, REQUEST_TIMEOUT_S
from interfiles.errors import MasterUnreachable, NotAdmitted, Refused, StorageFailed
from interfiles.geometry import MIN_PIECE_BYTES
from interfiles.manifest import FileEntry, Manifest
from interfiles.storage.jobs import JobStore
from interfiles.wire import control_messages as c
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from interfiles.wire.reports import FileListReport, HostListReport
from tests.conftest import LogRecords
from tests.daemons.client.peers import Server, Stream, hand_out
from tests.daemons.client.scripted_master import Answer, saying
from tests.daemons.client.setting import DAEMON_IP, MASTER_IP, id_of, link, until
from tests.daemons.client.world import World
from tests.storage.contents import Content, a_file


async def is_connected(world: World) -> bool:
    return (await world.daemon.status()).master_state == "connected"


async def reconnected(world: World) -> None:
    """Have the master drop the link, and wait for the next connection."""
    before = len(world.master.connections)
    world.network.cut(DAEMON_IP, MASTER_IP)
    await until(lambda: len(world.master.connections) > before)


# How it begins


async def test_the_host_registers_and_announces_everything(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    assert world.master.messages(m.Register) == [m.Register("tested", "", "", 4851)]
    await world.seed(content)
    await until(lambda: world.master.holdings)
    await reconnected(world)
    await until(lambda: len([beat for beat in world.master.heartbeats if beat.replace]) == 2)
    again = next(beat for beat in reversed(world.master.heartbeats) if beat.replace)
    assert again.sequence == 1
    assert [holding.state for holding in again.holdings] == ["complete"]
    status = await world.daemon.status()
    assert (status.master_state, status.master_note) == ("connected", "connected")


async def test_a_master_that_refuses_this_host_is_asked_again_for_ever(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.Register, Failure("not-admitted", "this host was removed; join again\x1b[2J"))
    await reconnected(world)
    await trio.sleep(300)
    status = await world.daemon.status()
    assert status.master_state == "connecting"
    assert status.master_note == r"this host was removed; join again\x1b[2J"
    with pytest.raises(NotAdmitted, match="join again"):
        await world.daemon.ask(c.ListHosts(), HostListReport)
    waited = [b - a for a, b in zip(world.master.connected_at[2:], world.master.connected_at[3:], strict=False)]
    assert len(waited) > 20
    assert max(waited) <= BACKOFF_CAP_S + 2.5
    world.master.answer = None
    await until(lambda: is_connected(world), within_s=BACKOFF_CAP_S + 3)


BAD_ANSWERS = {
    "another message": saying(m.Register, m.Heard(1)),
    "another host's": saying(m.Register, m.Enrolled("x", "chain", ["authority"])),
    "registered twice": saying(
        m.Register, m.Registered("tested", "10.0.0.1:1", 10.0, 3), m.Registered("tested", "10.0.0.1:1", 10.0, 3)
    ),
    "a heartbeat never sent": saying(m.Heartbeat, m.Heard(1_000_000)),
    "an end": saying(m.Heartbeat, Failure("refused", "the master stops")),
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_a_master_that_breaks_the_rules_is_left_and_tried_again(
    world: World, log_records: LogRecords, answer: Answer, autojump_clock: MockClock
) -> None:
    world.master.answer = answer
    await reconnected(world)
    await trio.sleep(60)
    assert 5 < len(world.master.connections) < 60
    assert {r["level"] for r in log_records.records if r.get("task") == "master link"} == {"info"}
    world.master.answer = None
    await until(lambda: is_connected(world), within_s=BACKOFF_CAP_S + 3)
    assert await world.daemon.ask(c.ListHosts(), HostListReport)


GARBAGE = {
    "noise": random.Random(1).randbytes(4096),
    "zeros": bytes(4096),
    "a huge header": struct.pack(">II", 2**32 - 1, 0),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
async def test_garbage_from_the_master_ends_the_link_which_is_made_again(
    world: World, garbage: bytes, autojump_clock: MockClock
) -> None:
    await world.master.connections[-1].transport.send_all(garbage)
    await until(lambda: len(world.master.connections) == 2)
    await until(lambda: is_connected(world))


async def test_a_master_that_was_away_for_long_is_found_within_two_of_its_heartbeats(
    world: World, autojump_clock: MockClock
) -> None:
    """A short --grace has short heartbeats, and clients went on waiting for ten seconds."""
    world.master.heartbeat_s = 2.0
    await reconnected(world)
    world.master.scope.cancel()
    world.network.cut(MASTER_IP, DAEMON_IP)
    await trio.sleep(300)
    known = len(world.master.connections)
    await world.nursery.start(world.master.run)
    await until(lambda: len(world.master.connections) > known, within_s=2 * 2.0)


# Silence


async def test_a_master_that_does_not_register_is_given_up(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.Register)
    await reconnected(world)
    await trio.sleep(100)
    waited = [b - a for a, b in zip(world.master.connected_at[1:], world.master.connected_at[2:], strict=False)]
    assert waited
    assert all(REGISTER_TIMEOUT_S <= seconds <= REGISTER_TIMEOUT_S + BACKOFF_CAP_S + 0.5 for seconds in waited)


@pytest.mark.parametrize("how", ["answers nothing", "is cut off"])
async def test_a_silent_master_is_left_within_three_heartbeats(
    world: World, how: str, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    if how == "answers nothing":
        world.master.answer = saying(m.Heartbeat)
    else:
        world.network.partition(DAEMON_IP, MASTER_IP)
    await until(lambda: _is_away(world), every_s=0.5)
    assert 20 <= trio.current_time() - began <= 31
    world.master.answer = None
    world.network.heal(DAEMON_IP, MASTER_IP)
    await until(lambda: is_connected(world), within_s=20)


async def _is_away(world: World) -> bool:
    return not await is_connected(world)


async def test_a_slow_master_is_kept(world: World, autojump_clock: MockClock) -> None:
    async def take_time(stream: Stream, message: Message) -> bool:
        await trio.sleep(9)
        return False

    world.master.answer = take_time
    await trio.sleep(300)
    assert len(world.master.connections) == 1


@pytest.mark.parametrize(("heartbeat_s", "least", "most"), [(0.0, 100, 130), (1e9, 0, 2), (10.0, 5, 8)])
async def test_heartbeats_keep_to_reason(
    world: World, heartbeat_s: float, least: int, most: int, autojump_clock: MockClock
) -> None:
    world.master.heartbeat_s = heartbeat_s
    await reconnected(world)
    await trio.sleep(1)
    before = len(world.master.heartbeats)
    await trio.sleep(60)
    assert least <= len(world.master.heartbeats) - before <= most


# Requests


async def test_requests_while_the_master_is_away_say_so(world: World, autojump_clock: MockClock) -> None:
    world.master.scope.cancel()
    await trio.sleep(1)
    with pytest.raises(MasterUnreachable, match=r"the master at 10\.0\.0\.254:4850 is not reachable now \(.+\)"):
        await world.daemon.ask(c.ListFiles(0), FileListReport)


async def test_a_request_that_is_not_answered_ends(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.ListHosts)
    began = trio.current_time()
    with pytest.raises(MasterUnreachable, match="did not answer; try again"):
        await world.daemon.ask(c.ListHosts(), HostListReport)
    assert trio.current_time() - began == pytest.approx(REQUEST_TIMEOUT_S, abs=0.5)
    assert await is_connected(world), "the link is alive all the same"


async def test_requests_fail_when_the_link_breaks(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.ListHosts)
    began = trio.current_time()

    async def cut_soon() -> None:
        await trio.sleep(3)
        world.network.cut(DAEMON_IP, MASTER_IP)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut_soon)
        await _fails(world)
    assert trio.current_time() - began == pytest.approx(3, abs=0.2)


async def _fails(world: World) -> None:
    with pytest.raises(MasterUnreachable, match="did not answer"):
        await world.daemon.ask(c.ListHosts(), HostListReport)


async def test_a_late_answer_and_one_that_nobody_asked_for_are_dropped(world: World, autojump_clock: MockClock) -> None:
    async def answer_late(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.ListHosts):
            await trio.sleep(REQUEST_TIMEOUT_S + 1)
        return False

    world.master.heartbeat_s = 100
    await reconnected(world)
    await trio.sleep(1)
    world.master.answer = answer_late
    await _fails(world)
    for number in (0, 12345, 2**32 - 1):
        await world.master.push(m.HostPage(number, [], False))
        await world.master.push(m.RequestFailed(number, "refused", "no"))
    world.master.answer = None
    assert (await world.daemon.ask(c.ListHosts(), HostListReport)).hosts == []
    assert len(world.master.connections) == 2


async def test_an_answer_to_another_question_is_told(world: World, autojump_clock: MockClock) -> None:
    async def mistake(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.ListHosts):
            await stream.send(m.Removed(message.request, 1))
        return isinstance(message, m.ListHosts)

    world.master.answer = mistake
    with pytest.raises(MasterUnreachable, match="answered with Removed"):
        await world.daemon.ask(c.ListHosts(), HostListReport)


async def test_a_refusal_in_strange_words_is_shown_escaped(world: World, autojump_clock: MockClock) -> None:
    async def refuse(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.ListHosts):
            await stream.send(m.RequestFailed(message.request, "from-the-future", "no\x1b[2J\u202e"))
        return isinstance(message, m.ListHosts)

    world.master.answer = refuse
    with pytest.raises(Refused) as caught:
        await world.daemon.ask(c.ListHosts(), HostListReport)
    assert str(caught.value) == r"no\x1b[2J\u202e"


async def test_requests_without_end_wait_for_room(world: World, autojump_clock: MockClock) -> None:
    world.master.answer = saying(m.ListHosts)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(_fails, world)
        await trio.sleep(1)
        assert len(world.master.messages(m.ListHosts)) == min(50, MAX_REQUESTS)


# What the master pushes


async def test_a_flood_of_handouts_is_taken_and_the_last_one_counts(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    server = Server(world, content, "honest")
    await world.daemon.download(content.manifest, detach=True)
    for number in range(500):
        strange = [m.PeerAddress(id_of(f"{number}.{n}"), f"p{n}", "", f"10.9.9.{n}:1", True) for n in range(64)]
        await world.master.push(m.Handout(bytes([number % 256]) * 32, strange, [], []))
        if number % 50 == 0:
            await world.master.hand_out(content.manifest.file_id, *strange)
    await hand_out(world, server)
    report = await world.daemon.wait(content.manifest)
    assert report.bytes_from_peers == {"honest": content.manifest.size}
    assert len(world.master.connections) == 1


async def test_peers_that_cannot_be_kept_are_used_all_the_same(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed("the database is damaged")

    monkeypatch.setattr(JobStore, "save_peers", fail)
    await world.daemon.download(content.manifest, detach=True)
    await hand_out(world, Server(world, content, "honest"))
    await world.daemon.wait(content.manifest)
    assert len(world.master.connections) == 1


# What is announced


async def test_only_changes_are_announced(
    world: World, content: Content, tree: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.seed(tree)
    await until(lambda: len(world.master.holdings) == 2)
    await trio.sleep(1)
    world.master.heard.clear()
    await trio.sleep(100)
    assert len(world.master.heartbeats) == 10
    assert not any(beat.holdings for beat in world.master.heartbeats)
    await world.daemon.pause(content.manifest)
    await trio.sleep(1)
    changed = [holding for beat in world.master.heartbeats for holding in beat.holdings]
    assert [(holding.file_id, holding.state) for holding in changed] == [(content.manifest.file_id, "paused")]
    assert [beat.sequence for beat in world.master.heartbeats] == list(
        range(world.master.heartbeats[0].sequence, world.master.heartbeats[0].sequence + len(world.master.heartbeats))
    )


async def test_a_removed_file_is_announced_as_gone(world: World, content: Content, autojump_clock: MockClock) -> None:
    file_id = await world.seed(content)
    await until(lambda: file_id in world.master.holdings)
    await world.daemon.remove(content.manifest)
    await until(lambda: world.master.holdings[file_id].state == "none", within_s=1)


async def test_a_download_is_announced_as_it_goes(world: World, tmp_path: Path, autojump_clock: MockClock) -> None:
    content = a_file(tmp_path / "original" / "large", size=20 * MIN_PIECE_BYTES)
    server = Server(world, content, "honest")
    world.network.set_link(server.ip, link(rate=0.5e6))
    await world.daemon.download(content.manifest, detach=True)
    await until(lambda: world.master.holdings)
    assert world.master.holdings[content.manifest.file_id].state == "waiting"
    await hand_out(world, server)
    await world.daemon.wait(content.manifest)
    await trio.sleep(3)
    mine = [h for beat in world.master.heartbeats for h in beat.holdings]
    assert next(h.state for h in mine if h.state != "waiting") == "fetching"
    assert mine[-1].state == "complete"
    assert sorted(h.pieces for h in mine) == [h.pieces for h in mine]
    assert len(mine) < 40, "not each piece by itself"


async def test_more_files_than_fit_into_a_heartbeat_come_in_several(
    world: World, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    monkeypatch.setattr(m, "MAX_HEARTBEAT_HOLDINGS", 10)
    for number in range(35):
        (world.daemon.got / f"empty{number}").write_bytes(b"")
        manifest = Manifest.build(
            f"empty{number}", False, [FileEntry(f"empty{number}", 0, False)], MIN_PIECE_BYTES, b""
        )
        await world.daemon.download(manifest)
    await reconnected(world)
    await until(lambda: len(world.master.holdings) == 35)
    first = next(i for i in range(len(world.master.heartbeats) - 1, -1, -1) if world.master.heartbeats[i].replace)
    batches = world.master.heartbeats[first : first + 4]
    assert [len(beat.holdings) for beat in batches] == [10, 10, 10, 5]
    assert [beat.replace for beat in batches] == [True, False, False, False]
