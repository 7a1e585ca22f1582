"""What a connection has proved to be, and what it may say then: who is not a host in good standing may say little."""

from collections.abc import Callable

import pytest
import trio
from trio.testing import MockClock

from interfiles.errors import (
    CertificateNotYetValid,
    CertificateRefused,
    InterFilesError,
    NotAdmitted,
    NotPermitted,
    PeerGone,
    RemoteProtocolError,
    UntrustedPeer,
)
from interfiles.identity.authority import new_key, read_certificate, request_for
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.units import DAY, HOUR
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.session import MAY_SAY
from tests.conftest import LogRecords
from tests.daemons.master.forged import FORGED, naming, of_another_fleet
from tests.daemons.master.scripted import Client, Fleet, manifest

REMOVED = (
    "this host is not of this fleet, or was removed from it; join it anew with a token from `interfiles token` "
    "on the master's host"
)
FROM_CLIENT: list[Message] = [
    m.Register("honest", "", "", 4851),
    m.Renew(1, request_for(new_key())),
    m.Heartbeat(1, 0, 0, True, []),
    m.Publish(1, manifest().file_id, 0, 0, 0, False),
    m.Resolve(1, "weights", True),
    m.ListHolders(1, bytes(32), 0),
    m.ListFiles(1, 0),
    m.ListHosts(1, 0),
    m.Remove(1, manifest().file_id, True),
    m.SetReplicas(1, manifest().file_id, 2),
    m.Declined(manifest().file_id, "no-space", "full", 0.0, True),
    m.LeftOver([bytes(32)]),
    m.Proof(1, bytes(32), ""),
]
FROM_STRANGER: list[Message] = [
    m.GetAuthorities(),
    m.Enrol(bytes(8), bytes(16), "render", "", request_for(new_key())),
]


def name_of(message: Message) -> str:
    return type(message).__name__


async def ended(client: Client) -> InterFilesError:
    """Wait for the end of a connection and return its reason."""
    while True:
        try:
            await client.receive()
        except InterFilesError as e:
            return e


async def reasons(log_records: LogRecords) -> str:
    """Why connections ended, as the master logged it."""
    await trio.testing.wait_all_tasks_blocked()
    return "\n".join(str(record.get("reason", "")) for record in log_records.records)


def test_the_samples_are_all_that_a_dialler_may_ever_say() -> None:
    said = {type(message) for message in FROM_CLIENT + FROM_STRANGER}
    assert said == {
        kind
        for (conversation, end, _), codec in MAY_SAY.items()
        if (conversation, end) == ("fleet", "dialler")
        for kind in codec.accepted
    }


