"""The daemon keeps its certificate fresh: in time, after a long absence, and when renewing fails."""

import re
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from daemons.client.master_link import RENEWAL_CHECK_S, RENEWAL_RETRY_S, STORE_RETRY_S
from interfiles.errors import InterFilesError, NoSpace
from interfiles.identity.authority import read_certificate
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Certified
from interfiles.piece_set import PieceSet
from interfiles.storage.jobs import JobStore
from interfiles.storage.records import Identity
from interfiles.units import DAY
from interfiles.wire import master_messages as m
from interfiles.wire import peer_messages as p
from interfiles.wire.codec import Message
from interfiles.wire.handshake_messages import Failure
from tests.conftest import LogRecords
from tests.daemons.client.certificates import CA, credentials, host_credentials, host_subject, identity
from tests.daemons.client.peers import Server, Stream, fetching, hand_out, honest_copy
from tests.daemons.client.scripted_master import saying
from tests.daemons.client.setting import DAEMON_IP, EPOCH, MASTER_IP, id_of, until
from tests.daemons.client.world import World
from tests.storage.contents import PIECE, Content, a_file


def pass_days(world: World, days: float) -> None:
    """Set everybody's wall clock ahead, as if the time between had passed."""
    world.daemon.clock_ahead_s += days * DAY
    world.master.clock_ahead_s += days * DAY


def fetcher_now(world: World) -> Credentials:
    """An honest fetcher whose certificate is fresh."""
    return credentials(host_subject("fetcher"), began_at=world.daemon.now)


async def connected(world: World) -> bool:
    return (await world.daemon.status()).master_state == "connected"


async def served_by(world: World) -> Certified:
    """The certificate that the daemon shows to who connects."""
    async with fetching(world, shown=fetcher_now(world)) as fetcher:
        assert fetcher.transport.certified is not None  # type: ignore[attr-defined]
        return fetcher.transport.certified  # type: ignore[attr-defined, no-any-return]


async def saved(world: World) -> Identity:
    """What a daemon has kept, which is stopped for it."""
    await world.daemon.stop()
    records = world.daemon.records()
    found = records.load_identity()
    records.close()
    assert found is not None
    return found


async def test_it_renews_once_between_half_and_four_fifths_of_the_thirty_days(
    world: World, autojump_clock: MockClock
) -> None:
    pass_days(world, 14.9)
    await trio.sleep(2 * RENEWAL_CHECK_S)
    assert not world.master.messages(m.Renew)
    pass_days(world, 9.2)
    await until(lambda: world.master.messages(m.Renew), within_s=RENEWAL_CHECK_S + 1, every_s=0.5)
    await trio.sleep(2 * RENEWAL_CHECK_S)
    assert len(world.master.messages(m.Renew)) == 1
    assert len(world.master.connections) == 1, "on the link that there is"
    assert (await served_by(world)).not_after > world.daemon.now + 29 * DAY
    kept = await saved(world)
    assert read_certificate(kept.chain).not_after > world.daemon.now + 29 * DAY
    assert kept.key != identity().key


async def test_the_months_pass(world: World, content: Content, autojump_clock: MockClock) -> None:
    await world.seed(content)
    for month in range(12):
        pass_days(world, 25)
        await until(lambda: len(world.master.messages(m.Renew)) > month, within_s=RENEWAL_CHECK_S + 1, every_s=0.5)  # noqa: B023
        await trio.sleep(1)
        assert await honest_copy(world, content, shown=fetcher_now(world)) == content.data
    assert len(world.master.connections) == 1


