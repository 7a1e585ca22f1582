"""A token lets in as many hosts as it says, for as long as it says, and none of them says who it is."""

import random
from collections.abc import Callable

import pytest
import trio
from cryptography import x509
from trio.testing import MockClock

from daemons.client.joining import join
from daemons.master import enrolment
from daemons.master.enrolment import ENROL_EACH, ENROL_OVERALL
from interfiles.errors import InterFilesError, InvalidToken, PeerGone, RateLimited, Refused, RemoteProtocolError
from interfiles.identity import rate_limit
from interfiles.identity.authority import new_key, public_key_of, read_certificate
from interfiles.identity.contexts import Credentials
from interfiles.identity.rate_limit import Rate, RateLimiter
from interfiles.identity.subject import Subject
from interfiles.identity.token import JoinToken
from interfiles.wire import master_messages as m
from tests.daemons.master.scripted import Client, Fleet
from tests.daemons.master.signing_requests import MALFORMED, asking_for

NEW_ONE = "get a new one with `interfiles token` on the master's host"


async def token_for(fleet: Fleet, *, ttl_s: float = 60, uses: int | None = None, name: str = "") -> JoinToken:
    return JoinToken.decode((await fleet.admin.make_token(ttl_s=ttl_s, uses=uses, name=name)).token)


async def refusal(fleet: Fleet, token: JoinToken, *, request: bytes = b"", ip: str = "") -> InterFilesError:
    """Why a host does not get in; its connection is over then."""
    client = await fleet.dial(ip=ip)
    with pytest.raises(InterFilesError) as caught:
        await client.enrol(token, "render", request=request)
    with pytest.raises(PeerGone):
        await client.receive()
    client.close()
    return caught.value


async def members(fleet: Fleet) -> list[str]:
    watcher = await fleet.join("watcher")
    names = sorted(await watcher.hosts())
    await fleet.admin.remove_host("watcher")
    return [name for name in names if name != "watcher"]


async def test_the_join_of_a_real_host(fleet: Fleet, autojump_clock: MockClock) -> None:
    network = fleet.network.host("10.0.0.77")
    identity = await join(
        network, fleet.token, name="render", zone="rack-a", rng=random.Random(1), wall_clock=fleet.now
    )
    client = await fleet.dial(Credentials(identity.chain, identity.key, list(identity.authorities)))
    await client.register(name=identity.name)
    assert (client.role, client.host_id, client.name) == ("host", identity.host_id, "render")
    (used,) = [use for token in await fleet.admin.tokens() for use in token.joined]
    assert (used.host, used.name, used.address) == (identity.host_id, "render", "10.0.0.77")


