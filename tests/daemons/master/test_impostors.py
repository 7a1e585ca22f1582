"""Whoever answers in a master's place gets nothing: no token's secret of who joins, no word of a member."""

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from daemons.client.fleet_network import FleetNetwork
from daemons.client.joining import join
from interfiles.errors import CertificateExpired, CertificateNotYetValid, InterFilesError, UntrustedPeer
from interfiles.identity import contexts
from interfiles.identity.authority import Authority
from interfiles.identity.contexts import Credentials
from interfiles.identity.subject import Subject
from interfiles.identity.token import JoinToken
from interfiles.transport.base import Address, Transport
from interfiles.transport.message_stream import welcome
from interfiles.transport.reach import Reach
from interfiles.transport.tls import secure
from interfiles.units import DAY
from interfiles.wire import master_messages as m
from interfiles.wire.codec import Message
from tests.daemons.master.forged import FORGED
from tests.daemons.master.scripted import Client, Fleet

IMPOSTOR = Address("10.9.9.9", 4850)


@asynccontextmanager
async def impostor(fleet: Fleet, credentials: Credentials, *, told: Sequence[str] = ()) -> AsyncIterator[list[Message]]:
    """It shows this certificate, and tells these CAs, else the right ones, to who asks; yields what it has heard."""
    context, heard = contexts.accepting(credentials, strangers=True), list[Message]()
    shown = list(told) or [authority.certificate for authority in fleet.authorities()]

    async def converse(transport: Transport) -> None:
        try:
            secured = await secure(transport, context, accepted=True)
            stream, _ = await welcome(secured, "fleet", lambda: "host" if secured.certified else "stranger")
            while True:
                heard.append(await stream.receive())
                await stream.send(m.Authorities(shown, False))
        except InterFilesError:
            pass
        finally:
            transport.close()

    async with trio.open_nursery() as nursery:
        listener = await fleet.network.host(IMPOSTOR.host).listen(IMPOSTOR)

        async def accept() -> None:
            while True:
                nursery.start_soon(converse, await listener.accept())

        nursery.start_soon(accept)
        yield heard
        nursery.cancel_scope.cancel()
        listener.close()


async def newcomer(fleet: Fleet) -> None:
    """A host with a right token, on whose way somebody else answers."""
    right = fleet.token
    token = JoinToken((str(IMPOSTOR),), right.token_id, right.secret, right.authority)
    network = fleet.network.host("10.0.0.200")
    await join(network, token, name="render", zone="", rng=random.Random(1), wall_clock=fleet.now)


async def member(fleet: Fleet, host: Client) -> None:
    """A host that dials its master, and gets somebody else."""
    assert host.credentials is not None
    network = FleetNetwork(
        fleet.network.host("10.0.0.201"), host.credentials, Reach(()), wall_clock=fleet.now, revoked=()
    )
    await network.dial_master(IMPOSTOR)


def a_hosts_own(fleet: Fleet, host: Client) -> Credentials:
    assert host.credentials is not None
    return host.credentials


def a_masters(forge: Callable[[Fleet, Subject], Credentials]) -> Callable[[Fleet, Client], Credentials]:
    return lambda fleet, _: forge(fleet, Subject(fleet.fleet_id, "master"))


SHOWN = {"a host's own": a_hosts_own, **{f"a master's {how}": a_masters(forge) for how, forge in FORGED.items()}}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
async def test_who_joins_shows_no_secret(
    fleet: Fleet, autojump_clock: MockClock, show: Callable[[Fleet, Client], Credentials]
) -> None:
    host = await fleet.join("host")
    async with impostor(fleet, show(fleet, host)) as heard:
        with pytest.raises(UntrustedPeer):
            await newcomer(fleet)
        assert heard == [m.GetAuthorities()]


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN)
async def test_a_member_says_nothing(
    fleet: Fleet, autojump_clock: MockClock, show: Callable[[Fleet, Client], Credentials]
) -> None:
    host = await fleet.join("host")
    async with impostor(fleet, show(fleet, host)) as heard:
        with pytest.raises(UntrustedPeer):
            await member(fleet, host)
        assert heard == []


async def test_who_shows_another_ca_is_found_out_by_its_digest(fleet: Fleet, autojump_clock: MockClock) -> None:
    other = Authority.make(fleet.fleet_id, now=fleet.now())
    shown = fleet.mint(Subject(fleet.fleet_id, "master"), signer=other, trusted=other)
    async with impostor(fleet, shown, told=[other.certificate]) as heard:
        with pytest.raises(UntrustedPeer, match=r"is not the master that made this token .*was not shown the secret"):
            await newcomer(fleet)
        assert heard == [m.GetAuthorities()]


@pytest.mark.parametrize(
    ("ahead_s", "error", "sentence"),
    [
        (31 * DAY, CertificateExpired, "expired 1 d ago by the clock of the host that checks it"),
        (-2 * DAY, CertificateNotYetValid, "is good only 1 d 23 h from now by the clock of the host that checks it"),
    ],
)
async def test_a_masters_certificate_of_another_time_names_the_clock(
    fleet: Fleet, autojump_clock: MockClock, ahead_s: float, error: type[InterFilesError], sentence: str
) -> None:
    host, old = await fleet.join("host"), fleet.mint(Subject(fleet.fleet_id, "master"))
    fleet.ahead_s += ahead_s
    async with impostor(fleet, old) as heard:
        with pytest.raises(error, match=rf"the certificate of the master of fleet [0-9a-f]{{4}} {sentence}"):
            await newcomer(fleet)
        with pytest.raises(error, match=rf"the certificate of the master of fleet [0-9a-f]{{4}} {sentence}"):
            await member(fleet, host)
        assert heard == [m.GetAuthorities()]