class GainsOneByOne(Server):
    """Begins with nothing and gains a piece now and then."""

    async def open(self, stream: Stream) -> None:
        await stream.send(p.Bitfield(), PieceSet(self.content.manifest.piece_count).to_bytes())

    async def converse(self, stream: Stream) -> None:
        async def gain() -> None:
            for piece in range(self.content.manifest.piece_count):
                await trio.sleep(35)
                await stream.send(p.Have([piece]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(gain)
            await super().converse(stream)


async def test_transfers_go_on_while_it_renews(
    world: World, content: Content, tmp_path: Path, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    fetched = a_file(tmp_path / "original" / "large", size=20 * PIECE)
    server = GainsOneByOne(world, fetched, "honest")
    await world.daemon.download(fetched.manifest, detach=True)
    await hand_out(world, server)
    async with fetching(world, file_id) as fetcher:
        pass_days(world, 24.5)
        await until(lambda: world.master.messages(m.Renew), within_s=RENEWAL_CHECK_S + 1, every_s=0.5)
        await trio.sleep(1)
        assert 0 < (await world.daemon.transfer()).bytes_done < fetched.manifest.size
        await world.daemon.wait(fetched.manifest)
        assert await fetcher.fetch(content) == content.data
    assert len(server.opened_at) == 1, "its connection was never made anew"
    assert (world.daemon.got / "large").read_bytes() == fetched.data


# After a long absence


async def test_a_host_that_was_away_for_longer_proves_its_key_and_goes_on(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.stop()
    pass_days(world, 400)
    world.master.heard.clear()
    await world.daemon.start()
    await until(lambda: connected(world), within_s=2)
    said = [type(message) for message, _ in world.master.heard]
    assert said[:2] == [m.Renew, m.Register]
    assert await honest_copy(world, content, shown=fetcher_now(world)) == content.data
    assert len(world.master.messages(m.Renew)) == 1


async def test_it_was_away_and_was_removed_meanwhile(world: World, autojump_clock: MockClock) -> None:
    await world.daemon.stop()
    pass_days(world, 400)
    world.master.removed.append(id_of("tested"))
    world.master.heard.clear()
    await world.daemon.start()
    await trio.sleep(30)
    assert (await world.daemon.status()).master_note == "this host was removed; join it anew"
    assert not world.master.heard


async def test_a_lapsed_host_serves_nobody_and_fetches_nothing_until_it_has_renewed(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    """Others would refuse it; it is told why."""
    await world.seed(content)
    world.master.scope.cancel()
    await world.daemon.stop()
    pass_days(world, 31)
    await world.daemon.start()
    certified = await served_by(world)
    with pytest.raises(InterFilesError, match="expired 1 d"):
        certified.check_time(world.daemon.now + 3600)
    world.nursery.start_soon(world.master.run)
    await until(lambda: connected(world), within_s=20)
    (await served_by(world)).check_time(world.daemon.now)


async def test_a_host_with_a_wrong_clock_is_told_so(world: World, autojump_clock: MockClock) -> None:
    world.daemon.clock_ahead_s = 31 * DAY
    await world.daemon.restart()
    await trio.sleep(10)
    note = (await world.daemon.status()).master_note
    assert re.search("the certificate of the master of fleet f1f1 expired .+ ago by the clock of the host that", note)
    assert "set the clocks right" in note
    world.daemon.clock_ahead_s = -1 * DAY
    await trio.sleep(30)
    assert "is good only 23 h from now" in (await world.daemon.status()).master_note
    world.daemon.clock_ahead_s = 0
    await until(lambda: connected(world), within_s=20)


async def test_a_clock_that_jumps_while_connected_makes_no_storm_of_renewals(
    world: World, autojump_clock: MockClock
) -> None:
    world.daemon.clock_ahead_s = 400 * DAY
    await trio.sleep(RENEWAL_CHECK_S + 10 * RENEWAL_RETRY_S)
    assert 1 <= len(world.master.messages(m.Renew)) <= 11
    world.daemon.clock_ahead_s = 0
    renewed = len(world.master.messages(m.Renew))
    await trio.sleep(2 * RENEWAL_CHECK_S)
    assert len(world.master.messages(m.Renew)) <= renewed + 1
    assert await connected(world)


# When it fails


async def test_a_renewal_that_is_refused_is_tried_again_each_minute(
    world: World, log_records: LogRecords, autojump_clock: MockClock
) -> None:
    async def refuse(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.Renew):
            await stream.send(m.RequestFailed(message.request, "no-space", "the master's disk is full\x1b[2J"))
        return isinstance(message, m.Renew)

    world.master.answer = refuse
    pass_days(world, 25)
    await trio.sleep(RENEWAL_CHECK_S + 10 * RENEWAL_RETRY_S)
    assert 9 <= len(world.master.messages(m.Renew)) <= 12
    assert len(world.master.connections) == 1
    (reason,) = {r["reason"] for r in log_records.records if r["event"] == "certificate not renewed"}
    assert reason == r"the master's disk is full\x1b[2J"
    world.master.answer = None
    await trio.sleep(RENEWAL_RETRY_S + 1)
    assert (await served_by(world)).not_after > world.daemon.now + 29 * DAY


BAD: dict[str, m.Renewed] = {
    "nonsense": m.Renewed(1, "certificate", [CA.certificate]),
    "another host's": m.Renewed(1, host_credentials("other").chain, [CA.certificate]),
    "for another key": m.Renewed(1, host_credentials("tested").chain, [CA.certificate]),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_bad_answer_keeps_the_old_certificate_and_is_asked_for_again(
    world: World, content: Content, bad: m.Renewed, autojump_clock: MockClock
) -> None:
    async def answer(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.Renew):
            await stream.send(m.Renewed(message.request, bad.chain, bad.authorities))
        return isinstance(message, m.Renew)

    await world.seed(content)
    world.master.answer = answer
    pass_days(world, 25)
    await until(lambda: len(world.master.messages(m.Renew)) >= 3, within_s=RENEWAL_CHECK_S + 200, every_s=0.5)
    assert (await served_by(world)).not_after == EPOCH + 30 * DAY
    assert await honest_copy(world, content, shown=fetcher_now(world)) == content.data
    world.master.answer = None
    await trio.sleep(RENEWAL_RETRY_S + 1)
    assert (await served_by(world)).not_after > world.daemon.now + 29 * DAY


@pytest.mark.parametrize("answer", [m.Heard(1), Failure("refused", "not now")], ids=["nonsense", "an end"])
async def test_a_lapsed_host_that_is_not_renewed_tries_for_ever(
    world: World, answer: Message, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    pass_days(world, 31)
    world.master.answer = saying(m.Renew, answer)
    await world.daemon.start()
    await trio.sleep(200)
    assert 10 < len(world.master.messages(m.Renew)) < 100
    world.master.answer = None
    await until(lambda: connected(world), within_s=20)


async def test_a_certificate_that_a_full_disk_does_not_take_is_used_and_stored_once_there_is_room(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    await world.seed(content)

    def fail(*_: object) -> None:
        raise NoSpace("the disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(JobStore, "save_identity", fail)
        pass_days(world, 25)
        await until(lambda: world.master.messages(m.Renew), within_s=RENEWAL_CHECK_S + 1, every_s=0.5)
        await trio.sleep(200)
        assert len(world.master.messages(m.Renew)) == len(world.master.connections) == 1
        made = await served_by(world)
        assert made.not_after > EPOCH + 54 * DAY
        assert await honest_copy(world, content, shown=fetcher_now(world)) == content.data
    await trio.sleep(STORE_RETRY_S + 1)
    await world.daemon.restart()
    assert (await served_by(world)).not_after == made.not_after


@pytest.mark.parametrize("kept", [False, True], ids=["before it is kept", "after it is kept"])
async def test_a_crash_around_keeping_the_answer(
    world: World, content: Content, monkeypatch: pytest.MonkeyPatch, kept: bool, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    save, reached = JobStore.save_identity, trio.Event()

    def crash(store: JobStore, made: Identity) -> None:
        if kept:
            save(store, made)
        reached.set()
        raise NoSpace("nothing comes after this")

    monkeypatch.setattr(JobStore, "save_identity", crash)
    pass_days(world, 25)
    await reached.wait()
    await world.daemon.crash()
    monkeypatch.undo()
    world.master.heard.clear()
    await world.daemon.start()
    await until(lambda: connected(world), within_s=20)
    assert len(world.master.messages(m.Renew)) == (0 if kept else 1)
    assert (await served_by(world)).not_after > world.daemon.now + 29 * DAY
    assert await honest_copy(world, content, shown=fetcher_now(world)) == content.data


async def test_the_link_breaks_before_the_answer_comes(world: World, autojump_clock: MockClock) -> None:
    async def cut(stream: Stream, message: Message) -> bool:
        if isinstance(message, m.Renew) and len(world.master.messages(m.Renew)) == 1:
            world.network.cut(DAEMON_IP, MASTER_IP)
            return True
        return False

    world.master.answer = cut
    pass_days(world, 25)
    await until(lambda: len(world.master.messages(m.Renew)) == 2, within_s=RENEWAL_CHECK_S + 20, every_s=0.5)
    await until(lambda: connected(world))
    assert (await served_by(world)).not_after > world.daemon.now + 29 * DAY
