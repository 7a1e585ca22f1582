"""Administration over the master's Unix socket."""

import os
import random
import stat

import pytest
import trio
from trio.testing import MockClock

from daemons.master import admin
from interfiles.administration import Admin
from interfiles.errors import (
    DaemonUnreachable,
    NotPermitted,
    PeerGone,
    RemoteProtocolError,
    UnknownHost,
    UnknownToken,
    UsageError,
    from_wire,
)
from interfiles.identity.authority import digest
from interfiles.identity.token import JoinToken
from interfiles.locations import admin_socket
from interfiles.transport.base import Address
from interfiles.transport.memory import MemoryNetwork
from interfiles.transport.message_stream import MessageStream, greet
from interfiles.transport.unix import dial_unix
from interfiles.wire import control_messages as c
from interfiles.wire.codec import Message
from interfiles.wire.framing import encode_frame
from interfiles.wire.handshake_messages import WELCOME, Failure
from interfiles.wire.session import hello
from tests.daemons.master.scripted import EPOCH, MASTER, Fleet


async def test_the_socket_is_the_users_own_and_goes_with_the_master(fleet: Fleet, autojump_clock: MockClock) -> None:
    path = admin_socket(fleet.state)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await fleet.stop()
    assert not path.exists()
    with pytest.raises(DaemonUnreachable, match="master"):
        await fleet.admin.make_token(ttl_s=60)


async def test_a_token_carries_the_address_and_says_how_long_it_is_good(
    fleet: Fleet, autojump_clock: MockClock
) -> None:
    report = await fleet.admin.make_token(ttl_s=3600, uses=2)
    assert JoinToken.decode(report.token).masters == (f"{MASTER}:4850",)
    assert (report.expires_at, report.uses) == (int(EPOCH) + 3600, 2)