class TestStrangers:
    async def test_they_may_ask_for_the_cas_and_enrol(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        stranger = await fleet.dial()
        assert stranger.role == "stranger"
        for _ in range(2):
            await stranger.send(m.GetAuthorities())
            told = await stranger.expect(m.Authorities)
            assert told.certificates == [authority.certificate for authority in fleet.authorities()]
        await stranger.enrol(fleet.token, "render")

    @pytest.mark.parametrize("message", FROM_CLIENT, ids=name_of)
    @pytest.mark.parametrize("enrolled", [True, False])
    async def test_they_may_say_nothing_else_even_once_they_have_enrolled(
        self, fleet: Fleet, autojump_clock: MockClock, message: Message, enrolled: bool
    ) -> None:
        honest = await fleet.join("honest")
        await honest.publish(manifest())
        stranger = await fleet.dial()
        if enrolled:
            await stranger.enrol(fleet.token, "render")
        await stranger.stream.transport.send_all(encode_frame(message))
        refused = await ended(stranger)
        assert isinstance(refused, RemoteProtocolError)
        assert str(refused).endswith("is not allowed here")
        await honest.announce()
        assert (await honest.resolve("weights"))[0].name == "weights"


class TestForgers:
    @pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
    async def test_the_master_refuses_them_and_they_are_told(
        self,
        fleet: Fleet,
        autojump_clock: MockClock,
        log_records: LogRecords,
        forge: Callable[[Fleet, Subject], Credentials],
    ) -> None:
        honest = await fleet.join("honest")
        forged = forge(fleet, Subject(fleet.fleet_id, "host", honest.host_id))
        own = Credentials(forged.chain, forged.key, [fleet.authorities()[0].certificate])
        with pytest.raises(CertificateRefused, match="the other end does not accept this end's certificate"):
            await fleet.dial(own)
        assert "the other end's certificate is not of this fleet: " in await reasons(log_records)
        await honest.announce()
        assert (await honest.hosts())["honest"].state == "live"

    async def test_a_host_of_another_fleet_refuses_this_master_and_that_is_told(
        self, fleet: Fleet, autojump_clock: MockClock, log_records: LogRecords
    ) -> None:
        honest = await fleet.join("honest")
        with pytest.raises(UntrustedPeer, match="the other end's certificate is not of this fleet: "):
            await fleet.dial(of_another_fleet(fleet, Subject(fleet.fleet_id, "host", honest.host_id)))
        assert "the other end does not accept this end's certificate" in await reasons(log_records)

    @pytest.mark.parametrize("names", ["none", "two", "a website"])
    async def test_a_certificate_that_names_no_member_is_refused(
        self, fleet: Fleet, autojump_clock: MockClock, log_records: LogRecords, names: str
    ) -> None:
        honest = await fleet.join("honest")
        uri = Subject(fleet.fleet_id, "host", honest.host_id).uri
        uris = {"none": [], "two": [uri, Subject(fleet.fleet_id, "master").uri], "a website": ["https://example.net"]}
        with pytest.raises((PeerGone, CertificateRefused)):
            await fleet.dial(naming(fleet, *uris[names]))
        nobody = "the other end's certificate is not of this fleet: Subject name empty"
        named = "its certificate names neither a master nor a host of a fleet"
        assert (nobody if names == "none" else named) in await reasons(log_records)

    async def test_whoever_has_a_masters_certificate_is_no_host(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        with pytest.raises(NotAdmitted, match="only hosts connect to a master, and this certificate is not a host's"):
            await fleet.dial(fleet.mint(Subject(fleet.fleet_id, "master")))

    async def test_a_host_id_that_no_host_has_is_not_admitted(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        with pytest.raises(NotAdmitted) as caught:
            await fleet.dial(fleet.mint(Subject(fleet.fleet_id, "host", "ab" * 16)))
        assert str(caught.value) == REMOVED


class TestTime:
    async def test_a_lapsed_host_renews_and_is_a_host_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        host.close()
        fleet.ahead_s += 31 * DAY
        lapsed = await fleet.dial(host.credentials)
        assert lapsed.role == "lapsed"
        renewed = await lapsed.renew()
        assert read_certificate(renewed.chain).subject.host_id == host.host_id
        assert read_certificate(renewed.chain).not_after == pytest.approx(fleet.now() + 30 * DAY, abs=5)
        lapsed.close()
        host.credentials = renewed
        again = await fleet.rejoin(host)
        assert (again.role, again.name) == ("host", "render")

    @pytest.mark.parametrize(
        "message", [*(x for x in FROM_CLIENT if not isinstance(x, m.Renew)), *FROM_STRANGER], ids=name_of
    )
    @pytest.mark.parametrize("renewed", [True, False])
    async def test_a_lapsed_host_may_do_nothing_else(
        self, fleet: Fleet, autojump_clock: MockClock, message: Message, renewed: bool
    ) -> None:
        host, watcher = await fleet.join("render"), await fleet.join("watcher")
        await host.publish(manifest())
        host.close()
        fleet.ahead_s += 31 * DAY
        lapsed = await fleet.dial(host.credentials)
        if renewed:
            await lapsed.renew()
        await lapsed.stream.transport.send_all(encode_frame(message))
        refused = await ended(lapsed)
        assert isinstance(refused, RemoteProtocolError)
        assert str(refused).endswith("is not allowed here")
        assert (await watcher.resolve("weights"))[0].name == "weights"

    async def test_a_lapsed_host_that_was_removed_does_not_renew(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        await fleet.admin.remove_host("render")
        fleet.ahead_s += 31 * DAY
        with pytest.raises(NotAdmitted) as caught:
            await fleet.dial(host.credentials)
        assert str(caught.value) == REMOVED

    async def test_one_removed_while_it_renews_gets_nothing(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        host.close()
        fleet.ahead_s += 31 * DAY
        lapsed = await fleet.dial(host.credentials)
        await fleet.admin.remove_host("render")
        with pytest.raises(NotAdmitted) as caught:
            await lapsed.renew()
        assert str(caught.value) == REMOVED

    async def test_a_certificate_from_the_future_names_the_clock(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.join("render")
        fleet.ahead_s -= 3 * HOUR
        with pytest.raises(CertificateNotYetValid) as caught:
            await fleet.dial(host.credentials)
        assert str(caught.value) == (
            f"the certificate of host {host.host_id[:8]} of fleet {fleet.fleet_id[:4]} is good only 2 h from now "
            "by the clock of the host that checks it; set the clocks of both hosts right"
        )
        assert isinstance(caught.value, NotPermitted)
        await host.announce()
        fleet.ahead_s += 3 * HOUR
        await fleet.rejoin(host)

    async def test_a_host_whose_certificate_lapses_while_it_is_connected_stays_and_renews(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render")
        fleet.ahead_s += 31 * DAY
        await host.announce()
        await host.renew()
        assert (await fleet.rejoin(host)).role == "host"

    async def test_a_host_may_renew_before_it_registers(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host = await fleet.enrol("render")
        await host.renew()
        await host.register()
        await host.announce(replace=True)
        assert (await fleet.rejoin(host)).name == "render"
