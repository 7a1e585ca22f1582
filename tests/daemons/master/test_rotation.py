"""The fleet's CA and the master's own certificate change, and nobody who belongs to the fleet notices."""

import random

import pytest
import trio
from trio.testing import MockClock

from daemons.client.fleet_network import FleetNetwork
from daemons.client.joining import join
from daemons.master.trust import CHECK_EVERY_S
from interfiles.errors import (
    CertificateExpired,
    CertificateRefused,
    InterFilesError,
    NoSpace,
    Refused,
    UntrustedPeer,
)
from interfiles.identity.authority import Authority, digest, is_issued_by
from interfiles.identity.contexts import Credentials
from interfiles.identity.token import JoinToken
from interfiles.storage.authorities import Authorities
from interfiles.transport.base import Address
from interfiles.transport.reach import Reach
from interfiles.units import DAY, HOUR
from interfiles.wire import master_messages as m
from tests.conftest import LogRecords
from tests.daemons.master.scripted import MASTER, Client, Fleet, SlowExecutor


async def dials(fleet: Fleet, host: Client) -> None:
    """The host connects as the client daemon does, which looks at everything, the time too."""
    assert host.credentials is not None
    network = FleetNetwork(
        fleet.network.host("10.0.0.201"), host.credentials, Reach(()), wall_clock=fleet.now, revoked=()
    )
    (await network.dial_master(Address(MASTER, 4850))).close()


async def join_by(fleet: Fleet, token: JoinToken) -> None:
    network = fleet.network.host("10.0.0.200")
    await join(network, token, name="late", zone="", rng=random.Random(1), wall_clock=fleet.now)


async def told(client: Client) -> list[list[str]]:
    """The CAs that a host was told of, each time; with this answer."""
    await client.announce()
    return [message.certificates for message in client.told(m.Authorities)]


def certificates(fleet: Fleet) -> list[str]:
    return [authority.certificate for authority in fleet.authorities()]


def keys(fleet: Fleet) -> set[str]:
    return {path.stem for path in (fleet.state / "ca").iterdir()}


def signer(credentials: Credentials | None, authorities: list[Authority]) -> int:
    """Which of these CAs has signed a certificate."""
    assert credentials is not None
    (found,) = [at for at, known in enumerate(authorities) if is_issued_by(credentials.chain, known.certificate)]
    return found


async def until_retired(fleet: Fleet, *connected: Client) -> None:
    """Let the time pass until the older CA has gone; hosts that are connected go on saying that they are there."""
    assert len(certificates(fleet)) == 2, "not at once"
    with trio.fail_after(2 * CHECK_EVERY_S + 60):
        while len(certificates(fleet)) > 1:
            await trio.sleep(20)
            for client in connected:
                await client.announce()


@pytest.fixture
async def slow(fleet: Fleet, autojump_clock: MockClock) -> Fleet:
    """A fleet whose disk takes its time, so that what is done at once overlaps."""
    await fleet.stop()
    fleet.executor = lambda _: SlowExecutor()
    await fleet.start()
    return fleet