async def test_a_token_that_would_end_at_once_is_refused(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(UsageError, match="a token good for 0 s is of no use; give it 1 s or more"):
        await fleet.admin.make_token(ttl_s=0)


async def test_removing_an_unknown_host_is_told(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(UnknownHost, match="no host goes by 'nobody'; see `interfiles hosts`"):
        await fleet.admin.remove_host("nobody")


async def test_a_host_that_is_away_is_removed_all_the_same(fleet: Fleet, autojump_clock: MockClock) -> None:
    host, watcher = await fleet.join("host"), await fleet.join("watcher")
    host.close()
    await fleet.admin.remove_host(host.host_id)
    assert list(await watcher.hosts()) == ["watcher"]


OWN = os.geteuid()
ASKED = [
    c.MakeToken(60, None, ""),
    c.ListTokens(),
    c.RevokeToken("ab"),
    c.RemoveHost("host"),
    c.DrainHost("host", False),
    c.UndrainHost("host"),
    c.ListAuthorities(),
    c.RotateAuthority(),
    c.RetireAuthority(),
    c.ListEvents("", 0, 0, 0),
]


def test_the_samples_are_all_that_an_administrator_may_ask() -> None:
    assert {type(request) for request in ASKED} == set(c.FROM_ADMIN.accepted)


@pytest.mark.parametrize("request_", ASKED, ids=lambda request: type(request).__name__)
async def test_another_user_is_refused_whatever_it_asks(
    fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, request_: Message
) -> None:
    monkeypatch.setattr(admin, "caller_uid", lambda _: OWN + 12345)
    before = fleet.authorities()
    with pytest.raises(NotPermitted, match="only the master's own user and root may administer it; try sudo"):
        await greet(await dial_unix(admin_socket(fleet.state)), "admin", "local")
    stream = MessageStream(await dial_unix(admin_socket(fleet.state)), WELCOME)
    for message in (hello("admin"), request_):  # without waiting for the greeting
        await stream.transport.send_all(encode_frame(message))
    assert isinstance(await stream.receive(), Failure)
    stream.close()
    assert fleet.authorities() == before
    monkeypatch.undo()
    assert len(await fleet.admin.tokens()) == 1


async def test_root_may_do_what_the_masters_own_user_may(
    fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    for uid, may in ((0, True), (12345, True), (12346, False), (-1, False), (65534, False)):
        monkeypatch.setattr(admin, "caller_uid", lambda _, uid=uid: uid)
        transport = await dial_unix(admin_socket(fleet.state))
        if may:
            stream, welcome = await greet(transport, "admin", "local")
            assert welcome.role == "local"
            stream.close()
        else:
            with pytest.raises(NotPermitted):
                await greet(transport, "admin", "local")


async def test_a_connection_of_another_kind_has_no_user_and_is_refused(fleet: Fleet, autojump_clock: MockClock) -> None:
    """Were the admin served over TCP by mistake, nobody would be let in."""
    network = MemoryNetwork(random.Random(1)).host("10.0.0.1")
    listener = await network.listen(Address("10.0.0.1", 1))
    transport = await network.dial(Address("10.0.0.1", 1))
    accepted = await listener.accept()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(admin.Admin(None, None).handle, accepted)  # type: ignore[arg-type]
        with pytest.raises(NotPermitted):
            await greet(transport, "admin", "local")


class TestTokens:
    async def test_they_are_listed_with_who_joined_by_them(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        await trio.sleep(1)
        named = await fleet.admin.make_token(ttl_s=60, name="render-07")
        assert (named.uses, named.name) == (1, "render-07")
        await trio.sleep(5)
        host = await fleet.enrol("any", token=JoinToken.decode(named.token), ip="10.3.0.1")
        fleet.ahead_s += 2 * 3600
        newest, first = await fleet.admin.tokens()
        (use,) = newest.joined
        assert (use.host, use.name, use.address, use.used_at) == (
            *(host.host_id, "render-07", "10.3.0.1"),
            int(EPOCH) + 6,
        )
        assert (newest.id, newest.name, newest.state, newest.used) == (named.id, "render-07", "expired", 1)
        assert (first.id, first.state, first.uses, first.used, first.joined) == (
            *(fleet.token.token_id.hex(), "expired", None, 0, []),
        )
        assert (newest.made_at, newest.expires_at) == (int(EPOCH) + 1, int(EPOCH) + 61)

    async def test_one_is_revoked_by_the_start_of_its_id(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        made = await fleet.admin.make_token(ttl_s=60)
        await fleet.enrol("render", token=JoinToken.decode(made.token))
        report = await fleet.admin.revoke_token(made.id[:8].upper())
        assert (report.id, report.used) == (made.id, 1)
        assert {row.id: row.state for row in await fleet.admin.tokens()} == {
            made.id: "revoked",
            fleet.token.token_id.hex(): "good",
        }
        with pytest.raises(UnknownToken, match="no token has an id that begins with 'zz'; see `interfiles token list`"):
            await fleet.admin.revoke_token("zz")

    async def test_one_with_a_name_is_for_one_host(self, fleet: Fleet, autojump_clock: MockClock) -> None:
        with pytest.raises(UsageError, match="a token for the host render-07 is good for that one host; leave --uses"):
            await fleet.admin.make_token(ttl_s=60, uses=2, name="render-07")
        with pytest.raises(UsageError, match="the request cannot be sent"):
            await fleet.admin.make_token(ttl_s=60, name="evil\x1b[2J")


async def test_the_ca_is_listed_with_the_hosts_that_need_it(
    fleet: Fleet, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "MAX_NAMED_HOSTS", 2)
    for name in ("a", "b", "c"):
        await fleet.join(name)
    (row,) = await fleet.admin.authorities()
    assert (row.digest, row.made_at, row.signs, row.host_count, row.hosts) == (
        *(digest(fleet.authorities()[0].certificate).hex(), int(EPOCH), True, 3, ["a", "b"]),
    )


async def test_what_is_no_administrators_request_ends_the_connection(fleet: Fleet, autojump_clock: MockClock) -> None:
    stream, _ = await greet(await dial_unix(admin_socket(fleet.state)), "admin", "local")
    await stream.transport.send_all(encode_frame(c.Status()))
    answered = await stream.receive()
    assert isinstance(answered, Failure)
    assert isinstance(from_wire(answered.code, answered.text), RemoteProtocolError)
    stream.close()


async def test_a_host_conversation_does_not_belong_there(fleet: Fleet, autojump_clock: MockClock) -> None:
    with pytest.raises(RemoteProtocolError, match="this address is for 'admin' conversations, not 'fleet'"):
        await greet(await dial_unix(admin_socket(fleet.state)), "fleet", "master")


async def test_whoever_asks_nothing_is_cut_off(fleet: Fleet, autojump_clock: MockClock) -> None:
    stream, _ = await greet(await dial_unix(admin_socket(fleet.state)), "admin", "local")
    with trio.fail_after(11), pytest.raises(PeerGone):
        await stream.receive()
    stream.close()
    assert isinstance(fleet.admin, Admin)
