"""The fleet changes its CA: whom a host trusts then, what it shows, and that nothing is interrupted."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from daemons.client.membership import ROTATION_SPREAD_S
from interfiles.errors import CertificateRefused, UntrustedPeer
from interfiles.identity.authority import Authority, is_issued_by
from interfiles.identity.contexts import Credentials
from interfiles.wire import master_messages as m
from tests.daemons.client.certificates import CA, credentials, fleet_network, host_credentials, host_subject
from tests.daemons.client.peers import Server, fetching, hand_out, honest_copy
from tests.daemons.client.setting import DAEMON, DAEMON_IP, id_of, until
from tests.daemons.client.world import World
from tests.storage.contents import Content


async def rotate(world: World) -> Authority:
    """Have the master rotate its CA, and tell the daemon; return the new one."""
    world.master.rotate()
    await world.master.push(m.Authorities(world.master.certificates, False))
    await trio.sleep(0.1)
    return world.master.authorities[0]


async def retire(world: World) -> None:
    """Have the master trust the newest CA only."""
    del world.master.authorities[1:]
    await world.master.push(m.Authorities(world.master.certificates, False))
    await trio.sleep(0.1)


def renewed(world: World, name: str) -> Credentials:
    """What a host shows that has renewed, and was told of the CAs."""
    newest = world.master.authorities[0]
    made = credentials(host_subject(name), newest)
    return Credentials(made.chain + world.master.cross_certificate, made.key, world.master.certificates)


def told(world: World, name: str) -> Credentials:
    """What a host shows that was told of the CAs and has not renewed."""
    return replace(host_credentials(name), authorities=world.master.certificates)


async def has_renewed(world: World) -> None:
    await until(lambda: world.master.messages(m.Renew), within_s=ROTATION_SPREAD_S)
    await trio.sleep(1)


async def test_a_host_renews_within_a_minute_and_is_trusted_all_the_time(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await rotate(world)
    for _ in range(6):
        for shown in (host_credentials("not told"), told(world, "told"), renewed(world, "renewed")):
            assert await honest_copy(world, content, shown=shown) == content.data
        await trio.sleep(ROTATION_SPREAD_S / 5)
    assert len(world.master.messages(m.Renew)) == 1
    assert len(world.master.connections) == 1


async def test_what_it_shows_then_convinces_who_knows_only_the_older_ca(
    world: World, autojump_clock: MockClock
) -> None:
    newest = await rotate(world)
    await has_renewed(world)
    other = fleet_network(world.network, "not told", world.new_ip())
    transport = await other.dial_host(DAEMON, id_of("tested"))
    transport.close()
    await world.daemon.stop()
    records = world.daemon.records()
    kept = records.load_identity()
    records.close()
    assert kept is not None
    assert is_issued_by(kept.chain, newest.certificate)
    assert not is_issued_by(kept.chain, CA.certificate), "by the cross certificate behind it"


async def test_a_running_download_and_those_who_fetch_are_not_interrupted(
    world: World, content: Content, tree: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    server = Server(world, tree, "honest")
    held, answer = trio.Event(), Server.answer

    async def answer_later(stream, piece) -> None:  # type: ignore[no-untyped-def]
        if len(server.answered) == 3:
            held.set()
            await trio.sleep(1)
        await answer(server, stream, piece)

    server.answer = answer_later  # type: ignore[method-assign]
    await world.daemon.download(tree.manifest, detach=True)
    async with fetching(world, file_id) as fetcher:
        await hand_out(world, server)
        await held.wait()
        await rotate(world)
        await world.daemon.wait(tree.manifest)
        await has_renewed(world)
        await retire(world)
        assert await fetcher.fetch(content) == content.data
    assert len(server.opened_at) == 1


async def test_what_was_told_is_known_after_a_restart_without_the_master(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await rotate(world)
    world.master.scope.cancel()
    await world.daemon.restart()
    assert not world.master.messages(m.Renew), "it knows the newer CA, and is certified by the older"
    for shown in (told(world, "told"), renewed(world, "renewed")):
        assert await honest_copy(world, content, shown=shown) == content.data
    world.nursery.start_soon(world.master.run)
    await until(lambda: world.master.messages(m.Renew), within_s=ROTATION_SPREAD_S + 20)


async def test_when_the_older_ca_has_retired_what_it_signed_is_refused(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    file_id = await world.seed(content)
    await rotate(world)
    await has_renewed(world)
    await retire(world)
    for _ in range(2):
        assert await honest_copy(world, content, shown=renewed(world, "renewed")) == content.data
        with pytest.raises(CertificateRefused):
            async with fetching(world, file_id, shown=told(world, "not renewed")):
                pytest.fail("it was let in")
        await world.daemon.restart()


async def test_a_host_that_was_away_comes_back_by_the_cross_certificate(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await world.daemon.stop()
    world.master.rotate()
    world.master.heard.clear()
    await world.daemon.start()
    await until(lambda: world.master.messages(m.Register), within_s=5)
    await has_renewed(world)
    assert await honest_copy(world, content, shown=renewed(world, "renewed")) == content.data


async def test_one_that_was_away_for_long_renews_first(world: World, autojump_clock: MockClock) -> None:
    await world.daemon.stop()
    world.master.rotate()
    world.master.heard.clear()
    world.daemon.clock_ahead_s = world.master.clock_ahead_s = 100 * 86400.0
    await world.daemon.start()
    await until(lambda: world.master.messages(m.Register), within_s=5)
    assert [type(message) for message, _ in world.master.heard][:2] == [m.Renew, m.Register]


async def test_a_host_that_has_not_renewed_when_the_older_ca_retires_still_does_over_its_link(
    world: World, content: Content, autojump_clock: MockClock
) -> None:
    await world.seed(content)
    await rotate(world)
    await retire(world)
    await has_renewed(world)
    assert await honest_copy(world, content, shown=renewed(world, "renewed")) == content.data


async def test_one_that_was_away_until_the_older_ca_had_retired_is_refused_and_says_so(
    world: World, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    world.master.rotate()
    del world.master.authorities[1:]
    await world.daemon.start()
    await trio.sleep(20)
    status = await world.daemon.status()
    assert status.master_state == "connecting"
    assert "does not accept this end's certificate" in status.master_note
    network = fleet_network(world.network, "tested", DAEMON_IP)
    transport = await network.dial_master(world.master.address)  # it is certain that this is the master
    transport.close()


async def test_a_master_whose_chain_does_not_lead_to_a_ca_that_is_known_is_none(
    world: World, autojump_clock: MockClock
) -> None:
    await world.daemon.stop()
    world.master.rotate()
    world.master.cross_certificate = ""
    world.master.heard.clear()
    await world.daemon.start()
    await trio.sleep(20)
    assert "the other end's certificate is not of this fleet" in (await world.daemon.status()).master_note
    assert not world.master.heard
    with pytest.raises(UntrustedPeer):
        await fleet_network(world.network, "tested", DAEMON_IP).dial_master(world.master.address)


async def test_rotations_one_after_the_other(world: World, content: Content, autojump_clock: MockClock) -> None:
    await world.seed(content)
    for times in range(1, 4):
        await rotate(world)
        await until(lambda: len(world.master.messages(m.Renew)) == times, within_s=ROTATION_SPREAD_S)  # noqa: B023
        await trio.sleep(1)
        await retire(world)
        assert await honest_copy(world, content, shown=renewed(world, "renewed")) == content.data
    assert len(world.master.connections) == 1