class TestTheMastersOwnCertificate:
    async def test_years_pass_and_hosts_connect(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        for _ in range(3 * 365 // 14):
            fleet.ahead_s += 14 * DAY
            await dials(fleet, host)
            await host.renew()
        assert len(fleet.authorities()) == 1

    async def test_it_is_good_at_once_after_any_leap_of_the_clock(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render")
        for leap_s in (40 * DAY, -300 * DAY, 16 * DAY):
            fleet.ahead_s += leap_s
            await host.renew()
            await dials(fleet, host)

    async def test_within_half_its_life_it_stays_the_same(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        serials = []
        for _ in range(3):
            transport = (await fleet.dial(host.credentials)).stream.transport
            serials.append(transport._tls.getpeercert()["serialNumber"])  # type: ignore[attr-defined]
            fleet.ahead_s += 7 * DAY
        assert serials[0] == serials[1] == serials[2]
        fleet.ahead_s += DAY
        transport = (await fleet.dial(host.credentials)).stream.transport
        assert transport._tls.getpeercert()["serialNumber"] != serials[0]  # type: ignore[attr-defined]

    async def test_a_host_that_was_off_for_a_year_renews(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        host.close()
        fleet.ahead_s += 365 * DAY
        await dials(fleet, host)
        lapsed = await fleet.dial(host.credentials)
        host.credentials = await lapsed.renew()
        await fleet.rejoin(host)


class TestRotation:
    async def test_every_host_is_told_and_both_cas_count_meanwhile(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host, other, away = [await fleet.join(name) for name in ("render", "other", "away")]
        away.close()
        (older,) = fleet.authorities()
        rows = await fleet.admin.rotate_authority()
        assert [(row.signs, row.host_count, row.hosts) for row in rows] == [
            (True, 0, []),
            (False, 3, ["away", "other", "render"]),
        ]
        newer, also_older = fleet.authorities()
        assert also_older == older
        both = [newer.certificate, older.certificate]
        assert [row.digest for row in rows] == [digest(certificate).hex() for certificate in both]
        for client in (host, other):
            assert await told(client) == [[older.certificate], both]
        assert await told(await fleet.rejoin(away)) == [both]
        await dials(fleet, away)  # which knows the older only
        fresh = await fleet.join("fresh")
        assert [signer(client.credentials, [newer, older]) for client in (fresh, away)] == [0, 1]
        assert keys(fleet) == {digest(certificate).hex()[:16] for certificate in both}
        await dials(fleet, fresh)

    async def test_once_the_last_host_has_renewed_the_older_one_goes(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host, other = await fleet.join("render"), await fleet.join("other")
        old = host.credentials
        await fleet.admin.rotate_authority()
        newer, older = certificates(fleet)
        await other.renew()
        assert certificates(fleet) == [newer, older]
        await host.renew()
        await until_retired(fleet, host, other)
        assert certificates(fleet) == [newer]
        assert (await told(host))[-1] == [newer]
        assert keys(fleet) == {digest(newer).hex()[:16]}
        assert (await told(other))[-1] == [newer]
        for client in (host, other):
            await dials(fleet, client)
            await fleet.rejoin(client)
        with pytest.raises(CertificateRefused):
            await fleet.dial(old)

    async def test_a_lapsed_host_can_be_the_last(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        host.close()
        fleet.ahead_s += 40 * DAY
        await fleet.admin.rotate_authority()
        lapsed = await fleet.dial(host.credentials)
        host.credentials = await lapsed.renew()
        await until_retired(fleet)
        assert certificates(fleet) == host.credentials.authorities[:1]
        await fleet.rejoin(host)

    async def test_removing_the_last_host_that_needs_it_does_as_well(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        await fleet.join("away")
        other = await fleet.join("other")
        await fleet.admin.rotate_authority()
        await other.renew()
        assert len(certificates(fleet)) == 2
        await fleet.admin.remove_host("away")
        await until_retired(fleet, other)
        await fleet.rejoin(other)

    async def test_a_fleet_without_hosts_keeps_it_for_an_hour(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        before = fleet.token
        await fleet.admin.rotate_authority()
        await join_by(fleet, before)
        await trio.sleep(CHECK_EVERY_S - 60)
        await until_retired(fleet)

    async def test_tokens_from_before_are_good_until_then(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, before = await fleet.join("render"), fleet.token
        await fleet.admin.rotate_authority()
        after = JoinToken.decode((await fleet.admin.make_token(ttl_s=3 * HOUR)).token)
        assert after.authority == digest(certificates(fleet)[0]) != before.authority
        await join_by(fleet, before)
        await host.renew()
        await until_retired(fleet, host)
        await join_by(fleet, after)
        with pytest.raises(UntrustedPeer, match="is not the master that made this token"):
            await join_by(fleet, before)

    async def test_another_one_is_refused_while_one_is_under_way(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        await fleet.admin.rotate_authority()
        with pytest.raises(Refused) as caught:
            await fleet.admin.rotate_authority()
        assert str(caught.value) == (
            "the CA was rotated before, and hosts still need the older one (see `interfiles ca`); "
            "wait for them, or end it with `interfiles ca retire`"
        )
        await host.renew()
        await until_retired(fleet, host)
        await fleet.admin.rotate_authority()
        await dials(fleet, host)
        await host.renew()
        await dials(fleet, host)

    async def test_two_at_once_make_one(self, slow: Fleet, autojump_clock: MockClock) -> None:
        await slow.join("render")
        outcomes: list[str] = []

        async def rotate() -> None:
            try:
                await slow.admin.rotate_authority()
                outcomes.append("rotated")
            except Refused as e:
                outcomes.append(str(e)[:26])

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(rotate)
        assert sorted(outcomes) == ["rotated", *["the CA was rotated before,"] * 2]
        assert len(certificates(slow)) == 2

    async def test_a_restarted_master_goes_on_with_it(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        await fleet.admin.rotate_authority()
        before = certificates(fleet)
        await fleet.crash()
        await fleet.start()
        assert certificates(fleet) == before
        await dials(fleet, host)
        host = await fleet.rejoin(host)
        assert await told(host) == [before]
        await host.renew()
        await until_retired(fleet, host)
        assert certificates(fleet) == before[:1]


class TestRetiring:
    async def test_the_only_ca_stays(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        with pytest.raises(
            Refused, match="there is only one CA, which is in use; `interfiles ca rotate` makes another"
        ):
            await fleet.admin.retire_authority()

    async def test_by_hand_it_shuts_out_who_has_not_renewed_in_the_middle_of_a_connection_too(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        first, away = await fleet.join("render"), await fleet.join("away")
        await trio.sleep(1)
        await fleet.admin.rotate_authority()
        await first.renew()
        host = await fleet.rejoin(first)
        newer, _ = certificates(fleet)
        (row,) = await fleet.admin.retire_authority()
        assert (row.digest, row.signs, row.host_count) == (digest(newer).hex(), True, 1)
        assert (await told(host))[-1] == [newer]
        assert [token.state for token in await fleet.admin.tokens()] == ["revoked"]
        with pytest.raises(InterFilesError):
            await away.renew()
        with pytest.raises(CertificateRefused):
            await fleet.dial(away.credentials)
        await host.renew()
        await fleet.rejoin(host)

    async def test_who_was_let_in_just_before_neither_registers_nor_renews_after_it(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        hosts = [await fleet.join(name) for name in ("render", "build")]
        await fleet.admin.rotate_authority()
        waiting = [await fleet.dial(host.credentials) for host in hosts]
        await fleet.admin.retire_authority()
        with pytest.raises(InterFilesError):
            await waiting[0].renew()
        with pytest.raises(InterFilesError):
            await waiting[1].register()

    async def test_hosts_that_renew_last_at_once_are_all_answered(
        self, slow: Fleet, autojump_clock: MockClock, log_records: LogRecords
    ) -> None:
        hosts = [await slow.join(f"host-{number}") for number in range(3)]
        await slow.admin.rotate_authority()
        async with trio.open_nursery() as nursery:
            for host in hosts:
                nursery.start_soon(host.renew)
            nursery.start_soon(slow.admin.remove_host, hosts.pop().name)
        await until_retired(slow, *hosts)
        assert [record["event"] for record in log_records.records].count("retired the older CA") == 1
        for host in hosts:
            await slow.rejoin(host)

    async def test_a_failing_disk_puts_it_off_and_the_master_goes_on(
        self, fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, log_records: LogRecords
    ) -> None:
        def full(*_: object) -> None:
            raise NoSpace("the catalogue cannot be written: its disk is full; free some room")

        host = await fleet.join("render")
        await fleet.admin.rotate_authority()
        with monkeypatch.context() as patched:
            patched.setattr(Authorities, "remove", full)
            await host.renew()
            await trio.testing.wait_all_tasks_blocked()
            host.close()
            await trio.sleep(2 * CHECK_EVERY_S + 60)
            assert len(certificates(fleet)) == 2
        warned = [record for record in log_records.records if record["event"] == "cannot retire the older CA yet"]
        assert len(warned) == 2
        await trio.sleep(CHECK_EVERY_S)
        assert len(certificates(fleet)) == 1
        await fleet.rejoin(host)


async def test_a_ca_whose_time_is_over_says_so_and_a_rotation_helps(fleet: Fleet, autojump_clock: MockClock) -> None:
    host = await fleet.join("render")
    fleet.ahead_s += 3651 * DAY
    with pytest.raises(CertificateExpired, match="the certificate of the master of fleet"):
        await dials(fleet, host)
    await fleet.admin.rotate_authority()
    await dials(fleet, host)
    lapsed = await fleet.dial(host.credentials)
    host.credentials = await lapsed.renew()
    await dials(fleet, host)
    await fleet.rejoin(host)