class TestTokens:
    async def test_one_for_one_host_lets_one_in_however_many_try_at_once(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        token = await token_for(fleet, uses=1)
        clients = [await fleet.dial() for _ in range(5)]
        outcomes: list[str] = []

        async def attempt(client: Client) -> None:
            try:
                await client.enrol(token, "render")
                outcomes.append("in")
            except InvalidToken as e:
                outcomes.append(str(e))

        async with trio.open_nursery() as nursery:
            for client in clients:
                nursery.start_soon(attempt, client)
        assert sorted(outcomes) == ["in"] + [f"this token is used up (it was good for 1 host); {NEW_ONE}"] * 4
        assert await members(fleet) == ["render"]
        (listed,) = [row for row in await fleet.admin.tokens() if row.uses == 1]
        assert (listed.used, len(listed.joined), listed.state) == (1, 1, "used up")

    async def test_what_was_sent_once_is_no_good_again(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        token, key = await token_for(fleet, uses=1), new_key()
        message = m.Enrol(token.token_id, token.secret, "render", "", asking_for(key))
        first, replayed = await fleet.dial(), await fleet.dial()
        await first.send(message)
        await first.expect(m.Enrolled)
        await replayed.send(message)
        with pytest.raises(InvalidToken, match="used up"):
            await replayed.receive()
        assert await members(fleet) == ["render"]

    async def test_unknown_and_wrong_read_the_same(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        right = fleet.token
        for wrong in (
            JoinToken(right.masters, right.token_id, bytes(16), right.authority),
            JoinToken(right.masters, bytes(8), right.secret, right.authority),
        ):
            refused = await refusal(fleet, wrong)
            assert isinstance(refused, InvalidToken)
            assert str(refused) == f"this token is not one of this master's; {NEW_ONE}"
        assert await members(fleet) == []

    async def test_one_that_has_expired_says_so(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        fleet.ahead_s += 2 * 3600
        refused = await refusal(fleet, fleet.token)
        assert isinstance(refused, InvalidToken)
        assert str(refused) == f"this token has expired (made 2 h ago, good for 1 h); {NEW_ONE}"

    async def test_one_that_was_revoked_says_so_and_who_is_in_stays_in(
        self, fleet: Fleet, autojump_clock: MockClock
    ) -> None:
        host = await fleet.join("render")
        await fleet.admin.revoke_token(fleet.token.token_id.hex()[:6])
        refused = await refusal(fleet, fleet.token)
        assert isinstance(refused, InvalidToken)
        assert str(refused) == f"this token was revoked; {NEW_ONE}"
        await host.announce()

    async def test_one_with_a_name_is_for_one_host_that_keeps_it(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        client = await fleet.enrol("as-it-likes", token=await token_for(fleet, name="render-07"))
        assert client.name == "render-07"
        await client.register(name="another")
        assert client.name == "render-07"
        refused = await refusal(fleet, await token_for(fleet, name="RENDER-07"))
        assert type(refused) is Refused
        assert str(refused) == "a host called RENDER-07 belongs to the fleet already; remove that one first"

    async def test_hosts_of_one_name_get_several(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        client = await fleet.dial()
        enrolled = [await client.enrol(fleet.token, name) for name in ("render", "render", "Render")]
        assert [answer.name for answer in enrolled] == ["render", "render-2", "Render-3"]
        assert len({read_certificate(answer.chain).subject.host_id for answer in enrolled}) == 3


class TestSigningRequests:
    async def test_the_names_in_one_are_not_looked_at(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        victim, client, key = await fleet.join("victim"), await fleet.dial(), new_key()
        uris = [Subject(fleet.fleet_id, "master").uri, Subject(fleet.fleet_id, "host", victim.host_id).uri]
        enrolled = await client.enrol(fleet.token, "render", request=asking_for(key, *uris, common_name="master"))
        minted = x509.load_pem_x509_certificate(enrolled.chain.encode())
        subject = read_certificate(enrolled.chain).subject
        assert (subject.fleet, subject.role) == (fleet.fleet_id, "host")
        assert subject.host_id != victim.host_id
        names = minted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [name.value for name in names] == [subject.uri]
        assert list(minted.subject) == []
        assert not minted.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert minted.public_key() == public_key_of(key)

    async def test_nor_are_those_of_a_renewal(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        host, other = await fleet.join("render"), await fleet.join("other")
        request = asking_for(new_key(), Subject(fleet.fleet_id, "host", other.host_id).uri)
        renewed, _ = await host.ask(m.Renewed, lambda number: m.Renew(number, request))
        assert read_certificate(renewed.chain).subject == Subject(fleet.fleet_id, "host", host.host_id)

    @pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
    async def test_one_that_proves_no_key_is_refused_and_takes_no_use(
        self, fleet: Fleet, autojump_clock: MockClock, make: Callable[[], bytes]
    ) -> None:
        token = await token_for(fleet, uses=1)
        refused = await refusal(fleet, token, request=make())
        assert isinstance(refused, RemoteProtocolError)
        assert str(refused).startswith("a signing request ")
        assert (await fleet.enrol("render", token=token)).name == "render"

    @pytest.mark.parametrize("make", MALFORMED.values(), ids=MALFORMED)
    async def test_nor_is_anything_renewed_by_one_and_the_connection_goes_on(
        self, fleet: Fleet, autojump_clock: MockClock, make: Callable[[], bytes]
    ) -> None:
        host, request = await fleet.join("render"), make()
        with pytest.raises(RemoteProtocolError, match="a signing request "):
            await host.ask(m.Renewed, lambda number: m.Renew(number, request))
        await host.announce()


class TestRates:
    @pytest.fixture
    async def strict(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock) -> Fleet:
        """A fleet that lets 3 in at once from one address, and 5 in all."""
        monkeypatch.setattr(enrolment, "ENROL_EACH", Rate(burst=3, every_s=10))
        monkeypatch.setattr(enrolment, "ENROL_OVERALL", Rate(burst=5, every_s=2))
        await fleet.stop()
        await fleet.start()
        return fleet

    async def test_one_address_waits_while_others_are_let_in(self, strict: Fleet, autojump_clock: MockClock) -> None:
        known = await strict.enrol("known", ip="10.1.0.2")
        for number in range(3):
            await strict.enrol(f"host-{number}", ip="10.1.0.1")
        refused = await refusal(strict, strict.token, ip="10.1.0.1")
        assert isinstance(refused, RateLimited)
        assert str(refused) == "too many tries to join in a short time; try again in 10 s"
        await known.register()
        await strict.enrol("other", ip="10.1.0.3")
        await trio.sleep(10)
        await strict.enrol("later", ip="10.1.0.1")
        assert isinstance(await refusal(strict, strict.token, ip="10.1.0.1"), RateLimited)

    async def test_many_addresses_wait_too(self, strict: Fleet, autojump_clock: MockClock) -> None:
        for number in range(5):
            await strict.enrol(f"host-{number}", ip=f"10.1.0.{number}")
        refused = await refusal(strict, strict.token, ip="10.1.0.9")
        assert isinstance(refused, RateLimited)
        assert str(refused) == "too many tries to join in a short time; try again in 2 s"
        await trio.sleep(2)
        await strict.enrol("later", ip="10.1.0.9")

    async def test_guesses_count_before_anything_is_looked_at(
        self, strict: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wrong = JoinToken(strict.token.masters, strict.token.token_id, bytes(16), strict.token.authority)
        for _ in range(3):
            assert isinstance(await refusal(strict, wrong, ip="10.1.0.1"), InvalidToken)

        def unreachable(*_: object, **__: object) -> None:
            raise AssertionError("the catalogue was asked, or something signed")

        monkeypatch.setattr("daemons.master.trust.Trust.issue", unreachable)
        monkeypatch.setattr("interfiles.storage.members.Members.enrol", unreachable)
        assert isinstance(await refusal(strict, wrong, ip="10.1.0.1"), RateLimited)

    async def test_a_rack_that_is_switched_on_joins_at_once(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        client = await fleet.dial()
        names = {(await client.enrol(fleet.token, f"host-{number}")).name for number in range(ENROL_EACH.burst)}
        assert len(names) == ENROL_EACH.burst
        with pytest.raises(RateLimited):
            await client.enrol(fleet.token, "one-more")

    def test_an_army_of_addresses_is_not_remembered_for_ever(self) -> None:
        limiter = RateLimiter(each=ENROL_EACH, overall=ENROL_OVERALL)
        for number in range(3 * rate_limit.MAX_KEYS):
            limiter.count(f"2001:db8::{number:x}", number * ENROL_OVERALL.every_s)
        assert len(limiter._full_at) == rate_limit.MAX_KEYS
